"""What was told in the last weeks: what is still wrong, what is over and since when, how often."""

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from recsys.alerting import AlertManager, Severity
from recsys.orchestration.monitor.charts import Chart, Line, by_day
from recsys.schedule import load_zone
from recsys.settings import Settings

DAYS: Final = 28
MOST: Final = 500
"""Alerts that are looked at: the newest."""
SHOWN: Final = 50

_SEVERITIES: Final = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)


class Told(NamedTuple):
    """An alert, told `at`; `over` is when what it says had cleared, None while it has not, or where
    nobody looks whether it has: then it is not `open` either."""

    alert: Any
    at: datetime
    repeats: int
    deliveries: dict[str, str]
    over: datetime | None
    open: bool

    @property
    def lasted(self) -> float | None:
        """Seconds until it was over."""
        return None if self.over is None else (self.over - self.at).total_seconds()


class Alerts(NamedTuple):
    """The alerts of `DAYS`, and older ones that are not over, newest first: what is still `open`,
    and the others. Notices that something is over are part of what they are about."""

    open: list[Told]
    others: list[Told]
    chart: Chart


def gather_alerts(settings: Settings, now: datetime) -> Alerts:
    """Of the last `DAYS` days, today included."""
    zone = load_zone(settings)
    today = now.astimezone(zone).date()
    days = [str(today - timedelta(days=n)) for n in range(DAYS - 1, -1, -1)]
    since = datetime.fromisoformat(days[0]).replace(tzinfo=zone)
    rows = AlertManager(settings).recent(MOST, since)
    newest: set[str] = set()
    told = [_told(row, newest) for row in rows if not row["alert"].resolved]
    counts: dict[str, dict[str, float | None]] = {
        severity: dict.fromkeys(days, 0.0) for severity in _SEVERITIES
    }
    for one in told:
        if one.at < since:
            continue
        by = counts[one.alert.severity]
        by[str(one.at.date())] = (by.get(str(one.at.date())) or 0.0) + 1
    lines = [Line(f"alerts_{severity}", by_day(days, by)) for severity, by in counts.items()]
    return Alerts(
        [one for one in told if one.open],
        [one for one in told if not one.open],
        Chart("alerts", "count", days, lines),
    )


def _told(row: dict[str, Any], newer: set[str]) -> Told:
    """`newer` are the identities of alerts that were told later; that of this one is added."""
    alert, over = row["alert"], row["resolved_at"]
    still = alert.lasts and over is None and alert.identity not in newer
    newer.add(alert.identity)
    return Told(alert, row["at"], row["repeats"], row["deliveries"], over, still)
