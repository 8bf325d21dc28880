"""The table of requests, ``logs/service_metrics.db``, and the same as lines of the service's log.

Errors in the figures are failures of the service: what a caller did wrong (status 4xx) is none.
Rows of an earlier version have no status; there every error counts."""

import contextlib
import functools
import json
import logging
import re
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import Field

from recsys.backlog import Backlog
from recsys.config import ConfigModel, read_document
from recsys.database import HelperDatabase, connect, transaction
from recsys.logs import LINE, LogFormat, file_logger
from recsys.personal import Forgot, Found, PersonalData, Sought
from recsys.retention import RowRetention
from recsys.settings import Settings

logger = logging.getLogger(__name__)

LOGGER_NAME = "recommender"
TABLE = "requests"
LOGGED_ENDPOINTS = frozenset(
    {
        *("recommend", "batch_recommend", "similar_items", "bought_together", "search"),
        "interactions",
    }
)
WINDOWS_MINUTES = (1, 60, 1440)

_MAX_PENDING_ROWS = 50_000  # seven seconds of all that one core can answer; 20 MB
_WRITE_TIMEOUT_SECONDS = 5.0
_READ_TIMEOUT_SECONDS = 5.0
_PERCENTILES_OF = 100_000  # newest requests of a window

# The documented columns, then ours. Times are UTC text that compares with datetime('now'). The
# documented type of user_id makes a number of "00123" or "1e5": user_text keeps such ids.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
  id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TIMESTAMP, user_id INTEGER, topk INTEGER,
  latency_ms REAL, fallback BOOLEAN, error TEXT, model_id TEXT,
  endpoint TEXT, fallback_method TEXT, status INTEGER, user_text TEXT, known BOOLEAN);
