"""Alerts about runs of pipelines, from plain values: what Airflow's callbacks call.

None of these functions raises: they run while something else is already going wrong.

A failing task and its failing run are one failure. Both are reported under the same key, so
whichever comes first is told (the task, as a rule: it knows the error), and the other is held
back; a run that times out or whose worker was killed has only the run to tell. A run that was
cleared and fails again has failed anew.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from zoneinfo import ZoneInfo

from recsys.alerting.config import LoggingConfig
from recsys.alerting.manager import AlertManager
from recsys.alerting.masking import masker_for
from recsys.alerting.message import Alert, Channel, Severity, facts_of
from recsys.errors import InputError
from recsys.logs import file_logger
from recsys.schedule import load_zone
from recsys.settings import Settings, load_settings

LITTLE_SPACE_BYTES: Final = 100 * 2**20

_OPEN: Final = ("queued", "running")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunEvent:
    """What went wrong with one run of a job.

    `what` is ``task_failed`` (for good, after its last try), ``run_failed``, ``run_timed_out``, or
    ``deadline``: not done when it was `due`. `state` is the run's, now; `attempt` counts how often
    it was cleared before; `error` is the last error line of `task`, `log` the place of its log;
    `link` is the run's page.
    """

    what: Literal["task_failed", "run_failed", "run_timed_out", "deadline"]
    job: str
    run_id: str
    run_type: str
    state: str = "failed"
    attempt: int = 0
    reason: str | None = None
    task: str | None = None
    error: str | None = None
    log: str | None = None
    due: datetime | None = None
    link: str | None = None

    @property
    def message(self) -> str:
        """What happened, for the log."""
        if self.what == "task_failed":
            return f"task {self.task} failed"
        return "run timed out" if self.what == "run_timed_out" else f"run {self.state}"


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


def tell_of_run(event: RunEvent, settings: Settings | None = None) -> dict[str, str]:
    """Send the alert for `event`, each failure and each missed deadline once.

    A deadline speaks only of a run that is still open: one that failed has been told by its
    failure, and Airflow calls for it all the same. A backfill has none: it makes up for days
    whose deadlines are long past.

    Returns what became of it on each channel; nothing if there was nothing to tell, or if it
    could not be sent, for example because the configuration is bad: it is then in the alert log
    with the reason.
    """
    if event.what == "deadline":
        if event.state not in _OPEN or event.run_type == "backfill":
            return {}
        line = f"{event.job}_deadline_missed triggered: run_id={event.run_id}, due={event.due}"
        return _send(lambda manager: _tell_deadline(event, manager), line, settings)
    line = f"{event.job}_failed triggered: {event.message} | "
    line += f"run_id={event.run_id}, error={event.error}"
    return _send(lambda manager: _tell_failure(event, manager, settings), line, settings)


def failure_key(job: str, run_id: str, attempt: int = 0) -> str:
    """The key that every alert about the failure of one run shares."""
    return f"{job}/{run_id}/failure/{attempt}"


def _tell_failure(
    event: RunEvent, manager: AlertManager, settings: Settings | None
) -> dict[str, str]:
    alert = Alert(
        f"{event.job}_failed",
        event.message,
        Severity.CRITICAL,
        text=manager.texts.say(event.what, job=event.job, task=event.task),
        headline=manager.texts.say("failed", job=event.job),
        facts=facts_of(_facts(event) | {"disk_free": _scarce_space(settings)}),
        link=event.link,
        key=failure_key(event.job, event.run_id, event.attempt),
        until_resolved=True,
    )
    return manager.deliver(alert)


def _tell_deadline(event: RunEvent, manager: AlertManager) -> dict[str, str]:
    """The SLA-miss mail, which goes to every channel."""
    due = manager.local_time(event.due) if event.due else "?"
    alert = Alert(
        f"{event.job}_deadline_missed",
        f"not done when due at {due}",
        Severity.WARNING,
        text=manager.texts.say("deadline_text", job=event.job, due=due),
        headline=manager.texts.say("deadline", job=event.job),
        facts=facts_of(_facts(event) | {"due": due}),
        link=event.link,
        key=f"{event.job}/{event.run_id}/deadline/{event.attempt}",
        until_resolved=True,
    )
    return manager.deliver(alert, tuple(Channel))


def _facts(event: RunEvent) -> dict[str, object]:
    shown = ("job", "run_id", "run_type", "state", "reason", "task", "error", "log")
    return {name: getattr(event, name) for name in shown}


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
        text = " ".join(masker_for(os.environ).mask(f"{line} | not sent: {error}").split())
        try:
            home = settings or load_settings()
            zone = ZoneInfo("UTC")
            with contextlib.suppress(InputError):
                zone = load_zone(home)
            file_logger("alerting", home.home / LoggingConfig().path, zone).critical(text)
        except Exception:  # noqa: BLE001
            logger.critical(text)
        return {}
