"""How many reviews a week should bring and did, and how many were written to order.

On the square-root scale chance alone has the same spread at every level. A Theil-Sen line through
the reference's weeks is not moved by a few wild ones; the spread of the weeks around it widens the
band beyond pure chance, and a holiday widens it further."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from scipy import stats

from recsys.arrays import Float64Array, Int64Array
from recsys.drift.checks import NEGLIGIBLE_P, Check, Span
from recsys.drift.config import DriftConfig, HolidayCalendar
from recsys.drift.statistics import robust_scale, shares

DAYS = 7
MIN_HISTORY_WEEKS = 6  # fewer weeks than this say nothing about their spread
_CHANCE = 0.5  # standard deviation of the square root of a Poisson count
_BUSY = 4.0  # standard deviations above it from which a day is busy
_FREEDOM = 10  # of the t distribution: the spread is itself estimated from a few weeks
_MIN_EXPECTED = 10  # fewer expected events a week: insufficient_data
_HIGH_DROP = 0.5  # a sustained drop that is of high severity
_COLLAPSE = 0.7  # a drop that raises at once, with high severity
_BURST = 2.0  # times the expectation, and above the band: raises at once
_CONCENTRATED = 0.25  # share of one product that makes a burst that product's
_MEANINGS = {
    None: "the volume changed.",
    "campaign": "a campaign; see its sentences.",
    "product burst": "a burst around one product; see whether a promotion explains it.",
    "burst": "a burst over many products; see whether a sale explains it.",
    "drop": "check that orders and reviews still arrive (data_refresh, the shop's export).",
}


@dataclass(frozen=True)
class Expectation:
    """What a week was expected to bring: `low` and `high` hold 99 % of unchanged weeks, `daily`
    sums to `expected`, `change` is observed over expected, minus 1."""

    expected: float
    low: float
    high: float
    daily: Float64Array
    p_value: float
    change: float


def expect(
    daily_history: Int64Array, observed: int, *, ahead: int = 1, widen: float = 1.0
) -> Expectation:
    """The expectation for a week, `ahead` weeks (at least 1) after the last of `daily_history`, and
    how likely its `observed` count is.

    `daily_history` are ``(weeks, 7)`` counts of consecutive weeks, oldest first, at least 4;
    `widen` is a factor on the width of the band, for holidays."""
    history = daily_history.sum(axis=1)
    roots = np.sqrt(history.astype(np.float64))
    weeks = np.arange(len(roots), dtype=np.float64)
    # The median slope of all pairs, then the median intercept.
    slope, intercept = map(float, stats.theilslopes(roots, weeks, method="joint")[:2])
    centre, place = float(weeks.mean()), len(roots) - 1 + ahead
    root = max(0.0, intercept + slope * place)
    spread = max(_CHANCE, robust_scale(roots - (intercept + slope * weeks)))
    distance = (place - centre) ** 2 / float(((weeks - centre) ** 2).sum())
    error = widen * spread * float(np.sqrt(1 + 1 / len(roots) + distance))
    reach = float(stats.t.ppf(0.995, _FREEDOM)) * error
    score = (np.sqrt(observed) - root) / error
    expected = root**2
    profile = shares(np.median(daily_history / np.maximum(history, 1)[:, None], axis=0))
    return Expectation(
        expected=expected,
        low=max(0.0, root - reach) ** 2,
        high=(root + reach) ** 2,
        daily=expected * (profile if profile.any() else np.full(DAYS, 1 / DAYS)),
        p_value=2 * float(stats.t.sf(abs(score), _FREEDOM)),
        change=float(observed / expected - 1) if expected else np.inf,
    )


def busy_days(daily: Int64Array, expectation: Expectation) -> list[int]:
    """Weekdays (0 = Monday) with far more than their share of the week's upper bound."""
    relative = max(expectation.high / max(expectation.expected, 1e-9), 1.0)
    most = np.maximum(expectation.daily, 0.5) * relative
    return [int(day) for day in np.flatnonzero(daily > most + _BUSY * np.sqrt(most))]


