"""What Airflow calls when a task or run fails or a run misses its deadline.

Each function only reads Airflow's context, which differs from case to case, and hands a plain
`RunEvent` to `recsys.alerting.runs`, which tells each failure once.
"""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from airflow.sdk import Context

from recsys.orchestration.mirror import error_line

TIMED_OUT = "timed_out"


def task_failed(context: Context) -> None:
    """A task failed for good: called in the worker after its last try."""
    from recsys.alerting.runs import RunEvent, tell_of_run

    instance = context["ti"]
    run = context["dag_run"]
    tell_of_run(
        RunEvent(
            "task_failed",
            job=instance.dag_id,
            run_id=instance.run_id,
            run_type=_text(run.run_type),
            attempt=getattr(run, "clear_number", None) or 0,
            task=instance.task_id,
            error=error_line(context.get("exception")) or "?",
            log=getattr(instance, "log_url", None),
            link=_run_url(instance.dag_id, instance.run_id),
        )
    )


def run_failed(context: Context) -> None:
    """A run failed or timed out: called by the dag-processor.

    The context of a timed-out run holds the DAG, the run id and the reason, and nothing else.
    """
    from recsys.alerting.runs import RunEvent, tell_of_run

    run = context.get("dag_run")
    instance = context.get("ti")
    job, run_id, reason = context["dag"].dag_id, context["run_id"], _text(context.get("reason"))
    tell_of_run(
        RunEvent(
            "run_timed_out" if reason == TIMED_OUT else "run_failed",
            job=job,
            run_id=run_id,
            run_type=_text(run.run_type) if run else run_id.split("__", 1)[0],
            attempt=getattr(run, "clear_number", None) or 0,
            reason=reason,
            task=instance.task_id if instance else None,
            error=error_line(context.get("exception")),
            log=getattr(instance, "log_url", None),
            link=_run_url(job, run_id),
        )
    )


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
            run_type=_text(run.get("run_type")),
            state=_text(run.get("state")),
            attempt=run.get("clear_number") or 0,
            due=datetime.fromisoformat(due) if isinstance(due, str) else due,
            link=_run_url(run["dag_id"], run["dag_run_id"]),
        )
    )


def _run_url(job: str, run_id: str) -> str:
    base = os.environ.get("AIRFLOW__API__BASE_URL", "http://127.0.0.1:8080").rstrip("/")
    return f"{base}/dags/{quote(job)}/runs/{quote(run_id, safe='')}"


def _text(value: Any) -> str:
    """The plain text of what may be an enumeration's member."""
    return str(getattr(value, "value", value)) if value is not None else "unknown"
