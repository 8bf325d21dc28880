"""Every Airflow run of our jobs as a row in the run tracker and two lines in the scheduler log."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from recsys.logs import fields, file_logger
from recsys.schedule import load_schedule
from recsys.settings import load_settings
from recsys.tracking import PipelineTracker, RunRecord, RunStatus

MARKED_BY_HAND = "manually set"
STATES = {
    "running": RunStatus.RUNNING,
    "success": RunStatus.SUCCESS,
    "failed": RunStatus.FAILED,
}


@dataclass(frozen=True)
class AirflowRun:
    """What the mirror keeps of a run that Airflow knows.

    Attributes
    ----------
    state
        Airflow's: running, success or failed; a queued run is not mirrored.
    summary
        What each task returned, by task id.
    failed_tasks
        Task ids in the order in which they failed.
    reason
        Why the run failed, in Airflow's words: task_failure, timed_out, ...
    marked_by_hand
        Whether a person set the state in the UI or through the API.
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


def tracker_id(job: str, run_id: str) -> str:
    """The tracker's id of an Airflow run: the same whoever writes it, and however often."""
    return f"{job}__{run_id}"


def is_job(dag_id: str) -> bool:
    """Whether the DAG is one of our jobs."""
    return dag_id in load_schedule(load_settings()).jobs


def mirror(run: AirflowRun, tracker: PipelineTracker) -> None:
    """Write the run as it is now into the tracker; any number of times."""
    known = tracker.get_run(tracker_id(run.job, run.run_id))
    errors = known["metadata"].get("task_errors", {}) if known else {}
    tracker.record_run(to_record(run, errors))


def to_record(run: AirflowRun, task_errors: Mapping[str, str]) -> RunRecord:
    """The tracker's record of an Airflow run.

    `task_errors` holds the last error line of tasks by id. A run that a person marked as failed
    was cancelled, not broken.
    """
    status = STATES[run.state]
    if status is RunStatus.FAILED and run.marked_by_hand:
        status = RunStatus.CANCELLED
    failing = run.failed_tasks[0] if run.failed_tasks else None
    return RunRecord(
        run_id=tracker_id(run.job, run.run_id),
        pipeline_name=run.job,
        status=status,
        started_at=run.started_at,
        finished_at=run.finished_at or (None if status is RunStatus.RUNNING else datetime.now(UTC)),
        error_message=_error_message(run, task_errors) if run.state == "failed" else None,
        metadata={
            "airflow_run_id": run.run_id,
            "run_type": run.run_type,
            "triggered_by": run.triggered_by,
            "data_interval_start": _iso(run.data_interval_start),
            "data_interval_end": _iso(run.data_interval_end),
            "conf": dict(run.conf) if run.conf else None,
            "summary": dict(run.summary) if run.summary else None,
            "failing_task": failing,
            "reason": run.reason if run.state == "failed" else None,
            "marked_by_hand": True if run.marked_by_hand else None,
        },
    )


def log_start(job: str) -> None:
    """The first of the two lines of a run in ``logs/scheduler/scheduler.log``."""
    _scheduler_log().info("Starting job: %s", job)


def log_end(record: RunRecord) -> None:
    """The second line, with duration and status."""
    assert record.finished_at is not None
    seconds = max(0, round((record.finished_at - record.started_at).total_seconds()))
    line = f"Job completed: {record.pipeline_name}" + " | duration=%ss | status=%s"
    if record.status is RunStatus.SUCCESS:
        _scheduler_log().info(line, seconds, record.status)
    else:
        _scheduler_log().error(
            line + "%s", seconds, record.status, fields(error=record.error_message)
        )


def _scheduler_log() -> Any:
    settings = load_settings()
    path = settings.logs / "scheduler" / "scheduler.log"
    return file_logger("scheduler", path, load_schedule(settings).zone, named_lines=False)


def _error_message(run: AirflowRun, task_errors: Mapping[str, str]) -> str:
    if run.marked_by_hand:
        return "marked as failed by hand"
    causes = [
        f"{task}: {task_errors.get(task, 'ended without an error line (killed or lost)')}"
        for task in run.failed_tasks
    ]
    if run.reason == "timed_out":
        causes.insert(0, "timed out")
    return "; ".join(causes) or (run.reason or "failed")


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
