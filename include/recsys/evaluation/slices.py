"""No group of customers or products pays for a better mean (decision 162)."""

from collections.abc import Mapping
from typing import Any

from recsys.evaluation import MIN_USERS

Segments = Mapping[str, Mapping[str, Any]]
"""Figures by segment, as `recsys.evaluation.report.Report.segments` has them."""


def slice_loss(ours: Segments, theirs: Segments, most: float) -> str | None:
    """In which segment a model loses more than the share `most` of the recall@10 of another that
    answered the same questions, in words; None if in none. A loss counts if the intervals prove it:
    `ours` at its highest against `theirs` at its lowest."""
    for name in sorted(ours.keys() & theirs.keys()):
        one, other = ours[name], theirs[name]
        highest, lowest = one.get("recall_at_10_high"), other.get("recall_at_10_low")
        if highest is None or lowest is None or one.get("users", 0) < MIN_USERS:
            continue
        if highest < (1 - most) * lowest:
            return f"{name} (recall@10 {one['recall_at_10']:.4f}, not {other['recall_at_10']:.4f})"
    return None
