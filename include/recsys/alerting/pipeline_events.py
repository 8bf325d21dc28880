"""Alerts about runs of pipelines, from plain values: what Airflow's callbacks call.

None of these functions raises: they run while something else is already going wrong.

A failing task and its failing run are one failure. Both are reported under the same key, so
whichever comes first is told (the task, as a rule: it knows the error), and the other is held
back; a run that times out or whose worker was killed has only the run to tell. `attempt` is the
run's clear number: a run that was cleared and fails again has failed anew.
"""

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from recsys.alerting.config import AlertsConfig, LoggingConfig
from recsys.alerting.manager import AlertManager
from recsys.alerting.masking import masker_for
from recsys.alerting.message import Alert, facts_of
from recsys.alerting.severity import Channel, Severity
from recsys.errors import InputError
from recsys.logs import file_logger
from recsys.schedule import load_schedule
from recsys.settings import Settings, load_settings

TIMED_OUT: Final = "timed_out"
LITTLE_SPACE_BYTES: Final = 100 * 2**20
EVERY_CHANNEL: Final = tuple(Channel)

logger = logging.getLogger(__name__)


def send_pipeline_alert(
    pipeline_name: str,
    status: str,
    message: str,
    severity: str | None = None,
    *,
    settings: Settings | None = None,
) -> dict[str, str]:
    """`AlertManager.send_pipeline_alert` for use in an ``except`` block: does not raise.

    If the alert cannot be sent, because the configuration is bad, it is written to the alert
    log with the reason, and the result is empty.

    Examples
    --------
    >>> try:
    ...     1 / 0
    ... except ZeroDivisionError as error:
    ...     _ = send_pipeline_alert("my_pipeline", "failed", str(error), severity="critical")
    """
    return _send(
        lambda manager: manager.send_pipeline_alert(pipeline_name, status, message, severity),
        f"{pipeline_name}_{status} triggered: {message}",
        settings,
    )


def task_failure_alert(
    *,
    job: str,
    run_id: str,
    run_type: str,
    task: str,
    error: str | None = None,
    log_url: str | None = None,
    run_url: str | None = None,
    attempt: int = 0,
    settings: Settings | None = None,
) -> dict[str, str]:
    """A task of a run has failed for good; `error` is its last error line."""
    return _failure(
        "task_failed",
        f"task {task} failed",
        context={
            "job": job,
            "run_id": run_id,
            "run_type": run_type,
            "state": "failed",
            "task": task,
            "error": error or "?",
            "log": log_url,
        },
        link=run_url,
        attempt=attempt,
        settings=settings,
    )


def run_failure_alert(
    *,
    job: str,
    run_id: str,
    run_type: str,
    state: str = "failed",
    reason: str | None = None,
    task: str | None = None,
    error: str | None = None,
    log_url: str | None = None,
    run_url: str | None = None,
    attempt: int = 0,
    settings: Settings | None = None,
) -> dict[str, str]:
    """A run has failed or timed out (`reason` is then ``timed_out``)."""
    return _failure(
        "run_timed_out" if reason == TIMED_OUT else "run_failed",
        "run timed out" if reason == TIMED_OUT else f"run {state}",
        context={
            "job": job,
            "run_id": run_id,
            "run_type": run_type,
            "state": state,
            "reason": reason,
            "task": task,
            "error": error,
            "log": log_url,
        },
        link=run_url,
        attempt=attempt,
        settings=settings,
    )


def deadline_miss_alert(
    *,
    job: str,
    run_id: str,
    run_type: str,
    state: str,
    due: datetime | None,
    run_url: str | None = None,
    attempt: int = 0,
    settings: Settings | None = None,
) -> dict[str, str]:
    """A run was not done at its deadline: the SLA-miss mail. `state` is the run's state now."""

    def send(manager: AlertManager) -> dict[str, str]:
        local = manager.local_time(due) if due else "?"
        context = {
            "job": job,
            "run_id": run_id,
            "due": local,
            "state": state,
            "run_type": run_type,
        }
        return manager.deliver(
            Alert(
                f"{job}_deadline_missed",
                f"not done when due at {local}",
                Severity.WARNING,
                text=manager.texts.say("deadline_text", job=job, due=local),
                headline=manager.texts.say("deadline", job=job),
                facts=facts_of(context),
                link=run_url,
                key=f"{job}/{run_id}/deadline/{attempt}",
                until_resolved=True,
            ),
            EVERY_CHANNEL,
        )

    return _send(send, f"{job}_deadline_missed triggered: run_id={run_id}, due={due}", settings)


def failure_key(job: str, run_id: str, attempt: int = 0) -> str:
    """The key that every alert about the failure of one run shares."""
    return f"{job}/{run_id}/failure/{attempt}"


def _failure(
    text: str,
    message: str,
    *,
    context: Mapping[str, Any],
    link: str | None,
    attempt: int,
    settings: Settings | None,
) -> dict[str, str]:
    job, run_id = context["job"], context["run_id"]

    def send(manager: AlertManager) -> dict[str, str]:
        return manager.deliver(
            Alert(
                f"{job}_failed",
                message,
                Severity.CRITICAL,
                text=manager.texts.say(text, job=job, task=context["task"]),
                headline=manager.texts.say("failed", job=job),
                facts=facts_of({**context, "disk_free": _scarce_space(settings)}),
                link=link,
                key=failure_key(job, run_id, attempt),
                until_resolved=True,
            )
        )

    return _send(
        send,
        f"{job}_failed triggered: {message} | run_id={run_id}, error={context['error']}",
        settings,
    )


def _scarce_space(settings: Settings | None) -> str | None:
    """What is free on the disk of the state root if it is little, else None.

    On a full disk the error alone may not say so: SQLite speaks of an I/O error, NumPy of bytes
    that it could not write.
    """
    home = (settings or load_settings()).home
    try:
        free = shutil.disk_usage(home).free
    except OSError:
        return None
    return f"{free // 2**20} MB ({home})" if free < LITTLE_SPACE_BYTES else None


def _send(
    send: Callable[[AlertManager], dict[str, str]], line: str, settings: Settings | None
) -> dict[str, str]:
    """`send` with an alert manager; if there can be none, `line` in the alert log."""
    try:
        return send(AlertManager(settings))
    except Exception as error:  # noqa: BLE001 - never make a failure worse
        _last_resort(line, error, settings)
        return {}


def _last_resort(line: str, error: Exception, settings: Settings | None) -> None:
    mask = masker_for(AlertsConfig(), os.environ).mask
    text = " ".join(mask(f"{line} | not sent: {error}").split())
    try:
        home = settings or load_settings()
        path = home.home / LoggingConfig().path
        try:
            zone = load_schedule(home).zone
        except InputError:
            zone = ZoneInfo("UTC")
        file_logger("alerting", path, zone).critical(text)
    except Exception:  # noqa: BLE001
        logger.critical(text)
