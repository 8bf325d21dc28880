"""One week against its reference: every check, each with its evidence.

A check does not raise an alarm. It says how large a change is, how surprising, and whether it is
large enough to matter; `recsys.drift.verdicts` decides over all checks of two weeks.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recsys.arrays import Int64Array
from recsys.drift import ratings
from recsys.drift.campaigns import Campaigns, find_campaigns
from recsys.drift.config import DriftConfig, Severity
from recsys.drift.events import Events, Week
from recsys.drift.popularity import compare_popularity, weekly_shortfalls
from recsys.drift.statistics import dispersion_of, robust_scale

TESTED = "tested"
INSUFFICIENT = "insufficient_data"
_STAR_UNIT = "change of a star's share"
_TOP_UNIT = "shortfall of the Jaccard similarity"
_LISTED = 100
NEGLIGIBLE_P = 1e-12
"""Reported instead of p-values that no distribution is known well enough to claim."""


@dataclass(frozen=True)
class Check:
    """The outcome of one check for one week.

    Attributes
    ----------
    effect
        Size of the change in the check's own unit, named by ``details["unit"]``.
    large
        Whether the change is large enough to matter; alone it is no evidence.
    direction
        Sign of the change: two weeks in a row must agree on it.
    severity
        Of the alarm, if there is one.
    immediate
        Whether one week is enough for an alarm.
    """

    name: str
    status: str
    p_value: float | None = None
    effect: float | None = None
    large: bool = False
    direction: int = 0
    severity: Severity = "low"
    immediate: bool = False
    advice: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """An examined week, its reference and the longer history of its volume, campaign-free.

    Weeks are numbers of `recsys.drift.events.Week`; bounds are half-open.
    """

    week: Week
    reference_bounds: tuple[int, int]
    history_bounds: tuple[int, int]
    all_window: Events
    window: Events
    reference: Events
    history: Events
    campaigns: Campaigns


def span_of(
    events: Events,
    keys: Int64Array | None,
    week: Week,
    config: DriftConfig,
    *,
    reference_stop: int | None = None,
) -> Span:
    """Cut the weeks that the checks of `week` need out of `events`.

    `keys` are the sentence keys of `events` (None without comments). The reference ends with
    week `reference_stop` (exclusive), by default `gap_weeks` before the examined one. Only
    events up to the week are looked at, so a later report says the same about it.
    """
    stop = week.number - config.gap_weeks if reference_stop is None else reference_stop
    earliest = int(events.weeks[0]) if len(events) else week.number
    reference = (max(stop - config.reference_weeks, earliest), max(stop, earliest))
    history_stop = week.number - config.gap_weeks
    history = (
        max(history_stop - config.volume.history_weeks, earliest),
        max(history_stop, earliest),
    )
    first = min(reference[0], history[0])
    low, high = np.searchsorted(events.weeks, [first, week.number + 1])
    part = events.between(first, week.number + 1)
    campaigns = Campaigns(np.zeros(len(part), dtype=bool), [])
    if keys is not None:
        campaigns = find_campaigns(part, keys[low:high], config.campaign)
        if len(part) and int(part.weeks[-1]) != week.number:
            campaigns = Campaigns(campaigns.copied, [])
    clean = part.where(~campaigns.copied)
    return Span(
        week=week,
        reference_bounds=reference,
        history_bounds=history,
        all_window=part.between(week.number, week.number + 1),
        window=clean.between(week.number, week.number + 1),
        reference=clean.between(*reference),
        history=clean.between(*history),
        campaigns=campaigns,
    )


def check_rating(span: Span, config: DriftConfig) -> Check:
    """Star shares of the window against the reference, copies and campaigns left out."""
    rule = config.rating
    first, stop = span.reference_bounds
    reference = span.reference.ratings
    weekly = np.vstack(
        [
            ratings.count_stars(reference[span.reference.weeks == week])
            for week in range(first, stop)
        ]
        or [np.zeros(5, dtype=np.int64)]
    )
    result = ratings.compare_stars(
        weekly.sum(axis=0),
        ratings.count_stars(span.window.ratings),
        threshold=rule.threshold,
        high=rule.high,
        min_rows=rule.min_events,
        dispersion=dispersion_of(weekly),
    )
    if result["status"] == INSUFFICIENT:
        return Check("rating", INSUFFICIENT, details=result | {"unit": _STAR_UNIT})
    change = result["max_difference"]
    star = result["star"]
    difference = result["rating_comparison"][str(star)]["difference"]
    return Check(
        "rating",
        TESTED,
        p_value=result["p_value"],
        effect=change,
        large=change >= rule.threshold and change > result["null_bound"],
        direction=int(np.sign(difference)) * star,
        severity="high" if change >= rule.high else "medium",
        advice=f"The share of {star}-star reviews moved by {100 * difference:+.1f} points: look "
        "at what customers complain about, then retrain.",
        details=result | {"unit": _STAR_UNIT},
    )


def check_popularity(span: Span, config: DriftConfig) -> Check:
    """Best sellers of the window against the reference, copies and campaigns left out."""
    rule = config.popularity
    rng = np.random.default_rng([7, span.week.number])
    first, stop = span.reference_bounds
    old, new = span.reference.product_counts(), span.window.product_counts()
    own_bound = None
    if len(span.window) >= rule.min_events:
        place = (span.reference.weeks - first) * len(old) + span.reference.products
        weekly = np.bincount(place, minlength=(stop - first) * len(old)).reshape(-1, len(old))
        past = weekly_shortfalls(weekly, rule.top_k, rng)
        if len(past) >= 4:  # a spread needs a few weeks
            own_bound = float(np.median(past) + 3.5 * robust_scale(past))
    result = compare_popularity(
        old,
        new,
        top_k=rule.top_k,
        rng=rng,
        min_interactions=rule.min_events,
        min_shortfall=rule.min_shortfall,
        high_shortfall=rule.high_shortfall,
        own_bound=own_bound,
    )
    ids = span.reference.product_ids
    result |= {key: [str(ids[i]) for i in result[key]] for key in ("new_trending", "dropped_out")}
    result["new_products"] = _new_products(span, old, new)
    if result["status"] == INSUFFICIENT:
        return Check("popularity", INSUFFICIENT, details=result | {"unit": _TOP_UNIT})
    shortfall = result["shortfall"]
    return Check(
        "popularity",
        TESTED,
        p_value=result["p_value"],
        effect=shortfall,
        large=shortfall >= max(rule.min_shortfall, own_bound or 0.0),
        direction=1,
        severity="high" if shortfall >= rule.high_shortfall else "medium",
        advice=f"The best sellers changed: {len(result['new_trending'])} products entered the top "
        f"{rule.top_k}. Retrain, and renew lists that were made by hand.",
        details=result | {"unit": _TOP_UNIT},
    )


def _new_products(span: Span, old: Int64Array, new: Int64Array) -> list[str]:
    """Products of the window that the reference does not know, best first."""
    fresh = np.flatnonzero((new > 0) & (old == 0))
    best = fresh[np.argsort(-new[fresh], kind="stable")][:_LISTED]
    return [str(span.reference.product_ids[place]) for place in best]
