"""What is kept, for how long, and what holds it back: the one way in which anything is removed.

Each area declares a `Retention` for every kind of file, folder or row that it piles up. The weekly
upkeep executes all of them; a job that has just made something new executes its own."""

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from recsys.database import connect, transaction
from recsys.errors import InputError
from recsys.settings import Settings

ABANDONED_AFTER: Final = timedelta(days=2)
"""What runs that died left behind is removed after this time."""

_EXAMPLES: Final = 10
# Rewriting a database locks its writers out for a moment: only when it shrinks by this share.
_WORTH_A_REWRITE: Final = 0.25
_TABLE: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"

Paths = Collection[Path]


class BoundaryError(InputError):
    """A path lies outside the state root, or leads there by a symbolic link."""


def remove_path(path: Path) -> bool:
    """Remove a file, a link (not what it leads to) or a whole folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return True


@dataclass(frozen=True)
class Retention:
    """Files or folders in the folder `root`; `what` people call them. Of those `found`, one may go
    when nothing has changed in it for `age`, unless it is `kept_by` whatever its age; what that
    raises leaves everything in place. `remove` removes one; False if somebody is using it."""

    what: str
    root: Path
    found: Callable[[], Iterable[Path]]
    age: timedelta = timedelta(0)
    kept_by: Callable[[list[Path]], Paths] = lambda _: ()
    remove: Callable[[Path], bool] = remove_path

    def doomed(self) -> list[Path]:
        """What may go now, in order of the names; also what somebody has open."""
        found = sorted(self.found())
        limit = (datetime.now(UTC) - self.age).timestamp()
        old = [path for path in found if not self.age or newest_change(path) < limit]
        kept = set(self.kept_by(found)) if old else set()
        return [path for path in old if path not in kept]


@dataclass(frozen=True)
class RowRetention:
    """Rows of one table; `condition` is that on rows before a moment, which takes its place as ISO
    8601 text in UTC with microseconds."""

    what: str
    database: Path
    table: str
    age: timedelta
    condition: str

    def older(self, moment: datetime) -> tuple[str, list[str]]:
        """The condition and its values."""
        return self.condition, [moment.astimezone(UTC).isoformat(timespec="microseconds")]


class Removal:
    """Executes declarations, inside the state root only, and adds up what that freed; with
    `dry_run` it only counts: ``Removal(settings).execute([Retention("caches", root, files)])``."""

    def __init__(self, settings: Settings, *, dry_run: bool = False) -> None:
        self.dry_run = dry_run
        self._home = settings.home.resolve()
        self._areas: dict[str, dict[str, Any]] = {}

    def execute(self, retentions: Iterable[Retention | RowRetention]) -> dict[str, Any]:
        """Remove what may go. Returns ``{what: {count, freed_bytes, examples}}`` of what went.
        Raises `BoundaryError` before anything is removed if an area leads out of the state root."""
        retentions = list(retentions)
        for one in retentions:
            place = one.root / "any" if isinstance(one, Retention) else one.database
            self._require_inside(place)
            if isinstance(one, RowRetention):
                self._require_inside(place.resolve())
        for one in retentions:
            if isinstance(one, Retention):
                self._execute(one)
            else:
                self._execute_rows(one)
        return dict(self._areas)

    def count(self, what: str, name: str, freed_bytes: int, count: int = 1) -> None:
        """Add to the summary what went in another way."""
        area = self._areas.setdefault(what, {"count": 0, "freed_bytes": 0, "examples": []})
        area["count"] += count
        area["freed_bytes"] += freed_bytes
        if len(area["examples"]) < _EXAMPLES:
            area["examples"].append(name)

    def _execute(self, retention: Retention) -> None:
        doomed = retention.doomed()
        for path in doomed:
            self._require_inside(path)
        for path in doomed:
            size = size_of(path)
            if self.dry_run or retention.remove(path):
                self.count(retention.what, path.name, size)

    def _execute_rows(self, retention: RowRetention) -> None:
        path = retention.database
        if not path.is_file():
            return
        condition, values = retention.older(datetime.now(UTC) - retention.age)
        rows = f"FROM {retention.table} WHERE {condition}"
        with contextlib.closing(connect(path)) as connection:
            if connection.execute(_TABLE, (retention.table,)).fetchone() is None:
                return
            freed = 0
            if self.dry_run:
                [count] = connection.execute(f"SELECT count(*) {rows}", values).fetchone()
            else:
                with transaction(connection):
                    count = connection.execute(f"DELETE {rows}", values).rowcount
                freed = _give_back(connection, path)
        if count or freed:
            self.count(retention.what, path.name, freed, count)

    def _require_inside(self, path: Path) -> None:
        """Parents are resolved, so that a linked folder cannot lead elsewhere."""
        parent = path.parent.resolve()
        if not parent.is_relative_to(self._home) or path.name in ("", ".", ".."):
            raise BoundaryError(
                f"{path}: leads to {parent / path.name}, outside of the state root "
                f"{self._home}; nothing of this area was removed"
            )


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder. Links count as themselves; 0 if gone."""
    return sum(status.st_size for status in _statuses(path) if not stat.S_ISDIR(status.st_mode))


def newest_change(path: Path) -> float:
    """Seconds since 1970 of the newest change of a file, or of anything below a folder."""
    return max((status.st_mtime for status in _statuses(path)), default=0.0)


def _statuses(path: Path) -> Iterator[os.stat_result]:
    """Of the file, or of a folder and all below it; what is gone meanwhile has none."""
    with contextlib.suppress(FileNotFoundError):
        yield path.lstat()
    for parent, folders, files in os.walk(path) if not path.is_symlink() else ():
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                yield Path(parent, name).lstat()


def _give_back(connection: sqlite3.Connection, path: Path) -> int:
    """Return unused pages to the file system; how many bytes smaller the file is now."""
    [free] = connection.execute("PRAGMA freelist_count").fetchone()
    [pages] = connection.execute("PRAGMA page_count").fetchone()
    if free < _WORTH_A_REWRITE * pages:
        return 0
    before = path.stat().st_size
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return max(0, before - path.stat().st_size)
