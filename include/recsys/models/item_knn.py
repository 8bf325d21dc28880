"""Item-to-item transitions: what people bought after what."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from recsys.arrays import Float32Array, Int64Array
from recsys.models.base import Histories, Progress
from recsys.models.histories import recent_part
from recsys.models.parameters import ItemKnnParameters, parse_parameters
from recsys.models.sparse_rows import SparseRows
from recsys.models.storage import (
    ArtifactError,
    read_array,
    read_parameters,
    write_array,
    write_parameters,
)


class ItemKnn:
    """Directed, decayed co-occurrence of products with shrinkage."""

    model_type: ClassVar[str] = "item_knn"

    def __init__(self, parameters: ItemKnnParameters | None = None) -> None:
        self._parameters = parameters or ItemKnnParameters()
        self._transitions = SparseRows.empty()

    @classmethod
    def create(cls, parameters: Mapping[str, Any], seed: int = 0) -> Self:
        return cls(parse_parameters(cls.model_type, ItemKnnParameters, parameters))

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return dataclasses.asdict(self._parameters)

    def fit(self, histories: Histories, items: int, progress: Progress | None = None) -> Self:
        from recsys.models.transitions import learn_transitions

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
