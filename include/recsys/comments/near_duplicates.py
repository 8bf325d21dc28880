"""Texts that are the same but for a few characters, found in linear time.

Every text gets the minima of 32 hash functions over its 5-character shingles (MinHash), packed
into 8 bands of 4. Texts that agree in a band are compared exactly, each with the most frequent
of them, and count as copies from a Jaccard similarity of `SIMILARITY` on: in a sentence of 45
characters that allows one or two typing mistakes.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from recsys.comments.shingles import MULTIPLIER, Int64, UInt64, windows
from recsys.data.keys import run_starts

Bool = npt.NDArray[np.bool_]

SIMILARITY = 0.7
BANDS = 8
_ROWS = 4
_SHINGLE = 5  # characters
_PAIRS = 50_000  # compared at a time
_MIX = np.random.default_rng(20230427).integers(
    1, 1 << 63, size=(BANDS, _ROWS), dtype=np.uint64
) * np.uint64(2) + np.uint64(1)


def bands(plain: pa.Array, key: UInt64) -> UInt64:
    """The bands of each text (n x `BANDS`). `plain`: folded words; a text too short for a
    shingle agrees with no text but its own copies."""
    owner, shingles = windows(plain, (_SHINGLE,))
    shingles = shingles ^ (shingles >> np.uint64(29))
    result = np.repeat(key[:, None], BANDS, axis=1)
    present, starts = np.unique(owner, return_index=True)
    if len(present) == 0:
        return result
    for band in range(BANDS):
        packed = np.zeros(len(present), dtype=np.uint64)
        for factor in _MIX[band]:
            packed = packed * MULTIPLIER + np.minimum.reduceat(shingles * factor, starts)
        result[present, band] = packed
    return result


def group_near_duplicates(
    key: UInt64, band: UInt64, rows: Int64, searched: Bool, similar: Callable[[Int64], Bool]
) -> Int64:
    """Number of the group of each text; texts of equal key always share it.

    A group is one text and the near copies of that text. Copies of copies are not followed:
    chains of short praise would tie half a shop together.

    Parameters
    ----------
    key, band
        The texts' keys and bands.
    rows
        How often each text stands in the view: the more frequent text is the original.
    searched
        True for the texts whose near copies are wanted; the others join their equals only.
        Equal keys must have equal values.
    similar
        Says for pairs of texts (n x 2 positions) which of them are near copies.
    """
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


def _originals(pairs: Int64, n: int) -> Int64:
    """For each of `n` ranks the best rank that it copies, itself when it is an original.

    `pairs`: (better, worse) ranks of near copies. A text that copies an original is none; of
    the rest the best are originals, and so on.
    """
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


def are_similar(plain: pa.Array, pairs: Int64) -> Bool:
    """For each pair of positions in `plain` (folded words): do they share enough shingles?"""
    similar = np.zeros(len(pairs), dtype=bool)
    for at in range(0, len(pairs), _PAIRS):
        part = pairs[at : at + _PAIRS]
        texts, positions = np.unique(part, return_inverse=True)
        positions = positions.reshape(part.shape)
        present = _shingle_sets(plain.take(pa.array(texts)))
        left, right = present[positions[:, 0]], present[positions[:, 1]]
        shared = np.asarray(left.multiply(right).sum(axis=1)).ravel()
        sizes = np.diff(left.indptr) + np.diff(right.indptr)
        similar[at : at + _PAIRS] = shared >= SIMILARITY * (sizes - shared)
    return similar


def _candidates(band: UInt64) -> Int64:
    """Pairs of texts to compare: in each band, the first text of a value with each of the rest.

    Texts come by rank, so that the first is the most frequent: pairs are (better, worse).
    """
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


def _shingle_sets(plain: pa.Array) -> sparse.csr_matrix:
    """One row a text, ones in the columns of its shingles. With 2^30 columns, two shingles of a
    text of 100 characters meet by chance once in 200,000 texts."""
    owner, shingles = windows(plain, (_SHINGLE,))
    columns = (shingles * MULTIPLIER >> np.uint64(34)).astype(np.int32)
    ends = np.searchsorted(owner, np.arange(len(plain) + 1))
    ones = np.ones(len(columns), dtype=np.int32)
    present = sparse.csr_matrix((ones, columns, ends), shape=(len(plain), 1 << 30))
    present.sum_duplicates()
    present.data[:] = 1
    return present
