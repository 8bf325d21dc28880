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
_BLOCK_BYTES = 1 << 15  # what is computed for a block stays in the processor's cache


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
        result ^= column
        result *= np.uint64(0xFF51AFD7ED558CCD)
        result ^= result >> np.uint64(32)
    return result


def bytes_of(texts: pa.LargeStringArray) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Where each text begins, and the last one ends, in the bytes of all of them; and these."""
    if not len(texts):
        return np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    _, offsets, content = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[texts.offset :][: len(texts) + 1]
    return ends - ends[0], np.frombuffer(content or b"", dtype=np.uint8)[ends[0] : ends[-1]]


def _hash_chunk(chunk: pa.LargeStringArray) -> Hashes:
    ends, content = bytes_of(chunk)
    if not len(content):
        return mix(*np.zeros((2, len(chunk)), dtype=np.uint64))
    # Blocks of whole texts: the powers of a text begin where it stands in its block.
    marks = np.arange(0, len(content), _BLOCK_BYTES)
    inner = np.searchsorted(ends, marks[1:], side="right") - 1
    firsts = np.unique(np.concatenate([[0], inner, [len(chunk)]]))
    longest = int(np.max(ends[firsts[1:]] - ends[firsts[:-1]]))
    blocks = longest // _BLOCK_BYTES + 1
    powers, inverses = _powers(_PRIME, blocks), _powers(_INVERSE, blocks)
    lengths = np.diff(ends)
    hashes = np.zeros(len(chunk), dtype=np.uint64)
    terms = np.empty(longest, dtype=np.uint64)
    for first, last in itertools.pairwise(firsts):
        start, size = ends[first], ends[last] - ends[first]
        np.multiply(content[start : start + size], powers[:size], out=terms[:size])
        filled = lengths[first:last] > 0
        places = ends[first:last][filled] - start
        hashes[first:last][filled] = np.add.reduceat(terms[:size], places) * inverses[places]
    return mix(hashes, lengths.astype(np.uint64))


@functools.lru_cache(maxsize=2)
def _powers(base: int, blocks: int) -> Hashes:
    """``base ** 0, base ** 1, ...`` modulo 2^64, enough of them for so many blocks of bytes."""
    factors = np.full(blocks * _BLOCK_BYTES + 1, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors)
