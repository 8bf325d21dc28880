"""Recall, NDCG and MRR from ranks, with bootstrap intervals."""

import numpy as np

from recsys.arrays import Float64Array
from recsys.evaluation import CUTOFFS
from recsys.evaluation.ranking import Ranks

RESAMPLES = 1000
_RESAMPLES_AT_ONCE = 100

PerUser = dict[str, Float64Array]


def metrics_per_user(ranks: Ranks) -> PerUser:
    """``{"recall_at_5": (users,), ...}`` for recall, ndcg and mrr at 5, 10 and 20.

    Recall is the share of a user's targets in the list; MRR the inverse rank of the first one.
    """
    users = len(ranks.indptr) - 1
    sizes = np.diff(ranks.indptr)
    rows = np.repeat(np.arange(users), sizes)
    gain = 1 / np.log2(ranks.ranks + 1)
    best = np.minimum.reduceat(ranks.ranks, ranks.indptr[:-1])
    result: PerUser = {}
    for cutoff in CUTOFFS:
        within = ranks.ranks <= cutoff
        ideal = np.cumsum(1 / np.log2(np.arange(2, cutoff + 2)))
        hits = np.bincount(rows, weights=within, minlength=users)
        gained = np.bincount(rows, weights=gain * within, minlength=users)
        result[f"recall_at_{cutoff}"] = hits / sizes
        result[f"ndcg_at_{cutoff}"] = np.minimum(gained / ideal[np.minimum(sizes, cutoff) - 1], 1.0)
        result[f"mrr_at_{cutoff}"] = np.where(best <= cutoff, 1 / best, 0.0)
    return result


def summarise(per_user: PerUser, seed: int = 0) -> dict[str, float]:
    """Means, and ``<name>_low`` and ``<name>_high``: the 95 % interval of each.

    The interval comes from resampling users, so it says how much the figure depends on who
    happened to be in the test.
    """
    names = list(per_user)
    values = np.stack([per_user[name] for name in names], axis=1)
    means = resampled_means(values, seed)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    summary: dict[str, float] = {}
    for column, name in enumerate(names):
        summary[name] = round(float(values[:, column].mean()), 6)
        summary[f"{name}_low"] = round(float(low[column]), 6)
        summary[f"{name}_high"] = round(float(high[column]), 6)
    return summary


def resampled_means(values: Float64Array, seed: int = 0) -> Float64Array:
    """``(1000, columns)`` means of `values` ``(users, columns)`` over resampled users.

    Many users have equal values (a target has one of twenty ranks or none), so what is drawn is
    how many users of each kind there are.
    """
    generator = np.random.default_rng(seed)
    kinds, counts = np.unique(values, axis=0, return_counts=True)
    users = len(values)
    parts = []
    for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE):
        draws = generator.multinomial(users, counts / users, size=_RESAMPLES_AT_ONCE)
        parts.append(draws @ kinds / users)
    return np.concatenate(parts)
