"""When a product is used up: after how many days those who buy it buy it again. NumPy alone.

A gap lies between two purchases of one family of products by one customer. Most products have few
gaps, so that of a family leans on those of its category, and these on the shop's. Where hardly
anybody buys again, nothing is ever due."""

import numpy as np

from recsys.arrays import Float32Array, Float64Array, Int32Array, Int64Array
from recsys.models.base import Histories
from recsys.models.histories import acquired, keep_entries, user_rows
from recsys.models.kinds import RATING, had

SHORTEST_DAYS, LONGEST_DAYS = 7.0, 400.0
"""Of a gap: within a week an order is completed or a gift bought, not something used up."""
LEAST_CUSTOMERS = 20
"""Who bought a family again, over the whole shop: below, nothing is learned."""
LEAST_SHARE = 0.1
"""Of those who had the time for it: so many at least bought the family again."""
SHRINKAGE = 10.0
"""With so many customers a family is trusted as much as its category, and that as the shop."""
_DAY = 86_400


def learn_due_days(
    histories: Histories, families: Int32Array, categories: Int32Array
) -> Float32Array:
    """``(items,)`` days after which each product is bought again, NaN where it is not.

    `histories` are all that users did, an entry an event; `families` ``(items,)`` is the number of
    each product's family, `categories` ``(items,)`` that of its category. A customer counts once a
    family: those who came often have many gaps."""
    never = np.full(len(families), np.nan, dtype=np.float32)
    got = keep_entries(histories, acquired(histories, families))
    if not len(got.items):
        return never
    count = int(families.max()) + 1
    family, first, gap = _gaps(got, families, count)
    again = np.isfinite(gap)
    if again.sum() < LEAST_CUSTOMERS:
        return never
    category = np.zeros(count, dtype=np.int64)
    category[families] = categories
    usual = float(np.median(np.exp(gap[again])))
    had_time = again | (int(got.times.max()) - first >= usual * _DAY)
    share = _shrunk(family[had_time], again[had_time].astype(np.float64), category)
    days = np.exp(_shrunk(family[again], gap[again], category))
    due = np.where(share >= LEAST_SHARE, days, np.nan)
    return due[families].astype(np.float32)


def _gaps(
    got: Histories, families: Int32Array, count: int
) -> tuple[Int64Array, Int64Array, Float64Array]:
    """Of each user and family: the family, when it was first got, and the mean logarithm of the
    days between purchases, NaN without a gap."""
    keys = user_rows(got) * np.int64(count) + families[got.items]
    order = np.lexsort((got.times, keys))
    keys, times = keys[order], got.times[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    pair = np.cumsum(np.append(True, keys[1:] != keys[:-1])) - 1
    days = np.diff(times) / _DAY
    counted = (pair[1:] == pair[:-1]) & (days >= SHORTEST_DAYS) & (days <= LONGEST_DAYS)
    of = pair[1:][counted]
    number = np.bincount(of, minlength=len(starts))
    total = np.bincount(of, weights=np.log(days[counted]), minlength=len(starts))
    with np.errstate(invalid="ignore"):
        return keys[starts] % count, times[starts], total / number


def _shrunk(family: Int64Array, values: Float64Array, category: Int64Array) -> Float64Array:
    """``(families,)`` mean of the `values` of each family, which leans on that of its category."""
    overall = np.full(int(category.max()) + 1, float(values.mean()))
    return _leaning(family, values, _leaning(category[family], values, overall)[category])


def _leaning(group: Int64Array, values: Float64Array, on: Float64Array) -> Float64Array:
    number = np.bincount(group, minlength=len(on))
    total = np.bincount(group, weights=values, minlength=len(on))
    return np.asarray((total + SHRINKAGE * on) / (number + SHRINKAGE))


def last_got(histories: Histories, events: Histories) -> Int64Array:
    """``(entries,)`` when the product of each entry of `histories` was last bought, or rated where
    no purchase is known, in seconds since 1970; its own time where it was neither.

    `events` are all that the same users did: an entry of a history may be an old rating of what was
    bought again since."""
    items = int(max(histories.items.max(initial=0), events.items.max(initial=0))) + 1
    wanted = user_rows(histories) * np.int64(items) + histories.items
    pairs = np.unique(wanted)
    last: Int64Array = np.full((2, len(pairs)), -1, dtype=np.int64)
    keys = user_rows(events) * np.int64(items) + events.items
    place = np.minimum(np.searchsorted(pairs, keys), max(len(pairs) - 1, 0))
    known = had(events) & (pairs[place] == keys)
    for row, of in enumerate((events.kinds != RATING, events.kinds == RATING)):
        chosen = known & of
        np.maximum.at(last[row], place[chosen], events.times[chosen])
    best = np.where(last[0] >= 0, last[0], last[1])[np.searchsorted(pairs, wanted)]
    return np.where(best >= 0, best, histories.times)
