"""Item-to-item transitions: what people bought after what."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.models.base import FloatArray, Histories, Progress, TimeArray
from recsys.models.histories import (
    interaction_matrix,
    moments,
    recent_part,
    strength,
    user_rows,
)
from recsys.models.parameters import parse_parameters
from recsys.models.storage import (
    ArtifactError,
    read_array,
    read_parameters,
    write_array,
    write_parameters,
)

_LONGEST_OFFSET = 200


@dataclass(frozen=True)
class ItemKnnParameters:
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


class ItemKnn:
    """Directed, decayed co-occurrence of products with shrinkage."""

    model_type: ClassVar[str] = "item_knn"

    def __init__(self, parameters: ItemKnnParameters | None = None) -> None:
        self._parameters = parameters or ItemKnnParameters()
        self._transitions = sparse.csr_matrix((0, 0), dtype=np.float32)

    @classmethod
    def create(cls, parameters: Mapping[str, Any], seed: int = 0) -> Self:
        return cls(parse_parameters(cls.model_type, ItemKnnParameters, parameters))

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return dataclasses.asdict(self._parameters)

    def fit(self, histories: Histories, items: int, progress: Progress | None = None) -> Self:
        chosen = self._parameters
        later, together = count_transitions(histories, items, chosen)
        counts = np.bincount(histories.items, weights=histories.weight, minlength=items)
        both = later + chosen.reverse * later.T + chosen.together * (together + together.T)
        both = sparse.csr_matrix(both)
        norm_from, norm_to = counts**chosen.from_norm, counts**chosen.to_norm
        rows = np.repeat(np.arange(items), np.diff(both.indptr))
        both.data /= norm_from[rows] * norm_to[both.indices] + chosen.shrinkage
        both.sort_indices()
        self._transitions = both.astype(np.float32)
        if progress is not None:
            progress(1, {"transitions": float(both.nnz)})
        return self

    def score(self, histories: Histories, now: int | TimeArray) -> FloatArray:
        recent, weight = recent_part(histories, self._parameters.history_decay)
        asked = interaction_matrix(recent, self._transitions.shape[0], weight)
        return np.asarray((asked @ self._transitions).toarray(), dtype=np.float32)

    def similar(self, item: int) -> FloatArray:
        return np.asarray(self._transitions[[item]].toarray()[0], dtype=np.float32)

    def save(self, folder: Path) -> None:
        write_array(folder, "transition_weights", self._transitions.data)
        write_array(folder, "transition_items", self._transitions.indices.astype(np.int32))
        write_array(folder, "transition_starts", self._transitions.indptr.astype(np.int64))
        write_parameters(folder, self.hyperparameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        model = cls.create(read_parameters(folder))
        weights = read_array(folder, "transition_weights", np.float32, 1)
        columns = read_array(folder, "transition_items", np.int32, 1)
        starts = read_array(folder, "transition_starts", np.int64, 1)
        items = len(starts) - 1
        try:
            transitions = sparse.csr_matrix((weights, columns, starts), shape=(items, items))
            transitions.check_format(full_check=True)
        except ValueError as error:
            raise ArtifactError(f"{folder}: the transitions are not sound: {error}") from error
        model._transitions = transitions
        return model


def count_transitions(
    histories: Histories, items: int, chosen: ItemKnnParameters
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """``(items, items)`` decayed counts: of j bought later than i, and of both at one moment.

    Entries that lie up to `_LONGEST_OFFSET` places apart in one history are paired.
    """
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
    weight: NDArray[np.float64],
    pairs: tuple[NDArray[np.int32], NDArray[np.int32]],
    chosen: NDArray[np.bool_],
    shape: tuple[int, int],
) -> sparse.csr_matrix:
    first, second = pairs
    cells = (first[chosen], second[chosen])
    return sparse.csr_matrix((weight[chosen], cells), shape=shape)
