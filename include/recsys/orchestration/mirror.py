"""Every Airflow run of our jobs as a row in the run tracker and two lines in the scheduler log.

The listener tells what Airflow's processes see; `reconcile` repairs what it may have missed."""

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from recsys.errors import InputError, told
from recsys.logs import fields, file_logger
from recsys.schedule import load_log_format, load_schedule, load_zone
from recsys.settings import Settings, load_settings
from recsys.tracking import PipelineTracker, RunRecord, RunStatus, tracker_database

if TYPE_CHECKING:  # every Airflow process loads this module, and only `reconcile` asks the API
    from recsys.orchestration.client import AirflowClient

MARKED_BY_HAND = "manually set"
TIMED_OUT = "timed_out"
LONGEST_ERROR = 1000

logger = logging.getLogger(__name__)


def tracker_id(job: str, run_id: str) -> str:
    """The tracker's id of an Airflow run: the same whoever writes it, and however often."""
    return f"{job}__{run_id}"


def future_of(dag_run: Any) -> str | None:
    """The sentence why a run cannot be made yet: its interval or its logical date is to come."""
    interval_end, date = dag_run.data_interval_end, dag_run.logical_date
    for what, moment in (("data interval ends", interval_end), ("logical date is", date)):
        if moment is not None and moment > datetime.now(UTC):
            return f"{dag_run.run_id}: its {what} in the future, at {moment.isoformat()}"
    return None


def text_of(value: Any) -> str:
    """The plain text of what may be an enumeration's member."""
    return "unknown" if value is None else str(getattr(value, "value", value))


def is_job(dag_id: str) -> bool:
    """Whether the DAG is one of our jobs."""
    return dag_id in load_schedule(load_settings()).names


def mirror(run: Mapping[str, Any], tracker: PipelineTracker) -> RunRecord:
    """Write the run as it is now into the tracker, any number of times; returns its record."""
    known = tracker.get_run(tracker_id(run["dag_id"], run["dag_run_id"]))
    record = to_record(run, known["metadata"].get("task_errors", {}) if known else {})
    tracker.record_run(record)
    return record


