"""How good a sentiment scorer is on texts it has not seen."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import rankdata

from recsys.schema import POSITIVE_RATING

NEGATIVE_RATING = 2.0
_BINS = 10

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


def auc_with_interval(positive: Bool, scores: Float64) -> dict[str, float | int | None]:
    """ROC-AUC with its 95 % interval (DeLong); None where a class has fewer than two members."""
    good, bad = scores[positive], scores[~positive]
    counts: dict[str, float | int | None] = {"positive": len(good), "negative": len(bad)}
    if min(len(good), len(bad)) < 2:
        return {"auc": None, "interval": None, **counts}
    ranks = rankdata(np.concatenate([good, bad]))
    above = (ranks[: len(good)] - rankdata(good)) / len(bad)
    below = 1 - (ranks[len(good) :] - rankdata(bad)) / len(good)
    error = np.sqrt(above.var(ddof=1) / len(good) + below.var(ddof=1) / len(bad))
    return {
        "auc": round(float(above.mean()), 4),
        "interval": round(float(1.96 * error), 4),
        **counts,
    }


def calibration_error(positive: Bool, probability: Float64, weight: Float64) -> float:
    """Mean distance between what was promised and what came, over ten bins of equal weight."""
    order = np.argsort(probability, kind="stable")
    cumulative = np.cumsum(weight[order])
    bins = np.minimum((cumulative / cumulative[-1] * _BINS).astype(int), _BINS - 1)
    total = np.bincount(bins, weight[order], minlength=_BINS)
    promised = np.bincount(bins, (weight * probability)[order], minlength=_BINS)
    came = np.bincount(bins, (weight * positive)[order], minlength=_BINS)
    return float(np.abs(promised - came).sum() / total.sum())


def measure(
    ratings: Float64,
    decisions: Float64,
    decisions_without_accents: Float64,
    calibration: Float64,
    sample_weight: Float64,
) -> dict[str, Any]:
    """Cross-fitted figures of a scorer: happy (>= 4 stars) against unhappy (<= 2) texts."""
    clear = (ratings >= POSITIVE_RATING) | (ratings <= NEGATIVE_RATING)
    happy = ratings >= POSITIVE_RATING
    probability = expit(calibration[0] * decisions + calibration[1])
    return {
        "texts": len(ratings),
        **auc_with_interval(happy[clear], decisions[clear]),
        "auc_without_accents": auc_with_interval(happy[clear], decisions_without_accents[clear])[
            "auc"
        ],
        "calibration_error": round(calibration_error(happy, probability, sample_weight), 4),
    }
