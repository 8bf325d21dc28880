"""The report of an examined week: a JSON document with the documented keys."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
from pydantic_core import to_json

from recsys.drift.checks import INSUFFICIENT
from recsys.drift.config import HolidayCalendar
from recsys.drift.examination import Examination, Verdict, is_unjudged, overall, recommendations
from recsys.drift.volume import MIN_HISTORY_WEEKS, expect
from recsys.drift.weeks import Events, Week

NOT_JUDGED: Final = "not judged"
"""In place of the severity of a week, or of a check, that had not enough data."""

_MOVERS = 10
_SERIES_WEEKS = 26


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
        "overall_severity": _severity(verdicts),
        "raised": [verdict.check.name for verdict in verdicts if verdict.raised],
        "not_judged": [one.check.name for one in verdicts if is_unjudged([one])],
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
        "severity": _severity([verdict]),
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
        "severity": _severity(verdicts),
        **{verdict.check.name: _section(verdict) for verdict in verdicts},
    }


def _severity(verdicts: Sequence[Verdict]) -> str:
    """The highest that was raised; `NOT_JUDGED` where nothing could be."""
    return NOT_JUDGED if is_unjudged(verdicts) else overall(verdicts)


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


def checks_of(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The section of each check of a report made by `build_report`, by the check's name."""
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
    return {name: one for name, one in sections.items() if isinstance(one, Mapping)}


def state_of(section: Mapping[str, Any]) -> str:
    """What a check found: ``not_judged``, ``raised``, ``seen_once`` (in one week so far) or
    ``quiet``."""
    if section["status"] == INSUFFICIENT:
        return "not_judged"
    if section.get("drift_detected") or section.get("shift_detected"):
        return "raised"
    return "seen_once" if section["evidence_this_week"] else "quiet"
