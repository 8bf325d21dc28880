"""Who watches the watcher: the service notices that no health report comes any more."""

from datetime import UTC, datetime, timedelta

from recsys.alerting import AlertManager, Severity
from recsys.alerting.message import Alert
from recsys.config import load_config
from recsys.health.config import HealthConfig
from recsys.health.reports import latest_report
from recsys.health.silence import WATCHER
from recsys.schedule import load_schedule
from recsys.settings import Settings

ALERT = "health_report_overdue"


def report_is_overdue(settings: Settings, now: datetime, since: datetime | None = None) -> bool:
    """Whether the last full health report is older than ``reports.overdue_hours`` at `now`.

    `since` is when the caller began to watch, and counts as a report: right after a start
    nothing is overdue. Without it a system that never wrote a report owes none. A health check
    that is switched off in ``scheduler_config.json`` is never overdue.
    """
    last = _last_sign(settings, since)
    schedule = load_schedule(settings)
    job = schedule.jobs.get(WATCHER)
    if last is None or (not job.enabled if job else WATCHER not in schedule.problems):
        return False
    return now - last > timedelta(hours=load_config(settings, HealthConfig).reports.overdue_hours)


def watch_reports(settings: Settings, now: datetime, since: datetime) -> bool:
    """Send the alert when reports stop coming, once, and the notice when they are back.

    Call it every few minutes, from any number of processes. Returns whether they are overdue.
    """
    manager = AlertManager(settings)
    if not report_is_overdue(settings, now, since):
        if latest_report(settings) is not None:
            text = manager.texts.say("report_again")
            manager.resolve(ALERT, "health reports are coming again", text=text)
        return False
    last = _last_sign(settings, since)
    shown = manager.local_time(last or since)
    manager.deliver(
        Alert(
            ALERT,
            f"no health report since {shown}",
            Severity.CRITICAL,
            text=manager.texts.say("report_overdue_text", since=shown),
            headline=manager.texts.say("report_overdue"),
            until_resolved=True,
        )
    )
    return True


def _last_sign(settings: Settings, since: datetime | None) -> datetime | None:
    path = latest_report(settings)
    written = None if path is None else datetime.fromtimestamp(path.stat().st_mtime, UTC)
    signs = [moment for moment in (written, since) if moment is not None]
    return max(signs, default=None)
