"""One model type, judged: on the test events, in time windows, and by segment.

Segments are groups of users and products that a model can serve well or badly."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.arrays import BoolArray, Float64Array, Int64Array
from recsys.evaluation import MIN_USERS, MOST_SLICE_LOSS
from recsys.evaluation.leave_one_out import LeaveOneOut, Window
from recsys.evaluation.metrics import (
    PerUser,
    evaluate,
    list_metrics,
    metrics_per_user,
    resampled_means,
    summarise,
)
from recsys.evaluation.personalisation import expected, personal_lists, personal_recall
from recsys.evaluation.ranking import HeldOut, Scorer, rank_families, rank_targets, user_of_target
from recsys.models.base import Histories, Model
from recsys.models.kinds import had
from recsys.models.newcomers import FEW_PURCHASES
from recsys.models.popularity import Popularity, RecentPopularity

HEADLINE = ("recall_at_10", "ndcg_at_10")
_RECALL = HEADLINE[0]

Comparison = dict[str, Any]
Fit = Callable[[Histories], Model]


@dataclass(frozen=True)
class Report:
    """`metrics` on test with intervals, `comparison` with the gates, figures by segment. The
    segment ``another_family`` is ranked in its own way, see `rank_families`."""

    metrics: dict[str, float]
    comparison: Comparison
    segments: dict[str, dict[str, float]]


def report_on(
    fit: Fit,
    data: LeaveOneOut,
    served: Model | None = None,
    most_slice_loss: float = MOST_SLICE_LOSS,
) -> Report:
    """Fit on training and validation, answer the test once; then every time window.

    `fit` trains the model type with its chosen parameters on the histories that it is given;
    `served` is what it makes of all that is learnt, if that is there already. `most_slice_loss` is
    the share of recent popularity's recall@10 that the model may lose in a segment."""
    items = len(data.item_ids)
    known = data.training_and_validation
    purchases = np.bincount(known.items[had(known)], minlength=items)
    model, recent = fit(known), RecentPopularity().fit(known, items)
    ranks = rank_targets(model, data.test)
    per_user, of_recent = metrics_per_user(ranks), _per_user(recent, data.test)
    metrics = summarise(per_user) | list_metrics(model, data.test, purchases)
    metrics |= personal_recall(ranks, data.test, expected(data.test, known, items))
    metrics |= personal_lists(served or fit(data.learnt), data)
    comparison = compare_on_leave_one_out(metrics, known, data.test, items)
    comparison |= compare_on_windows(fit, data.windows, items)
    masks = segments_of(data.test, purchases)
    segments = summarise_segments(per_user, masks)
    pairs = {name: (per_user[_RECALL][one], of_recent[_RECALL][one]) for name, one in masks.items()}
    families, popular = (
        metrics_per_user(rank_families(one, data.test, data.families).ranks)
        for one in (model, recent)
    )
    segments["another_family"] = headline_of(families)
    pairs["another_family"] = families[_RECALL], popular[_RECALL]
    comparison |= compare_on_slices(pairs, most_slice_loss)
    if comparison["windows"]:
        segments["time_windows"] = _of_windows(comparison)
    return Report(metrics, judge(comparison, metrics[_RECALL]), segments)


def segments_of(questions: HeldOut, purchases: Int64Array) -> dict[str, BoolArray]:
    """``{name: (users,) bool}``.

    `purchases` ``(items,)`` are the ratings and purchases of each product in training. Users by the
    products that are known of them: one, two to four, five and more; and users whose held-out
    products all have fewer than five purchases."""
    known = np.diff(questions.histories.indptr)
    new = purchases[questions.targets] < FEW_PURCHASES
    new_targets = np.bincount(user_of_target(questions), weights=new, minlength=questions.users)
    return {
        "one_known_item": known == 1,
        "two_to_four_known_items": (known >= 2) & (known <= 4),
        "five_and_more_known_items": known >= 5,
        "new_products": new_targets == np.diff(questions.indptr),
    }


def summarise_segments(
    per_user: PerUser, segments: dict[str, BoolArray]
) -> dict[str, dict[str, float]]:
    """`headline_of` each segment."""
    return {
        name: headline_of({key: per_user[key][chosen] for key in HEADLINE})
        for name, chosen in segments.items()
    }


def headline_of(per_user: PerUser) -> dict[str, float]:
    """Recall and NDCG at 10 with intervals, if there are users, and the number of users."""
    users = len(per_user[HEADLINE[0]])
    figures = summarise({key: per_user[key] for key in HEADLINE}) if users else {}
    return {"users": users} | figures


