"""The report of an examined week: a JSON document with the documented keys, and a page, one static
HTML file with every plot inline."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from pydantic_core import to_json

from recsys.drift.config import HolidayCalendar
from recsys.drift.examination import Examination, Verdict, is_unjudged, overall, recommendations
from recsys.drift.volume import MIN_HISTORY_WEEKS, expect
from recsys.drift.weeks import Events, Week
from recsys.pages import templates
from recsys.plots import mark_days, picture

NOT_JUDGED = "not judged"
"""In place of the severity of a week that no check had enough data for."""

_MOVERS = 10
_SERIES_WEEKS = 26
_OLD, _NEW, _ALARM = "#9aa5b1", "#2563eb", "#c2410c"
_TITLES = {
    "rating": "Ratings",
    "activity": "Activity per customer",
    "new_users": "New customers",
    "comment_missing": "Missing comments",
    "embedding": "Kind of product",
}
"""Of checks that are called otherwise than by their name."""


def build_report(
    examination: Examination,
    *,
    generated_at: str,
    data: Mapping[str, Any],
    reference_kind: str,
    false_discovery_rate: float,
    names: Mapping[str, str],
    calendar: HolidayCalendar,
    events: Events,
) -> dict[str, Any]:
    """The report of one week as plain JSON values.

    `data` tells which data version was read (``version_id``, ``as_of``, ``covers_window``), `names`
    are product names by id, `events` those of the week and before it, for the volume's series."""
    span, verdicts = examination.span, examination.verdicts
    by_name = {verdict.check.name: verdict for verdict in verdicts}
    week = span.week
    comments = [name for name in by_name if name.startswith("comment_")]
    stale = [
        f"The published data ({data['version_id']}) ends on {data['as_of']}, before the week does. "
        "Either nothing arrived since, or data_refresh failed: look at its runs."
    ]
    report = {
        "report_date": week.end.strftime("%Y%m%d"),
        "generated_at": generated_at,
        "rating_drift": _section(by_name["rating"]),
        "popularity_drift": _section(by_name["popularity"], "shift_detected")
        | {
            "top_movers": _top_movers(examination, names),
            "names": _names_of(by_name["popularity"], names),
        },
        "interaction_drift": _joint(by_name, ["volume", "activity", "new_users"])
        | {
            "status": by_name["volume"].check.status,
            "volume_change_pct": _percent(by_name["volume"].check.effect),
            "user_activity_change_pct": _percent(by_name["activity"].check.effect),
            "new_users_pct": _percent(by_name["new_users"].check.details.get("new")),
            "series": _series(examination, events, calendar),
        },
        "campaign": _section(by_name["campaign"]),
        "comment_drift": _joint(by_name, comments),
        "embedding_drift": _section(by_name["embedding"]),
        "model_drift": _section(by_name["model"]),
        **{f"{name}_drift": _section(by_name[name]) for name in ("kinds",) if name in by_name},
        "overall_severity": NOT_JUDGED if is_unjudged(verdicts) else overall(verdicts),
        "raised": [verdict.check.name for verdict in verdicts if verdict.raised],
        "recommendations": (stale if not data["covers_window"] else []) + recommendations(verdicts),
        "windows": {
            "new": _window(week, (week.number, week.number + 1), span.all_window),
            "reference": _window(week, span.reference_bounds, span.reference)
            | {"kind": reference_kind},
            "volume_history": _window(week, span.history_bounds, span.history),
        },
        "false_discovery_rate": false_discovery_rate,
        "data": dict(data),
    }
    # NaN and infinities have no place in JSON: null.
    plain = to_json(report, inf_nan_mode="null", fallback=lambda value: value.tolist())
    return cast(dict[str, Any], json.loads(plain))


def _section(verdict: Verdict, detected: str = "drift_detected") -> dict[str, Any]:
    check = verdict.check
    return check.details | {
        detected: verdict.raised,
        "severity": verdict.severity,
        "status": check.status,
        "evidence_this_week": verdict.evidence,
        "evidence_week_before": verdict.evidence_before,
        "effect_size": check.effect,
        "p_value": check.p_value,
    }


def _joint(by_name: Mapping[str, Verdict], names: Sequence[str]) -> dict[str, Any]:
    """The sections of several checks, and what they say together."""
    verdicts = [by_name[name] for name in names]
    return {
        "drift_detected": any(verdict.raised for verdict in verdicts),
        "severity": overall(verdicts),
        **{verdict.check.name: _section(verdict) for verdict in verdicts},
    }


def _window(week: Week, bounds: tuple[int, int], events: Events) -> dict[str, Any]:
    first, stop = bounds
    if first == stop:
        return {"start": None, "end": None, "events": 0, "rows": 0}
    return {
        "start": Week(first, week.zone).start.isoformat(),
        "end": Week(stop, week.zone).start.isoformat(),
        "events": len(events),
        "rows": int(events.copies.sum()),
    }


