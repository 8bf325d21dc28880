"""What can be said of a comment from its text alone, and which texts are nearly the same.

Near copies are found in linear time. Every text gets the minima of 32 hash functions over its
5-character shingles (MinHash), packed into 8 bands of 4. Texts that agree in a band are compared
exactly, each with the most frequent of them, and count as copies from a Jaccard similarity of
`SIMILARITY` on: in a sentence of 45 characters that allows one or two typing mistakes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from recsys.arrays import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array, UInt64Array
from recsys.columns import fold_series
from recsys.data.keys import MULTIPLIER, bytes_of, one_chunk, run_starts
from recsys.settings import CORES


def windows(texts: pa.Array, sizes: tuple[int, ...]) -> tuple[Int64Array, UInt64Array]:
    """Text index and hash of every window of each size (in bytes, ascending, at least 2). Windows
    of one size come in the order of the texts; no window crosses from one into the next."""
    offsets, data = bytes_of(texts)
    owner = np.repeat(np.arange(len(texts)), np.diff(offsets))
    owners, hashes = [], []
    window = data.astype(np.uint64)
    for size in range(2, max(sizes) + 1):
        step = size - 1
        window = window[:-1] * MULTIPLIER + data[step:]
        if size in sizes:
            inside = owner[step:] == owner[: max(len(owner) - step, 0)]
            owners.append(owner[step:][inside])
            hashes.append(window[inside])
    return np.concatenate(owners), np.concatenate(hashes)


SIMILARITY = 0.7
BANDS = 8
_ROWS = 4
_SHINGLE = 5  # characters
_PAIRS = 50_000  # compared at a time
_MIX = np.random.default_rng(20230427).integers(
    1, 1 << 63, size=(BANDS, _ROWS), dtype=np.uint64
) * np.uint64(2) + np.uint64(1)


def bands(plain: pa.Array, key: UInt64Array) -> UInt64Array:
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
    key: UInt64Array,
    band: UInt64Array,
    rows: Int64Array,
    searched: BoolArray,
    similar: Callable[[Int64Array], BoolArray],
) -> Int64Array:
    """Number of the group of each text, given its `key` and bands; equal keys always share it.

    A group is one text and the near copies of that text. Copies of copies are not followed:
    chains of short praise would tie half a shop together. Of copies, the one that stands in more
    `rows` is the original. Texts that are not `searched` (equal keys, equal values) join their
    equals only; `similar` says for pairs (n x 2 positions) which of them are near copies."""
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


def are_similar(plain: pa.Array, pairs: Int64Array) -> BoolArray:
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


FEATURES_VERSION = "features-2"  # raise it when `describe` gives other values for a text
CHUNK = 20_000
_LONG_RUN = 4  # "đẹpppp": so many equal characters in a row are filler


@dataclass(frozen=True)
class TextFeatures:
    """One entry a text.

    `key` hashes the folded words: it is equal for texts that differ in case, accents, punctuation,
    and 0 for one without words. `variety` is the share that is no repetition, in [0, 1]."""

    key: UInt64Array
    words: Int32Array
    variety: Float32Array
    bands: UInt64Array  # n x BANDS


def describe(texts: pd.Series) -> TextFeatures:
    """The features of each text (str, none missing), in memory for two times `CHUNK` texts."""
    starts = range(0, len(texts), CHUNK)
    with ThreadPoolExecutor(CORES) as pool:
        parts = list(pool.map(lambda at: _describe(texts.iloc[at : at + CHUNK]), starts))
    return concatenate(parts)


def concatenate(parts: Sequence[TextFeatures]) -> TextFeatures:
    """The texts of all `parts`, in order."""
    none = TextFeatures(
        np.zeros(0, np.uint64),
        np.zeros(0, np.int32),
        np.zeros(0, np.float32),
        np.zeros((0, BANDS), np.uint64),
    )
    columns = zip(*(vars(part).values() for part in (none, *parts)), strict=True)
    return TextFeatures(*(np.concatenate(column) for column in columns))


def plain_words(texts: pd.Series) -> pa.Array:
    """Each text as its folded words between single blanks: the form in which texts are compared.

    >>> plain_words(pd.Series(["Rất  THÍCH!!!"])).to_pylist()
    ['rat thich']
    """
    folded = one_chunk(fold_series(texts))
    return pc.utf8_trim(pc.replace_substring_regex(folded, r"[^\p{L}\p{N}]+", " "), " ")


def _describe(texts: pd.Series) -> TextFeatures:
    plain = plain_words(texts)
    empty = pc.equal(plain, "").to_numpy(zero_copy_only=False)
    key = pd.util.hash_array(plain.to_numpy(zero_copy_only=False), categorize=False)
    key[empty] = 0
    owner, tokens = _tokens(plain)
    words = np.bincount(owner[tokens >= 0], minlength=len(plain)).astype(np.int32)
    variety = _distinct_bigrams(owner, tokens, len(plain)) * _share_without_runs(plain)
    return TextFeatures(key, words, variety.astype(np.float32), bands(plain, key))


def _tokens(plain: pa.Array) -> tuple[Int64Array, Int64Array]:
    """For each word, in order: the index of its text, and a number for the word (-1: no word)."""
    lists = pc.split_pattern(plain, " ")
    owner = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    encoded = pc.list_flatten(lists).dictionary_encode()
    tokens = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    tokens[tokens == pc.index(encoded.dictionary, "").as_py()] = -1
    return owner.astype(np.int64), tokens


def _distinct_bigrams(owner: Int64Array, tokens: Int64Array, n: int) -> Float64Array:
    """Distinct pairs of neighbouring words among all of a text's pairs; 1 when it has none."""
    inside = owner[1:] == owner[:-1]
    vocabulary = int(tokens.max(initial=0)) + 1
    pairs = (tokens[:-1] * vocabulary + tokens[1:])[inside]
    _, pair_ids = np.unique(pairs, return_inverse=True)
    of_text = owner[1:][inside]
    distinct = np.unique(of_text * (len(pairs) + 1) + pair_ids) // (len(pairs) + 1)
    total = np.bincount(of_text, minlength=n)
    return np.where(total > 0, np.bincount(distinct, minlength=n) / np.maximum(total, 1), 1.0)


def _share_without_runs(plain: pa.Array) -> Float64Array:
    """Share of a text's bytes outside runs of one character."""
    offsets, data = bytes_of(plain)
    # Byte k continues a run when it equals each of the bytes before it; a run that crosses from
    # one text into the next is cut off by not counting the first bytes of a text.
    in_run = np.zeros(len(data), dtype=np.int64)
    if len(data) >= _LONG_RUN:
        equal = data[1:] == data[:-1]
        long = np.logical_and.reduce(
            [equal[step : len(equal) - _LONG_RUN + 2 + step] for step in range(_LONG_RUN - 1)]
        )
        in_run[_LONG_RUN - 1 :] = long
    before = np.concatenate([[0], np.cumsum(in_run)])
    starts = np.minimum(offsets[:-1] + _LONG_RUN - 1, offsets[1:])
    length = np.maximum(np.diff(offsets), 1)
    return 1.0 - (before[offsets[1:]] - before[starts]) / length
