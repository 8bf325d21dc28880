"""What was asked and answered: rows of ``logs/service_metrics.db``, lines of the service's log.

A request only appends to a queue; a thread writes in batches. The queue is bounded: when the
database cannot be written for long, the newest rows are dropped and counted.
"""

import logging
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from recsys.database import connect, transaction
from recsys.logs import LINE, file_logger
from serving.config import RequestLogConfig

logger = logging.getLogger(__name__)

LOGGER_NAME = "recommender"
_BATCH_ROWS = 2000
_PRUNE_SECONDS = 3600.0
_WRITE_TIMEOUT_SECONDS = 5.0

# The documented columns, then ours. Times are UTC text that compares with datetime('now').
_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
  id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TIMESTAMP, user_id INTEGER, topk INTEGER,
  latency_ms REAL, fallback BOOLEAN, error TEXT, model_id TEXT,
  endpoint TEXT, fallback_method TEXT);
CREATE INDEX IF NOT EXISTS requests_timestamp ON requests (timestamp);
"""
_INSERT = (
    "INSERT INTO requests (timestamp, user_id, topk, latency_ms, fallback, error, model_id, "
    "endpoint, fallback_method) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Answered(NamedTuple):
    """One answered request; `time` in seconds since 1970, `error` None when there was none.

    `fallback` is None where the word means nothing (a search, an error).
    """

    time: float
    endpoint: str
    user_id: str | None
    topk: int | None
    latency_ms: float
    fallback: bool | None
    fallback_method: str | None
    error: str | None
    model_id: str | None


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
        self._failing = False
        self._wake, self._stop = threading.Event(), threading.Event()
        self._writing = threading.Lock()
        self._next_prune = 0.0
        with_schema = connect(database)
        with_schema.executescript(_SCHEMA)
        with_schema.close()
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
        except Exception:
            if not self._failing:
                logger.exception("Requests cannot be written down | database=%s", self._database)
            self._failing = True
            # Do not spin while the disk is full or the database locked.
            self._stop.wait(self._config.flush_seconds)
            return False
        self._failing = False
        self._write_lines(batch)
        return True

    def _write_lines(self, batch: list[Answered]) -> None:
        """All lines of a batch in one go: taking the file's lock for each would cost too much."""
        lines = [self._message(batch[0])]
        lines += [
            LINE
            % {
                "asctime": self._local(answered.time),
                "levelname": "ERROR" if answered.error else "INFO",
                "name": LOGGER_NAME,
                "message": self._message(answered),
            }
            for answered in batch[1:]
        ]
        level = logging.ERROR if batch[0].error else logging.INFO
        record = self._lines.makeRecord(
            self._lines.name, level, __file__, 0, "%s", ("\n".join(lines),), None
        )
        record.created = batch[0].time
        self._lines.handle(record)

    def _local(self, moment: float) -> str:
        return datetime.fromtimestamp(moment, self._timezone).strftime("%Y-%m-%d %H:%M:%S")

    @staticmethod
    def _message(answered: Answered) -> str:
        # Ids come from strangers: repr keeps line breaks and control characters out of the log.
        user = None if answered.user_id is None else repr(answered.user_id)[1:-1]
        return (
            f"{answered.endpoint} | user_id={user}, topk={answered.topk}, "
            f"latency_ms={answered.latency_ms:.2f}, fallback={answered.fallback}, "
            f"fallback_method={answered.fallback_method}, model_id={answered.model_id}, "
            f"error={answered.error}"
        )

    def _prune(self) -> None:
        oldest = _text(time.time() - self._config.retention_days * 86_400)
        try:
            with self._writing, transaction(self._connection) as connection:
                connection.execute("DELETE FROM requests WHERE timestamp < ?", (oldest,))
        except Exception:
            logger.exception("Old requests cannot be removed | database=%s", self._database)


def _row(answered: Answered) -> tuple[object, ...]:
    return (
        _text(answered.time),
        answered.user_id,
        answered.topk,
        round(answered.latency_ms, 3),
        answered.fallback,
        answered.error,
        answered.model_id,
        answered.endpoint,
        answered.fallback_method,
    )


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
