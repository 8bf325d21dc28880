"""``logs/training_metrics.db``: every training of a model, however it ended."""

import contextlib
import json
import logging
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from recsys.database import connect, transaction
from recsys.settings import Settings

logger = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS training_runs (
  run_id TEXT PRIMARY KEY, model_type TEXT, started_at TIMESTAMP, completed_at TIMESTAMP,
  status TEXT, hyperparameters TEXT, recall_at_10 REAL, ndcg_at_10 REAL,
  baseline_recall_at_10 REAL, improvement_pct REAL, model_id TEXT,
  data_version TEXT, error_message TEXT)
"""
RESULT_COLUMNS = (
    "recall_at_10",
    "ndcg_at_10",
    "baseline_recall_at_10",
    "improvement_pct",
    "model_id",
)


class TrainingRun:
    """One row that is being written."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.hyperparameters: Mapping[str, Any] = {}
        self.results: dict[str, Any] = {}


@contextlib.contextmanager
def recorded_run(settings: Settings, model_type: str, data_version: str) -> Iterator[TrainingRun]:
    """A row ``running`` that becomes ``success`` with the block's results, or ``failed``.

    If that cannot be written (the process was killed, the disk is full), the row stays as it is
    until the next training of the same type begins, which closes it: they never run side by side.
    """
    run = TrainingRun(f"{model_type}_{uuid.uuid4().hex}")
    _write(
        settings,
        "UPDATE training_runs SET completed_at = ?, status = 'failed', error_message = ? "
        "WHERE model_type = ? AND status = 'running'",
        (_now(), "ended without a result: killed, or the disk was full", model_type),
    )
    _write(
        settings,
        "INSERT INTO training_runs (run_id, model_type, started_at, status, data_version) "
        "VALUES (?, ?, ?, 'running', ?)",
        (run.run_id, model_type, _now(), data_version),
    )
    try:
        yield run
    except BaseException as error:
        try:
            _finish(settings, run, "failed", f"{type(error).__name__}: {error}")
        except (OSError, sqlite3.Error):
            logger.exception("The failed training cannot be written down | run_id=%s", run.run_id)
        raise
    _finish(settings, run, "success", None)


def _finish(settings: Settings, run: TrainingRun, status: str, error: str | None) -> None:
    columns = ", ".join(f"{name} = ?" for name in RESULT_COLUMNS)
    _write(
        settings,
        "UPDATE training_runs SET completed_at = ?, status = ?, error_message = ?, "  # noqa: S608
        f"hyperparameters = ?, {columns} WHERE run_id = ?",
        (
            _now(),
            status,
            error,
            json.dumps(dict(run.hyperparameters)),
            *(run.results.get(name) for name in RESULT_COLUMNS),
            run.run_id,
        ),
    )


def _write(settings: Settings, statement: str, values: tuple[Any, ...]) -> None:
    with contextlib.closing(connect(settings.training_db)) as connection:
        connection.execute(_SCHEMA)
        with transaction(connection):
            connection.execute(statement, values)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
