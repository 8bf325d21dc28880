"""What goes together: products of the steps of a routine, such as cleanser, toner and cream."""

import numpy as np

from recsys.arrays import Int32Array
from recsys.simulation.shop import Shop

STEPS = 3
"""Categories of a routine: of each three, in the order of their numbers, one is completed by the
other two."""
_OWN_BRAND = 10.0


def partners_of(shop: Shop, seed: int) -> Int32Array:
    """``(products, STEPS - 1)`` which product of each other step completes each one, -1 where there
    is none: one of the same brand if there is one, of about the same price, and not the same one
    for each seed."""
    rng = np.random.default_rng([seed, 3])
    partners = np.full((shop.products, STEPS - 1), -1, dtype=np.int32)
    level = np.nan_to_num(np.log(shop.prices), nan=12.0)
    categories = int(shop.categories.max(initial=-1)) + 1
    for category in range(categories):
        mine = np.flatnonzero(shop.categories == category)
        first = category - category % STEPS
        others = (one for one in range(first, first + STEPS) if one != category)
        for place, other in enumerate(others):
            theirs = np.flatnonzero(shop.categories == other)
            if not len(theirs) or not len(mine):
                continue
            fit = _OWN_BRAND * (shop.brands[mine][:, None] == shop.brands[theirs])
            fit -= np.abs(level[mine][:, None] - level[theirs])
            fit += rng.random(fit.shape)
            partners[mine, place] = theirs[fit.argmax(axis=1)]
    return partners
