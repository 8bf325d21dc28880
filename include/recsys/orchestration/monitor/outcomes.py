"""What became of the lists: from what was shown to what was bought, by placement, model, source and
side, over four weeks or a year, and whether lists sell."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from recsys.errors import InputError
from recsys.orchestration.monitor.charts import Chart, Line
from recsys.orchestration.monitor.reports import ReportPage, list_pages
from recsys.settings import Settings

SPANS: Final = (28, 365)
"""Days that the page can show: of four weeks the newest report, of a year its own file."""
STEPS: Final = ("items", "clicks", "carts", "purchases")
"""From what was shown to what was bought."""
RATES: Final = ("click_rate", "cart_rate", "purchase_rate", "value_per_1000_lists")
SLICES: Final = ("placement", "model", "source", "side")

_UNITS: Final = {"value_per_1000_lists": "count"}
_YEAR: Final = "year.json"


class Outcomes(NamedTuple):
    """The figures of so many days. `total` and the rows of `by` have counts, and of each of `RATES`
    ``value``, ``low``, ``high``; `widest` is by slice and rate the end of the scale of a picture;
    `page` is the report of these days, if there is one."""

    total: Mapping[str, Any]
    first_day: str
    last_day: str
    generated_at: str
    by: Mapping[str, list[Mapping[str, Any]]]
    widest: Mapping[str, Mapping[str, float]]
    charts: list[Chart]
    silent: list[str]
    sells: str
    earned: Mapping[str, Mapping[str, float | None]]
    page: ReportPage | None


def gather_outcomes(settings: Settings, span: int) -> Outcomes | None:
    """None before the first report. Raises `InputError` if a report is none."""
    page = next(iter(list_pages(settings, "outcomes")), None)
    path = settings.reports / "outcomes" / _YEAR
    if span == SPANS[0]:
        if page is None:
            return None
        path = page.path.with_suffix(".json")
    elif not path.exists():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return _outcomes(report, page if span == SPANS[0] else None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is no report of outcomes: {error!r}") from error


def _outcomes(report: Mapping[str, Any], page: ReportPage | None) -> Outcomes:
    total = dict(report["totals"] or {})
    total = {name: total.get(name) or 0 for name in ("lists", *STEPS, "value")} | {
        name: (report.get("rates") or total).get(name) or _NOTHING for name in RATES
    }
    by = {name: list(report["by"][name]) for name in SLICES}
    silent, earned = list(report.get("silent") or ()), dict(report["uplift"] or {})
    return Outcomes(
        total,
        str(report["first_day"]),
        str(report["last_day"]),
        str(report["generated_at"]),
        by,
        {name: {rate: _widest(rows, rate) for rate in RATES} for name, rows in by.items()},
        _charts(report, silent),
        silent,
        _sells(total, earned),
        earned,
        page,
    )


_NOTHING: Final[Mapping[str, None]] = {"value": None, "low": None, "high": None}


def _charts(report: Mapping[str, Any], silent: Sequence[str]) -> list[Chart]:
    weekly = "weeks" in report
    points = list(report["weeks"] if weekly else report["days"])
    days = [str(one["day"]) for one in points]
    deaf = frozenset() if weekly else frozenset(silent)
    told = [{"lists": one["lists"]} if str(one["day"]) in deaf else one for one in points]
    lists = Line("lists", [one["lists"] for one in points])
    found = [Chart("lists_of_week" if weekly else "lists", "count", days, [lists], marks=silent)]
    found += [
        Chart(rate, _UNITS.get(rate, "share"), days, [_line(rate, told, rate)], marks=silent)
        for rate in RATES
    ]
    for name in ("placement", "model"):
        series = report["series"][name]
        lines = [_of_key(key, rows, days, deaf) for key, rows in series.items()]
        found.append(Chart(f"click_rate_by_{name}", "share", days, lines, marks=silent, dots=True))
    return found


def _of_key(
    key: str, rows: Sequence[Mapping[str, Any]], days: Sequence[str], deaf: frozenset[str]
) -> Line:
    """The clicks per list of one key: the report of four weeks has nothing else of its days."""
    there = {
        str(row["day"]): row.get("rate") or row.get("click_rate")
        for row in rows
        if str(row["day"]) not in deaf
    }
    return _line(key or "none", [{"rate": there.get(day)} for day in days], "rate")


def _line(name: str, points: Sequence[Mapping[str, Any]], rate: str) -> Line:
    found = [one.get(rate) or _NOTHING for one in points]
    return Line(name, *([one[part] for one in found] for part in ("value", "low", "high")))


def _widest(rows: Sequence[Mapping[str, Any]], rate: str) -> float:
    """The largest end of an interval: where the scale of a picture ends."""
    ends = (one[rate]["high"] or one[rate]["value"] or 0.0 for one in rows)
    return max(ends, default=0.0) or 1.0


def _sells(total: Mapping[str, Any], earned: Mapping[str, Mapping[str, float | None]]) -> str:
    """Whether customers who are shown lists buy more than those of the holdout: ``yes``, ``no``
    (less), ``unproven``; ``not_compared`` without a holdout, ``silent`` if nothing is counted,
    ``nothing`` if no list was given."""
    if not total["lists"]:
        return "nothing"
    if not (total["clicks"] or total["purchases"]):
        return "silent"
    if not earned:
        return "not_compared"
    low, high = (earned["bought_per_user"][end] for end in ("low", "high"))
    if low is not None and low > 0:
        return "yes"
    return "no" if high is not None and high < 0 else "unproven"
