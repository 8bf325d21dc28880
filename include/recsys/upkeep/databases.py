"""Old rows of our SQLite databases, and the space they took."""

import contextlib
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from recsys import request_log
from recsys.database import connect, transaction
from recsys.settings import Settings
from recsys.upkeep.removal import Removal

# Rewriting a database locks its writers out for a moment: only when it shrinks by this share.
_WORTH_A_REWRITE: Final = 0.25
_TABLE: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
_OLD_RUNS: Final = ("pipeline_runs", "status <> 'running' AND started_at < ?")


def remove_old_rows(
    settings: Settings, request_days: float, run_days: float, removal: Removal
) -> None:
    """Remove rows of the request log and of the record of runs by age; running ones stay."""
    removal.require_inside(settings.service_db, settings.pipeline_db)
    now = datetime.now(UTC)
    condition, values = request_log.rows_before(now - timedelta(days=request_days))
    _clean(settings.service_db, "request log", (request_log.TABLE, condition), values, removal)
    # The table's text format of times, so that text order is time order.
    oldest = (now - timedelta(days=run_days)).isoformat(timespec="microseconds")
    _clean(settings.pipeline_db, "run records", _OLD_RUNS, (oldest,), removal)


def _clean(
    path: Path, area: str, rows: tuple[str, str], values: Sequence[str], removal: Removal
) -> None:
    if path.is_symlink():
        removal.require_inside(path.resolve())
    if not path.is_file():
        return
    table, condition = rows
    with contextlib.closing(connect(path)) as connection:
        if connection.execute(_TABLE, (table,)).fetchone() is None:
            return
        if removal.dry_run:
            query = f"SELECT count(*) FROM {table} WHERE {condition}"  # noqa: S608
            count, freed = connection.execute(query, values).fetchone()[0], 0
        else:
            with transaction(connection):
                query = f"DELETE FROM {table} WHERE {condition}"  # noqa: S608
                count = connection.execute(query, values).rowcount
            freed = _give_back(connection, path)
    if count or freed:
        removal.count(area, path.name, freed, count)


def _give_back(connection: sqlite3.Connection, path: Path) -> int:
    """Return unused pages to the file system; how many bytes smaller the file is now."""
    free, pages = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("freelist_count", "page_count")
    )
    if free < _WORTH_A_REWRITE * pages:
        return 0
    before = path.stat().st_size
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return max(0, before - path.stat().st_size)
