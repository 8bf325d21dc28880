"""How everything went over weeks and a year, as curves. What is read is bounded: a figure a day,
a row a training, a report a week."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any, Final, NamedTuple

from recsys.database import connect
from recsys.errors import InputError
from recsys.health.days import read_days
from recsys.orchestration.monitor.charts import MOST_LINES, Chart, Line, by_day
from recsys.orchestration.monitor.reports import ReportPage, list_pages
from recsys.orchestration.monitor.sections import Section, section
from recsys.outcomes.alerts import silent_days
from recsys.outcomes.daily import figured_days, read_totals
from recsys.schedule import load_zone
from recsys.settings import Settings
from recsys.tracking import PipelineTracker

SPANS: Final = (28, 365)
"""Days that the page can show."""

_TRAINED: Final = (
    "SELECT model_type, completed_at, recall_at_10, baseline_recall_at_10 FROM training_runs"
    " WHERE status = 'success' AND completed_at >= ? ORDER BY completed_at"
)
_SECTIONS: Final = "_drift"


class DriftWeek(NamedTuple):
    """A drift report: its page, and of each check the severity, None where it did not judge."""

    page: ReportPage
    severities: Mapping[str, str | None]


class Drift(NamedTuple):
    """The weeks with a report, newest first, and the names of all their checks."""

    weeks: list[DriftWeek]
    checks: list[str]


class History(NamedTuple):
    """All parts of the page, each by itself."""

    service: Section[list[Chart]]
    lists: Section[list[Chart]]
    data: Section[list[Chart]]
    training: Section[list[Chart]]
    jobs: Section[list[Chart]]
    drift: Section[Drift]


def gather_history(
    settings: Settings, now: datetime, span: int, tracker: PipelineTracker
) -> History:
    """The last `span` days before `now`, today included."""
    zone = load_zone(settings)
    today = now.astimezone(zone).date()
    days = [str(today - timedelta(days=n)) for n in range(span - 1, -1, -1)]
    return History(
        section(lambda: _service(settings, days)),
        section(lambda: _lists(settings, days)),
        section(lambda: _data(settings, days, zone)),
        section(lambda: _training(settings, days, zone)),
        section(lambda: _jobs(tracker, days, zone)),
        section(lambda: _drift(settings, days)),
    )


def _service(settings: Settings, days: Sequence[str]) -> list[Chart]:
    known = read_days(settings)

    def line(name: str) -> Line:
        return Line(name, [known.get(day, {}).get(name) for day in days])

    return [
        Chart("requests", "count", days, [line("requests")]),
        Chart("latency", "ms", days, [line("p95_latency_ms"), line("avg_latency_ms")]),
        Chart("fallbacks", "share", days, [line("fallback_rate"), line("error_rate")]),
    ]


def _lists(settings: Settings, days: Sequence[str]) -> list[Chart]:
    there = sorted({str(day) for day in figured_days(settings)} & set(days))
    read = {day: read_totals(settings, day) for day in map(date.fromisoformat, there)}
    silent = {str(day) for day in silent_days(read, date.fromisoformat(days[-1]))}
    totals = {str(day): one for day, one in read.items()}

    def share(name: str) -> Line:
        heard = {day: one for day, one in totals.items() if one["lists"] and day not in silent}
        found = {day: one[name] / one["lists"] for day, one in heard.items()}
        return Line(f"{name}_per_list", by_day(days, found))

    lists = Line("lists", by_day(days, {day: one["lists"] for day, one in totals.items()}))
    return [
        Chart("lists", "count", days, [lists]),
        Chart(
            *("rates", "share", days, [share("clicks"), share("carts"), share("purchases")]),
            marks=sorted(silent),
        ),
    ]


def _data(settings: Settings, days: Sequence[str], zone: tzinfo) -> list[Chart]:
    known = read_days(settings)
    rows = {day: one.get("interactions") for day, one in known.items()}
    ages = {
        day: max(0.0, (_end_of(day, zone) - datetime.fromisoformat(newest)).total_seconds())
        / 86_400
        for day, one in known.items()
        if (newest := one.get("newest_event"))
    }
    return [
        Chart("rows", "count", days, [Line("interactions", by_day(days, rows))]),
        Chart("newest_review", "days", days, [Line("age", by_day(days, ages))]),
    ]


def _training(settings: Settings, days: Sequence[str], zone: tzinfo) -> list[Chart]:
    if not settings.training_db.exists():
        return []
    since = _end_of(days[0], zone) - timedelta(days=1)
    with closing(connect(settings.training_db)) as connection:
        try:
            rows = connection.execute(_TRAINED, (since.isoformat(),)).fetchall()
        except sqlite3.Error as error:
            raise InputError(f"{settings.training_db}: cannot be read: {error}") from error
    recalls: dict[str, dict[str, float | None]] = {}
    baseline: dict[str, float | None] = {}
    for row in rows:
        day = str(datetime.fromisoformat(row["completed_at"]).astimezone(zone).date())
        recalls.setdefault(row["model_type"], {})[day] = row["recall_at_10"]
        baseline[day] = row["baseline_recall_at_10"]
    families = sorted(recalls, key=lambda name: -len(recalls[name]))[: MOST_LINES - 1]
    lines = [Line("baseline", by_day(days, baseline))]
    lines += [Line(name, by_day(days, recalls[name])) for name in sorted(families)]
    return [Chart("recall", "score", days, lines, dots=True)]


def _jobs(tracker: PipelineTracker, days: Sequence[str], zone: tzinfo) -> list[Chart]:
    if not tracker.db_path.exists():
        return []
    rows = tracker.get_days(_end_of(days[0], zone) - timedelta(days=1), zone)
    durations: dict[str, dict[str, float | None]] = {}
    failed: dict[str, dict[str, float | None]] = {}
    for row in rows:
        name, day = row["pipeline_name"], row["day"]
        durations.setdefault(name, {})[day] = row["duration_seconds"]
        failed.setdefault(name, {})[day] = row["failed"]
    longest = {
        name: max((value or 0.0) for value in found.values()) for name, found in durations.items()
    }
    chosen = sorted(longest, key=lambda name: -longest[name])[:MOST_LINES]
    most = {name: sum(value or 0 for value in found.values()) for name, found in failed.items()}
    worst = [name for name in sorted(most, key=lambda name: -most[name]) if most[name]]
    return [
        Chart(
            *("durations", "seconds", days),
            [Line(f"job_{name}", by_day(days, durations[name])) for name in chosen],
            dots=True,
        ),
        Chart(
            *("failures", "count", days),
            [Line(f"job_{name}", by_day(days, failed[name])) for name in worst[:MOST_LINES]],
        ),
    ]


def _drift(settings: Settings, days: Sequence[str]) -> Drift:
    pages = [one for one in list_pages(settings, "drift") if (one.day or "") >= days[0]]
    weeks = [DriftWeek(page, _severities(page)) for page in pages]
    checks = dict.fromkeys(name for week in weeks for name in week.severities)
    return Drift(weeks, list(checks))


def _severities(page: ReportPage) -> dict[str, str | None]:
    """By check; nothing of a report that cannot be read."""
    try:
        report = json.loads(page.path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found: dict[str, str | None] = {}
    for name, part in report.items() if isinstance(report, dict) else ():
        if isinstance(part, dict) and "severity" in part:
            inner = {key: one for key, one in part.items() if _is_check(one)}
            found |= {key: _severity(one) for key, one in inner.items()}
            if not inner:
                found[name.removesuffix(_SECTIONS)] = _severity(part)
    return found


def _is_check(part: Any) -> bool:
    return isinstance(part, dict) and "severity" in part and "status" in part


def _severity(check: Mapping[str, Any]) -> str | None:
    """None for a check that had too little to judge."""
    return None if check.get("status") != "tested" else str(check["severity"])


def _end_of(day: str, zone: tzinfo) -> datetime:
    return datetime.combine(date.fromisoformat(day) + timedelta(days=1), time(), zone)
