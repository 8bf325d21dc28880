"""The one way maintenance removes files: inside the state root only, counted, or just counted."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.settings import Settings

EXAMPLES = 10


class BoundaryError(InputError):
    """A path lies outside the state root, or leads there by a symbolic link."""


class Removal:
    """Removes what one step asks for, and adds up what that freed.

    Parameters
    ----------
    settings
        Nothing outside of its state root is touched.
    dry_run
        Only count.
    """

    def __init__(self, settings: Settings, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self._home = settings.home.resolve()
        self._areas: dict[str, dict[str, Any]] = {}

    def require_inside(self, *paths: Path) -> None:
        """Raises `BoundaryError` for a path that is not really below the state root.

        Parents are resolved, so that a linked folder cannot lead elsewhere.
        """
        for path in paths:
            parent = path.parent.resolve()
            if not parent.is_relative_to(self._home) or path.name in ("", ".", ".."):
                raise BoundaryError(
                    f"{path}: leads to {parent / path.name}, outside of the state root "
                    f"{self._home}; nothing of this area was removed"
                )

    def require_real_folder(self, *folders: Path) -> None:
        """Raises `BoundaryError` for a folder that leads out of the state root."""
        for folder in folders:
            self.require_inside(folder / "anything")

    def remove(self, area: str, paths: Iterable[Path]) -> None:
        """Remove files, links (not what they lead to) and whole folders, or nothing at all.

        Raises `BoundaryError` before anything is removed if one of them lies outside.
        """
        doomed = sorted(paths)
        self.require_inside(*doomed)
        for path in doomed:
            size = size_of(path)
            if not self.dry_run:
                _remove(path)
            self.count(area, path.name, size)

    def count(self, area: str, name: str, freed_bytes: int, count: int = 1) -> None:
        """Add something that went to the summary of `area`."""
        entry = self._areas.setdefault(area, {"count": 0, "freed_bytes": 0, "examples": []})
        entry["count"] += count
        entry["freed_bytes"] += freed_bytes
        if len(entry["examples"]) < EXAMPLES:
            entry["examples"].append(name)

    def summary(self) -> dict[str, Any]:
        """``{area: {count, freed_bytes, examples}}`` of the areas in which anything went."""
        return dict(self._areas)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder. Links count as themselves; 0 if gone."""
    if not path.is_dir() or path.is_symlink():
        return _bytes(path)
    return sum(_bytes(Path(parent) / name) for parent, _, names in os.walk(path) for name in names)


def newest_change(path: Path) -> float:
    """Seconds since 1970 of the newest change of a file, or of anything below a folder."""
    times = [_modified(path)]
    if path.is_dir() and not path.is_symlink():
        times += [
            _modified(Path(parent) / name)
            for parent, folders, files in os.walk(path)
            for name in (*folders, *files)
        ]
    return max(times)


def older_than(paths: Iterable[Path], moment: float) -> list[Path]:
    """Those of `paths` in which nothing has changed since `moment` (seconds since 1970)."""
    return [path for path in paths if newest_change(path) < moment]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _bytes(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
