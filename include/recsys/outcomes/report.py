"""The report of the last four weeks: a JSON document, and a page, one static HTML file with every
plot inline."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import date2num

from recsys import schema
from recsys.data.simulated import read_note
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.outcomes.alerts import silent_days
from recsys.outcomes.attribution import POSITION, REACH, Fate
from recsys.outcomes.candidates import candidates, judge_candidates
from recsys.outcomes.daily import figured_days
from recsys.outcomes.exploration import (
    CHANCE,
    Counts,
    chance_of,
    cost_of_exploring,
    expected_clicks,
)
from recsys.outcomes.figures import EXPLORED, LAST_POSITION
from recsys.outcomes.partitions import lost_lists
from recsys.outcomes.period import METRICS, OF_ITEMS, OF_LISTS, Metric, Period
from recsys.outcomes.rates import as_json
from recsys.outcomes.year import write_outcome_year
from recsys.pages import templates
from recsys.plots import mark_days, picture
from recsys.publishing import write_json, write_text
from recsys.registry import Registry
from recsys.schedule import load_zone
from recsys.settings import Settings

DAYS: Final = 28
REPORTS_FOLDER: Final = "outcomes"
NEW_DAYS: Final = 28
"""A product without a rating older than so many days is new."""

_LINES: Final = 4
_ROWS: Final = 20
_COLOURS: Final = ("#2563eb", "#c2410c", "#3f6f52", "#7c3aed")
_SOFT: Final = "#9aa5b1"
_ENDS: Final = ("low", "high")
_SLICES: Final = ("model", "placement", "endpoint", "side")
_NAMES: Final = {
    "click_rate": "Clicks per list",
    "cart_rate": "Carts per list",
    "purchase_rate": "Purchases per list",
    "value_per_1000_lists": "Value per 1,000 lists, dong",
    "clicks_per_user": "Clicks per customer and day",
    "purchases_per_user": "Purchases per customer and day",
    "value_per_user": "Value per customer and day, dong",
    "bought_per_user": "All purchases per customer and day",
    "spent_per_user": "All spending per customer and day, dong",
}


def write_outcome_report(settings: Settings, last: date) -> dict[str, Any]:
    """Write ``reports/outcomes/outcomes_YYYYMMDD.json`` and ``.html`` about `DAYS` up to `last`,
    and, once a day, the year's ``year.json``.

    Returns ``report`` and ``page`` (paths below the state root), ``days``, ``lists``, ``clicks``,
    ``purchases``, ``value``. Raises `InputError` if the figures of a day cannot be read."""
    report = build_report(settings, last)
    path = settings.reports / REPORTS_FOLDER / f"outcomes_{last:%Y%m%d}.json"
    page = path.with_suffix(".html")
    if report["exploration"] is not None:
        report["candidates"] = _candidates(settings, last, path)
    write_text(page, render_page(report))
    write_json(path, report)
    write_outcome_year(settings, last)
    totals = report["totals"]
    return {
        "report": str(path.relative_to(settings.home)),
        "page": str(page.relative_to(settings.home)),
        "days": len(report["days"]),
        **{name: totals[name] for name in ("lists", "clicks", "purchases", "value")},
    }


def build_report(settings: Settings, last: date) -> dict[str, Any]:
    """The report as plain JSON values."""
    first = last - timedelta(days=DAYS - 1)
    period = Period(settings, [day for day in figured_days(settings) if first <= day <= last])
    lost = lost_lists(settings, period.days)
    now = datetime.now(load_zone(settings))
    open_since = now.date() - REACH
    simulated = read_note(settings)
    measures = ("lists", "users", "items", "clicks", "carts", "purchases", "fallbacks", "bought")
    totals = {name: int(period.total(name)) for name in measures}
    totals |= {name: round(period.total(name)) for name in ("value", "spent")}
    return {
        "first_day": str(first),
        "last_day": str(last),
        "generated_at": now.isoformat(timespec="seconds"),
        "simulated": None if simulated is None else str(simulated),
        "totals": totals,
        "rates": {name: as_json(period.rate(metric)) for name, metric in METRICS.items()},
        "days": [_day(period, number, lost) for number in range(len(period.days))],
        "by": {name: _rows(period, name) for name in _SLICES}
        | {"source": _rows(period, "source", OF_ITEMS)},
        "series": {
            "model": _series(period, "model", METRICS["click_rate"]),
            "placement": _series(period, "placement", METRICS["click_rate"]),
            "source": _series(period, "source", OF_ITEMS["click_rate"]),
        },
        "positions": _positions(period),
        "exploration": _exploration(settings, period),
        "candidates": None,
        "coverage": _coverage(settings, period, last),
        "uplift": _uplift(period),
        "silent": [str(day) for day in silent_days(period.totals, now.date())],
        "happened": period.happened(),
        "robots": period.robots(),
        "anonymous_lists": sum(one["anonymous_lists"] for one in period.totals.values()),
        "lost_lists": sum(lost.values()),
        "repeated": sum(one["repeated"] for one in period.totals.values()),
        "unvalued": sum(one["unvalued"] for one in period.totals.values()),
        "open_since": str(open_since) if open_since <= last else None,
    }


def render_page(report: Mapping[str, Any]) -> str:
    """The HTML page of a report made by `build_report`."""
    page = templates(Path(__file__).parent / "templates").get_template("report.html")
    plots = []
    if report["days"]:
        plots = [
            _over_time("Clicks per list", {"all lists": report["days"]}, "click_rate", report),
            _by_key("Clicks per list, by model", "model", report),
            _by_key("Clicks per list, by placement", "placement", report),
            _by_key("Clicks per shown product, by source", "source", report),
            _over_time("Purchases per list", {"all": report["days"]}, "purchase_rate", report),
            _over_time(
                *("Value per 1,000 lists, million dong", {"all lists": report["days"]}),
                *("value_per_1000_lists", report),
            ),
            (
                "Clicks by position",
                picture(
                    "Clicks per shown product, by position",
                    partial(_draw_positions, report["positions"]),
                ),
            ),
        ]
    if any(one["low"] is not None for one in (report["uplift"] or {}).values()):
        plots.append(
            (
                "Uplift",
                picture(
                    "Against the holdout, percent",
                    partial(_draw_uplift, report["uplift"]),
                    left=0.36,
                ),
            )
        )
    return page.render(report=report, plots=plots, names=_NAMES, fates=list(Fate), rows=_ROWS)


def _day(period: Period, number: int, lost: Mapping[date, int]) -> dict[str, Any]:
    day = period.days[number]
    totals = period.totals[day]
    counts = ("lists", "users", "clicks", "carts", "purchases", "value")
    return {
        "day": str(day),
        **{name: totals[name] for name in counts},
        "lost": lost[day],
        "robot_lists": totals["robots"]["lists"],
        **{name: as_json(period.rate(METRICS[name], day=number)) for name in OF_LISTS},
    }


def _rows(
    period: Period, name: str, metrics: Mapping[str, Metric] = METRICS
) -> list[dict[str, Any]]:
    counts = ("lists", "items", "clicks", "carts", "purchases")
    return [
        {
            "key": key,
            **{count: int(period.total(count, name, key)) for count in counts},
            "value": round(period.total("value", name, key)),
            **{rate: as_json(period.rate(metrics[rate], name, key)) for rate in OF_LISTS},
        }
        for key in period.keys(name)
    ]


def _series(period: Period, name: str, metric: Metric) -> dict[str, list[dict[str, Any]]]:
    """Days and rates of the keys with the most lists."""
    return {
        key: [
            {"day": str(day), "rate": as_json(found)}
            for number, day in enumerate(period.days)
            if (found := period.rate(metric, name, key, number)).value is not None
        ]
        for key in period.keys(name)[:_LINES]
    }


def _positions(period: Period) -> list[dict[str, Any]]:
    keys = sorted(map(int, period.keys("position")))
    return [
        {
            "position": key + 1,
            "shown": int(period.total("items", "position", str(key))),
            **as_json(period.rate(OF_ITEMS["click_rate"], "position", str(key))),
        }
        for key in keys
        if key < LAST_POSITION
    ]


def _exploration(settings: Settings, period: Period) -> dict[str, Any] | None:
    """What exploring cost and brought; None if no place was explored."""
    drawn, others = (
        Counts(*(period.by_position(name, measure) for measure in ("items", "clicks")))
        for name in EXPLORED
    )
    places = int(drawn.shown.sum())
    if not places:
        return None
    cost = cost_of_exploring(drawn, others)
    table = period.explored()
    products, row = np.unique(table[schema.PRODUCT].to_numpy(dtype=object), return_inverse=True)
    shown = np.zeros((len(products), LAST_POSITION))
    clicks = np.zeros(len(products))
    at = np.minimum(table[POSITION].to_numpy(dtype=np.int64), LAST_POSITION - 1)
    np.add.at(shown, (row, at), table["shown"].to_numpy(dtype=np.float64))
    np.add.at(clicks, row, table["clicks"].to_numpy(dtype=np.float64))
    expected = expected_clicks(shown, others)
    chance = chance_of(clicks, expected)
    earned = np.flatnonzero((chance <= CHANCE) & (clicks > expected))
    first = earned[np.lexsort((products[earned], chance[earned]))][:_ROWS]
    names = _product_names(settings)
    return {
        "places": places,
        "share": places / (places + float(others.shown.sum())),
        "clicks": int(drawn.clicks.sum()),
        "explored": as_json(cost.explored),
        "others": as_json(cost.others),
        "lost": as_json(cost.lost),
        "clicks_of_all_lists": int(period.total("clicks")),
        "products": len(products),
        "earned": len(earned),
        "best": [
            {
                "product": products[one],
                "name": names.get(products[one], ""),
                "shown": int(shown[one].sum()),
                "clicks": int(clicks[one]),
                "expected": float(expected[one]),
            }
            for one in first
        ],
    }


def _candidates(settings: Settings, last: date, path: Path) -> dict[str, Any] | None:
    """Estimates of other models, once a day, and again when there are others: those of the report
    of this day in `path`, if they are of the same models."""
    wanted = [entry.model_id for entry in candidates(Registry(settings))]
    # None may be there, or one of a time without them.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        before = json.loads(path.read_text(encoding="utf-8"))["candidates"]
        if [one["model_id"] for one in before["models"]] == wanted:
            return dict(before)
    return judge_candidates(settings, last)


def _product_names(settings: Settings) -> dict[str, str]:
    try:
        products = current_version(settings).products()
    except InputError:
        return {}
    return dict(zip(products[schema.PRODUCT], products[schema.PRODUCT_NAME], strict=True))


def _coverage(settings: Settings, period: Period, last: date) -> dict[str, Any] | None:
    """Which part of what can be bought, and of what is new, was shown; None without data."""
    try:
        version = current_version(settings)
    except InputError:
        return None
    products = version.products()
    catalogue = pd.Index(products.loc[products[schema.AVAILABLE], schema.PRODUCT])
    rated = version.interactions([schema.PRODUCT, schema.TIMESTAMP])
    since = pd.Timestamp(last - timedelta(days=NEW_DAYS), tz=load_zone(settings))
    old = rated.loc[rated[schema.TIMESTAMP] < since, schema.PRODUCT].unique()
    new = catalogue[~catalogue.isin(old)]
    shown = period.products()["shown"] if period.days else pd.Series(dtype=np.int64)
    places = np.sort(shown.to_numpy(dtype=np.float64))[::-1]
    top = places[: max(1, len(catalogue) // 100)].sum()
    return {
        "catalogue": len(catalogue),
        "shown": int(catalogue.isin(shown.index).sum()),
        "new": len(new),
        "new_shown": int(new.isin(shown.index).sum()),
        "share_of_top_percent": float(top / places.sum()) if len(places) else None,
    }


def _uplift(period: Period) -> dict[str, Any] | None:
    found = period.uplifts()
    if found is None:
        return None
    return {
        name: {**as_json(one), "rest": one.numerator, "holdout": one.denominator}
        for name, one in found.items()
    }


Plot = tuple[str, str]


def _over_time(
    title: str,
    series: Mapping[str, Sequence[Mapping[str, Any]]],
    metric: str,
    report: Mapping[str, Any],
) -> Plot:
    lines = {
        label: [{"day": one["day"], "rate": one[metric]} for one in days]
        for label, days in series.items()
    }
    since = None if metric == "click_rate" else report["open_since"]
    still_open = None if since is None else (since, report["last_day"])
    return title, picture(title, partial(_draw_lines, lines, metric, still_open))


def _by_key(title: str, name: str, report: Mapping[str, Any]) -> Plot:
    draw = partial(_draw_lines, report["series"][name], "click_rate", None)
    return title, picture(title, draw)


_USUAL_WIDTHS: Final = 4  # of the median: what is wider is no day to measure the others by


def _draw_lines(
    lines: Mapping[str, Sequence[Mapping[str, Any]]],
    metric: str,
    still_open: tuple[str, str] | None,
    axes: Axes,
) -> None:
    is_money = metric == "value_per_1000_lists"
    scale = 1e-6 if is_money else 100.0
    for colour, (label, points) in zip(_COLOURS, lines.items(), strict=False):
        days = [date2num(date.fromisoformat(one["day"])) for one in points]
        value = [scale * one["rate"]["value"] for one in points]
        # Where there is no interval there is no band: one of no width would look like certainty.
        low, high = ([scale * _or(one["rate"][end], np.nan) for one in points] for end in _ENDS)
        axes.fill_between(days, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(days, value, "o-", color=colour, ms=3, label=label or "(none)")
    if still_open is not None:
        begin, end = (date2num(date.fromisoformat(day)) for day in still_open)
        axes.axvspan(begin, end + 0.5, color=_SOFT, alpha=0.15, linewidth=0)
        axes.annotate(
            "not over yet", (begin, 1), xycoords=("data", "axes fraction"), fontsize=8, va="top"
        )
    mark_days(axes)
    axes.set_ylim(0, _top([one["rate"] for points in lines.values() for one in points], scale))
    axes.yaxis.set_major_formatter("{x:g}" if is_money else "{x:g} %")
    if len(lines) > 1:  # beside the title, where no point is
        above = (1.0, 1.0)
        axes.legend(
            frameon=False, loc="lower right", bbox_to_anchor=above, borderaxespad=0.2, fontsize=8,
            ncols=3,
        )  # fmt: skip


def _top(rates: Sequence[Mapping[str, Any]], scale: float) -> float | None:
    """Where the axis ends: a day of few lists, such as the first, is known so badly that its
    interval would press all other days to the ground. None: wherever it may."""
    known = [one for one in rates if one["high"] is not None]
    widths = [one["high"] - one["low"] for one in known]
    usual = _USUAL_WIDTHS * float(np.median(widths)) if widths else 0.0
    highs = [one["high"] for one, width in zip(known, widths, strict=True) if width <= usual]
    return 1.1 * scale * max(highs) if max(highs, default=0) > 0 else None


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _draw_positions(positions: Sequence[Mapping[str, Any]], axes: Axes) -> None:
    places = [one["position"] for one in positions]
    values = [100 * _or(one["value"], 0) for one in positions]
    ends = [
        [100 * abs(_or(one["value"], 0) - _or(one[end], _or(one["value"], 0))) for one in positions]
        for end in _ENDS
    ]
    axes.errorbar(places, values, ends, fmt="o-", color=_COLOURS[0], ms=4, capsize=2)
    axes.set_ylim(bottom=0)
    axes.set_xticks(places)
    axes.yaxis.set_major_formatter("{x:g} %")


def _draw_uplift(found: Mapping[str, Mapping[str, Any]], axes: Axes) -> None:
    known = [(name, one) for name, one in reversed([*found.items()]) if one["low"] is not None]
    for place, (_, one) in enumerate(known):
        value, low, high = (100 * one[end] for end in ("value", "low", "high"))
        sure = low > 0 or high < 0
        axes.errorbar(
            [value], [place], xerr=[[value - low], [high - value]], fmt="o",
            color=_COLOURS[0] if sure else _SOFT, capsize=3,
        )  # fmt: skip
    axes.set_yticks(range(len(known)), [_NAMES[name] for name, _ in known], fontsize=8)
    axes.set_ylim(-0.5, len(known) - 0.5)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.xaxis.set_major_formatter("{x:+g} %")
