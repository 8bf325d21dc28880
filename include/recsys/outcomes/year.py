"""``reports/outcomes/year.json``: what became of the lists of a year, week by week and together.

The figures of a year are too many for a page that somebody waits for, and need not be newer than a
day: they are made once a day, a week at a time, from the same sums as the report of four weeks."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys.arrays import Float64Array
from recsys.experiments.definitions import HOLDOUT
from recsys.outcomes.alerts import silent_days
from recsys.outcomes.daily import figured_days, read_totals
from recsys.outcomes.figures import BLOCKS, REST
from recsys.outcomes.period import EARNED, METRICS, OF_ITEMS, OF_LISTS, Metric, Period
from recsys.outcomes.rates import Sums, as_json, rate, uplift
from recsys.publishing import write_json
from recsys.schedule import load_zone
from recsys.settings import Settings

DAYS: Final = 365
NAME: Final = "year.json"
SLICES: Final = ("placement", "model", "source", "side")
COUNTS: Final = ("lists", "items", "clicks", "carts", "purchases", "value")

_LINES: Final = 4
_MEASURES: Final = (*COUNTS, "users", "bought", "spent")
_ROWS: Final = 30
_WHOLE: Final = ("total", "")


class _Year:
    """Of every key of every slice the counts; the sums by block of customers, which leave silent
    days out; and the rates of each week."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], dict[str, float]] = {}
        self.sums: dict[tuple[str, str], dict[str, Float64Array]] = {}
        self.weeks: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def add(self, period: Period, week: date) -> None:
        """Take the days of a `week` in; `week` is its Monday."""
        for name in ("total", "holdout", *SLICES):
            for key in period.keys(name):
                found = {
                    one: period.sums(Metric(one, "lists"), name, key).numerators
                    for one in _MEASURES
                }
                before = self.counts.setdefault((name, key), dict.fromkeys(COUNTS, 0.0))
                counted = {one: period.total(one, name, key) for one in COUNTS}
                for one, count in counted.items():
                    before[one] += count
                into = self.sums.setdefault((name, key), dict.fromkeys(found, np.zeros(BLOCKS)))
                for one, values in found.items():
                    into[one] = into[one] + values
                rates = {
                    one: as_json(period.rate(metric, name, key))
                    for one, metric in _metrics(name).items()
                }
                rows = self.weeks.setdefault((name, key), [])
                rows.append({"day": str(week), **_rounded(counted), **rates})

    def keys(self, name: str) -> list[str]:
        """The keys of a slice, those with the most lists first."""
        lists = {key: one["lists"] for (of, key), one in self.counts.items() if of == name}
        return sorted(lists, key=lambda key: (-lists[key], key))[:_ROWS]

    def row(self, name: str, key: str) -> dict[str, Any]:
        """The counts and rates of the whole year."""
        sums = self.sums[name, key]
        rates = {
            one: as_json(rate(sums[metric.counted] * metric.per, sums[metric.of]))
            for one, metric in _metrics(name).items()
        }
        return {"key": key, **_rounded(self.counts[name, key]), **rates}

    def uplifts(self) -> dict[str, Any] | None:
        """What everybody else did, against the holdout; None without one."""
        sides = [self.sums.get(("holdout", key)) for key in (REST, HOLDOUT)]
        if None in sides:
            return None
        found = {}
        for name in EARNED:
            metric = METRICS[name]
            pair = (Sums(one[metric.counted], one[metric.of]) for one in sides if one is not None)
            found[name] = as_json(uplift(*pair))
        return found


def write_outcome_year(settings: Settings, last: date) -> Path:
    """Write the year up to `last`, unless it is written already; the path of the file. Raises
    `InputError` if the figures of a day cannot be read."""
    path = settings.reports / "outcomes" / NAME
    with suppress(OSError, ValueError, KeyError, TypeError):  # none, or nothing sound
        if json.loads(path.read_text(encoding="utf-8"))["last_day"] >= str(last):
            return path
    write_json(path, outcome_year(settings, last))
    return path


def outcome_year(settings: Settings, last: date) -> dict[str, Any]:
    """The year up to `last` as plain JSON values: the figures of whole days."""
    first = last - timedelta(days=DAYS - 1)
    days = [day for day in figured_days(settings) if first <= day <= last]
    year = _Year()
    silent = silent_days({day: read_totals(settings, day) for day in days}, last)
    for week, inside in groupby(days, key=_monday):
        year.add(Period(settings, list(inside), silent), week)
    return {
        "first_day": str(first),
        "last_day": str(last),
        "generated_at": datetime.now(load_zone(settings)).isoformat(timespec="seconds"),
        "days": len(days),
        "totals": year.row(*_WHOLE) if days else None,
        "weeks": year.weeks.get(_WHOLE, []),
        "by": {name: [year.row(name, key) for key in year.keys(name)] for name in SLICES},
        "series": {
            name: {key: year.weeks[name, key] for key in year.keys(name)[:_LINES]}
            for name in ("placement", "model")
        },
        "uplift": year.uplifts(),
        "silent": [str(day) for day in silent],
    }


def _rounded(counts: Mapping[str, float]) -> dict[str, int]:
    return {name: round(count) for name, count in counts.items()}


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _metrics(name: str) -> dict[str, Metric]:
    """A list is of several sources: their rates are per shown product."""
    return OF_ITEMS if name == "source" else {one: METRICS[one] for one in OF_LISTS}
