"""Item-to-item transitions: what people bought after what.

Counting needs SciPy and imports it; scoring does not."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from recsys.arrays import Float32Array, Int32Array, Int64Array, entries_of
from recsys.models import storage
from recsys.models.base import Histories, Parameters, ParametrisedModel, Progress
from recsys.models.histories import moments, recent_part, strength, user_rows, worth

if TYPE_CHECKING:
    from scipy import sparse

_LONGEST_OFFSET = 200
_CELLS_AT_ONCE = 1 << 18
"""Largest number of cells of a temporary array: 2 MB."""


@dataclass(frozen=True)
class SparseRows:
    """A square sparse matrix that gives weighted sums of its rows, by NumPy alone. SciPy takes 11
    MB of a process and, for the short history of one user, twice the time."""

    starts: Int64Array  # (rows + 1,): cells of row r are starts[r]:starts[r + 1]
    columns: Int32Array  # (cells,)
    values: Float32Array  # (cells,)

    @property
    def size(self) -> int:
        """Number of rows, and of columns."""
        return len(self.starts) - 1

    def problem(self) -> str | None:
        """Why the three arrays are no such matrix, None if they are."""
        starts, columns = self.starts, self.columns
        if not len(starts) or starts[0] != 0 or (np.diff(starts) < 0).any():
            return "the rows do not start at 0 and follow each other"
        if not starts[-1] == len(columns) == len(self.values):
            return f"{starts[-1]} cells, {len(columns)} columns and {len(self.values)} values"
        if len(columns) and not 0 <= columns.min() <= columns.max() < self.size:
            return "a cell lies in a column that does not exist"
        return None

    def row(self, number: int) -> Float32Array:
        """``(size,)`` one row with its zeros."""
        cells = slice(self.starts[number], self.starts[number + 1])
        dense = np.bincount(self.columns[cells], weights=self.values[cells], minlength=self.size)
        return dense.astype(np.float32)

    def weighted_sums(
        self, indptr: Int64Array, rows: Int32Array, weights: Float32Array
    ) -> Float32Array:
        """``(sums, size)``: sum ``s`` is that of the `rows` ``indptr[s]:indptr[s + 1]``, each
        times its weight."""
        sums = np.empty((len(indptr) - 1, self.size), dtype=np.float32)
        at_once = max(1, _CELLS_AT_ONCE // max(self.size, 1))
        for first in range(0, len(sums), at_once):
            bounds = indptr[first : first + at_once + 1]
            part = slice(bounds[0], bounds[-1])
            sums[first : first + at_once] = self._sums(np.diff(bounds), rows[part], weights[part])
        return sums

    def _sums(self, counts: Int64Array, rows: Int32Array, weights: Float32Array) -> Float32Array:
        """The same for so few sums, of `counts` rows each, that the memory does not matter."""
        starts = self.starts[rows]
        lengths = self.starts[rows + 1] - starts
        # All cells of all rows one after another, and the row that each comes from.
        row = np.repeat(np.arange(len(rows)), lengths)
        place, _ = entries_of(starts, lengths)
        target = np.repeat(np.arange(len(counts)) * self.size, counts)[row] + self.columns[place]
        sums = np.bincount(
            target, weights=weights[row] * self.values[place], minlength=len(counts) * self.size
        )
        return sums.reshape(len(counts), self.size).astype(np.float32)


class ItemKnnParameters(Parameters):
    """What can be chosen. A transition i -> j is divided by ``n_i ** from_norm * n_j ** to_norm +
    shrinkage``, with n the number of purchases."""

    window: int = 20  # how many moments apart two purchases may lie to be a transition
    gap_decay: float = 0.9  # each moment further apart counts this much of the one before
    together: float = 0.5  # weight of two products bought at one moment, in both directions
    reverse: float = 0.5  # weight of the way back from the later product to the earlier one
    user_norm: float = 0.1  # a user with n entries, signals by their weight, counts n ** -user_norm
    from_norm: float = 0.5
    to_norm: float = 0.25
    shrinkage: float = 15.0
    history_decay: float = 0.65  # when a user is scored, each moment further back counts so much


class ItemKnn(ParametrisedModel[ItemKnnParameters]):
    """Directed, decayed co-occurrence of products with shrinkage."""

    model_type = "item_knn"
    parameters_type = ItemKnnParameters
    score_parameters = ("history_decay",)

    def __init__(self, parameters: ItemKnnParameters | None = None, seed: int = 0) -> None:
        super().__init__(parameters, seed)
        nothing = (np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
        self._transitions = SparseRows(*nothing)

    def fit(self, histories: Histories, items: int, progress: Progress | None = None) -> Self:
        self._transitions = learn_transitions(histories, items, self._parameters)
        if progress is not None:
            progress(1, {"transitions": float(len(self._transitions.values))})
        return self

    def score(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        recent, weight = recent_part(histories, self._parameters.history_decay)
        return self._transitions.weighted_sums(recent.indptr, recent.items, weight)

    def similar(self, item: int) -> Float32Array:
        return self._transitions.row(item)

    def save(self, folder: Path) -> None:
        storage.write_array(folder, "transition_weights", self._transitions.values)
        storage.write_array(folder, "transition_items", self._transitions.columns)
        storage.write_array(folder, "transition_starts", self._transitions.starts)
        storage.write_parameters(folder, self.hyperparameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        model = cls.create(storage.read_parameters(folder))
        transitions = SparseRows(
            storage.read_array(folder, "transition_starts", np.int64, 1),
            storage.read_array(folder, "transition_items", np.int32, 1),
            storage.read_array(folder, "transition_weights", np.float32, 1),
        )
        if problem := transitions.problem():
            raise storage.ArtifactError(f"{folder}: the transitions are not sound: {problem}")
        model._transitions = transitions
        return model


def learn_transitions(histories: Histories, items: int, chosen: ItemKnnParameters) -> SparseRows:
    """``(items, items)`` how strongly each product leads to each other one."""
    from scipy import sparse

    later, together = count_transitions(histories, items, chosen)
    counts = np.bincount(histories.items, weights=histories.weight, minlength=items)
    both = later + chosen.reverse * later.T + chosen.together * (together + together.T)
    both = sparse.csr_matrix(both)
    norm_from, norm_to = counts**chosen.from_norm, counts**chosen.to_norm
    rows = np.repeat(np.arange(items), np.diff(both.indptr))
    both.data /= norm_from[rows] * norm_to[both.indices] + chosen.shrinkage
    both.sort_indices()
    return SparseRows(
        both.indptr.astype(np.int64), both.indices.astype(np.int32), both.data.astype(np.float32)
    )


def count_transitions(
    histories: Histories, items: int, chosen: ItemKnnParameters
) -> tuple["sparse.csr_matrix", "sparse.csr_matrix"]:
    """``(items, items)`` decayed counts: of j bought later than i, and of both at one moment.
    Entries that lie up to `_LONGEST_OFFSET` places apart in one history are paired."""
    from scipy import sparse

    moment = moments(histories)
    user = user_rows(histories)
    lengths = np.diff(histories.indptr)
    amounts = np.bincount(user, weights=worth(histories), minlength=histories.users)
    norm = np.maximum(amounts, 1) ** -chosen.user_norm
    value = strength(histories)
    shape = (items, items)
    later, together = sparse.csr_matrix(shape), sparse.csr_matrix(shape)
    for offset in range(1, min(int(lengths.max(initial=0)), _LONGEST_OFFSET + 1)):
        first = np.flatnonzero(user[offset:] == user[:-offset])
        gap = moment[first + offset] - moment[first]
        within = gap <= chosen.window
        if not within.any():
            break
        first, gap = first[within], gap[within]
        weight = value[first] * value[first + offset] * norm[user[first]]
        weight *= chosen.gap_decay ** np.maximum(gap - 1, 0)
        pairs = np.stack([histories.items[first], histories.items[first + offset]])
        apart, at_once = gap > 0, gap == 0
        later += sparse.csr_matrix((weight[apart], pairs[:, apart]), shape=shape)
        together += sparse.csr_matrix((weight[at_once], pairs[:, at_once]), shape=shape)
    return later, together
