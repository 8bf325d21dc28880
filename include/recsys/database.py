"""The one way a SQLite database is opened."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

BUSY_TIMEOUT_SECONDS = 30.0


def connect(
    path: Path, *, timeout: float = BUSY_TIMEOUT_SECONDS, shared: bool = False
) -> sqlite3.Connection:
    """Open (and create) the database `path`: WAL, foreign keys, rows readable by column name.

    Transactions are explicit: see `transaction`. `timeout` is in seconds. A `shared` connection
    may be used by several threads, which must take turns by a lock of their own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(
        path, timeout=timeout, isolation_level=None, check_same_thread=not shared
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    # Changing the journal mode takes an exclusive lock: only the first opener needs it.
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One write transaction: taken at once (so that it queues instead of failing half way),
    committed at the end of the block, rolled back on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # SQLite ends a transaction by itself when the disk is full: a second ROLLBACK would hide
        # the reason behind an error of its own.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
