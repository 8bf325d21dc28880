"""Repairs the run tracker from Airflow's own record, which survives what the mirror may miss."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from recsys.orchestration import mirror
from recsys.orchestration.client import AirflowClient
from recsys.orchestration.environment import connect
from recsys.orchestration.mirror import AirflowRun
from recsys.schedule import load_schedule
from recsys.settings import Settings, load_settings
from recsys.tracking import PipelineTracker, RunStatus

logger = logging.getLogger(__name__)


def reconcile(settings: Settings) -> dict[str, Any]:
    """Repair the record of runs from Airflow's own.

    Returns ``{"compared", "repaired", "cancelled"}``, or ``{"error"}`` if Airflow's API could
    not be asked: what is recorded is then all there is to judge by.
    """
    try:
        return dict(reconcile_runs(connect(settings), PipelineTracker(settings.pipeline_db)))
    except Exception as error:
        logger.exception("The record of runs could not be compared with Airflow")
        return {"error": f"{type(error).__name__}: {error}"}


def reconcile_runs(
    client: AirflowClient, tracker: PipelineTracker, days: int = 7
) -> dict[str, int]:
    """Compare the runs of the last `days` days and rewrite each record that disagrees.

    A run that is recorded as running and that Airflow no longer has was deleted: it is
    cancelled.

    Returns
    -------
    ``{"compared", "repaired", "cancelled"}``: numbers of runs.
    """
    since = datetime.now(UTC) - timedelta(days=days)
    compared = repaired = 0
    present: set[str] = set()
    known_dags = client.dags()
    for job in load_schedule(load_settings()).jobs:
        if job not in known_dags:
            continue
        for run in client.runs_since(job, since):
            present.add(mirror.tracker_id(job, run["dag_run_id"]))
            if run["state"] not in mirror.STATES:
                continue
            compared += 1
            repaired += _repair(client, tracker, run)
    return {
        "compared": compared,
        "repaired": repaired,
        "cancelled": _cancel_deleted(tracker, present, since),
    }


def _repair(client: AirflowClient, tracker: PipelineTracker, run: Mapping[str, Any]) -> int:
    """Rewrite the record of one run if it is missing or disagrees; returns 1 if it did."""
    job, run_id = run["dag_id"], run["dag_run_id"]
    known = tracker.get_run(mirror.tracker_id(job, run_id))
    if known is not None and _agrees(known, run):
        return 0
    mirror.mirror(_describe(client, run), tracker)
    return 1


def _agrees(known: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    status = mirror.STATES[run["state"]]
    return known["status"] == status or (
        status is RunStatus.FAILED
        and known["status"] == RunStatus.CANCELLED
        and bool(known["metadata"].get("marked_by_hand"))
    )


def _describe(client: AirflowClient, run: Mapping[str, Any]) -> AirflowRun:
    job, run_id, state = run["dag_id"], run["dag_run_id"], run["state"]
    ended = state in ("success", "failed")
    tasks = client.task_instances(job, run_id) if state == "failed" else []
    failed = sorted(
        (task for task in tasks if task["state"] == "failed"),
        key=lambda task: task["end_date"] or "",
    )
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
        reason=None if not failed else "task_failure",
        marked_by_hand=state == "failed" and _was_marked(client, job, run_id),
    )


def _was_marked(client: AirflowClient, job: str, run_id: str) -> bool:
    """Whether the audit log holds a person's "mark as failed" for the run."""
    entries = client.event_logs(job, run_id, "patch_dag_run")
    return any("failed" in (entry.get("extra") or "") for entry in entries)


def _cancel_deleted(tracker: PipelineTracker, present: set[str], since: datetime) -> int:
    running = tracker.get_recent_runs(limit=10_000, status=RunStatus.RUNNING)
    deleted = [
        run["run_id"]
        for run in running
        if "airflow_run_id" in run["metadata"]
        and run["run_id"] not in present
        and datetime.fromisoformat(run["started_at"]) >= since
    ]
    for run_id in deleted:
        tracker.cancel_run(run_id)
    return len(deleted)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
