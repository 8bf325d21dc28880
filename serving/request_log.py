"""What was asked and answered: rows of ``logs/service_metrics.db``, lines of the service's log.

A request only appends to a queue; a thread writes in batches. The queue is bounded: when the
database cannot be written for long, the newest rows are dropped and counted.
"""

import functools
import logging
import threading
import time
from collections import deque
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from recsys.database import connect, transaction
from recsys.logs import LINE, file_logger
from serving.config import RequestLogConfig

logger = logging.getLogger(__name__)

LOGGER_NAME = "recommender"
LOGGED_ENDPOINTS = frozenset(
    {"recommend", "batch_recommend", "similar_items", "search", "interactions"}
)
# While rows are put into words the requests wait for the interpreter: few at a time.
_BATCH_ROWS = 250
_PRUNE_SECONDS = 3600.0
_WRITE_TIMEOUT_SECONDS = 5.0

# The documented columns, then ours. Times are UTC text that compares with datetime('now').
_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
  id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TIMESTAMP, user_id INTEGER, topk INTEGER,
  latency_ms REAL, fallback BOOLEAN, error TEXT, model_id TEXT,
  endpoint TEXT, fallback_method TEXT, status INTEGER);
CREATE INDEX IF NOT EXISTS requests_timestamp ON requests (timestamp);
"""
_INSERT = (
    "INSERT INTO requests (timestamp, user_id, topk, latency_ms, fallback, error, model_id, "
    "endpoint, fallback_method, status) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Answered(NamedTuple):
    """One answered request; `time` in seconds since 1970, `error` None when there was none.

    `fallback` is None where the word means nothing (a search, an error), `latency_ms` where
    nothing was measured (a request that was not valid). `status` tells whose
    error it was: 4xx the caller's, 5xx the service's.
    """

    time: float
    endpoint: str
    user_id: str | None
    topk: int | None
    latency_ms: float | None
    fallback: bool | None
    fallback_method: str | None
    error: str | None
    model_id: str | None
    status: int


class RequestLog:
    """Takes `Answered` from any thread, without blocking, and writes them in batches."""

    def __init__(
        self, database: Path, log_file: Path, timezone: ZoneInfo, config: RequestLogConfig
    ) -> None:
        self._database = database
        self._config = config
        self._timezone = timezone
        self._lines = file_logger(LOGGER_NAME, log_file, timezone)
        self._queue: deque[Answered] = deque()
        self._dropped = 0
        self._failing_since: float | None = None
        self._problem = ""
        self._wake, self._stop = threading.Event(), threading.Event()
        self._writing = threading.Lock()
        self._next_prune = 0.0
        _prepare(database)
        self._connection = connect(database, timeout=_WRITE_TIMEOUT_SECONDS, shared=True)
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Rows that found no room."""
        return self._dropped

    @property
    def pending(self) -> int:
        return len(self._queue)

    @property
    def problem(self) -> tuple[float, str] | None:
        """For how many seconds nothing could be written, and the error; None if all is well."""
        since = self._failing_since
        return None if since is None else (time.monotonic() - since, self._problem)

    def add(self, answered: Answered) -> None:
        if len(self._queue) >= self._config.max_pending_rows:
            self._dropped += 1
            return
        self._queue.append(answered)
        if len(self._queue) >= _BATCH_ROWS:
            self._wake.set()

    def flush(self) -> bool:
        """Write what is pending. Returns False if the database could not be written."""
        with self._writing:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(_BATCH_ROWS, len(self._queue)))]
                if not self._write(batch):
                    self._queue.extendleft(reversed(batch))
                    return False
        return True

    def close(self) -> None:
        """Write everything and stop the thread."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=2 * _WRITE_TIMEOUT_SECONDS)
        self.flush()
        with self._writing:
            self._connection.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self._config.flush_seconds)
            self._wake.clear()
            self.flush()
            if time.monotonic() > self._next_prune:
                self._next_prune = time.monotonic() + _PRUNE_SECONDS
                self._prune()

    def _write(self, batch: list[Answered]) -> bool:
        try:
            with transaction(self._connection) as connection:
                connection.executemany(_INSERT, map(_row, batch))
        except Exception as error:
            self._problem = str(error)
            if self._failing_since is None:
                logger.exception("Requests cannot be written down | database=%s", self._database)
                self._failing_since = time.monotonic()
            # Do not spin while the disk is full or the database locked.
            self._stop.wait(self._config.flush_seconds)
            return False
        self._failing_since = None
        self._write_lines(batch)
        return True

    def _write_lines(self, batch: list[Answered]) -> None:
        """All lines of a batch in one go: taking the file's lock for each would cost too much."""
        first = batch[0]
        zone = self._timezone
        lines = [_message(first)]
        lines += [
            _head(int(answered.time), zone, _level_name(answered)) + _message(answered)
            for answered in batch[1:]
        ]
        record = self._lines.makeRecord(
            self._lines.name,
            logging.getLevelNamesMapping()[_level_name(first)],
            __file__,
            0,
            "%s",
            ("\n".join(lines),),
            None,
        )
        record.created = first.time
        self._lines.handle(record)

    def _prune(self) -> None:
        oldest = _text(time.time() - self._config.retention_days * 86_400)
        try:
            with self._writing, transaction(self._connection) as connection:
                connection.execute("DELETE FROM requests WHERE timestamp < ?", (oldest,))
        except Exception:
            logger.exception("Old requests cannot be removed | database=%s", self._database)


def _prepare(database: Path) -> None:
    """Create the table; one of an earlier version gets the columns that it lacks."""
    connection = connect(database)
    try:
        connection.executescript(_SCHEMA)
        with transaction(connection):
            known = {row["name"] for row in connection.execute("PRAGMA table_info(requests)")}
            if "status" not in known:
                connection.execute("ALTER TABLE requests ADD COLUMN status INTEGER")
    finally:
        connection.close()


def _row(answered: Answered) -> tuple[object, ...]:
    moment, endpoint, user_id, topk, latency, fallback, method, error, model_id, status = answered
    return (
        _text(moment),
        user_id,
        topk,
        latency,
        fallback,
        error,
        model_id,
        endpoint,
        method,
        status,
    )


def _message(answered: Answered) -> str:
    _, endpoint, user_id, topk, latency, fallback, method, error, model_id, status = answered
    # Ids and names of fields come from strangers: repr keeps line breaks and control characters
    # out of the log.
    user = None if user_id is None else repr(user_id)[1:-1]
    reason = None if error is None else repr(error)[1:-1]
    milliseconds = None if latency is None else f"{latency:.2f}"
    return (
        f"{endpoint} | user_id={user}, topk={topk}, latency_ms={milliseconds}, "
        f"fallback={fallback}, fallback_method={method}, model_id={model_id}, "
        f"status={status}, error={reason}"
    )


def _level_name(answered: Answered) -> str:
    if answered.error is None:
        return "INFO"
    return "ERROR" if answered.status >= 500 else "WARNING"


def _text(moment: float) -> str:
    second = int(moment)
    return f"{_second(second, UTC)}.{int((moment - second) * 1000):03d}"


# The rows of one second share its text, which takes longer to make than all the rest.
@functools.lru_cache(maxsize=16)
def _second(second: int, zone: tzinfo) -> str:
    return datetime.fromtimestamp(second, zone).strftime("%Y-%m-%d %H:%M:%S")


@functools.lru_cache(maxsize=16)
def _head(second: int, zone: tzinfo, level: str) -> str:
    """A line of the log up to its message."""
    parts = {"asctime": _second(second, zone), "levelname": level, "name": LOGGER_NAME}
    return LINE % (parts | {"message": ""})
