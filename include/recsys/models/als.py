"""Alternating least squares, trained by `implicit`, with users folded in when they are scored."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recsys.errors import InputError
from recsys.models.base import FloatArray, Histories, Progress, TimeArray
from recsys.models.histories import interaction_matrix, steps_from_end, strength
from recsys.models.parameters import parse_parameters
from recsys.models.storage import (
    ArtifactError,
    read_array,
    read_parameters,
    write_array,
    write_parameters,
)


@dataclass(frozen=True)
class AlsParameters:
    """What can be chosen.

    Attributes
    ----------
    factors, iterations, regularization
        As in `implicit`.
    alpha
        Confidence of a plain five-star interaction in training.
    fold_in_weight
        The same when a user is scored, for the newest moment of the history.
    fold_in_decay
        Each moment further back counts this much of the one after it.
    """

    factors: int = 32
    iterations: int = 15
    regularization: float = 1.0
    alpha: float = 40.0
    fold_in_weight: float = 40.0
    fold_in_decay: float = 0.5


class Als:
    """Implicit-feedback matrix factorisation; an inner-product model.

    A user's vector is the least-squares solution for the user's history against the fixed item
    factors, so a purchase of a minute ago counts, and the latest counts most.
    """

    model_type: ClassVar[str] = "als"

    def __init__(self, parameters: AlsParameters | None = None, seed: int = 0) -> None:
        self._parameters = parameters or AlsParameters()
        self._seed = seed
        self._set(np.zeros((0, self._parameters.factors), dtype=np.float32))

    @classmethod
    def create(cls, parameters: Mapping[str, Any], seed: int = 0) -> Self:
        return cls(parse_parameters(cls.model_type, AlsParameters, parameters), seed)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return dataclasses.asdict(self._parameters)

    @property
    def item_vectors(self) -> FloatArray:
        return self._items

    def fit(self, histories: Histories, items: int, progress: Progress | None = None) -> Self:
        from implicit.cpu.als import AlternatingLeastSquares
        from implicit.recommender_base import ModelFitError

        chosen = self._parameters
        matrix = interaction_matrix(histories, items, chosen.alpha * strength(histories))

        def report(iteration: int, _: float, loss: float | None = None) -> None:
            if progress is not None and loss is not None:
                progress(iteration + 1, {"loss": float(loss)})

        # implicit threads by itself; BLAS threads below it only get in its way.
        with threadpool_limits(limits=1, user_api="blas"):
            trainer = AlternatingLeastSquares(
                factors=chosen.factors,
                regularization=chosen.regularization,
                iterations=chosen.iterations,
                calculate_training_loss=progress is not None,
                random_state=self._seed,
            )
            try:
                trainer.fit(matrix, show_progress=False, callback=report)
            except ModelFitError as error:
                raise InputError(f"als: {error} with parameters {self.hyperparameters}") from error
            self._set(np.asarray(trainer.item_factors, dtype=np.float32))
        return self

    def score(self, histories: Histories, now: int | TimeArray) -> FloatArray:
        return self.query_vectors(histories, now) @ self._items.T

    def query_vectors(self, histories: Histories, now: int | TimeArray) -> FloatArray:
        chosen = self._parameters
        decay = np.float32(chosen.fold_in_decay) ** steps_from_end(histories)
        weight = chosen.fold_in_weight * decay * strength(histories)
        queries = np.zeros((histories.users, self._items.shape[1]), dtype=np.float32)
        lengths = np.diff(histories.indptr)
        for users, width in _length_groups(lengths):
            # Shorter histories of a group are filled up with entries of no weight.
            place = np.arange(width)
            filled = place < lengths[users][:, None]
            entry = np.where(filled, histories.indptr[:-1][users][:, None] + place, 0)
            chosen_weight = np.where(filled, weight[entry], np.float32(0))
            queries[users] = self._fold_in(histories.items[entry], chosen_weight)
        return queries

    def similar(self, item: int) -> FloatArray:
        return self._unit @ self._unit[item]

    def save(self, folder: Path) -> None:
        write_array(folder, "item_factors", self._items)
        write_parameters(folder, self.hyperparameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        model = cls.create(read_parameters(folder))
        factors = read_array(folder, "item_factors", np.float32, 2)
        if factors.shape[1] != model._parameters.factors:
            raise ArtifactError(
                f"{folder}: item_factors.npy has {factors.shape[1]} factors, "
                f"the parameters say {model._parameters.factors}"
            )
        model._set(factors)
        return model

    def _set(self, items: FloatArray) -> None:
        self._items = items
        norms = np.linalg.norm(items, axis=1, keepdims=True)
        self._unit: FloatArray = items / np.maximum(norms, np.float32(1e-12))
        gram = items.astype(np.float64).T @ items
        gram += self._parameters.regularization * np.eye(items.shape[1])
        # Z = Y A^-1 with A = Y'Y + reg: what an observation of each item adds to a user.
        self._response: FloatArray = np.linalg.solve(gram, items.T).T.astype(np.float32)

    def _fold_in(self, items: NDArray[np.int32], weight: FloatArray) -> FloatArray:
        """``(users, factors)`` for ``(users, width)`` items with extra confidence `weight`.

        Solves (A + Y_u' D Y_u) x = Y_u' (D + 1) 1 by the Woodbury identity: a system as small
        as the history instead of one as large as the number of factors.
        """
        responses = self._response[items]
        kernel = np.matmul(responses, self._items[items].transpose(0, 2, 1))
        system = np.eye(items.shape[1], dtype=np.float32) + weight[:, :, None] * kernel
        observed = np.where(weight > 0, weight + 1, 0).astype(np.float32)
        pull = np.linalg.solve(system, observed[:, :, None])
        return np.asarray(np.matmul(pull.transpose(0, 2, 1), responses)[:, 0], dtype=np.float32)


def _length_groups(lengths: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], int]]:
    """Users grouped by the power of two that their history fits in, and the longest of each."""
    groups = []
    exponent = np.ceil(np.log2(np.maximum(lengths, 1))).astype(int)
    for size in np.unique(exponent[lengths > 0]):
        users = np.flatnonzero((exponent == size) & (lengths > 0))
        groups.append((users, int(lengths[users].max())))
    return groups
