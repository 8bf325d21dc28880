"""Health reports: ``reports/health/health_YYYYMMDD_HHMM.json`` (local time) and ``latest.json``."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from recsys.publishing import write_json
from recsys.schedule import load_zone
from recsys.settings import Settings

LATEST: Final = "latest.json"


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


def remove_old_reports(settings: Settings, now: datetime, keep_days: float) -> int:
    """Remove reports written longer ago than `keep_days`; returns how many."""
    limit = (now - timedelta(days=keep_days)).timestamp()
    folder = settings.reports / "health"
    old = [path for path in folder.glob("health_*.json") if path.stat().st_mtime < limit]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
