"""Alerts about runs of pipelines, from plain values: what Airflow's callbacks call.

None of these functions raises: they run while something else is already going wrong. A failing
task and its failing run are one failure, told under the same key by whichever comes first (the
task, as a rule: it knows the error). A run that was cleared and fails again has failed anew."""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
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

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunEvent:
    """What went wrong with one run of a job.

    `what` is ``task_failed`` (for good, after its last try), ``bad_request`` (somebody asked for
    what no job can do), ``run_failed``, ``run_timed_out``, or ``deadline``: not done when it was
    `due`. `state` is the run's, now; `attempt` counts how often
    it was cleared before; `error` is the last error line of `task`, `log` the place of its log;
    `link` is the run's page."""

    what: Literal["task_failed", "bad_request", "run_failed", "run_timed_out", "deadline"]
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
        known = {
            "task_failed": f"task {self.task} failed",
            "bad_request": "what was asked for cannot be done",
            "run_timed_out": "run timed out",
        }
        return known.get(self.what, f"run {self.state}")


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

    Returns what became of it on each channel; nothing if there was nothing to tell, or if it could
    not be sent (a bad configuration): it is then in the alert log with the reason."""
    late = event.what == "deadline"
    if late and (event.state not in ("queued", "running") or event.run_type == "backfill"):
        return {}
    line = f"{event.job}_{'deadline_missed' if late else 'failed'} triggered: {event.message}"
    line += f" | run_id={event.run_id}, " + (f"due={event.due}" if late else f"error={event.error}")
    channels = tuple(Channel) if late else None  # the SLA-miss mail goes to every channel

    def tell(manager: AlertManager) -> dict[str, str]:
        alert = _alert(event, manager, settings)
        if event.what == "run_failed" and alert.identity in manager.active(alert.identity):
            # The task has said why, however severe that was: the run knows less, and is a repeat.
            alert = replace(alert, severity=Severity.INFO)
        return manager.deliver(alert, channels)

    return _send(tell, line, settings)


def tell_of_success(job: str, run_id: str, settings: Settings | None = None) -> dict[str, str]:
    """Say that `job` works again to whom was told that it failed or was late: one notice, whatever
    the number of runs. A run of a backfill makes up for itself alone, and nothing makes up for it
    but itself. Does not raise; returns what became of it on each channel."""
    message = "succeeded again"

    def tell(manager: AlertManager) -> dict[str, str]:
        made_up = [key for key in manager.active(f"{job}/") if _makes_up(run_id, key)]
        results: dict[str, str] = {}
        for key in made_up:
            name = "deadline_missed" if "/deadline/" in key else "failed"
            results = manager.resolve(
                f"{job}_{name}",
                message,
                key=key,
                text="run_cleared",
                headline="works_again",
                blanks={"job": job},
                quietly=key != made_up[-1],
            )
        return results

    return _send(tell, f"{job} {message} | run_id={run_id}", settings)


def _makes_up(run_id: str, key: str) -> bool:
    """Whether the success of `run_id` ends what is known by `key`, ``job/run/failure/attempt``."""
    failed = key.split("/", 1)[1].rsplit("/", 2)[0]
    if "/failure/" not in key and "/deadline/" not in key:
        return False
    by_itself = failed.startswith("backfill__") or run_id.startswith("backfill__")
    return failed == run_id if by_itself else True


def failure_key(job: str, run_id: str, attempt: int = 0) -> str:
    """The key that every alert about the failure of one run shares."""
    return f"{job}/{run_id}/failure/{attempt}"


def _alert(event: RunEvent, manager: AlertManager, settings: Settings | None) -> Alert:
    job = event.job
    shown = ("job", "run_id", "run_type", "state", "reason", "task", "error", "log")
    facts: dict[str, object] = {name: getattr(event, name) for name in shown}
    if event.what == "deadline":
        due = manager.local_time(event.due) if event.due else "?"
        return Alert(
            f"{job}_deadline_missed",
            f"not done when due at {due}",
            Severity.WARNING,
            text="deadline_text",
            headline="deadline",
            facts=facts_of(facts | {"due": due}),
            link=event.link,
            key=f"{job}/{event.run_id}/deadline/{event.attempt}",
            until_resolved=True,
        )
    return Alert(
        f"{job}_failed",
        event.message,
        # Who asked sees it on the page of the run, and nothing is wrong with the system.
        Severity.INFO if event.what == "bad_request" else Severity.CRITICAL,
        text=event.what,
        headline="failed",
        facts=facts_of(facts | {"disk_free": _scarce_space(settings)}),
        link=event.link,
        key=failure_key(job, event.run_id, event.attempt),
        until_resolved=True,
    )


def _scarce_space(settings: Settings | None) -> str | None:
    """What is free on the disk of the state root if it is little, else None. On a full disk the
    error alone may not say so: SQLite speaks of an I/O error."""
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
