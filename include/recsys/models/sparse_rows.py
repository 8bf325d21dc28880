"""A sparse matrix of products by products, summed by NumPy alone, and the models that are one."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from recsys.arrays import Float32Array, Int32Array, Int64Array, entries_of
from recsys.models import storage
from recsys.models.base import Histories, ParametersT, ParametrisedModel, Progress
from recsys.models.histories import recent_part

_CELLS_AT_ONCE = 1 << 18
"""Largest number of cells of a temporary array: 2 MB."""


@dataclass(frozen=True)
class SparseRows:
    """A square sparse matrix that gives weighted sums of its rows, by NumPy alone. SciPy takes 11
    MB of a process and, for the short history of one user, twice the time."""

    starts: Int64Array  # (rows + 1,): cells of row r are starts[r]:starts[r + 1]
    columns: Int32Array  # (cells,)
    values: Float32Array  # (cells,)

    @property
    def size(self) -> int:
        """Number of rows, and of columns."""
        return len(self.starts) - 1

    def problem(self) -> str | None:
        """Why the three arrays are no such matrix, None if they are."""
        starts, columns = self.starts, self.columns
        if not len(starts) or starts[0] != 0 or (np.diff(starts) < 0).any():
            return "the rows do not start at 0 and follow each other"
        if not starts[-1] == len(columns) == len(self.values):
            return f"{starts[-1]} cells, {len(columns)} columns and {len(self.values)} values"
        if len(columns) and not 0 <= columns.min() <= columns.max() < self.size:
            return "a cell lies in a column that does not exist"
        return None

    def row(self, number: int) -> Float32Array:
        """``(size,)`` one row with its zeros."""
        cells = slice(self.starts[number], self.starts[number + 1])
        dense = np.bincount(self.columns[cells], weights=self.values[cells], minlength=self.size)
        return dense.astype(np.float32)

    def weighted_sums(
        self, indptr: Int64Array, rows: Int32Array, weights: Float32Array
    ) -> Float32Array:
        """``(sums, size)``: sum ``s`` is that of the `rows` ``indptr[s]:indptr[s + 1]``, each
        times its weight."""
        sums = np.empty((len(indptr) - 1, self.size), dtype=np.float32)
        at_once = max(1, _CELLS_AT_ONCE // max(self.size, 1))
        for first in range(0, len(sums), at_once):
            bounds = indptr[first : first + at_once + 1]
            part = slice(bounds[0], bounds[-1])
            sums[first : first + at_once] = self._sums(np.diff(bounds), rows[part], weights[part])
        return sums

    def _sums(self, counts: Int64Array, rows: Int32Array, weights: Float32Array) -> Float32Array:
        """The same for so few sums, of `counts` rows each, that the memory does not matter."""
        starts = self.starts[rows]
        lengths = self.starts[rows + 1] - starts
        # All cells of all rows one after another, and the row that each comes from.
        row = np.repeat(np.arange(len(rows)), lengths)
        place, _ = entries_of(starts, lengths)
        target = np.repeat(np.arange(len(counts)) * self.size, counts)[row] + self.columns[place]
        sums = np.bincount(
            target, weights=weights[row] * self.values[place], minlength=len(counts) * self.size
        )
        return sums.reshape(len(counts), self.size).astype(np.float32)

    def save(self, folder: Path, name: str) -> None:
        """Write the three arrays as ``<folder>/<name>_*.npy``."""
        storage.write_array(folder, f"{name}_weights", self.values)
        storage.write_array(folder, f"{name}_items", self.columns)
        storage.write_array(folder, f"{name}_starts", self.starts)

    @classmethod
    def load(cls, folder: Path, name: str) -> Self:
        """Read what `save` wrote, memory-mapped. Raises `ArtifactError` if it is not sound."""
        rows = cls(
            storage.read_array(folder, f"{name}_starts", np.int64, 1),
            storage.read_array(folder, f"{name}_items", np.int32, 1),
            storage.read_array(folder, f"{name}_weights", np.float32, 1),
        )
        if problem := rows.problem():
            raise storage.ArtifactError(f"{folder}: the {name}s are not sound: {problem}")
        return rows


NO_ROWS = SparseRows(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
"""What a model has before it is fitted."""


class RowsModel(ParametrisedModel[ParametersT], ABC):
    """A model that has a row of weights for each product: a user's scores are the sum of the rows
    of their products, each moment further back times ``history_decay``."""

    score_parameters = ("history_decay",)
    rows_name: ClassVar[str]

    def __init__(self, parameters: ParametersT | None = None, seed: int = 0) -> None:
        super().__init__(parameters, seed)
        self._rows = NO_ROWS

    @abstractmethod
    def _learn(self, histories: Histories, items: int) -> SparseRows:
        """``(items, items)`` how much each product speaks for each other one."""

    def fit(self, histories: Histories, items: int, progress: Progress | None = None) -> Self:
        self._rows = self._learn(histories, items)
        if progress is not None:
            progress(1, {f"{self.rows_name}s": float(len(self._rows.values))})
        return self

    def score(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        recent, weight = recent_part(histories, self._parameters.history_decay)
        return self._rows.weighted_sums(recent.indptr, recent.items, weight)

    def similar(self, item: int) -> Float32Array:
        return self._rows.row(item)

    def save(self, folder: Path) -> None:
        self._rows.save(folder, self.rows_name)
        storage.write_parameters(folder, self.hyperparameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        model = cls.create(storage.read_parameters(folder))
        model._rows = SparseRows.load(folder, cls.rows_name)
        return model
