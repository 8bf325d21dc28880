"""Item-to-item transitions: what people bought after what.

Counting needs SciPy and imports it; scoring does not.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array
from recsys.models.base import Histories, Parameters, ParametrisedModel, Progress
from recsys.models.histories import moments, recent_part, strength, user_rows
from recsys.models.sparse_rows import SparseRows
from recsys.models.storage import (
    ArtifactError,
    read_array,
    read_parameters,
    write_array,
    write_parameters,
)

if TYPE_CHECKING:
    from scipy import sparse

_LONGEST_OFFSET = 200


class ItemKnnParameters(Parameters):
    """What can be chosen.

    Attributes
    ----------
    window
        How many moments apart two purchases may lie to be a transition.
    gap_decay
        Each moment further apart makes a transition count this much of the one before.
    together
        Weight of two products bought at one moment, in both directions.
    reverse
        Weight of the transition from the later product back to the earlier one.
    user_norm
        A user with a history of n entries counts ``n ** -user_norm``.
    from_norm, to_norm, shrinkage
        A transition i -> j is divided by ``n_i ** from_norm * n_j ** to_norm + shrinkage``, with
        n the number of purchases.
    history_decay
        When a user is scored, each moment further back counts this much of the one after it.
    """

    window: int = 20
    gap_decay: float = 0.9
    together: float = 0.5
    reverse: float = 0.5
    user_norm: float = 0.1
    from_norm: float = 0.5
    to_norm: float = 0.25
    shrinkage: float = 15.0
    history_decay: float = 0.65


class ItemKnn(ParametrisedModel[ItemKnnParameters]):
    """Directed, decayed co-occurrence of products with shrinkage."""

    model_type = "item_knn"
    parameters_type = ItemKnnParameters
    score_parameters = ("history_decay",)

    def __init__(self, parameters: ItemKnnParameters | None = None, seed: int = 0) -> None:
        super().__init__(parameters, seed)
        self._transitions = SparseRows.empty()

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
        write_array(folder, "transition_weights", self._transitions.values)
        write_array(folder, "transition_items", self._transitions.columns)
        write_array(folder, "transition_starts", self._transitions.starts)
        write_parameters(folder, self.hyperparameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        model = cls.create(read_parameters(folder))
        transitions = SparseRows(
            read_array(folder, "transition_starts", np.int64, 1),
            read_array(folder, "transition_items", np.int32, 1),
            read_array(folder, "transition_weights", np.float32, 1),
        )
        problem = transitions.problem()
        if problem:
            raise ArtifactError(f"{folder}: the transitions are not sound: {problem}")
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

    Entries that lie up to `_LONGEST_OFFSET` places apart in one history are paired.
    """
    from scipy import sparse

    moment = moments(histories)
    user = user_rows(histories)
    lengths = np.diff(histories.indptr)
    norm = np.maximum(lengths, 1).astype(np.float64) ** -chosen.user_norm
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
        pairs = histories.items[first], histories.items[first + offset]
        later += _counts(weight, pairs, gap > 0, shape)
        together += _counts(weight, pairs, gap == 0, shape)
    return later, together


def _counts(
    weight: Float64Array,
    pairs: tuple[Int32Array, Int32Array],
    chosen: BoolArray,
    shape: tuple[int, int],
) -> "sparse.csr_matrix":
    from scipy import sparse

    first, second = pairs
    cells = (first[chosen], second[chosen])
    return sparse.csr_matrix((weight[chosen], cells), shape=shape)
