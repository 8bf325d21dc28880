"""64-bit hashes of whole columns of text, without a Python object for any of them.

A text's hash is a polynomial of its bytes modulo 2^64, mixed with its length: equal texts have
equal hashes on every machine, and two different ones share a hash about once in 2^64 pairs. It does
not withstand an attacker, who could only make rows of his own look alike.
"""

import functools
import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_MULTIPLIER = 0x9E3779B97F4A7C15
_PRIME = 0x100000001B3
_INVERSE = pow(_PRIME, -1, 1 << 64)
_BLOCK_BYTES = 1 << 19


def hash_texts(column: pd.Series) -> Hashes:
    """A stable hash of each text of a column without missing values."""
    array = pa.array(column, pa.large_string())
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    hashed = [_hash_chunk(chunk) for chunk in chunks]
    return np.concatenate(hashed) if hashed else np.zeros(0, dtype=np.uint64)


def mix(*columns: Hashes) -> Hashes:
    """One hash of several columns; the order of the columns matters."""
    result = np.full(len(columns[0]), _MULTIPLIER, dtype=np.uint64)
    for column in columns:
        result = (result ^ column) * np.uint64(0xFF51AFD7ED558CCD)
        result ^= result >> np.uint64(32)
    return result


def _hash_chunk(chunk: pa.LargeStringArray) -> Hashes:
    buffers = chunk.buffers()
    ends = np.frombuffer(buffers[1], dtype=np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
    if not len(chunk) or ends[0] == ends[-1]:
        return mix(*np.zeros((2, len(chunk)), dtype=np.uint64))
    content = np.frombuffer(buffers[2], dtype=np.uint8)
    # Blocks of whole texts, so that every text is a difference of two sums over one block.
    marks = np.arange(ends[0], ends[-1], _BLOCK_BYTES)
    inner = np.searchsorted(ends, marks[1:], side="right") - 1
    firsts = np.unique(np.concatenate([[0], inner, [len(chunk)]]))
    longest = int(np.max(ends[firsts[1:]] - ends[firsts[:-1]]))
    blocks = longest // _BLOCK_BYTES + 1
    powers, inverses = _powers(_PRIME, blocks), _powers(_INVERSE, blocks)
    hashes = np.empty(len(chunk), dtype=np.uint64)
    for first, last in itertools.pairwise(firsts):
        start, stop = ends[first], ends[last]
        sums = np.zeros(stop - start + 1, dtype=np.uint64)
        np.cumsum(content[start:stop] * powers[: stop - start], out=sums[1:])
        places = ends[first : last + 1] - start
        hashes[first:last] = (sums[places[1:]] - sums[places[:-1]]) * inverses[places[:-1]]
    return mix(hashes, np.diff(ends).astype(np.uint64))


@functools.lru_cache(maxsize=2)
def _powers(base: int, blocks: int) -> Hashes:
    """``base ** 0, base ** 1, ...`` modulo 2^64, enough of them for so many blocks of bytes."""
    factors = np.full(blocks * _BLOCK_BYTES + 1, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors)
