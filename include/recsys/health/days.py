"""How the system did on each day of a year: ``reports/health/days.json``.

The log of requests is kept for a month and full reports for three; what is left of a day for longer
are its figures. They are added once the day is over, by the hourly check."""

import logging
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any, Final

from recsys.config import parse_json
from recsys.errors import InputError
from recsys.health.service import RATES, TRIAL_USER
from recsys.pseudonyms import names_in_logs
from recsys.publishing import write_json
from recsys.request_log import load_retention, read_traffic
from recsys.schedule import load_zone
from recsys.settings import Settings

logger = logging.getLogger(__name__)

NAME: Final = "days.json"
KEPT: Final = timedelta(days=400)
"""A season can be compared with that of the year before."""

_OF_DATA: Final = ("interactions", "users", "items", "newest_event")


def read_days(settings: Settings) -> dict[str, dict[str, Any]]:
    """The figures of the known days by ISO date, in order: ``requests``, ``avg_latency_ms``,
    ``p95_latency_ms``, ``error_rate``, ``fallback_rate``, of the published data as it was that day
    ``interactions``, ``users``, ``items``, ``newest_event``; None or absent where nobody knows.
    Raises `InputError` if the file is damaged."""
    path = settings.reports / "health" / NAME
    try:
        content = dict(parse_json(path.read_text(encoding="utf-8"))["days"])
        return {str(date.fromisoformat(day)): dict(content[day]) for day in sorted(content)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is no record of days: {error!r}; remove it to begin anew"
        ) from error


def note_days(
    settings: Settings, now: datetime, data: Mapping[str, Any] | None = None
) -> list[str]:
    """Add the requests of the days that are over and not noted yet, as far as the log of requests
    reaches back, and to today what the check of the `data` found; the days whose requests were
    added. Raises like `read_days`."""
    days, zone = read_days(settings), load_zone(settings)
    today = now.astimezone(zone).date()
    back = int(load_retention(settings).retention_days)
    added = []
    for n in range(back, 0, -1):
        day = today - timedelta(days=n)
        if "requests" in days.get(str(day), {}):
            continue
        days.setdefault(str(day), {}).update(_traffic(settings, day, zone))
        added.append(str(day))
    if data and data.get("newest_event"):
        days.setdefault(str(today), {}).update({name: data.get(name) for name in _OF_DATA})
    oldest = str(today - KEPT)
    kept = {day: days[day] for day in sorted(days) if day >= oldest}
    write_json(settings.reports / "health" / NAME, {"days": kept})
    return added


def _traffic(settings: Settings, day: date, zone: tzinfo) -> dict[str, Any]:
    start, end = (datetime.combine(day + timedelta(days=n), time(), zone) for n in (0, 1))
    trial = names_in_logs(settings, TRIAL_USER)
    found = read_traffic(settings.service_db, start, end, TRIAL_USER, trial) or {}
    rates = {name: found.get(name) for name in RATES}
    rounded = {name: None if rate is None else round(rate, 4) for name, rate in rates.items()}
    return {"requests": found.get("requests"), **rounded}
