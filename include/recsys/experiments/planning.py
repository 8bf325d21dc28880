"""How long an experiment has to run, from what the shop's own customers did in the last weeks.

The past is taken as if the experiment had run in it: after each of its days the units seen so far,
their totals and the spread of these give the standard error that the difference would have had,
with all that customers who return do to it. The plan is the first day at which the boundary of the
sequence leaves the wanted power; beyond the past, the trend of its second half goes on."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from recsys.arrays import Float64Array, IntegerArray
from recsys.errors import InputError
from recsys.experiments.statistics import (
    ALPHA,
    MIN_ACTIVE_UNITS,
    boundary,
    running_sums,
    squared_residuals,
)

POWER = 0.8
WHOLE_WEEK_DAYS = 7
"""Plans are whole weeks: customers of a Sunday are others than those of a Tuesday."""

_LONGEST_DAYS = 365
_MIN_PAST_DAYS = 4


class Plan(NamedTuple):
    """What an experiment needs to find `effect` (relative) with power `POWER`: `days`, `units` of
    all sides together and `information` (V of `statistics`) at the end. `base_rate` is that of the
    past, `new_units` and `returning_units` what a day brings."""

    metric: str
    effect: float
    power: float
    alpha: float
    base_rate: float
    days: int
    units: int
    information: float
    new_units: float
    returning_units: float
    past_days: int


def plan(
    past: pd.DataFrame,
    metric: str,
    numerator: str,
    denominator: str | None,
    *,
    effect: float,
    shares: tuple[float, float],
    alpha: float = ALPHA,
) -> Plan:
    """The plan for a control and another side that get `shares` of all units. `past` has a row a
    unit and day (``day, unit`` and the columns of the metric; without `denominator` each unit
    counts as one). Raises `InputError` if it tells too little."""
    codes, days, (x, n) = _cells(past, numerator, denominator)
    by_day = running_sums(codes, days, x, None if denominator is None else n)
    seen, known = len(by_day.units), by_day.active >= 2 * MIN_ACTIVE_UNITS
    if seen < _MIN_PAST_DAYS or not known[-1]:
        raise InputError(
            f"{metric}: the last {seen} days have {by_day.active[-1] if seen else 0:.0f} customers "
            f"who count for it; a plan needs {_MIN_PAST_DAYS} days and {2 * MIN_ACTIVE_UNITS}: let "
            "the shop collect more, or choose a metric of what happens more often"
        )
    control, other = shares
    rate = by_day.x / by_day.n
    residuals = squared_residuals(by_day, rate)
    # The side that is better also varies more: money and counts grow with their mean.
    error = np.sqrt(residuals * (1 / control + (1 + effect) ** 2 / other)) / by_day.n
    need = float(boundary(1.0, alpha) + stats.norm.ppf(POWER))
    reached = effect * rate / error / need
    information = residuals * control * other / (control + other)
    length = _first_day(reached, known)
    length = -(-length // WHOLE_WEEK_DAYS) * WHOLE_WEEK_DAYS
    fresh = np.diff(by_day.units, prepend=0.0)
    daily = np.bincount(days[n > 0] if denominator else days, minlength=seen).astype(np.float64)
    late = slice(seen // 2, None)  # at first everybody is new
    return Plan(
        metric=metric,
        effect=effect,
        power=POWER,
        alpha=alpha,
        base_rate=float(rate[-1]),
        days=length,
        units=round(float(_at_day(by_day.units, length)) * (control + other)),
        information=float(_at_day(information, length)),
        new_units=float(fresh[late].mean()),
        returning_units=float((daily - fresh)[late].mean()),
        past_days=seen,
    )


def _cells(
    past: pd.DataFrame, numerator: str, denominator: str | None
) -> tuple[IntegerArray, IntegerArray, tuple[Float64Array, Float64Array]]:
    """Numbers of units and days, numerators and denominators, one of each unit and day."""
    codes, units = pd.factorize(past["unit"])
    first = pd.to_datetime(past["day"]).to_numpy().astype("datetime64[D]")
    days = (first - first.min()).astype(np.int64) if len(first) else np.zeros(0, dtype=np.int64)
    x = past[numerator].to_numpy(dtype=np.float64)
    n = np.ones(len(past)) if denominator is None else past[denominator].to_numpy(dtype=np.float64)
    if not len(past):
        return codes, days, (x, n)
    cell, inverse = np.unique(days * len(units) + codes, return_inverse=True)
    x, n = (np.bincount(inverse, weights=one).astype(np.float64) for one in (x, n))
    return cell % len(units), cell // len(units), (x, n)


def _first_day(reached: Float64Array, known: np.ndarray) -> int:
    """The first day (1, 2, ...) at which `reached` is 1; beyond the past by its trend, which is not
    believed to be faster than that of units who never return, nor to stand still."""
    enough = np.flatnonzero((reached >= 1) & known)
    if len(enough):
        return int(enough[0]) + 1
    last = len(reached)
    half = max(last // 2, int(np.flatnonzero(known)[0]) + 1)
    slope = 0.25
    if half < last:
        slope = np.log(reached[-1] / reached[half - 1]) / np.log(last / half)
    exponent = 1 / float(np.clip(slope, 0.1, 0.5))
    days = last * float(reached[-1]) ** -exponent if reached[-1] > 0 else np.inf
    return int(np.ceil(min(days, _LONGEST_DAYS)))


def _at_day(values: Float64Array, day: int) -> float:
    """`values` (of the days 1, 2, ...) at `day`; beyond them their trend goes on."""
    last = len(values)
    if day <= last:
        return float(values[day - 1])
    half = last // 2
    slope = np.log(values[-1] / values[half - 1]) / np.log(last / half) if values[half - 1] else 1.0
    return float(values[-1] * (day / last) ** max(float(slope), 0.0))
