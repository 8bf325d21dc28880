"""Who comes when, and how many lists they are shown: the rhythm of a day, returning customers,
guests and robots."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from recsys.arrays import AnyArray, BoolArray, Float64Array, Int8Array, Int64Array
from recsys.simulation.world import World

# How many come in each hour of the shop's day: few at night, most at noon and in the evening.
BY_HOUR = (9, 5, 3, 2, 2, 4, 10, 20, 32, 40, 46, 54, 60, 52, 44, 44, 46, 48, 56, 74, 92, 96, 68, 30)
WEEKEND = 1.25
GUESTS = 0.3
"""Of the visits: people without an account."""
NOT_YET_KNOWN = 0.05
"""Of the other visits: those whose first list is shown before they log in."""
GOES_ON = 0.55
"""So often another list follows in the same visit, up to `LONGEST_VISIT`."""
LONGEST_VISIT = 8
BETWEEN_SECONDS = 50.0
PLACEMENTS = ("home", "product", "cart")
ROBOT_LISTS_PER_DAY, ROBOT_SECONDS = 1_200, 20.0
_MINUTE, _DAY, _ROBOT_HOUR = 60_000, 86_400_000, 3 * 3_600_000  # milliseconds


@dataclass(frozen=True)
class Period:
    """From when (inclusive) to when (exclusive); `zone` is that by which the shop has its days."""

    since: datetime
    until: datetime
    zone: ZoneInfo

    @property
    def bounds(self) -> tuple[int, int]:
        """Milliseconds since 1970."""
        return round(self.since.timestamp() * 1000), round(self.until.timestamp() * 1000)

    @property
    def offset(self) -> int:
        """Milliseconds by which the shop's clock is ahead of UTC, at the begin and so for all."""
        ahead = self.since.astimezone(self.zone).utcoffset() or timedelta(0)
        return round(ahead.total_seconds() * 1000)

    def days_of(self, milliseconds: Int64Array) -> Int64Array:
        """Numbers of the shop's days since 1970."""
        return np.asarray((milliseconds + self.offset) // _DAY)

    def moments(self, count: int, rng: np.random.Generator) -> Int64Array:
        """`count` moments by the rhythm of the day and the week, in milliseconds, unordered."""
        first, end = self.bounds
        minutes = np.arange(first, end, _MINUTE)
        hours = (minutes + self.offset) // 3_600_000
        weights = np.array(BY_HOUR)[hours % 24] * np.where((hours // 24 + 3) % 7 > 4, WEEKEND, 1)
        chosen = rng.choice(minutes, size=count, p=weights / weights.sum())
        return np.minimum(chosen + rng.integers(_MINUTE, size=count), end - 1)


class Shown(NamedTuple):
    """When a list is shown to whom, in arrays of one length, in order of time."""

    times: Int64Array  # milliseconds since 1970, no two the same
    visits: Int64Array  # number of the visit
    customers: Int64Array  # whose taste decides; those beyond the world's are robots
    guests: BoolArray  # only the taste is that of the customer
    known: BoolArray  # whether the shop knows then who it is
    placements: Int8Array  # number in `PLACEMENTS`


def draw_visits(
    world: World, period: Period, lists: int, robots: int, rng: np.random.Generator
) -> Shown:
    """Visits in which `lists` lists are shown, and those of `robots` besides, each of which is
    shown `ROBOT_LISTS_PER_DAY`."""
    lengths = np.minimum(rng.geometric(1 - GOES_ON, size=lists), LONGEST_VISIT)
    count = int(np.searchsorted(np.cumsum(lengths), lists)) + 1
    lengths = lengths[:count]
    lengths[-1] -= int(lengths.sum()) - lists
    begins = np.sort(period.moments(count, rng))
    customers = rng.choice(world.customers, size=count, p=world.activity)
    guests = rng.random(count) < GUESTS
    strangers = rng.random(count) < NOT_YET_KNOWN

    visits = np.repeat(np.arange(count), lengths)
    place = np.arange(lists) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    gaps = np.where(place > 0, rng.exponential(BETWEEN_SECONDS, size=lists), 0.0)
    waited = _running_sum(gaps, lengths)
    # A visit ends with the period, however short that makes its pauses.
    left = (period.bounds[1] - 1 - begins[visits]) / 1000
    times = begins[visits] + (1000 * np.minimum(waited, left)).astype(np.int64)
    where = np.where(place == 0, 0, 1 + (rng.random(lists) < 0.15))
    shown = Shown(
        times=times,
        visits=visits,
        customers=customers[visits],
        guests=guests[visits],
        known=~guests[visits] & ~(strangers[visits] & (place == 0)),
        placements=where.astype(np.int8),
    )
    for robot in range(robots):
        shown = _with_robot(shown, world.customers + robot, count + robot, period)
    return _in_order(shown)


def _with_robot(shown: Shown, customer: int, visit: int, period: Period) -> Shown:
    """With a robot that comes every night, if the whole run is in the period."""
    first, end = period.bounds
    offset = period.offset
    nights = (np.arange(first + offset, end + offset, _DAY) // _DAY) * _DAY + _ROBOT_HOUR - offset
    run = (1000 * ROBOT_SECONDS * np.arange(ROBOT_LISTS_PER_DAY)).astype(np.int64)
    nights = nights[(nights >= first) & (nights + run[-1] < end)]
    times = (nights[:, None] + run).ravel()
    count = len(times)
    more = Shown(
        times=times,
        visits=np.full(count, visit),
        customers=np.full(count, customer),
        guests=np.zeros(count, dtype=np.bool_),
        known=np.ones(count, dtype=np.bool_),
        placements=np.zeros(count, dtype=np.int8),
    )
    pairs: Iterable[tuple[AnyArray, AnyArray]] = zip(shown, more, strict=True)
    return Shown._make(np.concatenate(pair) for pair in pairs)


def _in_order(shown: Shown) -> Shown:
    order = np.lexsort((shown.visits, shown.times))
    ordered = Shown._make(column[order] for column in shown)
    place = np.arange(len(order))
    apart = np.maximum.accumulate(ordered.times - place) + place
    return ordered._replace(times=apart)


def _running_sum(values: Float64Array, lengths: Int64Array) -> Float64Array:
    """The running sum within each run of `lengths` cells."""
    total = np.cumsum(values)
    before = np.concatenate(([0.0], total))[np.cumsum(lengths) - lengths]
    return np.asarray(total - np.repeat(before, lengths))
