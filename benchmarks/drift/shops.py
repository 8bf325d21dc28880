"""Simulated shops for the drift benchmarks: what a week brings when nothing changes, and when.

Poisson volume with a weekday season and 5 % growth a month, 95 % five stars, Zipf demand over
1,000 products, four of five events by new customers, comments from stock phrases and free text.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from recsys.arrays import Float64Array
from recsys.drift.weeks import Events

PRODUCTS = 1_000
MONTHLY_GROWTH = 1.05
_WEEKDAYS = np.array([0.9, 0.9, 0.95, 1.0, 1.1, 1.15, 1.0]) / 7.0
_STARS = np.array([0.01, 0.005, 0.01, 0.025, 0.95])
# In no order: ties are broken by product id, which must not know who sells best.
_DEMAND = np.random.default_rng(0).permutation(1 / np.arange(1, PRODUCTS + 1))
_DEMAND /= _DEMAND.sum()
_NEW_CUSTOMERS = 0.8
_WITH_COMMENTS_UP_TO = 500  # a week; text is most of the time and none of the question


@dataclass(frozen=True)
class Habits:
    """What can change in a shop."""

    volume: float = 1.0
    stars: Float64Array = field(default_factory=_STARS.copy)
    demand: Float64Array = field(default_factory=_DEMAND.copy)


UNCHANGED = Habits()


def with_star_shift(points: float) -> Habits:
    """`points` (0.1 = ten) of the five-star share go to the other stars."""
    rest = UNCHANGED.stars[:4] / UNCHANGED.stars[:4].sum()
    return replace(
        UNCHANGED,
        stars=np.append(UNCHANGED.stars[:4] + points * rest, UNCHANGED.stars[4] - points),
    )


def with_turnover(replaced: int, top: int, rng: np.random.Generator) -> Habits:
    """`replaced` of the `top` best sellers change places with products from below."""
    demand = UNCHANGED.demand.copy()
    best_first = np.argsort(-demand)
    leaving = rng.choice(best_first[:top], replaced, replace=False)
    entering = rng.choice(best_first[top:], replaced, replace=False)
    demand[leaving], demand[entering] = UNCHANGED.demand[entering], UNCHANGED.demand[leaving]
    return replace(UNCHANGED, demand=demand)


class Shop:
    """A shop of `weekly` events in week `level_week`, growing around it."""

    def __init__(self, weekly: int, level_week: int, seed: int) -> None:
        self._weekly = weekly
        self._level_week = level_week
        self._rng = np.random.default_rng([weekly, seed])
        self._next_user = 0
        phrases = [f"sản phẩm dùng tốt, câu số {number}" for number in range(400)]
        self._phrases = np.array(phrases, dtype=object)
        self._phrase_shares = (1 / np.arange(3, 403)) / (1 / np.arange(3, 403)).sum()

    def week(self, number: int, habits: Habits = UNCHANGED) -> Events:
        """One week of events; later weeks know its customers."""
        rng = self._rng
        growth = MONTHLY_GROWTH ** ((number - self._level_week) * 7 / 30.4)
        daily = rng.poisson(self._weekly * growth * habits.volume * _WEEKDAYS)
        size = int(daily.sum())
        new = (rng.random(size) < _NEW_CUSTOMERS) | (self._next_user == 0)
        users = rng.integers(max(self._next_user - 20 * self._weekly, 0), self._next_user + 1, size)
        users[new] = self._next_user + np.arange(int(new.sum()))
        first_weeks = np.where(new, number, number - 1)
        self._next_user += int(new.sum())
        return Events(
            weeks=np.full(size, number),
            weekdays=np.repeat(np.arange(7), daily),
            users=users,
            products=rng.choice(PRODUCTS, size, p=habits.demand),
            ratings=rng.choice(np.arange(1.0, 6.0), size, p=habits.stars),
            copies=np.ones(size, dtype=np.int64),
            comments=self._comments(size),
            quality=np.clip(rng.normal(0.6, 0.15, size), 0, 1),
            product_ids=pd.Index([f"P{place:04d}" for place in range(PRODUCTS)]),
            first_weeks=first_weeks,
        )

    def _comments(self, size: int) -> pd.Series | None:
        if self._weekly > _WITH_COMMENTS_UP_TO:
            return None
        stock = self._rng.choice(self._phrases, size, p=self._phrase_shares)
        numbers = self._rng.integers(0, 10**9, size).astype(str)
        free = np.char.add("mình thấy dùng được lắm ", numbers).astype(object)
        texts = np.where(self._rng.random(size) < 0.6, stock, free)
        return pd.Series(np.where(self._rng.random(size) < 0.05, "", texts), dtype="str")


def joined(weeks: list[Events]) -> Events:
    """Consecutive `weeks` as one `Events`. Their `first_weeks` are by event, here by user."""
    users = np.concatenate([week.users for week in weeks])
    first_of_event = np.concatenate([week.first_weeks for week in weeks])
    first_weeks = np.full(int(users.max(initial=0)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_weeks, users, first_of_event)
    comments = None
    if weeks[0].comments is not None:
        comments = pd.concat([week.comments for week in weeks], ignore_index=True)
    return Events(
        weeks=np.concatenate([week.weeks for week in weeks]),
        weekdays=np.concatenate([week.weekdays for week in weeks]),
        users=users,
        products=np.concatenate([week.products for week in weeks]),
        ratings=np.concatenate([week.ratings for week in weeks]),
        copies=np.concatenate([week.copies for week in weeks]),
        comments=comments,
        quality=np.concatenate([week.quality for week in weeks]),
        product_ids=weeks[0].product_ids,
        first_weeks=first_weeks,
    )
