"""The one way a SQLite database is opened, and what becomes of one that is damaged."""

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import filelock

from recsys.publishing import set_aside

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_SECONDS = 30.0
# The last: a statement of ours that fits no table there.
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


class _SavepointCursor(sqlite3.Cursor):
    def execute(self, sql: str, *parameters: Any) -> Self:
        if sql.startswith("SAVEPOINT") and not self.connection.in_transaction:
            super().execute("BEGIN IMMEDIATE")
        return super().execute(sql, *parameters)


class _SavepointConnection(sqlite3.Connection):
    def cursor(self, factory: Any = _SavepointCursor) -> Any:
        return super().cursor(factory)


# Arguments of SQLAlchemy's `create_engine`. Python begins transactions before changes only: the
# release of a savepoint outside of one commits, and who reads in it first may not write any more
# once another has written.
SAVEPOINTS: Final = {"factory": _SavepointConnection}


def connect(
    path: Path, *, timeout: float = BUSY_TIMEOUT_SECONDS, shared: bool = False
) -> sqlite3.Connection:
    """Open (and create) the database `path`: WAL, foreign keys, rows readable by column name,
    explicit transactions (`transaction`). `timeout` is in seconds. A `shared` connection may be
    used by several threads, which must take turns by a lock of their own. What SQLite raises has
    the path as a note."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            path, timeout=timeout, isolation_level=None, check_same_thread=not shared
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        _write_ahead(connection, time.monotonic() + timeout)
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException as error:
        error.add_note(str(path))
        if connection is not None:
            connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection, deadline: float) -> None:
    """Change to WAL, which only the first opener of a database needs. Of several who try, SQLite
    refuses all but one at once, whatever the busy timeout, lest they wait for one another."""
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


class HelperDatabase:
    """A database whose loss costs little: junk, a truncated file, tables of others or a folder in
    its place are set aside when it is used, and it is made again. A disk that cannot be read or
    written is the caller's problem, and the next use tries again. Uses take turns. `prepare` makes
    the tables, and raises `sqlite3.Error` if those that are there are others."""

    def __init__(
        self,
        path: Path,
        prepare: Callable[[sqlite3.Connection], None],
        *,
        timeout: float = BUSY_TIMEOUT_SECONDS,
    ) -> None:
        self._path, self._prepare, self._timeout = path, prepare, timeout
        self._lock = threading.Lock()
        self._renewing = filelock.FileLock(f"{path}.lock", timeout=timeout)
        self._connection: sqlite3.Connection | None = None
        self._inode, self._process, self._suspect = 0, 0, False

    @contextlib.contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """The open database. Raises `sqlite3.Error` or `OSError` if there is none to be had."""
        with self._lock:
            connection = self._opened()
            try:
                yield connection
            except sqlite3.Error as error:
                if _is_damage(self._path, error):
                    self._suspect = True
                    self._drop()
                raise

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _opened(self) -> sqlite3.Connection:
        if self._process != os.getpid():
            # SQLite's connections do not survive a fork: that of the parent is left alone.
            self._connection, self._process = None, os.getpid()
        if self._connection is not None and self._replaced():
            self._drop()
        if self._connection is None:
            self._set_aside_if_emptied()
            try:
                self._connection = self._open()
            except sqlite3.Error as error:
                if not _is_damage(self._path, error):
                    raise
                self._connection = self._renewed()
            self._suspect, self._inode = False, self._path.stat().st_ino
        return self._connection

    def _replaced(self) -> bool:
        """Whether another process has set the file aside, or it was emptied and has to be."""
        inode, size = self._there()
        return inode != self._inode or not size

    def _set_aside_if_emptied(self) -> None:
        """The connections of an empty file, of whatever process, lock each other out, and write
        where nobody reads. Beside one that is new there is no log yet."""

        def emptied() -> bool:
            inode, size = self._there()
            return bool(inode) and not size and Path(f"{self._path}-wal").exists()

        if emptied():
            with self._renewing:
                if emptied():
                    self._set_aside("it was emptied")

    def _there(self) -> tuple[int, int]:
        """Inode and bytes of the file that has the name now."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return 0, 0
        return status.st_ino, status.st_size

    def _open(self) -> sqlite3.Connection:
        connection = connect(self._path, timeout=self._timeout, shared=True)
        try:
            self._prepare(connection)
            if self._suspect:
                [said] = connection.execute("PRAGMA quick_check(1)").fetchone()
                if said != "ok":
                    raise sqlite3.DatabaseError(f"{self._path}: {said}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _renewed(self) -> sqlite3.Connection:
        # One process sets aside, the others find what it made.
        with self._renewing:
            try:
                return self._open()
            except sqlite3.Error as error:
                if not _is_damage(self._path, error):
                    raise
                self._set_aside(error)
                return self._open()

    def _set_aside(self, reason: object) -> None:
        aside = set_aside(self._path, "-wal", "-shm")
        text = "No database of ours, made again | file=%s, set_aside=%s, reason=%s"
        logger.error(text, self._path, aside.name, reason)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _is_damage(path: Path, error: sqlite3.Error) -> bool:
    """Whether `error` says that what lies at `path` is no database of ours, and not that the disk,
    or somebody's lock, is in the way."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return type(error) is sqlite3.DatabaseError
    # A short read: the files beside it are of another database than what lies there now.
    foreign = code == sqlite3.SQLITE_IOERR_SHORT_READ
    return foreign or code & 0xFF in _DAMAGE or path.is_dir()
