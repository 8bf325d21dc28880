"""How much came in this week, and was it written to order?"""

from typing import Any

import numpy as np

from recsys.drift import volume
from recsys.drift.checks import INSUFFICIENT, NEGLIGIBLE_P, TESTED, Check, Span
from recsys.drift.config import DriftConfig, HolidayCalendar
from recsys.drift.volume import Expectation

_CONCENTRATED = 0.25  # share of one product that makes a burst that product's
_MEANINGS = {
    "campaign": "a campaign; see its sentences.",
    "product burst": "a burst around one product; see whether a promotion explains it.",
    "burst": "a burst over many products; see whether a sale explains it.",
    "drop": "check that orders and reviews still arrive (data_refresh, the shop's export).",
}


def check_volume(span: Span, config: DriftConfig, calendar: HolidayCalendar) -> Check:
    """Events of the week against trend, weekday profile and band."""
    rule = config.volume
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
    if stop - first < rule.min_history_weeks:
        return Check("volume", INSUFFICIENT, details=details)
    holidays = calendar.touching(span.week.first_day)
    widen = max((holiday.widen for holiday in holidays), default=1.0)
    history = span.history.daily(first, stop)
    expectation = volume.expect(
        history.sum(axis=1), history, observed, ahead=span.week.number - stop + 1, widen=widen
    )
    details |= {
        "expected": expectation.expected,
        "band_99": [expectation.low, expectation.high],
        "daily_expected": [float(count) for count in expectation.daily],
        "holidays": [holiday.name for holiday in holidays],
        "pattern": None,
        "test": "square-root scale, Theil-Sen trend, t band",
    }
    if expectation.expected < rule.min_expected:
        return Check("volume", INSUFFICIENT, details=details)
    change = expectation.change
    outside = observed < expectation.low or observed > expectation.high
    collapse = change <= -rule.collapse and observed < expectation.low
    burst = observed > expectation.high and observed >= rule.burst * expectation.expected
    dropped = change <= -rule.high_drop
    pattern = _pattern(span, config, expectation) if outside else None
    details |= {"pattern": pattern, "busy_days": volume.busy_days(daily, expectation)}
    details["top_product"] = _top_product(span)
    return Check(
        "volume",
        TESTED,
        p_value=max(expectation.p_value, NEGLIGIBLE_P),
        effect=change,
        large=abs(change) >= rule.min_change * widen and outside,
        direction=int(np.sign(change)),
        severity="high" if collapse or dropped else "medium",
        immediate=collapse or burst,
        advice=_volume_advice(observed, expectation, pattern),
        details=details,
    )


def check_campaign(span: Span, config: DriftConfig) -> Check:
    """Share of the week's events whose sentence many customers share."""
    observed = len(span.all_window)
    copied = observed - len(span.window)
    details: dict[str, Any] = {
        "unit": "share of events",
        "copied_events": copied,
        "sentences": span.campaigns.sentences,
        "test": "users of one sentence in a week against its usual rate",
    }
    weeks = span.history_bounds[1] - span.history_bounds[0]
    if span.all_window.comments is None or weeks < config.volume.min_history_weeks:
        return Check("campaign", INSUFFICIENT, details=details)
    share = copied / observed if observed else 0.0
    raised = share >= config.campaign.min_share
    text = span.campaigns.sentences[0]["text"] if span.campaigns.sentences else ""
    return Check(
        "campaign",
        TESTED,
        p_value=NEGLIGIBLE_P if raised else 1.0,
        effect=share,
        large=raised,
        direction=1,
        severity=config.severity.campaign,
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


def _volume_advice(observed: int, expectation: Expectation, pattern: str | None) -> str:
    amount = (
        f"{observed} reviews where {expectation.expected:.0f} were expected "
        f"({expectation.low:.0f} to {expectation.high:.0f})"
    )
    return f"{amount}: {_MEANINGS.get(pattern or '', 'the volume changed.')}"


def _top_product(span: Span) -> dict[str, Any] | None:
    counts = span.all_window.product_counts()
    if not counts.any():
        return None
    place = int(counts.argmax())
    return {"product_id": str(span.all_window.product_ids[place]), "events": int(counts[place])}
