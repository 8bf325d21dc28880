"""Comments as sparse counts of word and character n-grams, hashed into a fixed width.

Three blocks side by side, one for each view of a text: words (with accents), folded words, and
characters of the folded text. The folded blocks carry over to comments typed without accents.

Before that, what Vietnamese shoppers type is spelled out: teencode, emoji, drawn-out letters."""

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from recsys.arrays import Int64Array, IntegerArray, UInt64Array
from recsys.columns import fold_texts, normalise_texts
from recsys.comments.pieces import Pieces, in_parts, pieces_of, windows
from recsys.data.keys import MULTIPLIER, one_chunk, run_starts

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


_BUCKET_BITS = 18
BUCKETS = 1 << _BUCKET_BITS  # columns of one block
BLOCKS = 3
WIDTH = BLOCKS * BUCKETS
CHARACTER_SIZES = (3, 4, 5)
_TEXT_AT = 20  # bits of a column, below those of a text
_TOGETHER = 1_024  # texts at a time: their n-grams stay in the processor's cache
_NOTHING, _BLANK = (pa.scalar(text, pa.large_string()) for text in ("", " "))

UsedT = TypeVar("UsedT")


def in_counts(
    texts: pd.Series, use: Callable[[sparse.csr_matrix], UsedT]
) -> Iterator[tuple[slice, UsedT]]:
    """What `use` makes of the counts of `texts`, some at a time, on all cores: pairs of (rows, that
    of those rows). Only few counts exist at a time, so memory does not grow with the texts."""

    def used(part: pa.LargeStringArray) -> list[UsedT]:
        return [use(counts) for counts in _counts(part)]

    for rows, parts in in_parts(one_chunk(texts), used):
        for at, one in zip(range(rows.start, rows.stop, _TOGETHER), parts, strict=True):
            yield slice(at, min(at + _TOGETHER, rows.stop)), one


def count(texts: pd.Series) -> sparse.csr_matrix:
    """float32 counts, one row a text, `WIDTH` columns, which ascend. `texts`: str."""
    counts = [counts for _, counts in in_counts(texts, lambda counts: counts)]
    none = sparse.csr_matrix((0, WIDTH), dtype=np.float32)
    return sparse.vstack([none, *counts], format="csr")


def _counts(texts: pa.LargeStringArray) -> Iterator[sparse.csr_matrix]:
    words = _words(texts)
    folded = fold_texts(words.vocabulary)
    # Each text as its folded words, with a blank at either end.
    plain = Pieces(words.owner, words.ids, folded).joined(len(texts))
    plain = pc.binary_join_element_wise(_NOTHING, plain, _NOTHING, _BLANK)
    hashes = [_hash(words.vocabulary), _hash(folded)]
    bounds = np.searchsorted(words.owner, np.arange(0, len(texts) + _TOGETHER, _TOGETHER))
    for at, first, last in zip(itertools.count(0, _TOGETHER), bounds, bounds[1:], strict=False):
        owner, ids = words.owner[first:last] - at, words.ids[first:last]
        part = plain[at : at + _TOGETHER]
        grams = [_word_ngrams(owner, of_word[ids]) for of_word in hashes]
        yield _matrix([*grams, windows(part, CHARACTER_SIZES)], len(part))


def _words(texts: pa.LargeStringArray) -> Pieces:
    """The words of `texts`, spelled out."""
    pieces = pieces_of(texts)
    lower = pc.utf8_lower(normalise_texts(pieces.vocabulary))
    # Everything but letters and digits is a word of its own; emoji variants are one emoji.
    spaced = pc.replace_substring_regex(lower, r"[\x{fe00}-\x{fe0f}\x{200d}]|\p{M}", "")
    spaced = pc.replace_substring_regex(spaced, r"([^\p{L}\p{N}\s])", r" \1 ")
    words = pieces.replaced(pc.utf8_split_whitespace(spaced))
    meant = [spelled_out(word).split() for word in words.vocabulary.to_pylist()]
    return words.replaced(pa.array(meant, pa.list_(pa.large_string())))


def _hash(words: pa.LargeStringArray) -> UInt64Array:
    return pd.util.hash_array(words.to_numpy(zero_copy_only=False), categorize=False)


def _word_ngrams(owner: Int64Array, words: UInt64Array) -> tuple[Int64Array, UInt64Array]:
    """Owner and hash of each word and each pair of neighbours."""
    pair = owner[1:] == owner[:-1]
    pairs = (words[:-1] * MULTIPLIER + words[1:])[pair]
    return np.concatenate([owner, owner[1:][pair]]), np.concatenate([words, pairs])


def _matrix(blocks: Sequence[tuple[IntegerArray, UInt64Array]], n: int) -> sparse.csr_matrix:
    """Counts of the hashes of each of `n` texts: a block of columns for each of `blocks`."""
    cells = []
    for block, (owner, hashes) in enumerate(blocks):
        # The best-mixed bits of a product are its highest.
        columns = hashes * MULTIPLIER
        columns >>= np.uint64(64 - _BUCKET_BITS)
        first = owner.astype(np.uint32) << np.uint32(_TEXT_AT) | np.uint32(block * BUCKETS)
        cells.append(first | columns.astype(np.uint32))
    # Text and column in 32 bits: equal ones stand together as soon as these are sorted.
    ordered = np.sort(np.concatenate(cells))
    starts = run_starts(ordered)
    cell = ordered[starts]
    counts = np.diff(starts, append=len(ordered)).astype(np.float32)
    columns = (cell & np.uint32((1 << _TEXT_AT) - 1)).astype(np.int32)
    ends = np.searchsorted(cell >> np.uint32(_TEXT_AT), np.arange(n + 1))
    return sparse.csr_matrix((counts, columns, ends.astype(np.int32)), shape=(n, WIDTH))