def compare_on_leave_one_out(
    metrics: Mapping[str, float], known: Histories, questions: HeldOut, items: int
) -> Comparison:
    """`metrics` of a model on `questions` beside those of both popularity baselines. The gate
    ``beats_popularity``: a higher recall@10 than popularity over all time."""
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


def compare_on_windows(fit: Fit, windows: Sequence[Window], items: int) -> Comparison:
    """A model that `fit` trains for each window, beside recent popularity.

    The gate ``holds_in_time``: the model's recall@10 is not below that of recent popularity. The
    95 % interval of the difference, user by user, says how sure that is. Without windows the gate
    is open, and ``window_users`` is 0."""
    ours: list[Float64Array] = []
    recent: list[Float64Array] = []
    for window in windows:
        ours.append(_headline(fit(window.training), window.questions))
        baseline = RecentPopularity().fit(window.training, items)
        recent.append(_headline(baseline, window.questions))
    if not windows:
        return {"windows": 0, "window_users": 0, "holds_in_time": True}
    model, baseline_values = np.concatenate(ours), np.concatenate(recent)
    sampled = resampled_means(model - baseline_values)[:, 0], resampled_means(model)[:, 0]
    (low, high), (least, most) = (np.quantile(means, [0.025, 0.975]) for means in sampled)
    figures = {
        "window_recall_at_10": model[:, 0].mean(),
        "window_recall_at_10_low": least,
        "window_recall_at_10_high": most,
        "window_ndcg_at_10": model[:, 1].mean(),
        "window_recent_popularity_recall_at_10": baseline_values[:, 0].mean(),
        "window_recent_popularity_ndcg_at_10": baseline_values[:, 1].mean(),
        "window_difference_low": low,
        "window_difference_high": high,
    }
    return {
        "windows": len(windows),
        "window_users": len(model),
        **{name: round(float(value), 6) for name, value in figures.items()},
        "holds_in_time": bool((model - baseline_values)[:, 0].mean() >= 0),
    }


def compare_on_slices(
    pairs: Mapping[str, tuple[Float64Array, Float64Array]], most_loss: float
) -> Comparison:
    """The gate ``holds_in_slices``: in no segment does the model lose more than the share
    `most_loss` of the recall@10 of recent popularity. `pairs` are ``(users,)`` recalls of the model
    and of recent popularity by segment. A loss counts if users, resampled, prove it (95 %); fewer
    than 20 prove nothing. ``slices_lost`` says where, and how much, in words."""
    lost = []
    for name, (ours, recent) in pairs.items():
        if len(ours) < MIN_USERS:
            continue
        above = resampled_means((ours - (1 - most_loss) * recent)[:, None])
        if np.quantile(above, 0.975) < 0:
            lost.append(f"{name} (recall@10 {ours.mean():.4f} against {recent.mean():.4f})")
    return {"holds_in_slices": not lost, "slices_lost": lost, "most_slice_loss": most_loss}


def judge(comparison: Comparison, ours: float) -> Comparison:
    """`comparison` with ``passes`` and a ``reason`` in words; `ours` is the model's recall@10."""
    baseline = comparison["baseline_recall_at_10"]
    verb = "beats" if comparison["beats_popularity"] else "does not beat"
    reasons = [f"{verb} popularity ({ours:.4f} against {baseline:.4f} recall@10)"]
    if comparison["window_users"]:
        verb = "does not lose" if comparison["holds_in_time"] else "loses"
        reasons.append(
            f"{verb} to recent popularity in time windows "
            f"({comparison['window_recall_at_10']:.4f} against "
            f"{comparison['window_recent_popularity_recall_at_10']:.4f})"
        )
    lost = comparison.get("slices_lost") or []
    most = comparison.get("most_slice_loss", MOST_SLICE_LOSS)
    reasons += [f"loses more than {most:.0%} to recent popularity in {one}" for one in lost]
    passes = comparison["beats_popularity"] and comparison["holds_in_time"] and not lost
    return {**comparison, "passes": passes, "reason": "; ".join(reasons)}


def _of_windows(comparison: Comparison) -> dict[str, float]:
    """`headline_of` the users of all windows."""
    figures = {"users": comparison["window_users"]}
    names = (_RECALL, f"{_RECALL}_low", f"{_RECALL}_high", "ndcg_at_10")
    return figures | {name: comparison[f"window_{name}"] for name in names}


def _headline(model: Scorer, questions: HeldOut) -> Float64Array:
    per_user = _per_user(model, questions)
    return np.stack([per_user[name] for name in HEADLINE], axis=1)


def _per_user(model: Scorer, questions: HeldOut) -> PerUser:
    return metrics_per_user(rank_targets(model, questions))