def _top_movers(examination: Examination, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Products whose share of the events changed most."""
    span = examination.span
    old, new = span.reference.product_counts(), span.window.product_counts()
    if not old.any() or not new.any():
        return []
    change = new / new.sum() - old / old.sum()
    ids = span.window.product_ids
    return [
        {
            "product_id": str(ids[place]),
            "product_name": names.get(str(ids[place]), ""),
            "historical_share": old[place] / old.sum(),
            "new_share": new[place] / new.sum(),
        }
        for place in np.argsort(-np.abs(change), kind="stable")[:_MOVERS]
        if change[place] != 0
    ]


def _names_of(verdict: Verdict, names: Mapping[str, str]) -> dict[str, str]:
    listed = ("new_trending", "dropped_out", "new_products")
    ids = {product for key in listed for product in verdict.check.details.get(key, [])}
    return {product: names[product] for product in sorted(ids) if product in names}


def _series(
    examination: Examination, events: Events, calendar: HolidayCalendar
) -> list[dict[str, Any]]:
    """Events and rows of the last weeks, each with the band it was expected in."""
    span = examination.span
    last = span.week.number
    earliest = int(events.weeks[0]) if len(events) else last
    first = max(earliest, last - _SERIES_WEEKS + 1)
    daily = events.daily(earliest, last + 1)
    offsets = events.weeks - earliest
    rows = np.bincount(offsets, weights=events.copies, minlength=last + 1 - earliest)
    series = []
    for number in range(first, last + 1):
        week, place = Week(number, span.week.zone), number - earliest
        known = daily[max(0, place - 1 - _SERIES_WEEKS) : max(0, place - 1)]
        band = None
        if len(known) >= MIN_HISTORY_WEEKS:
            widen = calendar.widening(week.first_day)
            band = expect(known, int(daily[place].sum()), ahead=2, widen=widen)
        counted = {"events": int(daily[place].sum()), "rows": int(rows[place])}
        bounds = {name: getattr(band, name, None) for name in ("expected", "low", "high")}
        series.append({"week": week.first_day.isoformat()} | counted | bounds)
    return series


def _percent(share: float | None) -> float | None:
    return None if share is None else 100.0 * share


def render_page(report: Mapping[str, Any]) -> str:
    """The HTML page of a report made by `build_report`."""
    page = templates(Path(__file__).parent / "templates").get_template("report.html")
    return page.render(
        report=report,
        checks=_rows(report),
        star_plot=picture("Share of stars", partial(_draw_stars, report=report)),
        volume_plot=picture("Reviews a week", partial(_draw_volume, report=report)),
        mover_plot=picture(
            "Change of share, percentage points", partial(_draw_movers, report=report), left=0.36
        ),
    )


def _rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    sections = {
        "rating": report["rating_drift"],
        "popularity": report["popularity_drift"],
        **report["interaction_drift"],
        "campaign": report["campaign"],
        **report["comment_drift"],
        "embedding": report["embedding_drift"],
        "model": report["model_drift"],
        "kinds": report.get("kinds_drift"),
    }
    return [
        {
            "title": _TITLES.get(name, name.replace("_", " ").capitalize()),
            "state": _state(section),
            "raised": name in report["raised"],
            "effect": section["effect_size"],
            **{key: section.get(key, "") for key in ("severity", "unit", "p_value", "test")},
        }
        for name, section in sections.items()
        if isinstance(section, Mapping)
    ]


def _state(section: Mapping[str, Any]) -> str:
    if section["status"] == "insufficient_data":
        return "not enough data"
    if section.get("drift_detected") or section.get("shift_detected"):
        return "raised"
    return "seen once" if section["evidence_this_week"] else "quiet"


def _draw_stars(axes: Axes, report: Mapping[str, Any]) -> None:
    comparison = report["rating_drift"]["rating_comparison"]
    places = range(len(comparison))
    kinds = ((-0.2, "historical", _OLD, "reference"), (0.2, "new", _NEW, "this week"))
    for offset, key, colour, label in kinds:
        heights = [100 * shares[key] for shares in comparison.values()]
        beside = [place + offset for place in places]
        bars = axes.bar(beside, heights, 0.38, color=colour, label=label)
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(list(places), [f"{star}★" for star in comparison])
    axes.set_ylabel("percent of reviews")
    axes.set_ylim(0, 110)
    axes.legend(frameon=False, loc="upper left")


def _draw_volume(axes: Axes, report: Mapping[str, Any]) -> None:
    series = report["interaction_drift"]["series"]
    days = [date2num(date.fromisoformat(point["week"])) for point in series]
    known = [point for point in series if point["expected"]]
    if known:
        at = [date2num(date.fromisoformat(point["week"])) for point in known]
        low, high, expected = ([p[name] for p in known] for name in ("low", "high", "expected"))
        axes.fill_between(at, low, high, color=_OLD, alpha=0.3, linewidth=0, label="99 % band")
        axes.plot(at, expected, color=_OLD, label="expected")
    axes.plot(days, [point["events"] for point in series], "o-", color=_NEW, ms=3, label="reviews")
    if "volume" in report["raised"]:
        axes.plot(days[-1:], [series[-1]["events"]], "o", color=_ALARM, ms=9, label="alarm")
    mark_days(axes)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("reviews, each counted once")
    axes.legend(frameon=False, loc="upper left")


def _draw_movers(axes: Axes, report: Mapping[str, Any]) -> None:
    movers = list(reversed(report["popularity_drift"]["top_movers"]))
    changes = [100 * (one["new_share"] - one["historical_share"]) for one in movers]
    axes.barh(range(len(movers)), changes, color=[_NEW if c > 0 else _OLD for c in changes])
    labels = [one["product_name"] or one["product_id"] for one in movers]
    shortened = [text if len(text) <= 44 else f"{text[:43]}…" for text in labels]
    axes.set_yticks(range(len(movers)), shortened, fontsize=8)
    axes.axvline(0, color="black", linewidth=0.6)
