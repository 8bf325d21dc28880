"""Recall, NDCG and MRR from ranks, with bootstrap intervals; and how much of a shop lists show."""

import numpy as np

from recsys.arrays import Float64Array, Int64Array
from recsys.evaluation import CUTOFFS, ranking
from recsys.evaluation.ranking import BLOCK, HeldOut, Ranks, Scorer

RESAMPLES = 1000
_RESAMPLES_AT_ONCE = 100
_LENGTH = 10
_LIST_USERS = 2000
_HEAD_SHARE = 0.2

PerUser = dict[str, Float64Array]


def metrics_per_user(ranks: Ranks) -> PerUser:
    """``{"recall_at_5": (users,), ...}`` for recall, ndcg and mrr at 5, 10 and 20. Recall is the
    share of a user's targets in the list; MRR the inverse rank of the first one."""
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


def evaluate(model: Scorer, questions: HeldOut) -> dict[str, float]:
    """Recall, NDCG and MRR with their intervals."""
    return summarise(metrics_per_user(ranking.rank_targets(model, questions)))


def summarise(per_user: PerUser, seed: int = 0) -> dict[str, float]:
    """Means, and ``<name>_low`` and ``<name>_high``: the 95 % interval of each.

    The interval comes from resampling users, so it says how much the figure depends on who
    happened to be in the test."""
    values = np.stack(list(per_user.values()), axis=1)
    bounds = np.quantile(resampled_means(values, seed), [0.025, 0.975], axis=0)
    summary: dict[str, float] = {}
    for name, column, (low, high) in zip(per_user, values.T, bounds.T, strict=True):
        summary |= {name: column.mean(), f"{name}_low": low, f"{name}_high": high}
    return {name: round(float(value), 6) for name, value in summary.items()}


def resampled_means(values: Float64Array, seed: int = 0) -> Float64Array:
    """``(1000, columns)`` means of `values` ``(users, columns)`` over resampled users.

    Many users have equal values (a target has one of twenty ranks or none), so what is drawn is
    how many users of each kind there are."""
    generator = np.random.default_rng(seed)
    kinds, counts = np.unique(values, axis=0, return_counts=True)
    users = len(values)
    draws = (
        generator.multinomial(users, counts / users, size=_RESAMPLES_AT_ONCE)
        for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE)
    )
    return np.concatenate([draw @ kinds / users for draw in draws])


def list_metrics(
    model: Scorer, questions: HeldOut, purchases: Int64Array, seed: int = 0
) -> dict[str, float]:
    """``coverage_at_10``, ``novelty_at_10`` and ``long_tail_at_10``, of at most 2,000 users.

    Coverage is the share of all products that stand in somebody's list. Novelty is the mean of
    ``-log2`` of a listed product's share of all `purchases` ``(items,)``, one added to each.
    Long tail is the share of listed products outside the best-selling fifth of the shop."""
    if questions.users > _LIST_USERS:
        chosen = np.random.default_rng(seed).choice(questions.users, _LIST_USERS, replace=False)
        questions = ranking.take_questions(questions, np.sort(chosen))
    items = len(purchases)
    listed = np.zeros(items, dtype=np.int64)
    for start in range(0, questions.users, BLOCK):
        scores = ranking.unseen_scores(model, questions, start, min(start + BLOCK, questions.users))
        length = min(_LENGTH, items - 1)
        top = np.argpartition(-scores, length - 1, axis=1)[:, :length]
        valid = np.take_along_axis(scores, top, axis=1) > -np.inf
        listed += np.bincount(top[valid], minlength=items)
    share = (purchases + 1) / (purchases.sum() + items)
    head = np.argsort(-purchases, kind="stable")[: int(np.ceil(_HEAD_SHARE * items))]
    total = max(int(listed.sum()), 1)
    return {
        "coverage_at_10": round(float((listed > 0).mean()), 6),
        "novelty_at_10": round(float(-(listed * np.log2(share)).sum() / total), 6),
        "long_tail_at_10": round(float(1 - listed[head].sum() / total), 6),
    }
