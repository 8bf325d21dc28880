"""Bayesian personalised ranking, trained by `implicit`, with users folded in when scored."""

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
from recsys.models.histories import interaction_matrix, keep_entries, steps_from_end, strength
from recsys.models.parameters import parse_parameters
from recsys.models.storage import (
    ArtifactError,
    read_array,
    read_parameters,
    write_array,
    write_parameters,
)


@dataclass(frozen=True)
class BprParameters:
    """What can be chosen.

    Attributes
    ----------
    factors, iterations, learning_rate, regularization
        As in `implicit`.
    bias
        How much an item's own popularity, which training finds as its bias, adds to a score.
    fold_in_weight, fold_in_decay, fold_in_regularization
        Confidence of the newest moment of a history when a user is scored; what each moment
        further back counts of the one after it; how much a user is held back.
    """

    factors: int = 32
    iterations: int = 60
    learning_rate: float = 0.05
    regularization: float = 0.01
    bias: float = 0.1
    fold_in_weight: float = 40.0
    fold_in_decay: float = 0.8
    fold_in_regularization: float = 10.0


class Bpr:
    """Pairwise ranking factorisation with item biases; an inner-product model.

    `implicit` draws pairs from all interactions alike, so copies and weak ratings are thinned
    out beforehand: an interaction takes part with the probability of its strength. Training
    uses one thread, because with several its result depends on their timing.
    """

    model_type: ClassVar[str] = "bpr"

    def __init__(self, parameters: BprParameters | None = None, seed: int = 0) -> None:
        self._parameters = parameters or BprParameters()
        self._seed = seed
        self._set(np.zeros((0, self._parameters.factors + 1), dtype=np.float32))

    @classmethod
    def create(cls, parameters: Mapping[str, Any], seed: int = 0) -> Self:
        return cls(parse_parameters(cls.model_type, BprParameters, parameters), seed)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return dataclasses.asdict(self._parameters)

    @property
    def item_vectors(self) -> FloatArray:
        return self._items

    def fit(self, histories: Histories, items: int, progress: Progress | None = None) -> Self:
        from implicit.cpu.bpr import BayesianPersonalizedRanking
        from implicit.recommender_base import ModelFitError

        chosen = self._parameters
        draws = np.random.default_rng(self._seed).random(len(histories.items))
        matrix = interaction_matrix(keep_entries(histories, draws < strength(histories)), items)
        with threadpool_limits(limits=1, user_api="blas"):
            trainer = BayesianPersonalizedRanking(
                factors=chosen.factors,
                learning_rate=chosen.learning_rate,
                regularization=chosen.regularization,
                iterations=chosen.iterations,
                num_threads=1,
                random_state=self._seed,
            )
            pairs = max(matrix.nnz, 1)

            def report(epoch: int, _: float, correct: int, skipped: int) -> None:
                if progress is not None:
                    share = correct / max(pairs - skipped, 1)
                    progress(epoch + 1, {"correct_pairs": float(share)})

            try:
                trainer.fit(matrix, show_progress=False, callback=report)
            except ModelFitError as error:
                raise InputError(f"bpr: {error} with parameters {self.hyperparameters}") from error
        self._set(np.asarray(trainer.item_factors, dtype=np.float32))
        return self

    def score(self, histories: Histories, now: int | TimeArray) -> FloatArray:
        return self.query_vectors(histories, now) @ self._items.T

    def query_vectors(self, histories: Histories, now: int | TimeArray) -> FloatArray:
        chosen = self._parameters
        decay = np.float32(chosen.fold_in_decay) ** steps_from_end(histories)
        weight = chosen.fold_in_weight * decay * strength(histories)
        queries = np.empty((histories.users, self._items.shape[1]), dtype=np.float32)
        queries[:, :-1] = self._fold_in.solve(histories, weight)
        queries[:, -1] = chosen.bias
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
        if factors.shape[1] != model._parameters.factors + 1:
            raise ArtifactError(
                f"{folder}: item_factors.npy has {factors.shape[1]} columns, the parameters say "
                f"{model._parameters.factors} factors and a bias"
            )
        model._set(factors)
        return model

    def _set(self, items: FloatArray) -> None:
        self._items = items
        latent = np.ascontiguousarray(items[:, :-1])
        self._unit = unit_rows(latent)
        self._fold_in = FoldIn(latent, self._parameters.fold_in_regularization)
