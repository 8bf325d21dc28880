"""What is written down of a training.

Its row in ``logs/training_metrics.db``, however it ended; its lines in ``logs/cf/<type>.log``; and
the picture that the artefact keeps."""

import contextlib
import io
import json
import logging
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from recsys.database import HelperDatabase, transaction
from recsys.logs import fields, file_logger
from recsys.registry import Registry
from recsys.schedule import load_log_format, load_zone
from recsys.settings import Settings

logger = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS training_runs (
  run_id TEXT PRIMARY KEY, model_type TEXT, started_at TIMESTAMP, completed_at TIMESTAMP,
  status TEXT, hyperparameters TEXT, recall_at_10 REAL, ndcg_at_10 REAL,
  baseline_recall_at_10 REAL, improvement_pct REAL, model_id TEXT,
  data_version TEXT, error_message TEXT)
"""
HEADLINE = ("recall_at_10", "ndcg_at_10")
COMPARED = ("baseline_recall_at_10", "improvement_pct")
RESULT_COLUMNS = (*HEADLINE, *COMPARED, "model_id")


class TrainingRun:
    """The row and the log of one training; `curves` holds what its iterations measured."""

    def __init__(self, settings: Settings, model_type: str) -> None:
        self._settings = settings
        self.run_id = f"{model_type}_{uuid.uuid4().hex}"
        self.hyperparameters: Mapping[str, Any] = {}
        self.results: dict[str, Any] = {}
        self.curves: dict[str, list[float]] = {}
        path = settings.logs / "cf" / f"{model_type}.log"
        zone, log_format = load_zone(settings), load_log_format(settings)
        self.log = file_logger(model_type, path, zone, log_format=log_format)

    def progress(self, iteration: int, measured: Mapping[str, float]) -> None:
        """A line for an iteration."""
        values = {name: f"{value:.6g}" for name, value in measured.items()}
        self.log.info("iteration%s", fields(number=iteration, **values))
        for name, value in measured.items():
            self.curves.setdefault(name, []).append(value)

    def write_down(
        self, status: str = "running", error: str | None = None, completed_at: str | None = None
    ) -> None:
        """What is known by now, into the row."""
        said = {"completed_at": completed_at, "status": status, "error_message": error}
        said["hyperparameters"] = json.dumps(dict(self.hyperparameters))
        said |= {name: self.results.get(name) for name in RESULT_COLUMNS}
        columns = ", ".join(f"{name} = :{name}" for name in said)
        with _writing(self._settings) as connection:
            connection.execute(
                f"UPDATE training_runs SET {columns} WHERE run_id = :run_id",  # noqa: S608
                {**said, "run_id": self.run_id},
            )

    def end(self, status: str, error: str | None = None) -> None:
        """The last of the row."""
        try:
            self.write_down(status, error, _now())
        except (OSError, sqlite3.Error):
            # The model, or the error of the training, counts for more than this row.
            logger.exception(
                "The end of a training cannot be written down | run_id=%s", self.run_id
            )


@contextlib.contextmanager
def recorded_run(settings: Settings, model_type: str, data_version: str) -> Iterator[TrainingRun]:
    """A row ``running`` that becomes ``success`` with the block's results, or ``failed``.

    If that cannot be written (the process was killed, the disk is full), the row stays as it is
    until the next training of the same type begins, which closes it: they never run side by side.
    """
    run = TrainingRun(settings, model_type)
    _begin(run, settings, model_type, data_version)
    run.log.info("Training started%s", fields(data_version=data_version))
    start = time.monotonic()
    try:
        yield run
    except BaseException as error:
        run.log.error("Training failed%s", fields(error=error))
        run.end("failed", f"{type(error).__name__}: {error}")
        raise
    run.log.info("Training completed%s", fields(duration=f"{time.monotonic() - start:.1f}s"))
    run.end("success")


def _begin(run: TrainingRun, settings: Settings, model_type: str, data_version: str) -> None:
    """The row, and the end of those of killed trainings of the type. One whose model is registered
    was a success, whatever kept it from saying so."""
    registered = json.dumps([entry.model_id for entry in Registry(settings).list()])
    with _writing(settings) as connection:
        connection.execute(
            "UPDATE training_runs SET completed_at = ?1, status = 'success' WHERE model_type = ?2 "
            "AND status = 'running' AND model_id IN (SELECT value FROM json_each(?3))",
            (_now(), model_type, registered),
        )
        connection.execute(
            "UPDATE training_runs SET completed_at = ?, status = 'failed', error_message = ? "
            "WHERE model_type = ? AND status = 'running'",
            (_now(), "ended without a result: killed, or the disk was full", model_type),
        )
        connection.execute(
            "INSERT INTO training_runs (run_id, model_type, started_at, status, data_version) "
            "VALUES (?, ?, ?, 'running', ?)",
            (run.run_id, model_type, _now(), data_version),
        )


@contextlib.contextmanager
def _writing(settings: Settings) -> Iterator[sqlite3.Connection]:
    history = HelperDatabase(settings.training_db, _prepare)
    with contextlib.closing(history), history.use() as connection, transaction(connection):
        yield connection


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute(_SCHEMA)
    # Is it our table?
    connection.execute("SELECT run_id, completed_at, error_message FROM training_runs LIMIT 0")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def learning_curves(
    title: str, curves: Mapping[str, Sequence[float]], search: Sequence[float]
) -> bytes:
    """A PNG with one panel for each of `curves`, and one for the best score of the search."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {**curves, **({"validation objective, best so far": search} if search else {})}
    figure = Figure(figsize=(5 * max(len(panels), 1), 4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for number, (name, values) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        axes.plot(range(1, len(values) + 1), values, marker="." if len(values) < 50 else "")
        axes.set_title(name)
        axes.set_xlabel("trial" if values is search else "iteration")
        axes.grid(alpha=0.3)
    if not panels:
        figure.text(0.5, 0.5, "this model type has no iterations", ha="center")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90, metadata={"Software": None})
    return picture.getvalue()
