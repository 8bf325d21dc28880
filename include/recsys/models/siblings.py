"""Other sizes and shades of what a customer had: the shop sells them, few customers want them."""

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Int32Array
from recsys.models.base import Histories
from recsys.models.histories import user_rows
from recsys.models.kinds import not_offered


def siblings_of(histories: Histories, families: Int32Array) -> BoolArray:
    """``(users, items)`` which products share a family with one that the user had or dismissed,
    without these themselves. `families` is the ``(items,)`` number of each product's family, from
    0 without gaps."""
    barred = not_offered(histories)
    user, item = user_rows(histories)[barred], histories.items[barred]
    touched = np.zeros((histories.users, int(families.max(initial=-1)) + 1), dtype=np.bool_)
    touched[user, families[item]] = True
    found = touched[:, families]
    found[user, item] = False
    return found


def lower_siblings(
    scores: Float32Array, histories: Histories, families: Int32Array, share: float
) -> Float32Array:
    """``(users, items)`` `scores`, in place, of which `siblings_of` the histories keep `share`."""
    found = siblings_of(histories, families)
    scores[found] *= np.float32(share)
    return scores
