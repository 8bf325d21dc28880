"""A square sparse matrix that gives weighted sums of its rows, by NumPy alone.

SciPy takes 11 MB of a process and, for the short history of one user, twice the time.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from recsys.arrays import Float32Array, Int32Array, Int64Array

_CELLS_AT_ONCE = 1 << 18
"""Largest number of cells of a temporary array: 2 MB."""


@dataclass(frozen=True)
class SparseRows:
    """Rows in CSR layout.

    Attributes
    ----------
    starts
        ``(rows + 1,)`` int64: cells of row ``r`` are ``starts[r]:starts[r + 1]``.
    columns
        ``(cells,)`` int32.
    values
        ``(cells,)`` float32.
    """

    starts: Int64Array
    columns: Int32Array
    values: Float32Array

    @classmethod
    def empty(cls) -> Self:
        """A matrix without rows."""
        return cls(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))

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
        place = np.arange(len(row)) + (starts - np.cumsum(lengths) + lengths)[row]
        target = np.repeat(np.arange(len(counts)) * self.size, counts)[row] + self.columns[place]
        sums = np.bincount(
            target, weights=weights[row] * self.values[place], minlength=len(counts) * self.size
        )
        return sums.reshape(len(counts), self.size).astype(np.float32)
