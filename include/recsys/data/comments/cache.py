"""What is known of a text, kept by the hash of the text exactly as written.

A cache is a folder of immutable segments: each holds texts seen first by one run. Writers only
ever add a segment under a new name, so any number of processes may read and write at once; two
that score the same text write the same values twice, which does no harm. When there are many
segments one writer replaces them by their union.
"""

import uuid
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from recsys.data.comments.shingles import UInt64
from recsys.publishing import atomic_path

_SEGMENTS = 16  # more than these are merged
_ATTEMPTS = 5
_HASH = "hash"

Columns = dict[str, npt.NDArray[Any]]


class TextCache:
    """Columns of values by text hash in the folder `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> tuple[UInt64, Columns]:
        """All hashes, ascending and distinct, and the values that belong to them."""
        for _ in range(_ATTEMPTS):
            try:
                return _union([_load(path) for path in self._segments()])
            except FileNotFoundError:  # merged away between listing and opening: list again
                continue
        raise TimeoutError(f"{self._folder}: segments keep disappearing")

    def add(self, hashes: UInt64, columns: Columns) -> None:
        """Store values for `hashes`, one entry each in every column."""
        if len(hashes) == 0:
            return
        self._write({_HASH: hashes, **columns})
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
            hashes, columns = _union([_load(path) for path in segments])
        except FileNotFoundError:  # another process is merging
            return
        self._write({_HASH: hashes, **columns})
        for path in segments:
            path.unlink(missing_ok=True)


def find(known: UInt64, wanted: UInt64) -> npt.NDArray[np.int64]:
    """Position of each wanted hash among the ascending `known`, -1 where it is not there."""
    if len(known) == 0:
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, at, -1)


def _load(path: Path) -> Columns:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _union(segments: list[Columns]) -> tuple[UInt64, Columns]:
    if not segments:
        return np.zeros(0, dtype=np.uint64), {}
    hashes, first = np.unique(
        np.concatenate([segment[_HASH] for segment in segments]), return_index=True
    )
    names = [name for name in segments[0] if name != _HASH]
    return hashes, {
        name: np.concatenate([segment[name] for segment in segments])[first] for name in names
    }
