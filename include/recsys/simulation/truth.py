"""What of some traffic is attributable to which list: the truth that outcomes are held against.

It is found on the simulator's own numbers, without anything of the code that it is the measure of:
an event that names a list belongs to it; one that names none belongs to the latest list before it,
within the window of its kind, that showed the product to the same customer or in the same visit;
one that names a list which nobody was shown belongs to none. Of a product in a list only the first
event of each kind counts, and nothing of robots."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys.arrays import BoolArray, Float64Array, Int64Array
from recsys.schema import Kind
from recsys.simulation.traffic import KINDS, Events, Traffic

WINDOWS: Mapping[Kind, float] = {
    Kind.CLICK: 24.0,
    Kind.VIEW: 24.0,
    Kind.CART: 7 * 24.0,
    Kind.PURCHASE: 7 * 24.0,
}
"""Hours after the list in which an event that names none may belong to it."""

_HOUR = 3_600_000  # milliseconds


@dataclass(frozen=True)
class Truth:
    """Which event counts for which list; arrays of one length, by list."""

    traffic: Traffic
    rows: Int64Array  # numbers of rows of the traffic's events
    lists: Int64Array  # numbers of lists

    def __len__(self) -> int:
        return len(self.rows)

    def totals(self) -> pd.DataFrame:
        """A row a day on which lists were served (a date of the shop, the index), without those of
        robots: ``lists``, ``users`` (units: customers, else visits), ``clicks``, ``views``,
        ``carts``, ``purchases``, ``dismisses``, ``value`` (dong)."""
        traffic, shown = self.traffic, self.traffic.lists.shown
        days = traffic.period.days_of(shown.times)
        first = int(days.min(initial=0))
        people = ~robots_of(traffic)
        size = int(days.max(initial=0)) - first + 1

        def by_day(of: Int64Array, weights: Float64Array | None = None) -> Float64Array:
            counts = np.bincount(days[of] - first, weights=weights, minlength=size)
            return counts.astype(np.float64)

        units = np.where(shown.known, shown.customers, -1 - shown.visits)
        seen = np.unique(np.column_stack([days, units])[people], axis=0)
        events = traffic.events.take(self.rows)
        columns = {
            "lists": by_day(np.flatnonzero(people)),
            "users": np.bincount(seen[:, 0] - first, minlength=size),
        }
        for kind in (*WINDOWS, Kind.DISMISS):
            name = f"{kind}es" if kind is Kind.DISMISS else f"{kind}s"
            columns[name] = by_day(self.lists[events.kinds == KINDS.index(kind)])
        paid = events.kinds == KINDS.index(Kind.PURCHASE)
        columns["value"] = by_day(self.lists[paid], np.nan_to_num(events.values[paid]))
        dates = np.datetime64("1970-01-01", "D") + (first + np.arange(size))
        found = pd.DataFrame(columns, index=pd.Index(dates, name="day"))
        counts = {name: np.int64 for name in columns if name != "value"}
        return found[found["lists"] > 0].astype(counts)


def robots_of(traffic: Traffic) -> BoolArray:
    """``(lists,)`` which lists robots were shown."""
    people = len(traffic.customer_ids) - traffic.robots
    return np.asarray(traffic.lists.shown.customers >= people)


def truth_of(traffic: Traffic, windows: Mapping[Kind, float] = WINDOWS) -> Truth:
    """What is attributable of `traffic`, for `windows` in hours; kinds without one belong to a list
    only if they name it, ratings never."""
    events = traffic.events
    rows = np.flatnonzero((events.kinds != KINDS.index(Kind.RATING)) & ~events.strange)
    rows = rows[np.unique(events.numbers[rows], return_index=True)[1]]  # each event once
    named = events.named[rows]
    lists = np.where(named, events.lists[rows], -1)
    lists[~named] = _latest_lists(traffic, events.take(rows[~named]), windows)
    robot = robots_of(traffic)[lists]
    rows, lists = rows[(lists >= 0) & ~robot], lists[(lists >= 0) & ~robot]
    key = np.column_stack([lists, events.products[rows], events.kinds[rows]])
    order = np.lexsort((events.numbers[rows], events.times[rows], *key.T[::-1]))
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = (key[order][1:] != key[order][:-1]).any(axis=1)
    return Truth(traffic, rows[order[first]], lists[order[first]])


def _latest_lists(traffic: Traffic, events: Events, windows: Mapping[Kind, float]) -> Int64Array:
    """Numbers of the latest lists within the window of the customer, or of the visit, -1: none."""
    shown = traffic.lists.shown
    customers = np.where(shown.known, shown.customers, -1)
    latest = np.maximum(
        _latest(traffic, customers, events.customers, events),
        _latest(traffic, shown.visits, events.visits, events),
    )
    longest = np.array([windows.get(kind, -1.0) * _HOUR for kind in KINDS])[events.kinds]
    waited = events.times / 1000 - shown.times[latest]
    return np.where((latest >= 0) & (waited <= longest), latest, -1)


def _latest(
    traffic: Traffic, shown_to: Int64Array, done_by: Int64Array, events: Events
) -> Int64Array:
    """The latest list up to each event that held the product, by the same number; -1 is nobody.

    Lists are numbered in order of time. One sorted column of (who, product, list) finds them."""
    lists, places = traffic.lists.products.shape
    pair = shown_to[:, None] * len(traffic.product_ids) + traffic.lists.products
    wanted = done_by * len(traffic.product_ids) + events.products
    number = np.repeat(np.arange(lists), places)
    asked = (shown_to >= 0)[:, None] & np.isin(pair, wanted)
    column = np.sort((pair * lists)[asked] + number.reshape(lists, places)[asked])
    before = np.searchsorted(traffic.lists.shown.times * 1000, events.times, side="right")
    at = np.searchsorted(column, wanted * lists + before) - 1
    found = column[np.maximum(at, 0)] if len(column) else np.zeros(len(at), dtype=np.int64)
    same = (at >= 0) & (found // lists == wanted) & (done_by >= 0)
    return np.where(same, found % lists, -1)
