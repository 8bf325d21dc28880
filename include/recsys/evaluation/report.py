"""One model family, judged: on the test events, in time windows, and by segment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.evaluation.families import rank_families
from recsys.evaluation.gates import (
    Comparison,
    compare_on_leave_one_out,
    compare_on_windows,
    judge,
)
from recsys.evaluation.leave_one_out import LeaveOneOut
from recsys.evaluation.lists import list_metrics
from recsys.evaluation.metrics import metrics_per_user, summarise
from recsys.evaluation.ranking import HeldOut, Scorer, rank_targets
from recsys.evaluation.segments import headline_of, segments_of, summarise_segments
from recsys.models.base import Histories, Model

Fit = Callable[[Histories], Model]


@dataclass(frozen=True)
class Report:
    """`metrics` on test with intervals, `comparison` with the gates, figures by segment.

    The segment ``another_family`` is ranked in its own way, see `recsys.evaluation.families`.
    """

    metrics: dict[str, float]
    comparison: Comparison
    segments: dict[str, dict[str, float]]

    def as_json(self) -> dict[str, Any]:
        return {
            "metrics": self.metrics,
            "comparison": self.comparison,
            "segments": self.segments,
        }


def report_on(fit: Fit, data: LeaveOneOut) -> Report:
    """Fit on training and validation, answer the test once; then every time window.

    `fit` trains the family with its chosen parameters on the histories that it is given.
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


def evaluate(model: Scorer, questions: HeldOut) -> dict[str, float]:
    """Recall, NDCG and MRR with their intervals."""
    return summarise(metrics_per_user(rank_targets(model, questions)))
