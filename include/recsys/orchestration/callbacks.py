"""What Airflow calls when a task or run fails or a run misses its deadline.

Each function only reads Airflow's context, which differs from case to case, and hands a plain
`RunEvent` to `recsys.alerting.runs`, which tells each failure once."""

import contextlib
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from airflow.sdk import Context

from recsys.orchestration.mirror import TIMED_OUT, error_line, text_of, tracker_id


def task_failed(context: Context) -> None:
    """A task failed for good: called in the worker after its last try."""
    from recsys.errors import RequestError

    instance, failure = context["ti"], context.get("exception")
    error = error_line(failure) or "?"
    asked = isinstance(getattr(failure, "__cause__", None), RequestError)
    _tell(
        "bad_request" if asked else "task_failed",
        instance.dag_id,
        instance.run_id,
        context,
        error=error,
    )


def run_failed(context: Context) -> None:
    """A run failed or timed out: called by the dag-processor.

    The context of a timed-out run holds the DAG, the run id and the reason, and nothing else. Our
    listener tells of timeouts as well; this outlives a scheduler that dies before its listener has
    spoken, and is otherwise held back."""
    reason = text_of(context.get("reason"))
    what = "run_timed_out" if reason == TIMED_OUT else "run_failed"
    error = error_line(context.get("exception"))
    job, run_id = context["dag"].dag_id, context["run_id"]
    _tell(what, job, run_id, context, error=error, reason=reason)


def deadline_missed(context: Mapping[str, Any]) -> None:
    """A run is not done at its deadline: called in a process of its own; the run is a dict."""
    from recsys.alerting.runs import RunEvent, tell_of_run

    run = context["dag_run"]
    deadline = context.get("deadline") or {}
    due = deadline.get("deadline_time") if isinstance(deadline, Mapping) else None
    tell_of_run(
        RunEvent(
            "deadline",
            job=run["dag_id"],
            run_id=run["dag_run_id"],
            run_type=text_of(run.get("run_type")),
            state=text_of(run.get("state")),
            attempt=run.get("clear_number") or 0,
            due=datetime.fromisoformat(due) if isinstance(due, str) else due,
            link=run_url(run["dag_id"], run["dag_run_id"]),
        )
    )


def run_url(job: str, run_id: str) -> str:
    """The run's page in Airflow's UI."""
    base = os.environ.get("AIRFLOW__API__BASE_URL", "http://127.0.0.1:8080").rstrip("/")
    return f"{base}/dags/{quote(job)}/runs/{quote(run_id, safe='')}"


def _tell(what: Any, job: str, run_id: str, context: Context, **details: Any) -> None:
    from recsys.alerting.runs import RunEvent, tell_of_run

    run, instance = context.get("dag_run"), context.get("ti")
    tell_of_run(
        RunEvent(
            what,
            job=job,
            run_id=run_id,
            run_type=text_of(run.run_type) if run else run_id.split("__", 1)[0],
            attempt=getattr(run, "clear_number", 0) or 0 if run else _times_cleared(job, run_id),
            task=instance.task_id if instance else None,
            log=getattr(instance, "log_url", None),
            link=run_url(job, run_id),
            **details,
        )
    )


def _times_cleared(job: str, run_id: str) -> int:
    """How often the run was cleared before, as our listener wrote it down."""
    from recsys.settings import load_settings
    from recsys.tracking import PipelineTracker, tracker_database

    with contextlib.suppress(Exception):  # the alert matters more
        known = PipelineTracker(tracker_database(load_settings())).get_run(tracker_id(job, run_id))
        return int(known["metadata"].get("cleared") or 0) if known else 0
    return 0
