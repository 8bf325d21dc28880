"""What a model has to pass before it may be selected."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from recsys.arrays import Float64Array
from recsys.evaluation.leave_one_out import Window
from recsys.evaluation.metrics import evaluate, metrics_per_user, resampled_means
from recsys.evaluation.ranking import HeldOut, Scorer, rank_targets
from recsys.models.base import Histories, Model
from recsys.models.popularity import Popularity, RecentPopularity

_HEADLINE = ("recall_at_10", "ndcg_at_10")

Comparison = dict[str, Any]


def compare_on_leave_one_out(
    metrics: Mapping[str, float], known: Histories, questions: HeldOut, items: int
) -> Comparison:
    """`metrics` of a model on `questions` beside those of both popularity baselines.

    The gate ``beats_popularity``: a higher recall@10 than popularity over all time.
    """
    always = evaluate(Popularity().fit(known, items), questions)
    recent = evaluate(RecentPopularity().fit(known, items), questions)
    ours, baseline = metrics["recall_at_10"], always["recall_at_10"]
    return {
        "baseline": "popularity",
        "baseline_recall_at_10": baseline,
        "baseline_ndcg_at_10": always["ndcg_at_10"],
        "recent_popularity_recall_at_10": recent["recall_at_10"],
        "recent_popularity_ndcg_at_10": recent["ndcg_at_10"],
        "improvement_pct": round(100 * (ours / baseline - 1), 2) if baseline else None,
        "beats_popularity": bool(np.isfinite(ours)) and ours > baseline,
    }


def compare_on_windows(
    fitted: Callable[[Histories], Model], windows: Sequence[Window], items: int
) -> Comparison:
    """A model that `fitted` trains for each window, beside recent popularity.

    The gate ``holds_in_time``: the model's recall@10 is not below that of recent popularity. The
    95 % interval of the difference, user by user, says how sure that is. Without windows the gate
    is open, and ``window_users`` is 0.
    """
    ours: list[Float64Array] = []
    recent: list[Float64Array] = []
    for window in windows:
        ours.append(_headline(fitted(window.training), window.questions))
        baseline = RecentPopularity().fit(window.training, items)
        recent.append(_headline(baseline, window.questions))
    if not windows:
        return {"windows": 0, "window_users": 0, "holds_in_time": True}
    model, baseline_values = np.concatenate(ours), np.concatenate(recent)
    difference = resampled_means(model - baseline_values)
    low, high = np.quantile(difference[:, 0], [0.025, 0.975])
    return {
        "windows": len(windows),
        "window_users": len(model),
        "window_recall_at_10": _rounded(model[:, 0].mean()),
        "window_ndcg_at_10": _rounded(model[:, 1].mean()),
        "window_recent_popularity_recall_at_10": _rounded(baseline_values[:, 0].mean()),
        "window_recent_popularity_ndcg_at_10": _rounded(baseline_values[:, 1].mean()),
        "window_difference_low": _rounded(low),
        "window_difference_high": _rounded(high),
        "holds_in_time": bool((model - baseline_values)[:, 0].mean() >= 0),
    }


def judge(comparison: Comparison, ours: float) -> Comparison:
    """`comparison` with ``passes`` and a ``reason`` in words; `ours` is the model's recall@10."""
    baseline = comparison["baseline_recall_at_10"]
    verb = "beats" if comparison["beats_popularity"] else "does not beat"
    reason = f"{verb} popularity ({ours:.4f} against {baseline:.4f} recall@10)"
    if comparison["window_users"]:
        verb = "does not lose" if comparison["holds_in_time"] else "loses"
        reason += (
            f"; {verb} to recent popularity in time windows "
            f"({comparison['window_recall_at_10']:.4f} against "
            f"{comparison['window_recent_popularity_recall_at_10']:.4f})"
        )
    passes = comparison["beats_popularity"] and comparison["holds_in_time"]
    return {**comparison, "passes": passes, "reason": reason}


def _headline(model: Scorer, questions: HeldOut) -> Float64Array:
    per_user = metrics_per_user(rank_targets(model, questions))
    return np.stack([per_user[name] for name in _HEADLINE], axis=1)


def _rounded(value: Any) -> float:
    return round(float(value), 6)
