"""Which texts are nearly the same, in linear time.

Every text gets the minima of 32 hash functions over its 5-character shingles (MinHash), packed into
8 bands of 4. Texts that agree in a band are compared, each with the most frequent of them, and
count as copies from a Jaccard similarity of `SIMILARITY` on: in a sentence of 45 characters that
allows one or two typing mistakes. Of most pairs, sketches of 512 bits tell that they cannot be so
similar; the rest is compared exactly."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from scipy import sparse

from recsys.arrays import BoolArray, Int64Array, UInt64Array
from recsys.comments.pieces import windows
from recsys.data.keys import MULTIPLIER, run_starts
from recsys.settings import CORES

SIMILARITY = 0.7
BANDS = 8
_ROWS = 4
_SHINGLE = 5  # characters
_COLUMN_BITS = 30  # of the number of a shingle
_SKETCH_BITS = 9  # of the place of its bit in a sketch
_BIT_AT = _COLUMN_BITS - _SKETCH_BITS
_TOGETHER = 512  # texts at a time: their shingles stay in the processor's cache
_SIFTED = 16_384  # pairs whose sketches are compared at a time
_COMPARED = 4_096  # pairs that are compared exactly at a time
_MIX = np.random.default_rng(20230427).integers(
    1, 1 << 63, size=(BANDS, _ROWS), dtype=np.uint64
) * np.uint64(2) + np.uint64(1)

Similar: TypeAlias = Callable[[Int64Array], BoolArray]
"""Which pairs of texts (n x 2 positions) are near copies of each other."""


def bands(plain: pa.LargeStringArray, key: UInt64Array) -> UInt64Array:
    """The bands of each text (n x `BANDS`). `plain`: folded words; a text too short for a
    shingle agrees with no text but its own copies."""
    result = np.repeat(key[:, None], BANDS, axis=1)
    for first in range(0, len(plain), _TOGETHER):
        owner, shingles = windows(plain[first : first + _TOGETHER], (_SHINGLE,))
        if not len(owner):
            continue
        shingles ^= shingles >> np.uint64(29)
        starts = run_starts(owner)
        hashed = np.empty_like(shingles)
        for band in range(BANDS):
            packed = np.zeros(len(starts), dtype=np.uint64)
            for factor in _MIX[band]:
                np.multiply(shingles, factor, out=hashed)
                packed = packed * MULTIPLIER + np.minimum.reduceat(hashed, starts)
            result[first + owner[starts], band] = packed
    return result


def group_near_duplicates(
    key: UInt64Array, band: UInt64Array, rows: Int64Array, searched: BoolArray, similar: Similar
) -> Int64Array:
    """Number of the group of each text, given its `key` and bands; equal keys always share it.

    A group is one text and the near copies of that text. Copies of copies are not followed:
    chains of short praise would tie half a shop together. Of copies, the one that stands in more
    `rows` is the original. Texts that are not `searched` (equal keys, equal values) join their
    equals only."""
    by_key = np.argsort(key)
    starts = run_starts(key[by_key])
    first = by_key[starts]  # one text of each key, by ascending key
    of_text = np.empty(len(key), dtype=np.int64)
    of_text[by_key] = np.repeat(np.arange(len(first)), np.diff(starts, append=len(key)))
    frequency = np.bincount(of_text, weights=rows, minlength=len(first))
    # Texts by falling frequency (of equals, the smaller key first): positions are ranks.
    order = np.argsort(-frequency, kind="stable")
    nodes = order[searched[first[order]]]
    pairs = _candidates(band[first[nodes]])
    pairs = pairs[similar(first[nodes][pairs])]
    label = np.arange(len(first))
    label[nodes] = nodes[_originals(pairs, len(nodes))]
    return label[of_text]


def _originals(pairs: Int64Array, n: int) -> Int64Array:
    """For each of `n` ranks the best rank that it copies, itself when it is an original.

    `pairs`: (better, worse) ranks of near copies. A text that copies an original is none; of
    the rest the best are originals, and so on."""
    original = np.arange(n)
    while len(pairs):
        undecided = np.zeros(n, dtype=bool)
        undecided[pairs[:, 1]] = True
        decided = pairs[~undecided[pairs[:, 0]]]
        copies = np.full(n, n)
        np.minimum.at(copies, decided[:, 1], decided[:, 0])
        is_copy = copies < n
        original[is_copy] = copies[is_copy]
        pairs = pairs[~is_copy[pairs[:, 0]] & ~is_copy[pairs[:, 1]]]
    return original


def _candidates(band: UInt64Array) -> Int64Array:
    """Pairs of texts to compare: in each band, the first text of a value with each of the rest.
    Texts come by rank, so that the first is the most frequent: pairs are (better, worse)."""
    found = []
    width = max(len(band), 1)
    for column in band.T:
        order = np.argsort(column)
        starts = run_starts(column[order])
        copies = np.diff(starts, append=len(order))
        several = np.repeat(copies > 1, copies)
        leader = np.repeat(np.minimum.reduceat(order, starts), copies) if len(order) else order
        leader, text = leader[several], order[several]
        # One number a pair sorts faster than rows.
        found.append((leader * width + text)[leader != text])
    packed = np.sort(np.concatenate(found))
    packed = packed[run_starts(packed)]
    return np.stack([packed // width, packed % width], axis=1)


def are_similar(plain: pa.LargeStringArray, pairs: Int64Array) -> BoolArray:
    """For each pair of positions in `plain` (folded words): do they share enough shingles?"""
    sizes, sketches = _sketches(plain)

    def possible(first: int) -> BoolArray:
        left, right = pairs[first : first + _SIFTED].T
        # A bit in which sketches differ is a shingle that only one of the texts has.
        apart = np.bitwise_count(sketches[left] ^ sketches[right]).sum(axis=1)
        fewer = np.minimum(sizes[left], sizes[right])
        both = sizes[left] + sizes[right]
        return _enough(np.minimum((both - apart) // 2, fewer), both)

    def exact(first: int) -> BoolArray:
        part = asked[first : first + _COMPARED]
        return _enough(_shared(plain, part), sizes[part].sum(axis=1))

    similar = _in_parts(possible, len(pairs), _SIFTED)
    asked = pairs[similar]
    similar[similar] = _in_parts(exact, len(asked), _COMPARED)
    return similar


def _in_parts(compare: Callable[[int], BoolArray], n: int, size: int) -> BoolArray:
    """The answers of `compare` for the parts of `n` pairs that begin at its argument."""
    with ThreadPoolExecutor(CORES) as pool:
        return np.concatenate([np.zeros(0, np.bool_), *pool.map(compare, range(0, n, size))])


def _enough(shared: Int64Array, both: Int64Array) -> BoolArray:
    """Whether texts of so many shingles together share so many that they are similar."""
    return np.asarray(shared >= SIMILARITY * (both - shared))


def _shared(plain: pa.LargeStringArray, pairs: Int64Array) -> Int64Array:
    """How many shingles the texts of each pair share."""
    texts, positions = np.unique(pairs, return_inverse=True)
    left, right = positions.reshape(pairs.shape).T
    sets = [_shingle_sets(part) for part in _parts(plain.take(pa.array(texts)))]
    present = sparse.vstack(sets, format="csr")
    return np.asarray(present[left].multiply(present[right]).sum(axis=1), np.int64).ravel()


def _sketches(plain: pa.LargeStringArray) -> tuple[Int64Array, UInt64Array]:
    """The number of shingles of each text, and a bit for each of them (n x 8 words)."""

    def sketch(part: pa.LargeStringArray) -> tuple[Int64Array, UInt64Array]:
        present = _shingle_sets(part)
        sizes = np.diff(present.indptr).astype(np.int64)
        bits = np.zeros((len(part), 1 << _SKETCH_BITS), dtype=np.bool_)
        bits[np.repeat(np.arange(len(part)), sizes), present.indices >> _BIT_AT] = True
        return sizes, np.packbits(bits, axis=1).view(np.uint64)

    with ThreadPoolExecutor(CORES) as pool:
        sizes, sketches = zip(*pool.map(sketch, _parts(plain)), strict=True)
    return np.concatenate(sizes), np.concatenate(sketches)


def _parts(plain: pa.LargeStringArray) -> Iterator[pa.LargeStringArray]:
    return (plain[first : first + _TOGETHER] for first in range(0, max(len(plain), 1), _TOGETHER))


def _shingle_sets(plain: pa.LargeStringArray) -> sparse.csr_matrix:
    """One row a text, ones in the columns of its shingles, which ascend. With 2^30 columns, two
    shingles of a text of 100 characters meet by chance once in 200,000 texts."""
    owner, shingles = windows(plain, (_SHINGLE,))
    columns = shingles * MULTIPLIER >> np.uint64(64 - _COLUMN_BITS)
    # One number for text and column sorts faster than two.
    packed = np.sort(owner.astype(np.int64) << _COLUMN_BITS | columns.astype(np.int64))
    packed = packed[run_starts(packed)]
    ends = np.searchsorted(packed, np.arange(len(plain) + 1) << _COLUMN_BITS)
    columns = (packed & ((1 << _COLUMN_BITS) - 1)).astype(np.int32)
    ones = np.ones(len(columns), dtype=np.int32)
    return sparse.csr_matrix((ones, columns, ends), shape=(len(plain), 1 << _COLUMN_BITS))
