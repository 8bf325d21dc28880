"""Every Airflow run of our jobs as a row in the run tracker and two lines in the scheduler log.

The listener tells what Airflow's processes see; `reconcile` repairs what it may have missed.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from recsys.errors import InputError
from recsys.logs import fields, file_logger
from recsys.schedule import load_schedule, load_zone
from recsys.settings import Settings, load_settings
from recsys.tracking import PipelineTracker, RunRecord, RunStatus, tracker_database

if TYPE_CHECKING:  # every Airflow process loads this module, and only `reconcile` asks the API
    from recsys.orchestration.client import AirflowClient

MARKED_BY_HAND = "manually set"
TIMED_OUT = "timed_out"
LONGEST_ERROR = 1000
_MIRRORED = ("running", "success", "failed")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AirflowRun:
    """What the mirror keeps of a run that Airflow knows.

    `state` is Airflow's running, success or failed: a queued run is not mirrored. `summary` is what
    each task returned, by task id; `failed_tasks` are in the order in which they failed; `reason`
    says in Airflow's words why the run did (task_failure, timed_out, ...). `marked_by_hand`: a
    person set the state. `problem` is why it cannot be made yet, see `future_of`. `attempt` counts
    how often it was cleared.
    """

    job: str
    run_id: str
    run_type: str
    state: str
    started_at: datetime
    finished_at: datetime | None = None
    triggered_by: str | None = None
    data_interval_start: datetime | None = None
    data_interval_end: datetime | None = None
    conf: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] | None = None
    failed_tasks: tuple[str, ...] = ()
    reason: str | None = None
    marked_by_hand: bool = False
    problem: str | None = None
    attempt: int = 0


def tracker_id(job: str, run_id: str) -> str:
    """The tracker's id of an Airflow run: the same whoever writes it, and however often."""
    return f"{job}__{run_id}"


def future_of(dag_run: Any) -> str | None:
    """The sentence why a run cannot be made yet: its interval or its logical date is to come."""
    now = datetime.now(UTC)
    for what, moment in (
        ("data interval ends", dag_run.data_interval_end),
        ("logical date is", dag_run.logical_date),
    ):
        if moment is not None and moment > now:
            return f"{dag_run.run_id}: its {what} in the future, at {moment.isoformat()}"
    return None


def text_of(value: Any) -> str:
    """The plain text of what may be an enumeration's member."""
    return "unknown" if value is None else str(getattr(value, "value", value))


def is_job(dag_id: str) -> bool:
    """Whether the DAG is one of our jobs."""
    return dag_id in load_schedule(load_settings()).names


def mirror(run: AirflowRun, tracker: PipelineTracker) -> RunRecord:
    """Write the run as it is now into the tracker, any number of times; returns its record."""
    known = tracker.get_run(tracker_id(run.job, run.run_id))
    record = to_record(run, known["metadata"].get("task_errors", {}) if known else {})
    tracker.record_run(record)
    return record


def to_record(run: AirflowRun, task_errors: Mapping[str, str]) -> RunRecord:
    """The tracker's record of an Airflow run.

    `task_errors` holds the last error line of tasks by id. A run that a person marked as failed
    was cancelled, not broken.
    """
    failed = run.state == "failed"
    status = RunStatus.CANCELLED if failed and run.marked_by_hand else RunStatus(run.state)
    return RunRecord(
        run_id=tracker_id(run.job, run.run_id),
        pipeline_name=run.job,
        status=status,
        started_at=run.started_at,
        finished_at=run.finished_at or (None if status is RunStatus.RUNNING else datetime.now(UTC)),
        error_message=_error_message(run, task_errors) if failed else None,
        metadata={
            "airflow_run_id": run.run_id,
            "run_type": run.run_type,
            "triggered_by": run.triggered_by,
            "data_interval_start": _iso(run.data_interval_start),
            "data_interval_end": _iso(run.data_interval_end),
            "conf": dict(run.conf) if run.conf else None,
            "summary": dict(run.summary) if run.summary else None,
            "failing_task": run.failed_tasks[0] if run.failed_tasks else None,
            "reason": run.reason if failed else None,
            "marked_by_hand": run.marked_by_hand or None,
        },
    )


def log_start(job: str) -> None:
    """The first of the two lines of a run in ``logs/scheduler/scheduler.log``."""
    _scheduler_log().info("Starting job: %s", job)


def log_end(record: RunRecord) -> None:
    """The second line, with duration and status."""
    assert record.finished_at is not None
    seconds = max(0, round((record.finished_at - record.started_at).total_seconds()))
    succeeded = record.status is RunStatus.SUCCESS
    _scheduler_log().log(
        logging.INFO if succeeded else logging.ERROR,
        "Job completed: %s | duration=%ss | status=%s%s",
        record.pipeline_name,
        seconds,
        record.status,
        "" if succeeded else fields(error=record.error_message),
    )


def _scheduler_log() -> Any:
    settings = load_settings()
    path = settings.logs / "scheduler" / "scheduler.log"
    return file_logger("scheduler", path, load_zone(settings), named_lines=False)


