"""What the matrix factorisations share: training by `implicit`, fold-in, scores and files.

Fitting imports `implicit` and SciPy where it needs them: whoever only scores carries neither.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from recsys.arrays import Float32Array, Int64Array
from recsys.errors import InputError
from recsys.models.base import Histories
from recsys.models.fold_in import FoldIn, unit_rows
from recsys.models.histories import recent_part
from recsys.models.parameters import parse_parameters
from recsys.models.storage import (
    ArtifactError,
    read_array,
    read_parameters,
    write_array,
    write_parameters,
)

if TYPE_CHECKING:
    from scipy import sparse


class FoldInParameters(Protocol):
    """What fold-in reads of a family's parameters."""

    @property
    def fold_in_weight(self) -> float: ...
    @property
    def fold_in_decay(self) -> float: ...


ParametersT = TypeVar("ParametersT", bound=FoldInParameters)


class FactorModel(ABC, Generic[ParametersT]):
    """Item factors, in one or more blocks of columns that are folded in each by itself.

    A block of a user's vector is the least-squares solution for the user's history against the
    fixed item factors, so a purchase of a minute ago counts, and the latest counts most.

    A family says which columns it has (`_columns`), which of them are blocks (`_blocks`), how
    much a user is held back (`_held_back`), and how it is fitted.
    """

    model_type: ClassVar[str]
    parameters_type: ClassVar[type[Any]]

    def __init__(self, parameters: ParametersT | None = None, seed: int = 0) -> None:
        self._parameters: ParametersT = parameters or self.parameters_type()
        self._seed = seed
        self._set(np.zeros((0, self._columns), dtype=np.float32))

    @classmethod
    def create(cls, parameters: Mapping[str, Any], seed: int = 0) -> Self:
        return cls(parse_parameters(cls.model_type, cls.parameters_type, parameters), seed)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return dataclasses.asdict(self._parameters)  # type: ignore[call-overload]

    @property
    def item_vectors(self) -> Float32Array:
        return self._items

    def score(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        return self.query_vectors(histories, now) @ self._items.T

    def query_vectors(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        recent, weight = recent_part(histories, self._parameters.fold_in_decay)
        weight *= np.float32(self._parameters.fold_in_weight)
        return np.hstack([fold_in.solve(recent, weight) for fold_in in self._fold_ins])

    def similar(self, item: int) -> Float32Array:
        return self._unit @ self._unit[item]

    def save(self, folder: Path) -> None:
        write_array(folder, "item_factors", self._items)
        write_parameters(folder, self.hyperparameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        model = cls.create(cls._stored_parameters(folder))
        factors = read_array(folder, "item_factors", np.float32, 2)
        if factors.shape[1] != model._columns:
            raise ArtifactError(
                f"{folder}: item_factors.npy has {factors.shape[1]} columns, "
                f"the parameters say {model._columns}"
            )
        model._set(factors)
        return model

    @classmethod
    def _stored_parameters(cls, folder: Path) -> dict[str, Any]:
        return read_parameters(folder)

    @property
    @abstractmethod
    def _columns(self) -> int:
        """Columns of ``item_factors.npy``."""

    @property
    @abstractmethod
    def _held_back(self) -> float:
        """Regularization when users are folded in."""

    @abstractmethod
    def _blocks(self, items: Float32Array) -> list[Float32Array]:
        """The columns of `items` that are folded in together."""

    def _set(self, items: Float32Array) -> None:
        self._items = items
        blocks = [np.ascontiguousarray(block) for block in self._blocks(items)]
        self._unit = unit_rows(np.hstack(blocks) if len(blocks) > 1 else blocks[0])
        self._fold_ins = [FoldIn(block, self._held_back) for block in blocks]

    def _train(
        self, make: Callable[[], Any], matrix: "sparse.csr_matrix", report: Callable[..., None]
    ) -> Float32Array:
        """The item factors that the model of `implicit` that `make` makes learns from `matrix`.

        Raises `InputError` with the parameters if they are not finite.
        """
        from implicit.recommender_base import ModelFitError

        # implicit threads by itself; BLAS threads below it only get in its way.
        with threadpool_limits(limits=1, user_api="blas"):
            trainer = make()
            try:
                trainer.fit(matrix, show_progress=False, callback=report)
            except ModelFitError as error:
                raise InputError(
                    f"{self.model_type}: {error} with parameters {self.hyperparameters}"
                ) from error
        return np.asarray(trainer.item_factors, dtype=np.float32)
