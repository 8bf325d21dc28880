"""What can be said of a comment from its text alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.arrays import Float32Array, Float64Array, Int32Array, UInt64Array
from recsys.columns import fold_texts
from recsys.comments.near_copies import BANDS, bands
from recsys.comments.pieces import Pieces, in_parts, pieces_of
from recsys.data.keys import bytes_of, one_chunk, run_starts

FEATURES_VERSION = "features-2"  # raise it when `describe` gives other values for a text
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
    """The features of each text (str, none missing)."""
    return concatenate([part for _, part in in_parts(one_chunk(texts), _describe)])


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


def plain_words(texts: pd.Series) -> pa.LargeStringArray:
    """Each text as its folded words between single blanks: the form in which texts are compared.

    >>> plain_words(pd.Series(["Rất  THÍCH!!!"])).to_pylist()
    ['rat thich']
    """
    parts = in_parts(one_chunk(texts), lambda part: _folded_words(part).joined(len(part)))
    return pa.concat_arrays([pa.array([], pa.large_string()), *(part for _, part in parts)])


def _folded_words(texts: pa.LargeStringArray) -> Pieces:
    pieces = pieces_of(texts)
    words = pc.replace_substring_regex(fold_texts(pieces.vocabulary), r"[^\p{L}\p{N}]+", " ")
    return pieces.replaced(pc.split_pattern(words, " "))


def _describe(texts: pa.LargeStringArray) -> TextFeatures:
    words = _folded_words(texts)
    plain = words.joined(len(texts))
    number = np.bincount(words.owner, minlength=len(texts)).astype(np.int32)
    key = pd.util.hash_array(plain.to_numpy(zero_copy_only=False), categorize=False)
    key[number == 0] = 0
    variety = _distinct_bigrams(words, len(texts)) * _share_without_runs(plain)
    return TextFeatures(key, number, variety.astype(np.float32), bands(plain, key))


def _distinct_bigrams(words: Pieces, n: int) -> Float64Array:
    """Distinct pairs of neighbouring words among all of a text's pairs; 1 when it has none."""
    inside = words.owner[1:] == words.owner[:-1]
    owner = words.owner[1:][inside]
    # No part has so many texts and words that the square of the one times the other is too long.
    width = len(words.vocabulary)
    pairs = np.sort((owner * width + words.ids[:-1][inside]) * width + words.ids[1:][inside])
    distinct = np.bincount(pairs[run_starts(pairs)] // width**2, minlength=n)
    total = np.bincount(owner, minlength=n)
    return np.where(total > 0, distinct / np.maximum(total, 1), 1.0)


def _share_without_runs(plain: pa.LargeStringArray) -> Float64Array:
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
