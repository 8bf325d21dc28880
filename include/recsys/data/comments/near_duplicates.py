"""Texts that are the same but for a few characters, found in linear time.

Every text gets the minima of 32 hash functions over its 5-character shingles (MinHash), packed
into 8 bands of 4. Texts that agree in a band are compared exactly, each with one representative
of the band, and belong together from a Jaccard similarity of `SIMILARITY` on: in a sentence of
45 characters that allows one or two typing mistakes.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from recsys.data.comments.shingles import MULTIPLIER, Int64, UInt64, windows

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


def group_near_duplicates(plain: pa.Array, key: UInt64, band: UInt64, searched: pd.Series) -> Int64:
    """Number of the group of each text; texts of equal key always share it.

    Parameters
    ----------
    plain, key, band
        The texts' folded words, keys and bands.
    searched
        True for the texts whose near copies are wanted; the others join their equals only.
        Equal keys must have equal values.
    """
    distinct, first, of_text = np.unique(key, return_index=True, return_inverse=True)
    nodes = np.flatnonzero(searched.to_numpy()[first])
    pairs = _candidates(band[first[nodes]])
    similar = _are_similar(plain.take(pa.array(first[nodes])), pairs)
    edges = nodes[pairs[similar]]
    graph = sparse.coo_matrix(
        (np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])),
        shape=(len(distinct), len(distinct)),
    )
    return connected_components(graph, directed=False)[1].astype(np.int64)[of_text]


def _candidates(band: UInt64) -> Int64:
    """Pairs of texts to compare: in each band, the first text of a value with each of the rest."""
    found = []
    for column in band.T:
        order = np.argsort(column, kind="stable")
        starts = np.r_[True, column[order][1:] != column[order][:-1]] if len(order) else order
        leader = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
        found.append(np.stack([leader, order], axis=1)[leader != order])
    pairs = np.concatenate(found)
    # One number a pair sorts faster than rows.
    packed = np.unique(pairs[:, 0] * len(band) + pairs[:, 1])
    return np.stack([packed // max(len(band), 1), packed % max(len(band), 1)], axis=1)


def _are_similar(plain: pa.Array, pairs: Int64) -> np.ndarray:
    """For each pair, whether the texts share enough of their shingles."""
    similar = np.zeros(len(pairs), dtype=bool)
    for at in range(0, len(pairs), _PAIRS):
        part = pairs[at : at + _PAIRS]
        texts, positions = np.unique(part, return_inverse=True)
        positions = positions.reshape(part.shape)
        owner, shingles = windows(plain.take(pa.array(texts)), (_SHINGLE,))
        _, columns = np.unique(shingles, return_inverse=True)
        present = sparse.csr_matrix(
            (np.ones(len(owner), dtype=np.int32), (owner, columns)),
            shape=(len(texts), int(columns.max(initial=0)) + 1),
        )
        present.data[:] = 1  # copies of a shingle were added up
        left, right = present[positions[:, 0]], present[positions[:, 1]]
        shared = np.asarray(left.multiply(right).sum(axis=1)).ravel()
        sizes = np.diff(left.indptr) + np.diff(right.indptr)
        similar[at : at + _PAIRS] = shared >= SIMILARITY * (sizes - shared)
    return similar
