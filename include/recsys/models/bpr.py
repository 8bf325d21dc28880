"""Bayesian personalised ranking, trained by `implicit`, with users folded in when scored."""

from functools import partial
from typing import Self

import numpy as np
from pydantic import Field

from recsys.arrays import Float32Array, Int64Array
from recsys.models.base import Histories, Parameters, Progress
from recsys.models.factor_model import FactorModel, interaction_matrix, users_of_several
from recsys.models.histories import keep_entries, strength


class BprParameters(Parameters):
    """What can be chosen: what `implicit` calls so, and how a user is folded in."""

    factors: int = Field(default=32, ge=1)
    iterations: int = 60
    learning_rate: float = 0.05
    regularization: float = 0.01
    bias: float = 0.1  # how much an item's own popularity, as trained, adds to a score
    fold_in_weight: float = 40.0  # confidence of the newest moment of a history
    fold_in_decay: float = 0.8  # each moment further back counts this much of the one after it
    fold_in_regularization: float = 10.0  # how much a user is held back


class Bpr(FactorModel[BprParameters]):
    """Pairwise ranking factorisation with item biases; an inner-product model.

    `implicit` draws pairs from all interactions alike, so copies and weak ratings are thinned
    out beforehand: an interaction takes part with the probability of its strength. Training
    uses one thread, because with several its result depends on their timing."""

    model_type = "bpr"
    score_parameters = ("bias", "fold_in_weight", "fold_in_decay")
    parameters_type = BprParameters
    _held_back = "fold_in_regularization"

    def fit(self, histories: Histories, items: int, progress: Progress | None = None) -> Self:
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        chosen = self._parameters
        draws = np.random.default_rng(self._seed).random(len(histories.items))
        kept = keep_entries(histories, draws < strength(histories))
        matrix = users_of_several(interaction_matrix(kept, items))
        pairs = max(matrix.nnz, 1)

        def report(epoch: int, _: float, correct: int, skipped: int) -> None:
            if progress is not None:
                share = correct / max(pairs - skipped, 1)
                progress(epoch + 1, {"correct_pairs": float(share)})

        trainer = partial(
            BayesianPersonalizedRanking,
            factors=chosen.factors,
            learning_rate=chosen.learning_rate,
            regularization=chosen.regularization,
            iterations=chosen.iterations,
            num_threads=1,
            random_state=self._seed,
        )
        self._set(self._train(trainer, matrix, report))
        return self

    def query_vectors(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        latent = super().query_vectors(histories, now)
        bias = np.full((histories.users, 1), self._parameters.bias, dtype=np.float32)
        return np.hstack([latent, bias])

    @property
    def _columns(self) -> int:
        return self._parameters.factors + 1

    def _blocks(self, items: Float32Array) -> list[Float32Array]:
        return [items[:, :-1]]
