"""How many reviews a week should bring: trend, weekdays, holidays, and a band around them.

Counts are taken to the square-root scale, where chance alone has the same spread at every level.
A Theil-Sen line through the reference's weeks is not moved by a few wild ones; the spread of the
weeks around it widens the band beyond pure chance, and a holiday widens it further.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from recsys.arrays import Float64Array, Int64Array
from recsys.drift.statistics import robust_scale, shares

DAYS = 7
_CHANCE = 0.5  # standard deviation of the square root of a Poisson count
_BUSY = 4.0  # standard deviations above it from which a day is busy
_FREEDOM = 10  # of the t distribution: the spread is itself estimated from a few weeks


@dataclass(frozen=True)
class Expectation:
    """What a week was expected to bring.

    `low` and `high` hold 99 % of unchanged weeks; `daily` sums to `expected`.
    """

    expected: float
    low: float
    high: float
    daily: Float64Array
    p_value: float
    change: float
    """Observed over expected, minus 1."""


def expect(
    history: Int64Array,
    daily_history: Int64Array,
    observed: int,
    *,
    ahead: int = 1,
    widen: float = 1.0,
) -> Expectation:
    """The expectation for a week and how likely its `observed` count is.

    Parameters
    ----------
    history
        ``(weeks,)`` counts of consecutive weeks, oldest first, at least 4.
    daily_history
        ``(weeks, 7)`` the same by weekday.
    ahead
        How many weeks after the last of `history` the week is, at least 1.
    widen
        Factor on the width of the band, for holidays.
    """
    roots = np.sqrt(history.astype(np.float64))
    weeks = np.arange(len(roots), dtype=np.float64)
    slope, intercept = _line(weeks, roots)
    centre = float(weeks.mean())
    place = len(roots) - 1 + ahead
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


def _line(weeks: Float64Array, roots: Float64Array) -> tuple[float, float]:
    """Theil-Sen: the median slope of all pairs, then the median intercept."""
    early, late = np.triu_indices(len(weeks), k=1)
    slope = float(np.median((roots[late] - roots[early]) / (weeks[late] - weeks[early])))
    return slope, float(np.median(roots - slope * weeks))
