"""Texts as the pieces between their blanks. Shoppers use few words: whatever is true of a piece
alone is found once for each different one, and costs a text next to nothing."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.arrays import Int32Array, Int64Array, UInt64Array, entries_of
from recsys.data.keys import MULTIPLIER, bytes_of
from recsys.settings import CORES

_TEXTS = 16_384  # of a part
_BYTES = 1 << 22  # of a part that is more than one text
_BLANK = pa.scalar(" ", pa.large_string())

PartT = TypeVar("PartT")


@dataclass(frozen=True)
class Pieces:
    """The pieces of some texts, in order. `owner`: the text of each, ascending; `ids`: its place
    in `vocabulary`, which has each different piece once."""

    owner: Int64Array
    ids: Int64Array
    vocabulary: pa.LargeStringArray

    def replaced(self, meant: pa.ListArray) -> "Pieces":
        """Each piece replaced by the texts that `meant` has in its place; "" goes.

        >>> text = pieces_of(pa.array(["son,kem ,", "kem"], pa.large_string()))
        >>> text.replaced(pc.split_pattern(text.vocabulary, ",")).joined(2).to_pylist()
        ['son kem', 'kem']
        """
        words = pc.list_flatten(meant)
        something = pc.not_equal(words, "")
        of_piece = pc.list_parent_indices(meant).filter(something).to_numpy()
        lengths = np.bincount(of_piece, minlength=len(meant))
        encoded = words.filter(something).dictionary_encode()
        at, _ = entries_of((np.cumsum(lengths) - lengths)[self.ids], lengths[self.ids])
        ids = encoded.indices.to_numpy().astype(np.int64)[at]
        return Pieces(np.repeat(self.owner, lengths[self.ids]), ids, encoded.dictionary)

    def joined(self, n: int) -> pa.LargeStringArray:
        """The `n` texts, with one blank between pieces."""
        ends = np.searchsorted(self.owner, np.arange(n + 1)).astype(np.int32)
        words = self.vocabulary.take(pa.array(self.ids))
        return pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), words), _BLANK)


def pieces_of(texts: pa.LargeStringArray) -> Pieces:
    """What stands between blanks (U+0020) in each text, "" where nothing does."""
    lists = pc.split_pattern(texts, " ")
    owner = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    encoded = pc.list_flatten(lists).dictionary_encode()
    ids = encoded.indices.to_numpy(zero_copy_only=False)
    return Pieces(owner.astype(np.int64), ids.astype(np.int64), encoded.dictionary)


def in_parts(
    texts: pa.LargeStringArray, use: Callable[[pa.LargeStringArray], PartT]
) -> Iterator[tuple[slice, PartT]]:
    """What `use` makes of `texts`, part by part, on all cores: which texts, and that. A part is
    one text, or at most so many texts and bytes, so that what `use` needs does not grow."""
    parts = list(_parts(texts))
    with ThreadPoolExecutor(CORES) as pool:
        yield from zip(parts, pool.map(lambda part: use(texts[part]), parts), strict=True)


def _parts(texts: pa.LargeStringArray) -> Iterator[slice]:
    ends, _ = bytes_of(texts)
    first = 0
    while first < len(texts):
        within = int(np.searchsorted(ends, ends[first] + _BYTES, side="right")) - 1
        last = min(max(within, first + 1), first + _TEXTS, len(texts))
        yield slice(first, last)
        first = last


def windows(texts: pa.LargeStringArray, sizes: tuple[int, ...]) -> tuple[Int32Array, UInt64Array]:
    """Text index and hash of every window of each size (in bytes, ascending, at least 2). Windows
    of one size come in the order of the texts; no window crosses from one into the next."""
    offsets, data = bytes_of(texts)
    owner = np.repeat(np.arange(len(texts), dtype=np.int32), np.diff(offsets))
    owners, hashes = [], []
    content = data.astype(np.uint64)
    window = content
    for step in range(1, max(sizes)):
        window = window[:-1] * MULTIPLIER
        window += content[step:]
        if step + 1 in sizes:
            inside = owner[step:] == owner[:-step]
            owners.append(owner[step:][inside])
            hashes.append(window[inside])
    return np.concatenate(owners), np.concatenate(hashes)