CREATE INDEX IF NOT EXISTS requests_timestamp ON requests (timestamp);
"""
_SINCE_PSEUDONYMS = 2
"""The ``user_version`` of a database that began when there were pseudonyms."""
_ADDED_COLUMNS = {"status": "INTEGER", "user_text": "TEXT", "known": "BOOLEAN"}
# In the order of `Answered`.
_INSERT = (
    "INSERT INTO requests (timestamp, endpoint, user_id, topk, latency_ms, fallback, "
    "fallback_method, error, model_id, status, known, user_text) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# What a column of integers may spell in another way: numbers, but for plain ones that fit.
_CHANGED_AS_NUMBER = re.compile(r"(?!(?:0|[1-9][0-9]{0,17})\Z)\s*[-+.0-9]")
_FAILED = "coalesce(status >= 500, error IS NOT NULL)"
_SINCE = "FROM requests WHERE timestamp > datetime('now', ?)"
_FIGURES = (
    f"count(*) AS requests, avg({_FAILED}) AS error_rate, "
    f"avg(fallback) AS fallback_rate, avg(latency_ms) AS avg_latency_ms {_SINCE}"
)
# Between two moments, but for one user. The date's text bounds the index scan, whatever separates
# date and time; julianday() decides, and understands both and an offset from UTC.
_CHOSEN = (
    "SELECT latency_ms, fallback, {failed} AS failed, {known} AS known_fallback FROM requests"
    " WHERE timestamp >= :day AND julianday(timestamp) > julianday(:since)"
    " AND julianday(timestamp) <= julianday(:until) AND user_id IS NOT :without"
    " AND (user_id IS NULL OR user_id NOT IN (SELECT value FROM json_each(:named)))"
)
_TRAFFIC = (
    "SELECT count(*) AS requests, avg(latency_ms) AS avg_latency_ms,"
    " avg(fallback) AS fallback_rate, avg(failed) AS error_rate,"
    " count(known_fallback) AS known_requests, avg(known_fallback) AS known_fallback_rate,"
    " (SELECT latency_ms FROM chosen WHERE latency_ms IS NOT NULL ORDER BY latency_ms LIMIT 1"
    " OFFSET (SELECT max(0, (count(latency_ms) * 95 + 99) / 100 - 1) FROM chosen))"
    " AS p95_latency_ms FROM chosen"
)


class RequestLogConfig(ConfigModel):
    """``request_log`` of ``serving.yaml``: days that rows are kept."""

    retention_days: float = Field(default=30, gt=0)


def load_retention(settings: Settings) -> RequestLogConfig:
    """``request_log`` of ``serving.yaml``. Raises `ConfigError` that names the key."""
    document = read_document(settings, "serving.yaml")
    section = document.content.get("request_log") or {}
    return document.validate(RequestLogConfig, section, at=("request_log",))


def request_retention(settings: Settings) -> RowRetention:
    """Requests go by age."""
    age = timedelta(days=load_retention(settings).retention_days)
    return RowRetention("request log", settings.service_db, TABLE, age, "timestamp < datetime(?)")


def _in_requests(settings: Settings, sought: Sought) -> Found:
    from recsys.traces import in_table  # the service carries no Arrow

    if settings.service_db.is_file():
        yield from in_table(settings, sought, settings.service_db, TABLE, _owner(settings))


def _from_requests(settings: Settings, sought: Sought) -> Forgot:
    from recsys.erasing import from_tables

    if settings.service_db.is_file():
        yield from from_tables(settings, sought, settings.service_db, {TABLE: _owner(settings)})


def _owner(settings: Settings) -> str:
    with _reading(settings.service_db) as table:
        has_text = "user_text" in _columns(table)
    return f"of_user({'coalesce(user_text, user_id)' if has_text else 'user_id'})"


PERSONAL: Final = (
    PersonalData(
        "requests to the service",
        (f"logs/service_metrics.db#{TABLE}",),
        "to see how the service does, and to warm a new model up",
        "{days} days (`request_log.retention_days` of `serving.yaml`)",
        _in_requests,
        lambda settings: load_retention(settings).retention_days,
        _from_requests,
    ),
)


class Answered(NamedTuple):
    """One answered request; `time` in seconds since 1970. `fallback` is None where the word means
    nothing (a search, an error), `latency_ms` where nothing was measured (a request that was not
    valid). `status` tells whose error it was: 4xx the caller's, 5xx the service's; `known`, whether
    the model knows the customer (None without one)."""

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
    known: bool | None = None


class RequestLog(Backlog[Answered]):
    """Takes `Answered` from any thread without blocking; a thread writes them in batches. When the
    database cannot be written for long, the newest rows are dropped and counted.

    `namer` gives what makes pseudonyms of ids. With it customers are named by these where the log
    is to be `pseudonymous`; if that is None, where its database began when there were any."""

    def __init__(
        self,
        database: Path,
        log_file: Path,
        timezone: ZoneInfo,
        namer: Callable[[], Callable[[str], str]] | None = None,
        pseudonymous: bool | None = None,
        log_format: LogFormat = "text",
    ) -> None:
        self._log_file, self._timezone, self._log_format = log_file, timezone, log_format
        self._namer, self._pseudonymous = namer, pseudonymous
        self._users: list[str | None] = []  # of the batch that was written last, as it names them
        self._lines_fail = False
        self._table = HelperDatabase(database, prepare, timeout=_WRITE_TIMEOUT_SECONDS)
        try:
            with self._table.use():
                pass  # readers find a table from now on
        except (sqlite3.Error, OSError) as error:
            logger.error("There is no table of requests yet | error=%s", error)
        super().__init__(f"requests for {database.name}", _MAX_PENDING_ROWS)

    def close(self) -> None:
        super().close()
        self._table.close()

    def _write(self, batch: list[Answered]) -> None:
        with self._table.use() as table:
            name_of = self._namer() if self._namer and self._hides_ids(table) else None
            users = [one.user_id for one in batch]
            if name_of is not None:
                users = [None if user is None else name_of(user) for user in users]
            with transaction(table):
                table.executemany(_INSERT, map(_row, batch, users))
        self._users = users

    def _hides_ids(self, table: sqlite3.Connection) -> bool:
        if self._pseudonymous is not None:
            return self._pseudonymous
        [version] = table.execute("PRAGMA user_version").fetchone()
        return bool(version >= _SINCE_PSEUDONYMS)

    def _written(self, batch: list[Answered]) -> None:
        """All lines of a batch in one go: taking the file's lock for each would cost too much."""
        try:
            logger_of_lines = file_logger(
                LOGGER_NAME, self._log_file, self._timezone, log_format=self._log_format
            )
        except OSError as error:
            if not self._lines_fail:
                logger.error("Requests are no lines of the log | error=%s", error)
            self._lines_fail = True
            return
        self._lines_fail = False
        first, zone = batch[0], self._timezone
        heads = ["", *(_head(int(one.time), zone, _level(one)) for one in batch[1:])]
        parts = zip(heads, batch, self._users, strict=True)
        lines = [head + _message(one, user) for head, one, user in parts]
        name, text = logger_of_lines.name, "\n".join(lines)
        record = logging.LogRecord(name, _level(first), __file__, 0, "%s", (text,), None)
        record.created = first.time
        record.lines = len(lines)
        logger_of_lines.handle(record)


