"""What Airflow calls when a task or run fails or a run misses its deadline.

Each function only reads Airflow's context, which differs from case to case, and hands plain
values to `recsys.alerting.pipeline_events`, which sends each failure once.
"""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from airflow.sdk import Context

from recsys.orchestration.errors import error_line


def task_failed(context: Context) -> None:
    """A task failed for good: called in the worker after its last try."""
    from recsys.alerting.pipeline_events import task_failure_alert

    instance = context["ti"]
    run = context["dag_run"]
    task_failure_alert(
        job=instance.dag_id,
        run_id=instance.run_id,
        run_type=_text(run.run_type),
        task=instance.task_id,
        error=error_line(context.get("exception")),
        log_url=getattr(instance, "log_url", None),
        run_url=_run_url(instance.dag_id, instance.run_id),
        attempt=getattr(run, "clear_number", None) or 0,
    )


def run_failed(context: Context) -> None:
    """A run failed or timed out: called by the dag-processor.

    The context of a timed-out run holds the DAG, the run id and the reason, and nothing else.
    """
    from recsys.alerting.pipeline_events import run_failure_alert

    run = context.get("dag_run")
    instance = context.get("ti")
    job = context["dag"].dag_id
    run_id = context["run_id"]
    run_failure_alert(
        job=job,
        run_id=run_id,
        run_type=_text(run.run_type) if run else _type_of(run_id),
        reason=_text(context.get("reason")),
        task=instance.task_id if instance else None,
        error=error_line(context.get("exception")),
        log_url=getattr(instance, "log_url", None),
        run_url=_run_url(job, run_id),
        attempt=(getattr(run, "clear_number", None) or 0) if run else 0,
    )


def deadline_missed(context: Mapping[str, Any]) -> None:
    """A run is not done at its deadline: called in a process of its own; the run is a dict."""
    from recsys.alerting.pipeline_events import deadline_miss_alert

    run = context["dag_run"]
    deadline = context.get("deadline") or {}
    due = deadline.get("deadline_time") if isinstance(deadline, Mapping) else None
    deadline_miss_alert(
        job=run["dag_id"],
        run_id=run["dag_run_id"],
        run_type=_text(run.get("run_type")),
        state=_text(run.get("state")),
        due=datetime.fromisoformat(due) if isinstance(due, str) else due,
        run_url=_run_url(run["dag_id"], run["dag_run_id"]),
        attempt=run.get("clear_number") or 0,
    )


def _run_url(job: str, run_id: str) -> str:
    base = os.environ.get("AIRFLOW__API__BASE_URL", "http://127.0.0.1:8080").rstrip("/")
    return f"{base}/dags/{quote(job)}/runs/{quote(run_id)}"


def _text(value: Any) -> str:
    """The plain text of what may be an enumeration's member."""
    return str(getattr(value, "value", value)) if value is not None else "unknown"


def _type_of(run_id: str) -> str:
    return run_id.split("__", 1)[0]
