"""The report of the last four weeks, as a JSON document and a page in each language."""

import contextlib
import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from recsys import schema
from recsys.data.simulated import read_note
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.outcomes.alerts import silent_days
from recsys.outcomes.attribution import POSITION, REACH
from recsys.outcomes.candidates import candidates, judge_candidates
from recsys.outcomes.daily import figured_days, read_totals
from recsys.outcomes.exploration import (
    CHANCE,
    Counts,
    chance_of,
    cost_of_exploring,
    expected_clicks,
)
from recsys.outcomes.figures import EXPLORED, LAST_POSITION
from recsys.outcomes.page import render_outcome_pages
from recsys.outcomes.partitions import lost_lists
from recsys.outcomes.period import METRICS, OF_ITEMS, OF_LISTS, Metric, Period
from recsys.outcomes.rates import as_json
from recsys.outcomes.year import write_outcome_year
from recsys.publishing import write_json
from recsys.registry import Registry
from recsys.reporting import write_pages
from recsys.schedule import load_zone
from recsys.settings import Settings

DAYS: Final = 28
REPORTS_FOLDER: Final = "outcomes"
NEW_DAYS: Final = 28
"""A product without a rating older than so many days is new."""

_LINES: Final = 4
_ROWS: Final = 20
_SLICES: Final = ("model", "placement", "endpoint", "side")


def write_outcome_report(settings: Settings, last: date) -> dict[str, Any]:
    """Write ``reports/outcomes/outcomes_YYYYMMDD.json``, ``.html`` and ``.en.html`` about `DAYS`
    up to `last`, and, once a day, the year's ``year.json``.

    Returns ``report`` and ``page`` (paths below the state root), ``days``, ``lists``, ``clicks``,
    ``purchases``, ``value``. Raises `InputError` if the figures of a day cannot be read."""
    report = build_report(settings, last)
    path = settings.reports / REPORTS_FOLDER / f"outcomes_{last:%Y%m%d}.json"
    page = path.with_suffix(".html")
    if report["exploration"] is not None:
        report["candidates"] = _candidates(settings, last, path)
    write_pages(page, render_outcome_pages(report, page, load_zone(settings)))
    write_json(path, report)
    write_outcome_year(settings, last - timedelta(days=1))  # the last whole day
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
    days = [day for day in figured_days(settings) if first <= day <= last]
    now = datetime.now(load_zone(settings))
    silent = silent_days({day: read_totals(settings, day) for day in days}, now.date())
    period = Period(settings, days, silent)
    lost = lost_lists(settings, period.days)
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
        "silent": [str(day) for day in silent],
        "happened": period.happened(),
        "robots": period.robots(),
        "anonymous_lists": sum(one["anonymous_lists"] for one in period.totals.values()),
        "lost_lists": sum(lost.values()),
        "repeated": sum(one["repeated"] for one in period.totals.values()),
        "unvalued": sum(one["unvalued"] for one in period.totals.values()),
        "open_since": str(open_since) if open_since <= last else None,
    }


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