def prepare(connection: sqlite3.Connection) -> None:
    """Create the table; one of an earlier version gets the columns that it lacks. Raises
    `sqlite3.Error` if there is a table of another kind."""
    if not _columns(connection):
        connection.execute(f"PRAGMA user_version = {_SINCE_PSEUDONYMS}")
    connection.executescript(_SCHEMA)
    if _ADDED_COLUMNS.keys() - _columns(connection):
        with transaction(connection):
            for name in sorted(_ADDED_COLUMNS.keys() - _columns(connection)):
                kind = _ADDED_COLUMNS[name]
                connection.execute(f"ALTER TABLE requests ADD COLUMN {name} {kind}")
    connection.execute(f"EXPLAIN {_INSERT}", [None] * _INSERT.count("?"))  # is it our table?


def recent_users(database: Path, count: int) -> list[str]:
    """The users, or their pseudonyms, of the newest `count` requests; none if the table cannot be
    read."""
    if not database.exists():
        return []
    try:
        with _reading(database) as connection:
            has_text = "user_text" in _columns(connection)
            users = "coalesce(user_text, user_id)" if has_text else "user_id"
            newest = "FROM requests WHERE user_id IS NOT NULL ORDER BY id DESC LIMIT ?"
            rows = connection.execute(f"SELECT {users} {newest}", (count,)).fetchall()
    except sqlite3.Error as error:
        logger.warning("Recent requests cannot be read | error=%s", str(error))
        return []
    return [str(user) for (user,) in rows]


def read_stats(database: Path) -> dict[str, Any]:
    """Traffic by window, and of the longest window the requests by endpoint and by fallback.
    Percentiles are those of the newest 100,000 requests of a window. Raises `sqlite3.Error`."""
    with _reading(database) as connection:
        return {
            "traffic": [_traffic(connection, minutes) for minutes in WINDOWS_MINUTES],
            "endpoints": _counts(connection, "endpoint"),
            "fallback_methods": _counts(connection, "fallback_method"),
        }


def _counts(connection: sqlite3.Connection, column: str) -> dict[str, int]:
    query = f"SELECT {column}, count(*) {_SINCE} AND {column} IS NOT NULL GROUP BY 1"
    return dict(connection.execute(query, (f"-{max(WINDOWS_MINUTES)} minutes",)).fetchall())


def read_traffic_by_model(database: Path, minutes: float) -> list[dict[str, Any]]:
    """Of the last `minutes` of /recommend: requests, error_rate, fallback_rate and avg_latency_ms
    of each model. Raises `sqlite3.Error`."""
    condition = "endpoint = 'recommend' AND model_id IS NOT NULL GROUP BY model_id"
    query = f"SELECT model_id, {_FIGURES} AND {condition}"
    with _reading(database) as connection:
        return [dict(row) for row in connection.execute(query, (f"-{minutes} minutes",))]


