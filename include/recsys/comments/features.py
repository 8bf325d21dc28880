"""What can be said of a comment from its text alone.

All functions take the distinct texts of a view and work on columns; memory is bounded by
two times `CHUNK` texts, whatever the size of the view.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.comments.near_duplicates import BANDS, bands
from recsys.comments.shingles import UInt64, bytes_of
from recsys.settings import CORES
from recsys.text_columns import fold_series

FEATURES_VERSION = "features-2"  # raise it when `describe` gives other values for a text
CHUNK = 20_000
_LONG_RUN = 4  # "đẹpppp": so many equal characters in a row are filler

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class TextFeatures:
    """One entry a text.

    Attributes
    ----------
    key
        Hash of the folded words: equal for texts that differ in case, accents, punctuation.
        0 for a text without words.
    words
        Number of words.
    variety
        Share of the text that is no repetition, in [0, 1].
    bands
        For finding near copies, n x `BANDS`.
    """

    key: UInt64
    words: Int32
    variety: Float32
    bands: UInt64

    def __len__(self) -> int:
        return len(self.key)


def describe(texts: pd.Series) -> TextFeatures:
    """The features of each text. `texts`: str, none missing."""
    starts = range(0, len(texts), CHUNK)
    with ThreadPoolExecutor(CORES) as pool:
        parts = list(pool.map(lambda at: _describe(texts.iloc[at : at + CHUNK]), starts))
    return concatenate(parts)


def concatenate(parts: Sequence[TextFeatures]) -> TextFeatures:
    """The texts of all `parts`, in order."""
    return TextFeatures(
        key=np.concatenate([np.zeros(0, np.uint64), *(part.key for part in parts)]),
        words=np.concatenate([np.zeros(0, np.int32), *(part.words for part in parts)]),
        variety=np.concatenate([np.zeros(0, np.float32), *(part.variety for part in parts)]),
        bands=np.concatenate([np.zeros((0, BANDS), np.uint64), *(part.bands for part in parts)]),
    )


def plain_words(texts: pd.Series) -> pa.Array:
    """Each text as its folded words between single blanks: the form in which texts are compared.

    >>> plain_words(pd.Series(["Rất  THÍCH!!!"])).to_pylist()
    ['rat thich']
    """
    folded = pa.array(fold_series(texts), type=pa.string())
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


def _tokens(plain: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each word, in order: the index of its text, and a number for the word (-1: no word)."""
    lists = pc.split_pattern(plain, " ")
    owner = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    encoded = pc.list_flatten(lists).dictionary_encode()
    tokens = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    blank = pc.index(encoded.dictionary, "").as_py()
    tokens[tokens == blank] = -1
    return owner.astype(np.int64), tokens


def _distinct_bigrams(
    owner: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64], n: int
) -> npt.NDArray[np.float64]:
    """Distinct pairs of neighbouring words among all of a text's pairs; 1 when it has none."""
    inside = owner[1:] == owner[:-1]
    vocabulary = int(tokens.max(initial=0)) + 1
    pairs = (tokens[:-1] * vocabulary + tokens[1:])[inside]
    _, pair_ids = np.unique(pairs, return_inverse=True)
    of_text = owner[1:][inside]
    distinct = np.unique(of_text * (len(pairs) + 1) + pair_ids) // (len(pairs) + 1)
    total = np.bincount(of_text, minlength=n)
    return np.where(total > 0, np.bincount(distinct, minlength=n) / np.maximum(total, 1), 1.0)


def _share_without_runs(plain: pa.Array) -> npt.NDArray[np.float64]:
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