def _error_message(run: AirflowRun, task_errors: Mapping[str, str]) -> str:
    if run.marked_by_hand:
        return "marked as failed by hand"
    causes = [
        f"{task}: {task_errors.get(task, 'ended without an error line (killed or lost)')}"
        for task in run.failed_tasks
    ]
    if run.reason == TIMED_OUT:
        causes.insert(0, "timed out")
    return "; ".join(causes) or (run.reason or "failed")


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def error_line(error: object) -> str | None:
    """The first line of an error's text with its type, without secrets; None if there is none.

    Bad input speaks for itself: its sentence comes without a type, also when it is the cause of
    the exception that keeps Airflow from trying again.
    """
    from recsys.alerting.masking import masker_for

    if error is None:
        return None
    cause = getattr(error, "__cause__", None)
    shown = cause if isinstance(cause, InputError) else error
    named = isinstance(shown, BaseException) and not isinstance(shown, InputError)
    text = f"{type(shown).__name__}: {shown}" if named else str(shown)
    line = next((line for line in text.splitlines() if line.strip()), "no error text")
    return masker_for(os.environ).mask(line)[:LONGEST_ERROR]


def reconcile(settings: Settings) -> dict[str, Any]:
    """Repair the record of runs from Airflow's own.

    Returns ``{"compared", "repaired", "cancelled"}``, or ``{"error"}`` if Airflow's API could
    not be asked: what is recorded is then all there is to judge by.
    """
    from recsys.orchestration.environment import connect

    try:
        return dict(reconcile_runs(connect(settings), PipelineTracker(tracker_database(settings))))
    except Exception as error:
        logger.exception("The record of runs could not be compared with Airflow")
        return {"error": f"{type(error).__name__}: {error}"}


def reconcile_runs(
    client: "AirflowClient", tracker: PipelineTracker, days: int = 7
) -> dict[str, int]:
    """Compare the runs of the last `days` days and rewrite each record that disagrees.

    A run that is recorded as running and that Airflow no longer has was deleted: it is
    cancelled. Returns ``{"compared", "repaired", "cancelled"}``: numbers of runs.
    """
    since = datetime.now(UTC) - timedelta(days=days)
    compared = repaired = 0
    present: set[str] = set()
    known_dags = client.dags()
    for job in load_schedule(load_settings()).names:
        for run in client.runs_since(job, since) if job in known_dags else ():
            own_id = tracker_id(job, run["dag_run_id"])
            present.add(own_id)
            if run["state"] in _MIRRORED:
                compared += 1
                if not _agrees(tracker.get_run(own_id), run["state"]):
                    mirror(_describe(client, run), tracker)
                    repaired += 1
    cancelled = _cancel_deleted(client, tracker, present, since)
    return {"compared": compared, "repaired": repaired, "cancelled": cancelled}


def _agrees(known: Mapping[str, Any] | None, state: str) -> bool:
    if known is None:
        return False
    return known["status"] == state or (
        state == "failed"
        and known["status"] == RunStatus.CANCELLED
        and bool(known["metadata"].get("marked_by_hand"))
    )


def _describe(client: "AirflowClient", run: Mapping[str, Any]) -> AirflowRun:
    job, run_id, state = run["dag_id"], run["dag_run_id"], run["state"]
    ended = state != "running"
    failed, marked = [], False
    if state == "failed":
        tasks = client.task_instances(job, run_id)
        failed = [task for task in tasks if task["state"] == "failed"]
        entries = client.event_logs(job, run_id, "patch_dag_run")
        marked = any("failed" in (entry.get("extra") or "") for entry in entries)
    failed.sort(key=lambda task: task["end_date"] or "")
    started = run["start_date"] or run["queued_at"] or run["run_after"]
    return AirflowRun(
        job=job,
        run_id=run_id,
        run_type=run["run_type"],
        state=state,
        started_at=datetime.fromisoformat(started),
        finished_at=_moment(run["end_date"]) if ended else None,
        triggered_by=run.get("triggering_user_name") or run.get("triggered_by"),
        data_interval_start=_moment(run["data_interval_start"]),
        data_interval_end=_moment(run["data_interval_end"]),
        conf=run.get("conf"),
        summary=client.returned_values(job, run_id) if ended else None,
        failed_tasks=tuple(dict.fromkeys(task["task_id"] for task in failed)),
        reason="task_failure" if failed else None,
        marked_by_hand=marked,
    )


def _cancel_deleted(
    client: "AirflowClient", tracker: PipelineTracker, present: set[str], since: datetime
) -> int:
    from recsys.orchestration.client import AirflowError

    cancelled = 0
    for run in tracker.get_recent_runs(limit=10_000, status=RunStatus.RUNNING):
        known = run["run_id"] in present or datetime.fromisoformat(run["started_at"]) < since
        if known or "airflow_run_id" not in run["metadata"]:
            continue
        try:  # one for a day long past is in no list of the last days
            client.run(run["pipeline_name"], run["metadata"]["airflow_run_id"])
        except AirflowError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            tracker.cancel_run(run["run_id"])
            cancelled += 1
    return cancelled


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
