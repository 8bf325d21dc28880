"""Has the distribution of stars changed?"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import jensenshannon

from recsys.arrays import Int64Array
from recsys.drift.checks import INSUFFICIENT, TESTED, Check, Span
from recsys.drift.config import DriftConfig
from recsys.drift.statistics import (
    dispersion_of,
    g_test,
    numbers_of,
    population_stability_index,
    shares,
)
from recsys.errors import InputError
from recsys.schema import RATING

STARS = np.arange(1, 6)
THRESHOLD = 0.1
MIN_ROWS = 300
ALPHA = 0.001
HIGH = 0.15
"""Change of a star's share that is of high severity in the weekly report."""
_TEST_KEYS = ("interval_95", "null_bound", "g_statistic", "p_value", "psi", "jensen_shannon")


def detect_rating_drift(
    historical_data: pd.DataFrame, new_data: pd.DataFrame, threshold: float = THRESHOLD
) -> dict[str, Any]:
    """Compare the star shares of two frames of reviews.

    Drift needs both: a star's share moved by at least `threshold` (in (0, 1], 0.1 = ten points),
    and by more than chance explains at these sample sizes. Below 300 rated rows on either side the
    answer is ``insufficient_data``. Rows without a rating are left out and counted.

    The frames have the column ``rating``, stars in [1, 5]; halves are rounded up.

    Returns ``drift_detected``, ``severity`` (``medium`` from the threshold, ``high`` from twice the
    threshold), ``max_difference``, ``rating_comparison`` (star -> historical and new share,
    difference), ``status``, ``star``, ``interval_95`` of that star's change, ``null_bound``,
    ``g_statistic``, ``p_value``, ``psi``, ``jensen_shannon``, ``sample_sizes`` and
    ``missing_ratings``. Raises `InputError` if the column is missing or holds something that is no
    rating in [1, 5].

    >>> old = pd.DataFrame({"rating": [5] * 900 + [1] * 100})
    >>> new = pd.DataFrame({"rating": [5] * 700 + [1] * 300})
    >>> result = detect_rating_drift(old, new)
    >>> result["drift_detected"], result["severity"], round(result["max_difference"], 3)
    (True, 'high', 0.2)
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold: expected a share in (0, 1], got {threshold!r}")
    old, old_missing = _stars_of(historical_data, "historical_data")
    new, new_missing = _stars_of(new_data, "new_data")
    result = compare_stars(old, new, threshold=threshold, high=2 * threshold)
    result["missing_ratings"] = {"historical": old_missing, "new": new_missing}
    return result


def compare_stars(
    old: Int64Array, new: Int64Array, *, threshold: float, high: float, dispersion: float = 1.0
) -> dict[str, Any]:
    """`detect_rating_drift` on ``(5,)`` counts of stars 1 to 5.

    `dispersion` is how many times more than chance the shares vary from week to week."""
    old_shares, new_shares = shares(old), shares(new)
    difference = new_shares - old_shares
    worst = int(np.argmax(np.abs(difference)))
    found = [column.tolist() for column in (old_shares, new_shares, difference)]
    sizes = {"historical": int(old.sum()), "new": int(new.sum())}
    enough = min(sizes.values()) >= MIN_ROWS
    result: dict[str, Any] = {
        "drift_detected": False,
        "severity": "low",
        "max_difference": float(abs(difference[worst])) if min(sizes.values()) else None,
        "rating_comparison": {
            str(star): {"historical": then, "new": now, "difference": change}
            for star, then, now, change in zip(STARS.tolist(), *found, strict=True)
        },
        "status": TESTED if enough else INSUFFICIENT,
        "star": int(STARS[worst]) if min(sizes.values()) else None,
        "threshold": threshold,
        "sample_sizes": sizes,
        "min_rows": MIN_ROWS,
        "dispersion": dispersion,
        "test": "G-test, deflated by the dispersion; bound of the largest change by chance",
    }
    if not enough:
        return result | dict.fromkeys(_TEST_KEYS)
    statistic, p_value = g_test(old, new, dispersion)
    # What the largest of the five changes exceeds with probability ALPHA if nothing changed.
    pooled = shares(old + new)
    error = np.sqrt(dispersion * pooled * (1 - pooled) * (1 / old.sum() + 1 / new.sum()))
    bound = float(stats.norm.isf(ALPHA / (2 * len(STARS))) * error.max())
    change = float(abs(difference[worst]))
    drifted = change >= threshold - 1e-12 and change > bound and p_value < ALPHA
    severity = "high" if change >= high - 1e-12 else "medium"
    p, q = old_shares[worst], new_shares[worst]
    variance = p * (1 - p) / sizes["historical"] + q * (1 - q) / sizes["new"]
    reach = 1.96 * float(np.sqrt(dispersion * variance))
    middle = float(difference[worst])
    return result | {
        "drift_detected": drifted,
        "severity": severity if drifted else "low",
        "interval_95": [middle - reach, middle + reach],
        "null_bound": bound,
        "g_statistic": statistic,
        "p_value": p_value,
        "psi": population_stability_index(old, new),
        "jensen_shannon": float(jensenshannon(old, new, base=2)),
    }


def check_rating(span: Span, config: DriftConfig) -> Check:
    """Star shares of the window against the reference, copies and campaigns left out."""
    threshold = config.rating.threshold
    weeks = span.reference.weeks
    by_week = [count_stars(span.reference.ratings[weeks == week]) for week in np.unique(weeks)]
    weekly = np.vstack([np.zeros(5, dtype=np.int64), *by_week])
    old, new = weekly.sum(axis=0), count_stars(span.window.ratings)
    varied = dispersion_of(weekly)
    result = compare_stars(old, new, threshold=threshold, high=HIGH, dispersion=varied)
    result["unit"] = "change of a star's share"
    if result["status"] == INSUFFICIENT:
        return Check("rating", details=result)
    change, star = result["max_difference"], result["star"]
    difference = result["rating_comparison"][str(star)]["difference"]
    return Check(
        "rating",
        p_value=result["p_value"],
        effect=change,
        large=change >= threshold and change > result["null_bound"],
        direction=int(np.sign(difference)) * star,
        severity="high" if change >= HIGH else "medium",
        advice=f"The share of {star}-star reviews moved by {100 * difference:+.1f} points: look "
        "at what customers complain about, then retrain.",
        details=result,
    )


def count_stars(ratings: NDArray[np.floating]) -> Int64Array:
    """``(5,)`` how many of the `ratings` (no NaN, in [1, 5]) are 1, 2, ... 5 stars."""
    rounded = np.floor(ratings + 0.5).astype(np.int64)
    return np.bincount(rounded, minlength=6)[1:6].astype(np.int64)


def _stars_of(frame: pd.DataFrame, name: str) -> tuple[Int64Array, int]:
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"{name}: expected a DataFrame, got {type(frame).__name__}")
    if RATING not in frame.columns:
        raise InputError(
            f"{name}: the column {RATING!r} is missing; there are {list(map(str, frame.columns))}"
        )
    ratings = numbers_of(frame[RATING], f"{name}: something in {RATING}").to_numpy()
    present = ~np.isnan(ratings)
    outside = (ratings < 1) | (ratings > 5)
    if outside.any():
        row = int(np.argmax(outside))
        raise InputError(
            f"{name}: {RATING} of row {row} is {ratings[row]:g}; expected stars from 1 to 5"
        )
    return count_stars(ratings[present]), int((~present).sum())
