"""The interactions as the drift checks see them: one entry for each event, by local week.

Shops copy one review to the pages of sibling products. Copies are no independent evidence, so
each event counts once, for the first of its products. A week is Monday to Sunday in the time
zone of the schedule; weeks are numbered from the Monday before 1970."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from recsys import schema
from recsys.arrays import BoolArray, Float64Array, Int64Array
from recsys.errors import InputError

NEEDED = (schema.USER, schema.PRODUCT, schema.RATING, schema.TIMESTAMP)
COLUMNS = (*NEEDED, schema.COMMENT, schema.COMMENT_QUALITY, schema.EVENT)

_FIRST_MONDAY = date(1969, 12, 29)
_MONDAY_OFFSET = 3  # days until 1970-01-01
_OF_EVENTS = ("weeks", "weekdays", "users", "products", "ratings", "copies", "comments", "quality")


@dataclass(frozen=True)
class Week:
    """Monday 00:00 to the next Monday 00:00 in `zone`."""

    number: int
    zone: ZoneInfo

    @classmethod
    def last_full(cls, end: datetime, zone: ZoneInfo) -> "Week":
        """The last week that is over at `end` (aware)."""
        days = (end.astimezone(zone).date() - _FIRST_MONDAY).days
        return cls(days // 7 - 1, zone)

    @property
    def first_day(self) -> date:
        return _FIRST_MONDAY + timedelta(weeks=self.number)

    @property
    def start(self) -> datetime:
        return datetime.combine(self.first_day, datetime.min.time(), self.zone)

    @property
    def end(self) -> datetime:
        """Exclusive."""
        return self.before(-1).start

    def before(self, weeks: int) -> "Week":
        return Week(self.number - weeks, self.zone)


@dataclass(frozen=True)
class Events:
    """Parallel arrays with one entry for each event, oldest week first.

    `users` and `products` are codes, `product_ids` their names; `first_weeks`, by user, the week of
    the first event. `comments` and `quality` are None when the frame has no such column."""

    weeks: Int64Array
    weekdays: Int64Array
    users: Int64Array
    products: Int64Array
    ratings: Float64Array
    copies: Int64Array
    comments: pd.Series | None
    quality: Float64Array | None
    product_ids: pd.Index
    first_weeks: Int64Array

    def __len__(self) -> int:
        return len(self.weeks)

    def between(self, first: int, stop: int) -> "Events":
        """The events of the weeks numbered ``first <= week < stop``."""
        low, high = np.searchsorted(self.weeks, [first, stop])
        return self.where(slice(int(low), int(high)))

    def where(self, part: "slice | BoolArray") -> "Events":
        """The events of `part`."""
        cut: dict[str, Any] = {
            name: None if (whole := getattr(self, name)) is None else whole[part]
            for name in _OF_EVENTS
        }
        return replace(self, **cut)

    def daily(self, first: int, stop: int) -> Int64Array:
        """``(weeks, 7)`` number of events by week and weekday."""
        part = self.between(first, stop)
        place = (part.weeks - first) * 7 + part.weekdays
        return np.bincount(place, minlength=(stop - first) * 7).reshape(-1, 7)

    def product_counts(self) -> Int64Array:
        """``(products,)`` number of events."""
        return np.bincount(self.products, minlength=len(self.product_ids))


def events_of(interactions: pd.DataFrame, zone: ZoneInfo, first_week: int = 0) -> Events:
    """Collapse `interactions` to events, those of week number `first_week` and later.

    Needs USER, PRODUCT, RATING and TIMESTAMP; uses EVENT (else each row is an event of its own),
    COMMENT and COMMENT_QUALITY. Of an event's rows the first one counts. Earlier rows only tell
    which customers are not new.

    Raises `InputError` if a needed column is missing or time stamps have no time zone."""
    missing = [name for name in NEEDED if name not in interactions.columns]
    if missing:
        raise InputError(f"interactions: the columns {', '.join(missing)} are missing")
    times = interactions[schema.TIMESTAMP]
    if not isinstance(times.dtype, pd.DatetimeTZDtype):
        raise InputError(f"interactions: {schema.TIMESTAMP} must be times with a time zone (UTC)")
    local = times.dt.tz_convert(zone).dt.tz_localize(None)
    days = local.to_numpy().astype("datetime64[D]").astype(np.int64) + _MONDAY_OFFSET
    users, user_ids = pd.factorize(interactions[schema.USER])
    first_weeks = np.full(len(user_ids), np.iinfo(np.int64).max)
    np.minimum.at(first_weeks, users, days // 7)

    rows, copies = _first_rows(interactions, np.flatnonzero(days // 7 >= first_week))
    order = np.argsort(days[rows], kind="stable")
    rows, copies = rows[order], copies[order]
    frame = interactions.iloc[rows].reset_index(drop=True)
    quality = frame.get(schema.COMMENT_QUALITY)
    products, product_ids = pd.factorize(frame[schema.PRODUCT], sort=True)
    return Events(
        weeks=days[rows] // 7,
        weekdays=days[rows] % 7,
        users=users[rows].astype(np.int64),
        products=products.astype(np.int64),
        ratings=frame[schema.RATING].to_numpy(np.float64),
        copies=copies,
        comments=frame.get(schema.COMMENT),
        quality=None if quality is None else quality.to_numpy(np.float64),
        product_ids=pd.Index(product_ids),
        first_weeks=first_weeks,
    )


def _first_rows(interactions: pd.DataFrame, rows: Int64Array) -> tuple[Int64Array, Int64Array]:
    """The first of each event's `rows`, and how many rows the event has."""
    if schema.EVENT not in interactions.columns:
        return rows, np.ones(len(rows), dtype=np.int64)
    codes, distinct = pd.factorize(interactions[schema.EVENT].iloc[rows])
    first = np.full(len(distinct), len(codes))
    np.minimum.at(first, codes, np.arange(len(codes)))
    return rows[first], np.bincount(codes, minlength=len(distinct)).astype(np.int64)


def product_names(products: pd.DataFrame) -> Mapping[str, str]:
    """Names by product id, for those that have one."""
    if schema.PRODUCT_NAME not in products.columns:
        return {}
    named = products.set_index(schema.PRODUCT)[schema.PRODUCT_NAME].fillna("")
    return dict(named[named != ""])
