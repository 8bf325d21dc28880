"""How good a ranking is, on events that the model has not seen."""

from typing import Final, Literal

CUTOFFS: Final = (5, 10, 20)
RankingMetric = Literal[
    "recall_at_5", "recall_at_10", "recall_at_20",
    "ndcg_at_5", "ndcg_at_10", "ndcg_at_20",
    "mrr_at_5", "mrr_at_10", "mrr_at_20",
]  # fmt: skip
"""What a registered model is measured by, on the test events; higher is better."""

PERSONAL: Final = (
    "debiased_recall_at_10", "recall_at_10_outside_best_20", "first_products", "newcomer_overlap",
)  # fmt: skip
"""How personal a model's lists are, see `recsys.evaluation.personalisation`."""
MIN_USERS: Final = 20
"""Fewer say nothing."""
MOST_SLICE_LOSS: Final = 0.2
"""What a model may lose of the recall in a segment of customers or products."""
MOST_LOST: Final = 0.1
"""What being more personal may cost of a figure at most, whatever chance explains."""
