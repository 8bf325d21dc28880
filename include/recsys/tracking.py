"""The record of every pipeline run: ``logs/pipeline_metrics.db``.

Times are stored as ISO 8601 text in UTC with microseconds, so that text order is time order."""

import json
import os
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from recsys.database import BUSY_TIMEOUT_SECONDS, HelperDatabase, transaction
from recsys.publishing import storable, write_json
from recsys.retention import RowRetention
from recsys.settings import Settings, load_settings

SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS pipeline_runs (
  run_id TEXT PRIMARY KEY, pipeline_name TEXT NOT NULL, status TEXT NOT NULL,
  started_at TEXT NOT NULL, finished_at TEXT, duration_seconds REAL,
  error_message TEXT, metadata TEXT
);
CREATE INDEX IF NOT EXISTS pipeline_runs_by_start ON pipeline_runs (pipeline_name, started_at);
CREATE INDEX IF NOT EXISTS pipeline_runs_by_status ON pipeline_runs (status, started_at);
PRAGMA user_version = 1;
COMMIT;
"""

_ONE_RUN: Final = "SELECT * FROM pipeline_runs WHERE run_id = ?"
_UPSERT: Final = (
    "INSERT INTO pipeline_runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (run_id) DO UPDATE SET status = excluded.status,"
    " started_at = excluded.started_at, finished_at = excluded.finished_at,"
    " duration_seconds = excluded.duration_seconds, error_message = excluded.error_message,"
    " metadata = json_patch(COALESCE(metadata, '{}'), excluded.metadata)"
)
_UNLESS_ENDED_SINCE: Final = (
    " WHERE pipeline_runs.finished_at IS NULL OR pipeline_runs.finished_at < excluded.started_at"
)

_CONNECTION: Final = "AIRFLOW_CONN_RECSYS_TRACKER"
_NOTE: Final = "tracker_database.json"
_ABANDONED: Final = "abandoned:"  # begins the error of a run that the cleanup closed
_KEPT: Final = timedelta(days=365)  # so that a job can be compared with itself a season ago


def run_retention(settings: Settings) -> RowRetention:
    """Records of ended runs go by age; those of running ones stay."""
    condition = "status <> 'running' AND started_at < ?"
    return RowRetention("run records", settings.pipeline_db, "pipeline_runs", _KEPT, condition)


class RunStatus(StrEnum):
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TrackingError(RuntimeError):
    """A run was asked to do something that it cannot: it is unknown, or it has ended."""


@dataclass(frozen=True)
class RunRecord:
    """One row of ``pipeline_runs`` in full, for writers that know a run from elsewhere."""

    run_id: str
    pipeline_name: str
    status: RunStatus
    started_at: datetime
    finished_at: datetime | None
    error_message: str | None
    metadata: Mapping[str, Any]


def tracker_database(settings: Settings) -> Path:
    """The file that Airflow's connection ``recsys_tracker`` names, else that of the state root. It
    is read from the environment; of one in Airflow's own database its hook leaves a note
    (`note_database`), so that health and statistics need no Airflow to find the records."""
    given = os.environ.get(_CONNECTION)
    if given is None:
        return _noted_database(settings)
    return Path(_host_of(given) or settings.pipeline_db)


def note_database(settings: Settings, database: Path) -> None:
    """Remember what the connection ``recsys_tracker`` names. Raises `OSError`."""
    if database == _noted_database(settings):
        return
    if database == settings.pipeline_db:
        (settings.logs / _NOTE).unlink()
    else:
        write_json(settings.logs / _NOTE, {"database": str(database)})


def _noted_database(settings: Settings) -> Path:
    try:
        return Path(json.loads((settings.logs / _NOTE).read_text(encoding="utf-8"))["database"])
    except (OSError, ValueError, KeyError, TypeError):
        return settings.pipeline_db


def _host_of(connection: str) -> str | None:
    """The host of a connection as Airflow takes it from the environment, JSON or a URI."""
    if connection.lstrip().startswith("{"):
        return str(json.loads(connection).get("host") or "") or None
    place = urlsplit(connection).netloc.rpartition("@")[2]
    return unquote(place.partition(":")[0]) or None


class PipelineTracker:
    """Reads and writes the record of runs, by default in `tracker_database`; safe to share between
    threads and processes. Another writer is waited for at most `timeout` seconds; then
    `sqlite3.OperationalError` is raised. What is no record of runs is set aside and made again: the
    hourly health check fills it from Airflow's own (`reconcile_runs`).

    >>> tracker = PipelineTracker()
    >>> run_id = tracker.start_run("data_refresh", {"force": True})
    >>> tracker.complete_run(run_id, {"records_processed": 1000})
    """

    def __init__(
        self, db_path: str | Path | None = None, *, timeout: float = BUSY_TIMEOUT_SECONDS
    ) -> None:
        self.db_path = Path(db_path or tracker_database(load_settings()))
        self._database = HelperDatabase(self.db_path, _prepare, timeout=timeout)

    def start_run(self, pipeline_name: str, metadata: Mapping[str, Any] | None = None) -> str:
        """Record a run that starts now; returns its new, unique id."""
        now = datetime.now(UTC)
        run_id = f"{pipeline_name}_{now:%Y%m%dT%H%M%S}_{secrets.token_hex(8)}"
        run = RunRecord(run_id, pipeline_name, RunStatus.RUNNING, now, None, None, metadata or {})
        self.record_run(run)
        return run_id

    def complete_run(self, run_id: str, metadata: Mapping[str, Any] | None = None) -> None:
        """End a running run, or one that `cleanup_stale_runs` closed too early, as a success, and
        merge `metadata` into what it has. Raises `TrackingError` if it is unknown or has ended."""
        self._end(run_id, RunStatus.SUCCESS, metadata=metadata)

    def fail_run(self, run_id: str, error_message: str) -> None:
        """End a running run as a failure. Raises as `complete_run` does."""
        self._end(run_id, RunStatus.FAILED, error_message)

    def cancel_run(self, run_id: str) -> None:
        """End a running run that a person stopped. Raises as `complete_run` does."""
        self._end(run_id, RunStatus.CANCELLED)

    def get_run(self, run_id: str) -> dict[str, Any] | None:
        """The run as a mapping of column to value, metadata parsed; None if it is unknown."""
        found = self._read(_ONE_RUN, (run_id,))
        return _as_dict(found[0]) if found else None

    def get_recent_runs(
        self, pipeline_name: str | None = None, limit: int = 10, status: str | None = None
    ) -> list[dict[str, Any]]:
        """The last `limit` runs, newest first, of one pipeline and one status if given."""
        # Only what is asked for: "or it is null" would keep SQLite from its indexes.
        asked = {"pipeline_name = ?": pipeline_name, "status = ?": status}
        given = {condition: value for condition, value in asked.items() if value is not None}
        where = f" WHERE {' AND '.join(given)}" if given else ""
        rows = self._read(
            f"SELECT * FROM pipeline_runs{where} ORDER BY started_at DESC, run_id LIMIT ?",  # noqa: S608
            (*given.values(), limit),
        )
        return [_as_dict(row) for row in rows]

    def get_stats(self, days: int = 7) -> dict[str, Any]:
        """Of the runs that started in the last `days` days: ``period_days`` and, for each name in
        ``stats_by_pipeline``, how many were a ``success``, ``failed``, ``running``, ``cancelled``,
        the ``avg_duration_seconds`` of the successful ones, and the ``success_rate`` of those that
        ended and were not cancelled; None where there are none."""
        since = _text(datetime.now(UTC) - timedelta(days=days))
        rows = self._read(
            "SELECT pipeline_name, SUM(status = 'success') AS success,"
            " SUM(status = 'failed') AS failed, SUM(status = 'running') AS running,"
            " SUM(status = 'cancelled') AS cancelled,"
            " ROUND(AVG(CASE WHEN status = 'success' THEN duration_seconds END), 3)"
            " AS avg_duration_seconds, ROUND(AVG(CASE status WHEN 'success' THEN 1.0"
            " WHEN 'failed' THEN 0.0 END), 3) AS success_rate"
            " FROM pipeline_runs WHERE started_at >= ? GROUP BY pipeline_name ORDER BY 1",
            (since,),
        )
        found = [dict(row) for row in rows]
        stats = {one.pop("pipeline_name"): one for one in found}
        return {"period_days": days, "stats_by_pipeline": stats}

    def get_days(self, since: datetime, zone: tzinfo) -> list[dict[str, Any]]:
        """Of the runs that started since then, by day and pipeline: ``day`` (ISO date in `zone`, by
        the offset that it has then), ``pipeline_name``, how many were a ``success`` and how many
        ``failed``, ``duration_seconds`` of the successful ones on average (None without any)."""
        offset = since.astimezone(zone).utcoffset() or timedelta()
        shift = f"{offset.total_seconds():+.0f} seconds"
        rows = self._read(
            "SELECT date(started_at, ?2) AS day, pipeline_name, SUM(status = 'success') AS success,"
            " SUM(status = 'failed') AS failed,"
            " AVG(CASE WHEN status = 'success' THEN duration_seconds END) AS duration_seconds"
            " FROM pipeline_runs WHERE started_at >= ?1 GROUP BY day, pipeline_name ORDER BY 1, 2",
            (_text(since), shift),
        )
        return [dict(row) for row in rows]

    def is_pipeline_running(self, pipeline_name: str) -> bool:
        """Whether any run of the pipeline is recorded as running."""
        query = "SELECT 1 FROM pipeline_runs WHERE pipeline_name = ? AND status = 'running' LIMIT 1"
        return bool(self._read(query, (pipeline_name,)))

    def cleanup_stale_runs(self, max_running_hours: float = 24) -> int:
        """Cancel runs that have been running for longer, whoever ran them is gone; how many."""
        now = datetime.now(UTC)
        limit = now - timedelta(hours=max_running_hours)
        why = f"{_ABANDONED} running for more than {max_running_hours:g} h"
        return self._write(
            "UPDATE pipeline_runs SET status = 'cancelled', finished_at = ?1,"
            " duration_seconds = (julianday(?1) - julianday(started_at)) * 86400,"
            " error_message = ?2 WHERE status = 'running' AND started_at < ?3",
            (_text(now), why, _text(limit)),
        )

    def record_run(self, record: RunRecord) -> None:
        """Write a run as it is known elsewhere, new or not; metadata is merged."""
        self._write(_UPSERT, _row(record))

    def record_start(self, record: RunRecord) -> None:
        """Like `record_run`, for news that may be late: an end after this start stays. A run that
        was started again after its end becomes a running one."""
        self._write(_UPSERT + _UNLESS_ENDED_SINCE, _row(record))

    def merge_metadata(self, run_id: str, metadata: Mapping[str, Any]) -> bool:
        """Merge `metadata` into a run's; returns whether the run is known."""
        statement = (
            "UPDATE pipeline_runs SET metadata = json_patch(COALESCE(metadata, '{}'), ?)"
            " WHERE run_id = ?"
        )
        return self._write(statement, (_json(metadata), run_id)) == 1

    def _read(self, query: str, values: tuple[object, ...]) -> list[sqlite3.Row]:
        with self._database.use() as connection:
            return connection.execute(query, values).fetchall()

    def _write(self, statement: str, values: tuple[object, ...]) -> int:
        """How many rows it changed."""
        with self._database.use() as connection, transaction(connection):
            return connection.execute(statement, values).rowcount

    def _end(
        self,
        run_id: str,
        status: RunStatus,
        error: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        with self._database.use() as connection, transaction(connection):
            run = connection.execute(_ONE_RUN, (run_id,)).fetchone()
            if run is None:
                raise TrackingError(f"run {run_id!r} is unknown in {self.db_path}")
            ended, abandoned = run["status"], (run["error_message"] or "").startswith(_ABANDONED)
            if ended != RunStatus.RUNNING and not abandoned:
                raise TrackingError(f"run {run_id!r} ended as {ended}, it cannot become {status}")
            span = (datetime.fromisoformat(run["started_at"]), datetime.now(UTC))
            name = run["pipeline_name"]
            ending = RunRecord(run_id, name, status, *span, error, metadata or {})
            connection.execute(_UPSERT, _row(ending))


def _prepare(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
        connection.executescript(SCHEMA)
    connection.execute(f"EXPLAIN {_UPSERT}", (None,) * 8)  # no table of others


def _row(run: RunRecord) -> tuple[object, ...]:
    start, end = run.started_at, run.finished_at
    ended = (None, None) if end is None else (_text(end), max(0.0, (end - start).total_seconds()))
    times, metadata = (_text(start), *ended), _json(run.metadata)
    error = run.error_message and storable(run.error_message)
    return (run.run_id, run.pipeline_name, run.status, *times, error, metadata)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _json(metadata: Mapping[str, Any]) -> str:
    return storable(json.dumps(dict(metadata), ensure_ascii=False, default=str))


def _as_dict(row: sqlite3.Row) -> dict[str, Any]:
    return dict(row) | {"metadata": json.loads(row["metadata"] or "{}")}
