"""Alternating least squares, trained by `implicit`, with users folded in when they are scored."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field

from recsys.arrays import Float32Array
from recsys.models.base import Histories, Parameters, Progress
from recsys.models.factor_model import FactorModel, interaction_matrix, users_of_several
from recsys.models.histories import strength

if TYPE_CHECKING:
    from scipy import sparse


class AlsParameters(Parameters):
    """What can be chosen: what `implicit` calls so, and how a user is folded in.

    The scores of `starts` factorisations from random starts of their own are added up, which takes
    out much of what is chance in each."""

    factors: int = Field(default=32, ge=1)
    starts: int = Field(default=4, ge=1)
    iterations: int = 15
    regularization: float = 1.0
    alpha: float = 40.0  # confidence of a plain five-star interaction in training
    fold_in_weight: float = 40.0  # the same when a user is scored, for the newest moment
    fold_in_decay: float = 0.5  # each moment further back counts this much of the one after it


Trainer = Callable[["sparse.csr_matrix", AlsParameters, int], Float32Array]
"""``(items, factors)`` of a ``(users, items)`` matrix of confidences, for one random seed."""


class Als(FactorModel[AlsParameters]):
    """Implicit-feedback matrix factorisation; an inner-product model."""

    model_type = "als"
    parameters_type = AlsParameters
    _trainer: Trainer | None = None

    def trained_by(self, trainer: Trainer | None) -> Self:
        """Leave the training to `trainer`; None is `implicit`."""
        self._trainer = trainer
        return self

    def fit(self, histories: Histories, items: int, progress: Progress | None = None) -> Self:
        chosen = self._parameters
        matrix = interaction_matrix(histories, items, chosen.alpha * strength(histories))
        matrix = users_of_several(matrix)
        train = self._trainer or partial(self.train_here, progress=progress)
        starts = range(chosen.starts)
        self._set(np.hstack([train(matrix, chosen, self._seed + start) for start in starts]))
        return self

    def train_here(
        self,
        matrix: "sparse.csr_matrix",
        chosen: AlsParameters,
        seed: int,
        progress: Progress | None,
    ) -> Float32Array:
        """The `Trainer` of this process: `implicit`."""
        from implicit.cpu.als import AlternatingLeastSquares

        before = (seed - self._seed) * chosen.iterations

        def report(iteration: int, _: float, loss: float | None = None) -> None:
            if progress is not None and loss is not None:
                progress(before + iteration + 1, {"loss": float(loss)})

        trainer = partial(
            AlternatingLeastSquares,
            factors=chosen.factors,
            regularization=chosen.regularization,
            iterations=chosen.iterations,
            calculate_training_loss=progress is not None,
            random_state=seed,
        )
        return self._train(trainer, matrix, report)

    @classmethod
    def _stored_parameters(cls, folder: Path) -> dict[str, Any]:
        # Models that were saved before there were several starts do not name their number.
        return {"starts": 1, **super()._stored_parameters(folder)}

    @property
    def _columns(self) -> int:
        return self._parameters.starts * self._parameters.factors

    def _blocks(self, items: Float32Array) -> list[Float32Array]:
        return np.split(items, self._parameters.starts, axis=1)
