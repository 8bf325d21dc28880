"""Comments as sparse counts of word and character n-grams, hashed into a fixed width.

Three blocks side by side, one for each view of a text: words (with accents), folded words, and
characters of the folded text. The folded blocks carry over to comments typed without accents.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from recsys.comments.shingles import MULTIPLIER, Int64, UInt64, windows
from recsys.comments.teencode import spelled_out
from recsys.settings import CORES
from recsys.text_columns import fold_series, normalise_series

BUCKETS = 1 << 18  # columns of one block
BLOCKS = 3
WIDTH = BLOCKS * BUCKETS
CHARACTER_SIZES = (3, 4, 5)
_CHUNK = 4_096  # texts at a time: some 50 MB of n-grams
_SHIFT = np.uint64(64 - 18)


@dataclass(frozen=True)
class _Words:
    """The words of some texts, in order: the text's index and two hashes for each word."""

    owner: Int64
    accented: UInt64
    folded: UInt64
    plain: pa.Array  # each text as its folded words between single blanks


def in_chunks(texts: pd.Series) -> Iterator[tuple[slice, sparse.csr_matrix]]:
    """Count `texts` piece by piece, on two threads: pairs of (rows, counts of those rows).

    At most a few pieces exist at a time, so memory does not grow with the number of texts.
    """
    starts = range(0, len(texts), _CHUNK)
    slices = [slice(at, min(at + _CHUNK, len(texts))) for at in starts]
    with ThreadPoolExecutor(CORES) as pool:
        for at in range(0, len(slices), CORES):
            group = slices[at : at + CORES]
            yield from zip(
                group, pool.map(lambda rows: count(texts.iloc[rows]), group), strict=True
            )


def count(texts: pd.Series) -> sparse.csr_matrix:
    """float32 counts, one row a text, `WIDTH` columns. `texts`: str."""
    words = _words(texts)
    n = len(texts)
    blocks = [
        _matrix(*_word_ngrams(words.owner, words.accented), n),
        _matrix(*_word_ngrams(words.owner, words.folded), n),
        _matrix(*_character_ngrams(words.plain), n),
    ]
    return sparse.hstack(blocks, format="csr", dtype=np.float32)


def _words(texts: pd.Series) -> _Words:
    lower = pc.utf8_lower(pa.array(normalise_series(texts), type=pa.string()))
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
    owner, ids = _expand(owner, ids, lengths)
    folded = fold_series(vocabulary)
    return _Words(
        owner,
        _hash(vocabulary)[ids],
        _hash(folded)[ids],
        _joined(owner, ids, folded, len(texts)),
    )


def _expand(owner: Int64, ids: Int64, lengths: Int64) -> tuple[Int64, Int64]:
    """Replace each word by the words it stands for: `lengths` of them, numbered one by one."""
    first = np.concatenate([[0], np.cumsum(lengths)])[:-1] if len(lengths) else lengths
    repeats = lengths[ids]
    position = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return np.repeat(owner, repeats), np.repeat(first[ids], repeats) + position


def _joined(owner: Int64, ids: Int64, vocabulary: pd.Series, n: int) -> pa.Array:
    offsets = np.searchsorted(owner, np.arange(n + 1)).astype(np.int32)
    words = pa.array(vocabulary, type=pa.string()).take(pa.array(ids))
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), words), " ")


def _hash(words: pd.Series) -> UInt64:
    return pd.util.hash_array(words.to_numpy(dtype=object), categorize=False)


def _word_ngrams(owner: Int64, words: UInt64) -> tuple[Int64, UInt64]:
    """Owner and hash of each word and each pair of neighbours."""
    pair = owner[1:] == owner[:-1]
    pairs = (words[:-1] * MULTIPLIER + words[1:])[pair]
    return np.concatenate([owner, owner[1:][pair]]), np.concatenate([words, pairs])


def _character_ngrams(plain: pa.Array) -> tuple[Int64, UInt64]:
    """Owner and hash of each window of 3 to 5 bytes of a text with a blank at either end."""
    padded = pc.binary_join_element_wise("", plain, "", " ")
    return windows(padded, CHARACTER_SIZES)


def _matrix(owner: Int64, hashes: UInt64, n: int) -> sparse.csr_matrix:
    # The best-mixed bits of a product are its highest.
    columns = (hashes * MULTIPLIER >> _SHIFT).astype(np.int32)
    ones = np.ones(len(columns), dtype=np.float32)
    return sparse.csr_matrix((ones, (owner.astype(np.int32), columns)), shape=(n, BUCKETS))
