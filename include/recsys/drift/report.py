"""The report: a JSON document with the documented keys, from an examined week."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recsys.drift import volume
from recsys.drift.config import HolidayCalendar
from recsys.drift.events import Events, Week
from recsys.drift.examination import Examination
from recsys.drift.verdicts import Verdict, overall, recommendations

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

    Parameters
    ----------
    data
        Which data version was read: ``version_id``, ``as_of``, ``covers_window``.
    names
        Product names by id.
    events
        Those of the examined week and the weeks before it, for the series of the volume.
    """
    span, verdicts = examination.span, examination.verdicts
    by_name = {verdict.check.name: verdict for verdict in verdicts}
    week = span.week
    report = {
        "report_date": week.end.strftime("%Y%m%d"),
        "generated_at": generated_at,
        "rating_drift": _section(by_name["rating"], "drift_detected"),
        "popularity_drift": _section(by_name["popularity"], "shift_detected")
        | {
            "top_movers": _top_movers(examination, names),
            "names": _names_of(by_name["popularity"], names),
        },
        "interaction_drift": _interaction_section(by_name)
        | {"series": _series(examination, events, calendar)},
        "campaign": _section(by_name["campaign"], "drift_detected"),
        "comment_drift": _comment_section(verdicts),
        "embedding_drift": _section(by_name["embedding"], "drift_detected"),
        "model_drift": _section(by_name["model"], "drift_detected"),
        "overall_severity": overall(verdicts),
        "raised": [verdict.check.name for verdict in verdicts if verdict.raised],
        "recommendations": _warnings(data) + recommendations(verdicts),
        "windows": {
            "new": _window(week, week, span.all_window),
            "reference": _bounds(week, span.reference_bounds, span.reference)
            | {"kind": reference_kind},
            "volume_history": _bounds(week, span.history_bounds, span.history),
        },
        "false_discovery_rate": false_discovery_rate,
        "data": dict(data),
    }
    plain: dict[str, Any] = as_plain(report)
    return plain


def as_plain(value: Any) -> Any:
    """`value` with NumPy scalars and arrays as Python's own, and None for NaN and infinities."""
    if isinstance(value, Mapping):
        return {str(key): as_plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return as_plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _section(verdict: Verdict, detected: str) -> dict[str, Any]:
    check = verdict.check
    return dict(check.details) | {
        detected: verdict.raised,
        "severity": verdict.severity,
        "status": check.status,
        "evidence_this_week": verdict.evidence,
        "evidence_week_before": verdict.evidence_before,
        "effect_size": check.effect,
        "p_value": check.p_value,
    }


def _interaction_section(by_name: Mapping[str, Verdict]) -> dict[str, Any]:
    parts = {name: by_name[name] for name in ("volume", "activity", "new_users")}
    new_users = by_name["new_users"].check.details.get("new")
    return {
        "drift_detected": any(verdict.raised for verdict in parts.values()),
        "severity": overall(list(parts.values())),
        "status": by_name["volume"].check.status,
        "volume_change_pct": _percent(by_name["volume"].check.effect),
        "user_activity_change_pct": _percent(by_name["activity"].check.effect),
        "new_users_pct": _percent(new_users),
        **{name: _section(verdict, "drift_detected") for name, verdict in parts.items()},
    }


def _comment_section(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    parts = {v.check.name: v for v in verdicts if v.check.name.startswith("comment_")}
    return {
        "drift_detected": any(verdict.raised for verdict in parts.values()),
        "severity": overall(list(parts.values())),
        **{name: _section(verdict, "drift_detected") for name, verdict in parts.items()},
    }


def _warnings(data: Mapping[str, Any]) -> list[str]:
    if data["covers_window"]:
        return []
    return [
        f"The published data ({data['version_id']}) ends on {data['as_of']}, before the week "
        "does. Either nothing arrived since, or data_refresh failed: look at its runs."
    ]


def _window(first: Week, last: Week, events: Events) -> dict[str, Any]:
    return {
        "start": first.start.isoformat(),
        "end": last.end.isoformat(),
        "events": len(events),
        "rows": int(events.copies.sum()),
    }


def _bounds(week: Week, bounds: tuple[int, int], events: Events) -> dict[str, Any]:
    first, stop = bounds
    if first == stop:
        return {"start": None, "end": None, "events": 0, "rows": 0}
    return _window(Week(first, week.zone), Week(stop - 1, week.zone), events)


def _top_movers(examination: Examination, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Products whose share of the events changed most."""
    old, new = (
        part.product_counts() for part in (examination.span.reference, examination.span.window)
    )
    if not old.any() or not new.any():
        return []
    change = new / new.sum() - old / old.sum()
    ids = examination.span.window.product_ids
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
        if len(known) >= 6:  # fewer weeks than this say nothing about their spread
            widen = max((h.widen for h in calendar.touching(week.first_day)), default=1.0)
            band = volume.expect(
                known.sum(axis=1), known, int(daily[place].sum()), ahead=2, widen=widen
            )
        series.append(
            {
                "week": week.first_day.isoformat(),
                "events": int(daily[place].sum()),
                "rows": int(rows[place]),
                "expected": band.expected if band else None,
                "low": band.low if band else None,
                "high": band.high if band else None,
            }
        )
    return series


def _percent(share: float | None) -> float | None:
    return None if share is None else 100.0 * share
