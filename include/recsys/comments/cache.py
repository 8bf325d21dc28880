"""What is known of a text, kept by the hash of the text exactly as written.

A cache is a folder of immutable segments: each holds texts seen first by one run. Writers only
ever add a segment under a new name, so any number of processes may read and write at once; two
that score the same text write the same values twice, which does no harm. When there are many
segments one writer replaces them by their union. A segment that is damaged goes; what it held is
computed again."""

import logging
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from recsys.arrays import AnyArray, BoolArray, Int64Array, UInt64Array
from recsys.data.keys import run_starts
from recsys.publishing import atomic_path

_SEGMENTS = 16  # more than these are merged
_HASH = "hash"

# What NumPy raises for junk: a folder, a torn header, one that asks for more than there is memory.
# What is only out of reach for a moment is removed as well: it is a cache, and made again.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, MemoryError, NotImplementedError)
_DAMAGED_ARCHIVE = (zipfile.BadZipFile, zlib.error)

Columns = dict[str, AnyArray]

logger = logging.getLogger(__name__)


class TextCache:
    """Columns of values by text hash in `folder`; `columns` holds an array of each one's kind."""

    def __init__(self, folder: Path, columns: Columns) -> None:
        self._folder = folder
        self._kinds = {name: (column.dtype, column.shape[1:]) for name, column in columns.items()}

    def complete(
        self, wanted: UInt64Array, compute: Callable[[Int64Array], Columns]
    ) -> tuple[Columns, int]:
        """The values of the distinct hashes `wanted`, and how many of them were not known.
        `compute` gives the values of those, by their positions; they are stored."""
        known, values = self.look_up(wanted)
        new = np.flatnonzero(~known)
        computed = compute(new)
        self.add(wanted[new], computed)
        for name, column in computed.items():
            values[name][new] = column
        return values, len(new)

    def look_up(self, wanted: UInt64Array) -> tuple[BoolArray, Columns]:
        """Which of the distinct hashes `wanted` are known, and the values of each. The values of
        unknown hashes mean nothing."""
        order = np.argsort(wanted)
        ascending = wanted[order]
        known = np.zeros(len(wanted), dtype=np.bool_)
        values: Columns = {
            name: np.zeros((len(wanted), *shape), dtype)
            for name, (dtype, shape) in self._kinds.items()
        }
        read: set[Path] = set()
        while unread := [path for path in self._segments() if path not in read]:
            for path in unread:
                segment = self._load(path)
                if segment is not None and len(wanted):
                    hashes = segment.pop(_HASH)
                    # Both ascend, so that the search walks through memory in order.
                    at = np.minimum(np.searchsorted(ascending, hashes), len(ascending) - 1)
                    found = ascending[at] == hashes
                    rows = order[at[found]]
                    known[rows] = True
                    for name, column in segment.items():
                        values[name][rows] = column[found]
                read.add(path)
        return known, values

    def add(self, hashes: UInt64Array, columns: Columns) -> None:
        """Store values for `hashes`, one entry each in every column."""
        if len(hashes) == 0:
            return
        self._write([{_HASH: hashes, **columns}])
        segments = self._segments()
        if len(segments) > _SEGMENTS:
            self._merge(segments)

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("segment-*.npz"))

    def _write(self, segments: list[Columns]) -> None:
        """One segment with all entries of `segments`, each hash once, ascending."""
        joined = {name: np.concatenate([each[name] for each in segments]) for name in segments[0]}
        order = np.argsort(joined[_HASH])
        first = order[run_starts(joined[_HASH][order])]
        with (
            atomic_path(self._folder / f"segment-{uuid.uuid4().hex}.npz") as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(file, **cast(Any, {name: column[first] for name, column in joined.items()}))

    def _merge(self, segments: list[Path]) -> None:
        """Write the union first, then remove what it replaces: dying between leaves copies."""
        loaded = [segment for path in segments if (segment := self._load(path)) is not None]
        if len(loaded) < len(segments):  # another process is merging, or one was damaged
            return
        self._write(loaded)
        for path in segments:
            path.unlink(missing_ok=True)

    def _load(self, path: Path) -> Columns | None:
        """The columns of a segment; None if it is gone, or was damaged and is gone now. One that
        was merged away since it was listed: its union stands in the next list."""
        kinds = {_HASH: (np.dtype(np.uint64), ()), **self._kinds}
        try:
            with np.load(path, allow_pickle=False) as stored:
                columns = {name: stored[name] for name in kinds}
            for name, (dtype, shape) in kinds.items():
                found = columns[name]
                if found.dtype != dtype or found.shape != (len(columns[_HASH]), *shape):
                    raise ValueError(f"{name} is {found.dtype} {found.shape}")
        except FileNotFoundError:
            return None
        except (*_DAMAGED, *_DAMAGED_ARCHIVE) as error:
            logger.warning("%s: damaged, and removed; it is made again: %s", path, error)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            return None
        return columns
