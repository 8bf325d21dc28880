"""Groups of users and products that a model can serve well or badly."""

import numpy as np

from recsys.arrays import BoolArray, Int64Array
from recsys.evaluation.metrics import PerUser, summarise
from recsys.evaluation.ranking import HeldOut, user_of_target

FEW_PURCHASES = 5
_HEADLINE = ("recall_at_10", "ndcg_at_10")


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