def check_volume(
    span: Span, config: DriftConfig, calendar: HolidayCalendar, ends: datetime | None = None
) -> Check:
    """Events of the week against trend, weekday profile and band. Of a week that is not over where
    the data end, at `ends`, nobody knows how many there were."""
    first, stop = span.history_bounds
    observed, rows = len(span.all_window), int(span.all_window.copies.sum())
    daily = span.all_window.daily(span.week.number, span.week.number + 1)[0]
    details: dict[str, Any] = {
        "unit": "change against the expectation",
        "events": observed,
        "rows": rows,
        "history_weeks": stop - first,
        "daily": [int(count) for count in daily],
        "campaign_events": observed - len(span.window),
    }
    if ends is not None and ends < span.week.end:
        return Check("volume", details=details | {"data_end": ends.isoformat()})
    if stop - first < MIN_HISTORY_WEEKS:
        return Check("volume", details=details)
    widen = calendar.widening(span.week.first_day)
    history = span.history.daily(first, stop)
    expectation = expect(history, observed, ahead=span.week.number - stop + 1, widen=widen)
    details |= {
        "expected": expectation.expected,
        "band_99": [expectation.low, expectation.high],
        "daily_expected": [float(count) for count in expectation.daily],
        "holidays": [holiday.name for holiday in calendar.touching(span.week.first_day)],
        "pattern": None,
        "test": "square-root scale, Theil-Sen trend, t band",
    }
    if expectation.expected < _MIN_EXPECTED:
        return Check("volume", details=details)
    change = expectation.change
    outside = observed < expectation.low or observed > expectation.high
    collapse = change <= -_COLLAPSE and observed < expectation.low
    burst = observed > expectation.high and observed >= _BURST * expectation.expected
    dropped = change <= -_HIGH_DROP
    pattern = _pattern(span, config, expectation) if outside else None
    details |= {"pattern": pattern, "busy_days": busy_days(daily, expectation)}
    details["top_product"] = _top_product(span)
    return Check(
        "volume",
        p_value=max(expectation.p_value, NEGLIGIBLE_P),
        effect=change,
        large=abs(change) >= config.volume.min_change * widen and outside,
        direction=int(np.sign(change)),
        severity="high" if collapse or dropped else "medium",
        immediate=collapse or burst,
        advice=f"{observed} reviews where {expectation.expected:.0f} were expected "
        f"({expectation.low:.0f} to {expectation.high:.0f}): {_MEANINGS[pattern]}",
        details=details,
    )


def check_campaign(span: Span, config: DriftConfig) -> Check:
    """Share of the week's events whose sentence many customers share."""
    observed = len(span.all_window)
    copied = observed - len(span.window)
    details: dict[str, Any] = {
        "unit": "share of events",
        "copied_events": copied,
        "sentences": span.sentences,
        "test": "users of one sentence in a week against its usual rate",
    }
    weeks = span.history_bounds[1] - span.history_bounds[0]
    if span.all_window.comments is None or weeks < MIN_HISTORY_WEEKS or not observed:
        return Check("campaign", details=details)
    share = copied / observed
    raised = share >= config.campaign.min_share
    text = span.sentences[0]["text"] if span.sentences else ""
    return Check(
        "campaign",
        p_value=NEGLIGIBLE_P if raised else 1.0,
        effect=share,
        large=raised,
        direction=1,
        severity="medium",
        immediate=True,
        advice=f"{copied} of {observed} reviews ({100 * share:.0f} %) repeat a sentence that many "
        f"customers wrote in the same week (“{text}”): look at the promotion behind them. "
        "They are left out of the checks of taste.",
        details=details,
    )


def _pattern(span: Span, config: DriftConfig, expectation: Expectation) -> str:
    """What an unusual week looks like: ``campaign``, ``product burst``, ``burst``, ``drop``."""
    observed = len(span.all_window)
    if observed < expectation.low:
        return "drop"
    if observed - len(span.window) >= config.campaign.min_share * observed:
        return "campaign"
    most = int(span.all_window.product_counts().max())
    return "product burst" if most >= _CONCENTRATED * observed else "burst"


def _top_product(span: Span) -> dict[str, Any] | None:
    counts = span.all_window.product_counts()
    if not counts.any():
        return None
    place = int(counts.argmax())
    return {"product_id": str(span.all_window.product_ids[place]), "events": int(counts[place])}
