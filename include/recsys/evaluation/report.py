"""One model type, judged: on the test events, in time windows, and by segment.

Segments are groups of users and products that a model can serve well or badly.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recsys.arrays import BoolArray, Int64Array
from recsys.evaluation.families import rank_families
from recsys.evaluation.gates import (
    Comparison,
    compare_on_leave_one_out,
    compare_on_windows,
    judge,
)
from recsys.evaluation.leave_one_out import LeaveOneOut
from recsys.evaluation.metrics import PerUser, list_metrics, metrics_per_user, summarise
from recsys.evaluation.ranking import HeldOut, Scorer, rank_targets, user_of_target
from recsys.models.base import Histories, Model

Fit = Callable[[Histories], Model]

FEW_PURCHASES = 5
_HEADLINE = ("recall_at_10", "ndcg_at_10")


@dataclass(frozen=True)
class Report:
    """`metrics` on test with intervals, `comparison` with the gates, figures by segment.

    The segment ``another_family`` is ranked in its own way, see `recsys.evaluation.families`.
    """

    metrics: dict[str, float]
    comparison: Comparison
    segments: dict[str, dict[str, float]]


def report_on(fit: Fit, data: LeaveOneOut) -> Report:
    """Fit on training and validation, answer the test once; then every time window.

    `fit` trains the model type with its chosen parameters on the histories that it is given.
    """
    items = len(data.item_ids)
    known = data.training_and_validation
    purchases = np.bincount(known.items, minlength=items)
    model = fit(known)
    per_user = metrics_per_user(rank_targets(model, data.test))
    metrics = summarise(per_user) | list_metrics(model, data.test, purchases)
    comparison = compare_on_leave_one_out(metrics, known, data.test, items)
    comparison |= compare_on_windows(fit, data.windows, items)
    segments = summarise_segments(per_user, segments_of(data.test, purchases))
    return Report(
        metrics=metrics,
        comparison=judge(comparison, metrics["recall_at_10"]),
        segments=segments | {"another_family": _another_family(model, data)},
    )


def _another_family(model: Scorer, data: LeaveOneOut) -> dict[str, float]:
    asked = rank_families(model, data.test, data.families)
    if not len(asked.users):
        return {"users": 0}
    return headline_of(metrics_per_user(asked.ranks))


def segments_of(questions: HeldOut, purchases: Int64Array) -> dict[str, BoolArray]:
    """``{name: (users,) bool}``.

    `purchases` ``(items,)`` are the interactions of each product in training. Users by the
    products that are known of them: one, two to four, five and more; and users whose held-out
    products all have fewer than five purchases.
    """
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
    """Recall and NDCG at 10 with intervals, and the number of users, for each segment.

    A segment without users has only their number.
    """
    return {
        name: headline_of({key: per_user[key][chosen] for key in _HEADLINE})
        if chosen.any()
        else {"users": 0}
        for name, chosen in segments.items()
    }


def headline_of(per_user: PerUser) -> dict[str, float]:
    """Recall and NDCG at 10 with intervals, and the number of users."""
    users = len(per_user[_HEADLINE[0]])
    return {"users": users} | summarise({key: per_user[key] for key in _HEADLINE})
