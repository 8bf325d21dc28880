"""Alternating least squares, trained by `implicit`, with users folded in when they are scored."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from threadpoolctl import threadpool_limits

from recsys.errors import InputError
from recsys.models.base import FloatArray, Histories, Progress, TimeArray
from recsys.models.fold_in import FoldIn, unit_rows
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
        return self._fold_in.solve(histories, weight)

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
        self._unit = unit_rows(items)
        self._fold_in = FoldIn(items, self._parameters.regularization)
