"""The one way a SQLite database is opened."""

import contextlib
import sqlite3
import time
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
    try:
        _write_ahead(connection, time.monotonic() + timeout)
    except BaseException:
        connection.close()
        raise
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _write_ahead(connection: sqlite3.Connection, deadline: float) -> None:
    """Change to WAL, which only the first opener of a database needs.

    The change takes an exclusive lock. When several processes open a new database, SQLite
    refuses all but one at once, whatever the busy timeout: waiting for each other they would
    never end.
    """
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return  # done, or a place that has no WAL: then the database stays as it is
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


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
