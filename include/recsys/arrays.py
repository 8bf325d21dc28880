"""Names for NumPy arrays by what their cells are; docstrings of their users tell the shapes."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float32Array: TypeAlias = NDArray[np.float32]
"""Scores, factors, weights: what is stored and served."""
Float64Array: TypeAlias = NDArray[np.float64]
"""What statistics are computed in."""
Int8Array: TypeAlias = NDArray[np.int8]
Int32Array: TypeAlias = NDArray[np.int32]
"""Columns: numbers of products."""
Int64Array: TypeAlias = NDArray[np.int64]
"""Times in seconds since 1970, offsets, counts, row numbers."""
UInt8Array: TypeAlias = NDArray[np.uint8]
UInt64Array: TypeAlias = NDArray[np.uint64]
"""Hashes."""
IntegerArray: TypeAlias = NDArray[np.integer]
"""Whole numbers of any width."""
BoolArray: TypeAlias = NDArray[np.bool_]
ObjectArray: TypeAlias = NDArray[np.object_]
"""Python's strings."""
AnyArray: TypeAlias = NDArray[Any]


def unit_rows(vectors: Float32Array) -> Float32Array:
    """`vectors` with rows of length one; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, np.float32(1e-12)), dtype=np.float32)


def entries_of(starts: Int64Array, lengths: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Positions of runs of entries one after another, and where each run begins and ends there."""
    bounds = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=bounds[1:])
    return np.repeat(starts - bounds[:-1], lengths) + np.arange(bounds[-1]), bounds


def first_in_row(values: IntegerArray) -> BoolArray:
    """Cells of ``(rows, n)`` `values` that no cell further left in the row equals."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    first = np.ones(values.shape, dtype=np.bool_)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    result = np.empty_like(first)
    np.put_along_axis(result, order, first, axis=1)
    return result
