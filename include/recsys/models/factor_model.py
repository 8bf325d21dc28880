"""What the matrix factorisations share: training by `implicit`, fold-in, scores and files.

Users are the least-squares answer to their history, against fixed item vectors. Fitting imports
`implicit` and SciPy where it needs them: whoever only scores carries neither."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from threadpoolctl import threadpool_limits

from recsys.arrays import Float32Array, Int32Array, Int64Array, unit_rows
from recsys.errors import InputError
from recsys.models import storage
from recsys.models.base import Histories, ParametersT, ParametrisedModel
from recsys.models.histories import recent_part

if TYPE_CHECKING:
    from scipy import sparse


_CELLS_AT_ONCE = 1 << 23
"""Largest number of cells of a temporary array: 32 MB."""


class FactorModel(ParametrisedModel[ParametersT], ABC):
    """Item factors, in one or more blocks of columns that are folded in each by itself.

    A model type says which columns it has (`_columns`), which of them are blocks (`_blocks`), which
    parameter holds a user back (`_held_back`), and how it is fitted."""

    score_parameters: ClassVar[tuple[str, ...]] = ("fold_in_weight", "fold_in_decay")
    _held_back: ClassVar[str] = "regularization"

    def __init__(self, parameters: ParametersT | None = None, seed: int = 0) -> None:
        super().__init__(parameters, seed)
        self._set(np.zeros((0, self._columns), dtype=np.float32))

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
        storage.write_array(folder, "item_factors", self._items)
        storage.write_parameters(folder, self.hyperparameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        model = cls.create(cls._stored_parameters(folder))
        factors = storage.read_array(folder, "item_factors", np.float32, 2)
        if factors.shape[1] != model._columns:
            problem = f"{factors.shape[1]} columns, the parameters say {model._columns}"
            raise storage.ArtifactError(f"{folder}: item_factors.npy has {problem}")
        model._set(factors)
        return model

    @classmethod
    def _stored_parameters(cls, folder: Path) -> dict[str, Any]:
        return storage.read_parameters(folder)

    @property
    @abstractmethod
    def _columns(self) -> int:
        """Columns of ``item_factors.npy``."""

    @abstractmethod
    def _blocks(self, items: Float32Array) -> list[Float32Array]:
        """The columns of `items` that are folded in together."""

    def _set(self, items: Float32Array) -> None:
        self._items = items
        blocks = [np.ascontiguousarray(block) for block in self._blocks(items)]
        self._unit = unit_rows(np.hstack(blocks) if len(blocks) > 1 else blocks[0])
        held_back = getattr(self._parameters, self._held_back)
        self._fold_ins = [FoldIn(block, held_back) for block in blocks]

    def _train(
        self, make: Callable[[], Any], matrix: "sparse.csr_matrix", report: Callable[..., None]
    ) -> Float32Array:
        """The item factors that the model of `implicit` that `make` makes learns from `matrix`.
        Raises `InputError` with the parameters if they are not finite."""
        from implicit.recommender_base import ModelFitError

        # implicit threads by itself; BLAS threads below it only get in its way.
        with threadpool_limits(limits=1, user_api="blas"):
            trainer = make()
            try:
                trainer.fit(matrix, show_progress=False, callback=report)
            except ModelFitError as error:
                asked = f"with parameters {self.hyperparameters}"
                raise InputError(f"{self.model_type}: {error} {asked}") from error
        return np.asarray(trainer.item_factors, dtype=np.float32)


def interaction_matrix(
    histories: Histories, items: int, values: Float32Array | None = None
) -> "sparse.csr_matrix":
    """``(users, items)`` CSR matrix; repeated products are summed, zeros left out. Values default
    to one."""
    from scipy import sparse

    data = np.ones(len(histories.items), dtype=np.float32) if values is None else values
    cells = (data, histories.items, histories.indptr)
    matrix = sparse.csr_matrix(cells, shape=(histories.users, items), copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()  # to `implicit` no confidence is not the same as no entry
    return matrix


def users_of_several(matrix: "sparse.csr_matrix") -> "sparse.csr_matrix":
    """The rows of users of two products or more, or all rows if there are no such users.

    The others say nothing about what goes together. In a shop of reviews nine users in ten have
    one product."""
    several = np.diff(matrix.indptr) > 1
    return matrix[several] if several.any() else matrix


class FoldIn:
    """Solves ``(Y'Y + reg + Y_u' D Y_u) x = Y_u' D 1`` for any users, D being entry weights.

    An entry without weight is as if it were not there (the textbook's D + 1 on the right would
    keep half of its pull)."""

    def __init__(self, items: Float32Array, regularization: float) -> None:
        self._items = items
        gram = items.astype(np.float64).T @ items
        gram += regularization * np.eye(items.shape[1])
        self._gram: Float32Array = gram.astype(np.float32)
        # Z = Y A^-1 with A = Y'Y + reg: what an observation of each item adds to a user.
        self._response: Float32Array = np.linalg.solve(gram, items.T).T.astype(np.float32)

    def solve(self, histories: Histories, weight: Float32Array) -> Float32Array:
        """``(users, factors)`` for entries that weigh ``(entries,)`` `weight`."""
        factors = self._items.shape[1]
        queries = np.zeros((histories.users, factors), dtype=np.float32)
        lengths = np.diff(histories.indptr)
        for group, width in _length_groups(lengths):
            at_once = max(1, _CELLS_AT_ONCE // (width * max(width, factors)))
            for first in range(0, len(group), at_once):
                users = group[first : first + at_once]
                # Shorter histories of a group are filled up with entries of no weight.
                place = np.arange(width)
                filled = place < lengths[users][:, None]
                entry = np.where(filled, histories.indptr[:-1][users][:, None] + place, 0)
                filled_weight = np.where(filled, weight[entry], np.float32(0))
                solve = self._solve_short if width <= factors else self._solve_long
                queries[users] = solve(histories.items[entry], filled_weight)
        return queries

    def _solve_short(self, items: Int32Array, weight: Float32Array) -> Float32Array:
        """``(users, factors)`` for ``(users, width)`` items. By the Woodbury identity the system is
        as small as the history, not as large as the number of factors."""
        responses = self._response[items]
        kernel = np.matmul(responses, self._items[items].transpose(0, 2, 1))
        system = np.eye(items.shape[1], dtype=np.float32) + weight[:, :, None] * kernel
        pull = np.linalg.solve(system, weight[:, :, None])
        return np.asarray(np.matmul(pull.transpose(0, 2, 1), responses)[:, 0], dtype=np.float32)

    def _solve_long(self, items: Int32Array, weight: Float32Array) -> Float32Array:
        """The same for histories longer than the number of factors."""
        vectors = self._items[items]
        weighted = vectors * weight[:, :, None]
        system = self._gram + np.matmul(weighted.transpose(0, 2, 1), vectors)
        pull = weighted.sum(axis=1)[:, :, None]
        return np.asarray(np.linalg.solve(system, pull)[:, :, 0], dtype=np.float32)


def _length_groups(lengths: Int64Array) -> list[tuple[Int64Array, int]]:
    """Users grouped by the power of two that their history fits in, and the longest of each."""
    exponent = np.where(lengths > 0, np.ceil(np.log2(np.maximum(lengths, 1))), -1).astype(int)
    groups = (np.flatnonzero(exponent == size) for size in np.unique(exponent[lengths > 0]))
    return [(users, int(lengths[users].max())) for users in groups]