def read_traffic(
    database: Path,
    since: datetime,
    until: datetime,
    without_user: str,
    also_named: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Requests between two moments but those of one user, who may be `also_named` so: ``requests,
    avg_latency_ms, p95_latency_ms`` (nearest rank)``, error_rate, fallback_rate``, None where
    nothing has one, and ``known_requests, known_fallback_rate`` of customers whom the model knows
    (of all, where the table does not tell). None if the service never wrote a request. Others can
    write this table as well: times are in any ISO form. Raises `sqlite3.Error`."""
    if not database.exists():
        return None
    window = {
        "day": _text((since - timedelta(days=1)).timestamp())[:10],
        "since": _text(since.timestamp()),
        "until": _text(until.timestamp()),
        "without": without_user,
        "named": json.dumps([*also_named]),
    }
    with _reading(database) as connection:
        columns = _columns(connection)
        if not columns:
            return None
        failed = _FAILED if "status" in columns else "error IS NOT NULL AND error <> ''"
        known = "CASE WHEN known THEN fallback END" if "known" in columns else "fallback"
        chosen = _CHOSEN.format(failed=failed, known=known)
        return dict(connection.execute(f"WITH chosen AS ({chosen}) {_TRAFFIC}", window).fetchone())


def _reading(database: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(connect(database, timeout=_READ_TIMEOUT_SECONDS))


def _columns(connection: sqlite3.Connection) -> set[str]:
    """Of the table; none if there is none."""
    return {row["name"] for row in connection.execute("PRAGMA table_info(requests)")}


def _traffic(connection: sqlite3.Connection, minutes: int) -> dict[str, Any]:
    import numpy as np  # the parent of the workers knows this module and needs no NumPy

    since = (f"-{minutes} minutes",)
    row = connection.execute(f"SELECT {_FIGURES}", since).fetchone()
    newest = f"SELECT latency_ms {_SINCE} AND latency_ms IS NOT NULL ORDER BY id DESC LIMIT ?"
    latencies = [ms for (ms,) in connection.execute(newest, (*since, _PERCENTILES_OF))]
    ranks = (50, 95, 99)
    found = np.percentile(latencies, ranks).tolist() if latencies else [None] * len(ranks)
    per_second = row["requests"] / (60 * minutes)
    figures = {"minutes": minutes, "requests_per_second": per_second, **dict(row)}
    return figures | {f"p{rank}_latency_ms": ms for rank, ms in zip(ranks, found, strict=True)}


def _row(answered: Answered, user: str | None) -> tuple[object, ...]:
    changed = user is not None and _CHANGED_AS_NUMBER.match(user)
    moment, endpoint, _, *rest = answered
    return (_text(moment), endpoint, user, *rest, user if changed else None)


def _message(answered: Answered, user_id: str | None) -> str:
    _, endpoint, _, topk, latency, fallback, method, error, model_id, status, _ = answered
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


def _level(answered: Answered) -> int:
    if answered.error is None:
        return logging.INFO
    return logging.ERROR if answered.status >= 500 else logging.WARNING


def _text(moment: float) -> str:
    second = int(moment)
    return f"{_second(second, UTC)}.{int((moment - second) * 1000):03d}"


# The rows of one second share its text, which takes longer to make than all the rest.
@functools.lru_cache(maxsize=16)
def _second(second: int, zone: tzinfo) -> str:
    return datetime.fromtimestamp(second, zone).strftime("%Y-%m-%d %H:%M:%S")


@functools.lru_cache(maxsize=16)
def _head(second: int, zone: tzinfo, level: int) -> str:
    """A line of the log up to its message."""
    parts = {"asctime": _second(second, zone), "levelname": logging.getLevelName(level)}
    return LINE % (parts | {"name": LOGGER_NAME, "message": ""})
