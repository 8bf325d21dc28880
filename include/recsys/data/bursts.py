"""How far new accounts move a product: what is above the bound does not count (decision 123)."""

import numpy as np

from recsys.arrays import BoolArray, Int64Array, IntegerArray
from recsys.data.keys import run_starts

YOUNG_DAYS, BURST_DAYS, BURST_LEAST = 28, 7, 3
"""New customers give one product at most so many interactions in seven days as the third-strongest
product gets of such customers, or three. A customer is new for 28 days (decision 123)."""

_DAY = 86_400_000_000


def within_bounds(
    young: BoolArray, times: Int64Array, items: IntegerArray, count: int, least: int = BURST_LEAST
) -> BoolArray:
    """``(entries,)`` which entries count, of products with numbers below `count`: all but the
    surplus of those by customers who were `young` at `times` (microseconds), latest first."""
    kept = np.ones(len(times), dtype=np.bool_)
    entries = np.flatnonzero(young)
    entries = entries[np.argsort(times[entries], kind="stable")]
    # What came and what stayed of each product on the last seven days, at the day's number mod 7.
    came, stayed = np.zeros((2, BURST_DAYS, count), dtype=np.int64)
    day_of = np.full(BURST_DAYS, -BURST_DAYS)
    days = run_starts(times[entries] // _DAY)[1:]
    for of_day in np.split(entries, days) if len(entries) else []:
        day = int(times[of_day[0]] // _DAY)
        old = day_of <= day - BURST_DAYS
        came[old], stayed[old], day_of[day % BURST_DAYS] = 0, 0, day
        products = items[of_day]
        came[day % BURST_DAYS] = np.bincount(products, minlength=count)
        third = np.partition(came.sum(axis=0), -min(3, count))[-min(3, count)]
        room = np.maximum(third, least) - stayed.sum(axis=0)
        stays = _number_among_equals(products) < room[products]
        stayed[day % BURST_DAYS] = np.bincount(products[stays], minlength=count)
        kept[of_day[~stays]] = False
    return kept


def _number_among_equals(values: IntegerArray) -> Int64Array:
    """How many equal ones stand before each."""
    order = np.argsort(values, kind="stable")
    starts = run_starts(values[order])
    number = np.empty(len(values), dtype=np.int64)
    lengths = np.diff(starts, append=len(values))
    number[order] = np.arange(len(values)) - np.repeat(starts, lengths)
    return number
