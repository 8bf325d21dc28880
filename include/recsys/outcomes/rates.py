"""Rates with intervals that treat the user as the unit. Pure: arrays of sums by block of users in.

Lists of one user are not independent: a list more of the same customer says less than one of
another. A rate is a ratio of two sums over users, and its variance is that of the linearised ratio,
the delta method: W. G. Cochran, *Sampling Techniques* (3rd ed., 1977), eq. (6.13); for rates in web
experiments A. Deng, U. Knoblich, J. Lu, *Applying the Delta Method in Metric Analytics* (KDD 2018).
The users are put together in random groups with fixed members, so that sums of days can be added:
K. M. Wolter, *Introduction to Variance Estimation* (2nd ed., 2007), chapter 2."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from scipy import stats

from recsys.arrays import AnyArray, Float64Array

CONFIDENCE: Final = 0.95

MIN_UNITS: Final = 10
"""An interval needs so many users (or blocks) with something; one of a ratio of rates, so many with
something counted on either side. Below, the normal approximation promises what it cannot keep."""

FALSE_ALARMS_A_YEAR: Final = 0.05
"""How often in a year in which nothing changes any of the `JUDGED` falls may be called proven."""
JUDGED: Final = 2
"""Rates that are watched, each once a day: see `proven_fall`."""

MIN_REFERENCE_DAYS: Final = 14

SILENCE_CHANCE: Final = 1e-6
"""Tracking is silent when that no event came has a smaller chance than this."""


class Rate(NamedTuple):
    """A ratio of two sums and its interval; None where too few users say nothing."""

    value: float | None
    low: float | None
    high: float | None
    numerator: float
    denominator: float


def as_json(found: Rate) -> dict[str, float | None]:
    """The rate and the ends of its interval."""
    return {"value": found.value, "low": found.low, "high": found.high}


class Sums(NamedTuple):
    """Numerators and denominators of a rate, one cell a block of users."""

    numerators: Float64Array
    denominators: Float64Array


class _Estimate(NamedTuple):
    value: float
    variance: float
    freedom: int


def rate(numerators: AnyArray, denominators: AnyArray) -> Rate:
    """The ratio of the totals with its 95 % interval. `numerators` and `denominators` are sums by
    user, or by block of users, in the same order.

    >>> rate([2, 0, 1, 1], [10, 10, 10, 10]).value
    0.1
    """
    sums = _sums(numerators, denominators)
    totals = float(sums.numerators.sum()), float(sums.denominators.sum())
    if not totals[1]:
        return Rate(None, None, None, *totals)
    estimate = _estimate(sums)
    if estimate.freedom < MIN_UNITS - 1 or not totals[0]:
        return Rate(estimate.value, None, None, *totals)
    reach = _quantile(estimate.freedom) * float(np.sqrt(estimate.variance))
    value = estimate.value
    return Rate(value, max(0.0, value - reach), value + reach, *totals)


def uplift(treated: Sums, control: Sums) -> Rate:
    """By which share the rate of the `treated` is above that of the `control` (0.1: ten percent),
    with its 95 % interval, on the scale of logarithms: it never ends below -1. The two are of
    different users. Numerator and denominator are the two rates."""
    if not (_has_rate(treated) and _has_rate(control)):
        return Rate(None, None, None, _value(treated), _value(control))
    one, other = _estimate(treated), _estimate(control)
    ratio = one.value / other.value
    relative = one.variance / one.value**2 + other.variance / other.value**2
    freedom = min(one.freedom, other.freedom)
    if min(np.count_nonzero(side.numerators) for side in (treated, control)) < MIN_UNITS:
        return Rate(ratio - 1, None, None, one.value, other.value)
    reach = _quantile(freedom) * float(np.sqrt(relative))
    low, high = ratio * np.exp(-reach) - 1, ratio * np.exp(reach) - 1
    return Rate(ratio - 1, float(low), float(high), one.value, other.value)


def proven_fall(judged: Sequence[Sums], reference: Sequence[Sums]) -> float | None:
    """By which share at least the rate of the `judged` days is below that of the `reference` days
    (0: not proven; None: the reference has fewer than `MIN_REFERENCE_DAYS` days with lists).

    The difference is held against the spread of users in both, and against how much the days of
    the reference differ beyond that (DerSimonian and Laird's moment estimate): no two days of a
    shop are alike. The bound is one-sided, at `FALSE_ALARMS_A_YEAR` by Bonferroni over the days of
    a year and the rates. A day is judged when it is over: further looks at it are at the same
    numbers, but for a few late events."""
    days = [day for day in reference if day.denominators.sum() > 0]
    now = _added(judged)
    if len(days) < MIN_REFERENCE_DAYS or not now.denominators.sum():
        return None
    before = _estimate(_added(days))
    if not before.value:
        return None
    singles = [_estimate(day) for day in days]
    within = float(np.mean([one.variance for one in singles]))
    between = max(0.0, float(np.var([one.value for one in singles], ddof=1)) - within)
    latest = _estimate(now)
    # A day without any event has no spread of its own.
    chance = max(latest.variance, before.value / float(now.denominators.sum()))
    variance = chance + between / len(judged) + before.variance + between / len(days)
    error = FALSE_ALARMS_A_YEAR / (365 * JUDGED)
    reach = float(stats.t.isf(error, len(days) - 1) * np.sqrt(variance))
    return max(0.0, (before.value - latest.value - reach) / before.value)


def silent_after(active_share: float) -> float:
    """How many customers with lists must have passed since the last event before their silence is
    no chance any more, when `active_share` of them send an event in a day.

    >>> round(silent_after(0.05))
    269
    """
    return float(np.log(SILENCE_CHANCE) / np.log1p(-min(active_share, 0.999)))


def _sums(numerators: AnyArray, denominators: AnyArray) -> Sums:
    return Sums(np.asarray(numerators, np.float64), np.asarray(denominators, np.float64))


def _added(days: Sequence[Sums]) -> Sums:
    return Sums(
        np.sum([day.numerators for day in days], axis=0),
        np.sum([day.denominators for day in days], axis=0),
    )


def _estimate(sums: Sums) -> _Estimate:
    """The ratio of sums with a denominator above zero, and the variance of its linearisation."""
    numerators, denominators = sums
    value = float(numerators.sum() / denominators.sum())
    units = int(np.count_nonzero(denominators))
    deviations = numerators - value * denominators
    spread = float((deviations**2).sum()) / float(denominators.sum()) ** 2
    return _Estimate(value, spread * units / max(1, units - 1), units - 1)


def _has_rate(sums: Sums) -> bool:
    return bool(sums.numerators.sum() > 0 and sums.denominators.sum() > 0)


def _value(sums: Sums) -> float:
    total = float(sums.denominators.sum())
    return float(sums.numerators.sum()) / total if total else 0.0


@lru_cache(maxsize=512)
def _quantile(freedom: int) -> float:
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom))