def to_record(run: Mapping[str, Any], task_errors: Mapping[str, str]) -> RunRecord:
    """The tracker's record of a run that Airflow runs or ran: a queued one is not mirrored.

    `run` has the fields that Airflow's API gives it, and what became of it: ``summary``, what each
    task returned, by task id; ``failed_tasks`` in the order in which they failed; ``reason``, in
    Airflow's words (task_failure, timed_out, ...); ``marked_by_hand``, whether a person set the
    state. One that a person marked as failed was cancelled, not broken. `task_errors` holds the
    last error line of tasks by id."""
    failed, failed_tasks = run["state"] == "failed", run.get("failed_tasks") or (None,)
    status, now = RunStatus(run["state"]), datetime.now(UTC)
    if failed and run["marked_by_hand"]:
        status = RunStatus.CANCELLED
    return RunRecord(
        run_id=tracker_id(run["dag_id"], run["dag_run_id"]),
        pipeline_name=run["dag_id"],
        status=status,
        started_at=_moment(run["start_date"] or run["queued_at"] or run["run_after"]),
        finished_at=None if status is RunStatus.RUNNING else _moment(run["end_date"] or now),
        error_message=_error_message(run, task_errors) if failed else None,
        metadata={
            "airflow_run_id": run["dag_run_id"],
            "run_type": text_of(run["run_type"]),
            "triggered_by": text_of(run.get("triggering_user_name") or run.get("triggered_by")),
            "data_interval_start": _iso(run["data_interval_start"]),
            "data_interval_end": _iso(run["data_interval_end"]),
            "conf": run.get("conf") or None,
            "summary": run.get("summary") or None,
            "failing_task": failed_tasks[0],
            "reason": run["reason"] if failed else None,
            "marked_by_hand": run["marked_by_hand"] or None,
            "cleared": run.get("clear_number") or None,
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
        *(record.pipeline_name, seconds, record.status),
        "" if succeeded else fields(error=record.error_message),
    )


def _scheduler_log() -> Any:
    settings = load_settings()
    path = settings.logs / "scheduler" / "scheduler.log"
    zone, log_format = load_zone(settings), load_log_format(settings)
    return file_logger("scheduler", path, zone, named_lines=False, log_format=log_format)


def _error_message(run: Mapping[str, Any], task_errors: Mapping[str, str]) -> str:
    if run["marked_by_hand"]:
        return "marked as failed by hand"
    causes = [
        f"{task}: {task_errors.get(task, 'ended without an error line (killed or lost)')}"
        for task in run.get("failed_tasks", ())
    ]
    if run["reason"] == TIMED_OUT:
        causes.insert(0, "timed out")
    return "; ".join(causes) or (run["reason"] or "failed")


def _iso(moment: datetime | str | None) -> str | None:
    return None if moment is None else str(_moment(moment).astimezone(UTC).isoformat())


def error_line(error: object) -> str | None:
    """The first line of an error's text with its type, without secrets; None if there is none. Bad
    input speaks for itself, without a type, also as the cause of what keeps Airflow from trying
    again."""
    from recsys.alerting.masking import masker_for

    if error is None:
        return None
    cause = getattr(error, "__cause__", None)
    shown = cause if isinstance(cause, InputError) else error
    text = told(shown) if isinstance(shown, BaseException) else str(shown)
    if isinstance(shown, BaseException) and not isinstance(shown, InputError):
        text = f"{type(shown).__name__}: {text}"
    line = next((line for line in text.splitlines() if line.strip()), "no error text")
    return masker_for(os.environ).mask(line)[:LONGEST_ERROR]


def reconcile(settings: Settings) -> dict[str, Any]:
    """Repair the record of runs from Airflow's own. Returns what `reconcile_runs` does, or
    ``{"error"}`` if Airflow's API could not be asked: what is recorded is then all there is."""
    from recsys.orchestration.environment import connect

    try:
        return dict(reconcile_runs(connect(settings), PipelineTracker(tracker_database(settings))))
    except Exception as error:
        logger.exception("The record of runs could not be compared with Airflow")
        return {"error": f"{type(error).__name__}: {error}"}


def reconcile_runs(
    client: "AirflowClient", tracker: PipelineTracker, days: int = 7
) -> dict[str, int]:
    """Compare the runs of the last `days` days and rewrite each record that disagrees. One that is
    recorded as running and that Airflow no longer has was deleted: it is cancelled. Returns
    ``{"compared", "repaired", "cancelled"}``: numbers of runs."""
    since = datetime.now(UTC) - timedelta(days=days)
    compared = repaired = 0
    present: set[str] = set()
    known_dags = client.dags()
    for job in load_schedule(load_settings()).names:
        for run in client.runs_since(job, since) if job in known_dags else ():
            own_id = tracker_id(job, run["dag_run_id"])
            present.add(own_id)
            if run["state"] in ("running", "success", "failed"):
                compared += 1
                if not _agrees(tracker.get_run(own_id), run["state"]):
                    mirror(_with_outcome(client, run), tracker)
                    repaired += 1
    cancelled = _cancel_deleted(client, tracker, present, since)
    return {"compared": compared, "repaired": repaired, "cancelled": cancelled}


def _agrees(known: Mapping[str, Any] | None, state: str) -> bool:
    if known is None:
        return False
    by_hand = known["status"] == RunStatus.CANCELLED and known["metadata"].get("marked_by_hand")
    return state == ("failed" if by_hand else known["status"])


def _with_outcome(client: "AirflowClient", run: Mapping[str, Any]) -> dict[str, Any]:
    job, run_id, state = run["dag_id"], run["dag_run_id"], run["state"]
    failed, marked = [], False
    if state == "failed":
        tasks = client.task_instances(job, run_id)
        failed = [task for task in tasks if task["state"] == "failed"]
        entries = client.event_logs(job, run_id, "patch_dag_run")
        marked = any("failed" in (entry.get("extra") or "") for entry in entries)
    failed.sort(key=lambda task: task["end_date"] or "")
    return {
        **run,
        "summary": None if state == "running" else client.returned_values(job, run_id),
        "failed_tasks": tuple(dict.fromkeys(task["task_id"] for task in failed)),
        "reason": "task_failure" if failed else None,
        "marked_by_hand": marked,
    }


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


def _moment(moment: datetime | str | None) -> Any:
    return datetime.fromisoformat(moment) if isinstance(moment, str) else moment
