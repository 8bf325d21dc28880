"""What is known of a text, kept by the hash of the text exactly as written.

A cache is a folder of immutable segments: each holds texts seen first by one run. Writers only
ever add a segment under a new name, so any number of processes may read and write at once; two
that score the same text write the same values twice, which does no harm. When there are many
segments one writer replaces them by their union.
"""

import contextlib
import uuid
from pathlib import Path
from typing import Any, cast

import numpy as np

from recsys.arrays import AnyArray, BoolArray, Int64Array, UInt64Array
from recsys.publishing import atomic_path

_SEGMENTS = 16  # more than these are merged
_HASH = "hash"

Columns = dict[str, AnyArray]


class TextCache:
    """Columns of values by text hash in the folder `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def look_up(self, wanted: UInt64Array) -> tuple[BoolArray, Columns]:
        """Which of the distinct hashes `wanted` are known, and the values of each.

        The values of unknown hashes mean nothing. There are no columns if the cache is empty.
        """
        order = np.argsort(wanted)
        ascending = wanted[order]
        known = np.zeros(len(wanted), dtype=np.bool_)
        values: Columns = {}
        read: set[Path] = set()
        while unread := [path for path in self._segments() if path not in read]:
            for path in unread:
                # One that was merged away since it was listed: its union stands in the next list.
                with contextlib.suppress(FileNotFoundError):
                    _fill(known, values, _load(path), ascending, order)
                read.add(path)
        return known, values

    def add(self, hashes: UInt64Array, columns: Columns) -> None:
        """Store values for `hashes`, one entry each in every column."""
        if len(hashes) == 0:
            return
        self._write(_union([{_HASH: hashes, **columns}]))
        segments = self._segments()
        if len(segments) > _SEGMENTS:
            self._merge(segments)

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("segment-*.npz"))

    def _write(self, columns: Columns) -> None:
        with (
            atomic_path(self._folder / f"segment-{uuid.uuid4().hex}.npz") as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(file, **cast(Any, columns))

    def _merge(self, segments: list[Path]) -> None:
        """Write the union first, then remove what it replaces: dying between leaves copies."""
        try:
            union = _union([_load(path) for path in segments])
        except FileNotFoundError:  # another process is merging
            return
        self._write(union)
        for path in segments:
            path.unlink(missing_ok=True)


def _fill(
    known: BoolArray,
    values: Columns,
    segment: Columns,
    ascending: UInt64Array,
    order: Int64Array,
) -> None:
    """Put what `segment` says of the hashes ``ascending = wanted[order]`` at their places."""
    hashes = segment.pop(_HASH)
    for name, column in segment.items():
        if name not in values:
            values[name] = np.zeros((len(order), *column.shape[1:]), dtype=column.dtype)
    if len(ascending) == 0:
        return
    # Both ascend, so that the search walks through memory in order.
    at = np.minimum(np.searchsorted(ascending, hashes), len(ascending) - 1)
    found = ascending[at] == hashes
    rows = order[at[found]]
    known[rows] = True
    for name, column in segment.items():
        values[name][rows] = column[found]


def _load(path: Path) -> Columns:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _union(segments: list[Columns]) -> Columns:
    """All entries of one or more segments, each hash once, ascending."""
    _, first = np.unique(
        np.concatenate([segment[_HASH] for segment in segments]), return_index=True
    )
    return {
        name: np.concatenate([segment[name] for segment in segments])[first] for name in segments[0]
    }
