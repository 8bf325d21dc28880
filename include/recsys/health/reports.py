"""Health reports: ``reports/health/health_YYYYMMDD_HHMM.json`` (local time) and ``latest.json``.

The service notices when none comes any more."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from recsys.alerting import Alert, AlertManager, Severity
from recsys.config import load_config
from recsys.health.config import HealthConfig
from recsys.health.pipelines import WATCHER
from recsys.publishing import write_json
from recsys.retention import Retention
from recsys.schedule import load_schedule, load_zone
from recsys.settings import Settings

LATEST: Final = "latest.json"
_KEPT: Final = timedelta(days=90)  # hourly reports of a quarter are 2,200 files
ALERT = "health_report_overdue"


def write_report(settings: Settings, report: dict[str, Any], now: datetime, *, full: bool) -> Path:
    """Write the report of `now`; a `full` one becomes ``latest.json`` as well."""
    folder = settings.reports / "health"
    local = now.astimezone(load_zone(settings))
    path = folder / f"health_{local:%Y%m%d_%H%M}.json"
    write_json(path, report)
    if full:
        write_json(folder / LATEST, report)
    return path


def latest_report(settings: Settings) -> Path | None:
    """The last full report, None if there never was one."""
    path = settings.reports / "health" / LATEST
    return path if path.is_file() else None


def report_retention(settings: Settings) -> Retention:
    """Reports go by age; the last full one stays."""
    folder = settings.reports / "health"
    return Retention("reports", folder, lambda: folder.glob("health_*.json"), _KEPT)


def report_is_overdue(settings: Settings, now: datetime, since: datetime | None = None) -> bool:
    """Whether the last full health report is older than ``reports.overdue_hours`` at `now`.

    `since` is when the caller began to watch, and counts as a report. Without it a system that
    never wrote a report owes none. A health check that is switched off is never overdue."""
    last = _last_sign(settings, since)
    schedule = load_schedule(settings)
    job = schedule.jobs.get(WATCHER)
    if last is None or (not job.enabled if job else WATCHER not in schedule.problems):
        return False
    return now - last > timedelta(hours=load_config(settings, HealthConfig).reports.overdue_hours)


def watch_reports(settings: Settings, now: datetime, since: datetime) -> bool:
    """Send the alert when reports stop coming, once, and the notice when they are back; whether
    they are overdue. Call it every few minutes, from any number of processes."""
    manager = AlertManager(settings)
    if not report_is_overdue(settings, now, since):
        if latest_report(settings) is not None:
            manager.resolve(ALERT, "health reports are coming again")
        return False
    shown = manager.local_time(_last_sign(settings, since) or since)
    facts, text = {"since": shown}, "there is no health report"
    manager.deliver(Alert(ALERT, text, Severity.CRITICAL, facts=facts, until_resolved=True))
    return True


def _last_sign(settings: Settings, since: datetime | None) -> datetime | None:
    path = latest_report(settings)
    written = None if path is None else datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return max(filter(None, (written, since)), default=None)
