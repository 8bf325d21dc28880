"""The tests behind the report, on counts and arrays only.

A shop's weeks differ by more than chance of single reviews (promotions, deliveries): the tests for
shares and means measure how much the reference's own weeks differ, and widen by that much."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from recsys.arrays import Float64Array, Int64Array, IntegerArray
from recsys.errors import InputError

_MAD_TO_SD = 1.4826


def shares(counts: NDArray[np.number]) -> Float64Array:
    """`counts` divided by their sum; zeros when the sum is zero."""
    total = counts.sum()
    return counts / total if total else np.zeros(len(counts), dtype=np.float64)


def numbers_of(given: pd.Series, name: str) -> pd.Series:
    """`given` as floats, NaN where missing. Raises `InputError` for what is no number."""
    try:
        return pd.to_numeric(given).astype("Float64").astype(np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} is no number: {error}") from None


def g_test(old: Int64Array, new: Int64Array, dispersion: float = 1.0) -> tuple[float, float]:
    """``(G, p)`` for the hypothesis that two rows of counts have the same shares. G is divided by
    the `dispersion` (>= 1, see `dispersion_of`)."""
    statistic, freedom = _independence(np.vstack([old, new]), "log-likelihood")
    deflated = statistic / dispersion
    return deflated, float(stats.chi2.sf(deflated, freedom)) if freedom else 1.0


def dispersion_of(weekly: Int64Array) -> float:
    """How many times more than multinomial the rows of ``(weeks, categories)`` counts vary:
    Pearson's chi-square for equal shares over its degrees of freedom, at least 1."""
    statistic, freedom = _independence(weekly, "pearson")
    return max(1.0, statistic / freedom) if freedom else 1.0


def _independence(counts: Int64Array, kind: str) -> tuple[float, int]:
    """The statistic for equal shares in all rows, and its degrees of freedom: 0 if rows and
    columns that have counts are too few to differ."""
    table = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    if min(table.shape) < 2:
        return 0.0, 0
    result = stats.chi2_contingency(table, correction=False, lambda_=kind)
    return float(result.statistic), int(result.dof)


def population_stability_index(old: Int64Array, new: Int64Array) -> float:
    """PSI between two rows of counts, half a row added to every category."""
    p, q = shares(old + 0.5), shares(new + 0.5)
    return float(((q - p) * np.log(q / p)).sum())


def false_discoveries(p_values: Mapping[str, float], rate: float) -> set[str]:
    """Names that the Benjamini-Hochberg procedure keeps at false-discovery rate `rate`."""
    if not p_values:
        return set()
    adjusted = stats.false_discovery_control(list(p_values.values()))
    return {name for name, value in zip(p_values, adjusted, strict=True) if value <= rate}


def robust_scale(values: Float64Array) -> float:
    """Standard deviation from the median absolute deviation; outliers do not move it."""
    return _MAD_TO_SD * float(stats.median_abs_deviation(values))


class MeanShift(NamedTuple):
    """A week's mean against the means of its reference's weeks; `low` and `high` bound (95 %) what
    that of an unchanged week would be."""

    old: float
    new: float
    low: float
    high: float
    p_value: float


MIN_WEEKS = 4  # of a reference with data: fewer do not show how much a week varies


def mean_shift(
    values: Float64Array, reference: Float64Array, reference_weeks: IntegerArray
) -> MeanShift | None:
    """Compare the mean of `values` with `reference`, a sample of several weeks; None with fewer
    than `MIN_WEEKS` of them with data, or no values.

    The prediction interval for one more week adds the spread of single values, the spread of the
    reference's weekly means beyond it, and the error of the reference's own mean."""
    _, position = np.unique(reference_weeks, return_inverse=True)
    sizes = np.bincount(position).astype(np.float64)
    if len(values) == 0 or len(sizes) < MIN_WEEKS:
        return None
    means = np.bincount(position, weights=reference) / sizes
    within = float(np.var(reference))
    between = max(0.0, float(np.var(means, ddof=1)) - within * float(np.mean(1 / sizes)))
    old, new = float(reference.mean()), float(values.mean())
    variance = within / len(values) + between + within / len(reference) + between / len(sizes)
    scale = float(np.sqrt(max(variance, 1e-12)))
    freedom = len(sizes) - 1
    reach = float(stats.t.ppf(0.975, freedom)) * scale
    p_value = 2 * float(stats.t.sf(abs(new - old) / scale, freedom))
    return MeanShift(old, new, old - reach, old + reach, p_value)
