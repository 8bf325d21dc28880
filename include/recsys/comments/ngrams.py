"""Comments as sparse counts of word and character n-grams, hashed into a fixed width.

Three blocks side by side, one for each view of a text: words (with accents), folded words, and
characters of the folded text. The folded blocks carry over to comments typed without accents.

Before that, what Vietnamese shoppers type is spelled out: teencode, emoji, drawn-out letters."""

import functools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from recsys.arrays import Int64Array, UInt64Array
from recsys.columns import fold_series, normalise_series
from recsys.comments.features import windows
from recsys.data.keys import MULTIPLIER, one_chunk
from recsys.settings import CORES

_RUN: Final = re.compile(r"([^\W\d_])\1{2,}")


def spelled_out(token: str) -> str:
    """The word or words that a lower-case `token` stands for.

    >>> [spelled_out(token) for token in ("ko", "sp", "tốtttt", "😍", "kem")]
    ['không', 'sản phẩm', 'tốt', '☺', 'kem']
    """
    token = _RUN.sub(r"\1", token)
    return _spellings().get(token, token)


@functools.cache
def _spellings() -> dict[str, str]:
    """What each short form and emoji of ``spellings.txt`` stands for."""
    lines = Path(__file__).with_name("spellings.txt").read_text(encoding="utf-8").splitlines()
    meanings = (line.split(": ") for line in lines)
    return {short: meant for meant, shorts in meanings for short in shorts.split(" ")}


BUCKETS = 1 << 18  # columns of one block
BLOCKS = 3
WIDTH = BLOCKS * BUCKETS
CHARACTER_SIZES = (3, 4, 5)
_CHUNK = 4_096  # texts at a time: some 50 MB of n-grams
_NOTHING, _BLANK = (pa.scalar(text, pa.large_string()) for text in ("", " "))
_SHIFT = np.uint64(64 - 18)


def in_chunks(texts: pd.Series) -> Iterator[tuple[slice, sparse.csr_matrix]]:
    """Count `texts` piece by piece, on two threads: pairs of (rows, counts of those rows). At most
    a few pieces exist at a time, so memory does not grow with the number of texts."""
    slices = [slice(at, min(at + _CHUNK, len(texts))) for at in range(0, len(texts), _CHUNK)]
    with ThreadPoolExecutor(CORES) as pool:
        for at in range(0, len(slices), CORES):
            group = slices[at : at + CORES]
            counts = pool.map(lambda rows: count(texts.iloc[rows]), group)
            yield from zip(group, counts, strict=True)


def count(texts: pd.Series) -> sparse.csr_matrix:
    """float32 counts, one row a text, `WIDTH` columns. `texts`: str."""
    owner, ids, vocabulary = _words(texts)
    folded = fold_series(vocabulary)
    # Each text as its folded words, with a blank at either end.
    plain = _joined(owner, ids, folded, len(texts))
    plain = pc.binary_join_element_wise(_NOTHING, plain, _NOTHING, _BLANK)
    blocks = [
        _matrix(*_word_ngrams(owner, _hash(vocabulary)[ids]), len(texts)),
        _matrix(*_word_ngrams(owner, _hash(folded)[ids]), len(texts)),
        _matrix(*windows(plain, CHARACTER_SIZES), len(texts)),
    ]
    return sparse.hstack(blocks, format="csr", dtype=np.float32)


def _words(texts: pd.Series) -> tuple[Int64Array, Int64Array, pd.Series]:
    """The words of `texts`, in order: the text of each, its place in the vocabulary, and that."""
    lower = pc.utf8_lower(one_chunk(normalise_series(texts)))
    # Everything but letters and digits is a word of its own; emoji variants are one emoji.
    spaced = pc.replace_substring_regex(lower, r"[\x{fe00}-\x{fe0f}\x{200d}]|\p{M}", "")
    spaced = pc.replace_substring_regex(spaced, r"([^\p{L}\p{N}\s])", r" \1 ")
    lists = pc.utf8_split_whitespace(spaced)
    owner = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    encoded = pc.list_flatten(lists).dictionary_encode()
    ids = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    # Splitting leaves "" at the ends of a text: it means no words at all.
    meant = [spelled_out(word).split() for word in encoded.dictionary.to_pylist()]
    vocabulary = pd.Series([word for words in meant for word in words], dtype="str")
    lengths = np.array([len(words) for words in meant], dtype=np.int64)
    return *_expand(owner, ids, lengths), vocabulary


def _expand(
    owner: Int64Array, ids: Int64Array, lengths: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Replace each word by the words it stands for: `lengths` of them, numbered one by one."""
    first = np.concatenate([[0], np.cumsum(lengths)])[:-1] if len(lengths) else lengths
    repeats = lengths[ids]
    position = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return np.repeat(owner, repeats), np.repeat(first[ids], repeats) + position


def _joined(owner: Int64Array, ids: Int64Array, vocabulary: pd.Series, n: int) -> pa.Array:
    offsets = np.searchsorted(owner, np.arange(n + 1)).astype(np.int32)
    words = one_chunk(vocabulary).take(pa.array(ids))
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), words), _BLANK)


def _hash(words: pd.Series) -> UInt64Array:
    return pd.util.hash_array(words.to_numpy(dtype=object), categorize=False)


def _word_ngrams(owner: Int64Array, words: UInt64Array) -> tuple[Int64Array, UInt64Array]:
    """Owner and hash of each word and each pair of neighbours."""
    pair = owner[1:] == owner[:-1]
    pairs = (words[:-1] * MULTIPLIER + words[1:])[pair]
    return np.concatenate([owner, owner[1:][pair]]), np.concatenate([words, pairs])


def _matrix(owner: Int64Array, hashes: UInt64Array, n: int) -> sparse.csr_matrix:
    # The best-mixed bits of a product are its highest.
    columns = (hashes * MULTIPLIER >> _SHIFT).astype(np.int32)
    ones = np.ones(len(columns), dtype=np.float32)
    return sparse.csr_matrix((ones, (owner.astype(np.int32), columns)), shape=(n, BUCKETS))
