"""Traffic of some days: which lists were served, and what became of them.

Everything follows from the shop, the seed and the period: the same ones give the same traffic to
the last byte. It is made day by day, for what was bought yesterday is not needed today."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Self

import numpy as np

from recsys.arrays import (
    AnyArray,
    BoolArray,
    Float32Array,
    Float64Array,
    Int8Array,
    Int32Array,
    Int64Array,
    ObjectArray,
    UInt8Array,
)
from recsys.data.simulated import PREFIX
from recsys.errors import InputError
from recsys.schema import Kind
from recsys.simulation.behaviour import Deeds, behave
from recsys.simulation.visits import Period, Shown, draw_visits
from recsys.simulation.world import World

KINDS = tuple(Kind)
Policy = Callable[[World, Float32Array, np.random.Generator], Float32Array]
"""Makes scores ``(lists, products)``, by which the best become a list, of attraction likewise."""

NAMED = {Kind.CLICK: 0.95, Kind.VIEW: 0.7, Kind.CART: 0.8, Kind.PURCHASE: 0.6, Kind.DISMISS: 1.0}
"""So many events say which list they come from; a front end forgets some."""
BY_THEMSELVES, THEN_BOUGHT = 0.05, 0.25
"""Visits to a product that no list led to, for each list, and how many of them buy it."""
OWN_CHOICE, OWN_NEED = 3.0, 2.0
"""How much taste and need decide what these come for. With 1 they chose so freely that their
purchases told no model anything (`benchmarks/loop/signals.py`)."""
ERROR = 1.0
"""Of a policy by taste, in deviations of what draws a customer."""
SINGLE = 0.85  # of the purchases: one piece
RATED_DAYS = 5.0
STARS = (0.02, 0.02, 0.04, 0.12, 0.8)
LATEST_HOURS = 72.0

_BLOCK = 20_000  # lists at a time: their scores of 1,000 products take 80 MB
_SECOND, _MINUTE = 1_000_000, 60_000_000  # in microseconds
_ALONE = 10**9  # numbers of the visits without lists begin above


def by_taste(world: World, attraction: Float32Array, rng: np.random.Generator) -> Float32Array:
    """What a model makes of a customer that it knows with some error."""
    return attraction + ERROR * rng.standard_normal(attraction.shape, dtype=np.float32)


def by_popularity(world: World, attraction: Float32Array, rng: np.random.Generator) -> Float32Array:
    """What sells, for everybody, in an order that changes a little."""
    noise = 0.3 * rng.standard_normal(attraction.shape, dtype=np.float32)
    return np.log(world.sales).astype(np.float32) + noise


class Side(NamedTuple):
    """A share of the customers and visitors, what makes their lists, and by what share their lists
    are clicked more often than others."""

    policy: Policy = by_taste
    share: float = 1.0
    experiment: str = ""
    variant: str = ""
    uplift: float = 0.0

    @property
    def model_id(self) -> str:
        """Nobody takes that for a model."""
        return "simulated_" + self.policy.__name__.removeprefix("by_")


@dataclass(frozen=True)
class Disorder:
    """What goes wrong on the way: shares of the events that arrive up to three days late, that
    arrive twice under one id, that are done twice (another id, a minute later), and that name a
    list which nobody was shown; and how many robots come."""

    late: float = 0.0
    repeated: float = 0.0
    doubled: float = 0.0
    strange: float = 0.0
    robots: int = 0


@dataclass(frozen=True)
class Lists:
    """Served lists in order of time; row n is list n."""

    ids: UInt8Array  # (lists, 16) UUIDs of version 7
    shown: Shown
    sides: Int8Array  # (lists,) number of the side
    products: Int32Array  # (lists, places) numbers of the products, in order

    def __len__(self) -> int:
        return len(self.sides)


@dataclass(frozen=True)
class Events:
    """What was done, by (received, number); arrays of one length."""

    numbers: Int64Array  # two with the same number are one event, sent twice
    lists: Int64Array  # the list that led to it, -1: none
    named: BoolArray  # whether it says so
    strange: BoolArray  # whether it names a list that there is not
    places: Int8Array  # place in the list, -1 without one
    products: Int32Array
    kinds: Int8Array  # number in `KINDS`
    customers: Int64Array  # -1: not known to the shop
    visits: Int64Array  # -1: none
    times: Int64Array  # microseconds since 1970
    received: Int64Array  # likewise
    quantities: Float32Array
    values: Float64Array  # dong, NaN where there is none
    ratings: Float32Array  # stars, NaN for all but ratings

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Int64Array | BoolArray) -> Self:
        """Those of the `rows`, numbers or a mask."""
        return type(self)(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})


@dataclass(frozen=True)
class Traffic:
    """What `simulate` made, and the names of what its numbers stand for."""

    period: Period
    seed: int
    sides: tuple[Side, ...]
    product_ids: ObjectArray
    customer_ids: ObjectArray  # robots at the end
    robots: int
    lists: Lists
    events: Events

    @property
    def salt(self) -> str:
        """Tells ids of this traffic from those of any other, whatever its seed and its days."""
        first, end = self.period.bounds
        return f"{self.seed}-{first // 1000}-{end // 1000}"


def simulate(
    world: World,
    period: Period,
    lists: int,
    *,
    topk: int = 10,
    sides: tuple[Side, ...] = (Side(),),
    rated: float = 0.0,
    baskets: float = 0.0,
    disorder: Disorder = Disorder(),
    seed: int = 0,
) -> Traffic:
    """`lists` lists of `topk` products in the `period`, and what customers did by its end.

    `rated` is the share of purchases with a review days later: ratings of the shop like any other,
    so none by default. `baskets` is how often each of `World.partners` of what is bought comes
    into the same basket, if the customer does not have it. Robots have their lists besides. `world`
    is changed: what was bought is had."""
    rng = np.random.default_rng([seed, *period.bounds])
    shown = draw_visits(world, period, lists, disorder.robots, rng)
    sides_of = _sides_of(world, shown, sides, seed, rng)
    products = np.zeros((len(shown.times), topk), dtype=np.int32)
    days = period.days_of(shown.times) - period.days_of(np.array(period.bounds[:1]))[0]
    parts = []
    for day in range(int(days.max(initial=0)) + 1):
        today, done = np.flatnonzero(days == day), list[Events]()
        for rows in np.split(today, np.arange(_BLOCK, len(today), _BLOCK)):
            served = _Served(world, shown, sides, rows, sides_of[rows], day)
            products[rows], deeds = served.by(topk, rng)
            done += _what_happened(world, shown, rows, products[rows], deeds, day)
        done.append(_without_lists(world, shown.times[today], day, rng))
        parts += done
        if baskets:
            parts.append(_with_partners(world, _together(done), baskets, day, rng))
    events = _completed(_together(parts), world, period, rated, rng)
    robots = [f"{PREFIX}robot-{number}" for number in range(1, disorder.robots + 1)]
    return Traffic(
        *(period, seed, sides, world.shop.product_ids),
        customer_ids=np.array([*world.customer_ids, *robots], dtype=object),
        robots=disorder.robots,
        lists=Lists(_uuids(shown.times, rng), shown, sides_of, products),
        events=_disordered(events, disorder, rng),
    )


class _Served(NamedTuple):
    """Some lists of a day, on their way to their readers."""

    world: World
    shown: Shown
    sides: tuple[Side, ...]
    rows: Int64Array
    sides_of: Int8Array
    day: int

    def by(self, topk: int, rng: np.random.Generator) -> tuple[Int32Array, Deeds]:
        """The products ``(lists, topk)``, and what is done with them."""
        world, people = self.world, self.shown.customers[self.rows]
        robot = people >= world.customers
        nobody = self.shown.guests[self.rows] | robot
        taste = people % world.customers
        drawn = world.attraction(taste, nobody)
        scores = np.empty_like(drawn)
        for number, side in enumerate(self.sides):
            of = self.sides_of == number
            scores[of] = side.policy(world, drawn[of], rng)
        scores[world.had[taste] & ~nobody[:, None]] = -np.inf
        best = np.argpartition(-scores, topk - 1)[:, :topk]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        chosen = np.take_along_axis(best, order, axis=1)
        uplift = np.array([side.uplift for side in self.sides])[self.sides_of]
        need = world.need(taste[:, None], chosen, self.day)
        deeds = behave(np.take_along_axis(drawn, chosen, axis=1), need, uplift, rng)
        return chosen.astype(np.int32), _as_they_can(deeds, robot, nobody)


def _as_they_can(deeds: Deeds, robot: BoolArray, nobody: BoolArray) -> Deeds:
    """Robots click on everything and want nothing; guests of some days ago are not known again."""
    person = ~robot[:, None]
    later = deeds.purchase_seconds - deeds.cart_seconds > 3_600
    return deeds._replace(
        clicked=deeds.clicked | ~person,
        viewed=deeds.viewed & person,
        carted=deeds.carted & person,
        bought=deeds.bought & person & ~(nobody[:, None] & later),
        dismissed=deeds.dismissed & person,
    )


def _what_happened(
    world: World, shown: Shown, rows: Int64Array, products: Int32Array, deeds: Deeds, day: int
) -> list[Events]:
    """The events of lists `rows`, without what `_completed` adds."""
    parts = []
    for kind, (done, seconds) in deeds.by_kind().items():
        row, place = np.nonzero(done)
        of, waited = rows[row], (_SECOND * seconds[row, place]).astype(np.int64)
        # Whoever pays has to say who it is.
        known = shown.known[of] | ((kind in (Kind.CART, Kind.PURCHASE)) & ~shown.guests[of])
        customers = np.where(known, shown.customers[of], -1)
        # A guest is nobody but the visit.
        same_visit = (waited < 3_600 * _SECOND) | (customers < 0)
        parts.append(
            _events(
                kind,
                products[row, place],
                shown.times[of] * 1000 + waited,
                lists=of,
                places=place,
                customers=customers,
                visits=np.where(same_visit, shown.visits[of], -1),
            )
        )
        if kind is Kind.PURCHASE:
            own = customers >= 0
            world.buy(customers[own], products[row, place][own], day)
    return parts


def _with_partners(
    world: World, events: Events, baskets: float, day: int, rng: np.random.Generator
) -> Events:
    """What else is put into the baskets of the purchases among `events`, a minute later. No list
    led to it."""
    bought = (events.kinds == KINDS.index(Kind.PURCHASE)) & (events.customers >= 0)
    rows, width = np.flatnonzero(bought), world.partners.shape[1]
    row, place = np.nonzero(rng.random((len(rows), width)) < baskets)
    of = rows[row]
    products = world.partners[events.products[of], place]
    customers = events.customers[of]
    kept = (products >= 0) & ~world.had[customers, products]
    keys = customers * world.shop.products + products
    kept &= np.isin(np.arange(len(keys)), np.unique(keys, return_index=True)[1])  # each once
    products, customers, of = products[kept], customers[kept], of[kept]
    world.buy(customers, products, day)
    times = events.times[of] + _MINUTE
    visits = events.visits[of]
    return _events(Kind.PURCHASE, products, times, customers=customers, visits=visits)


def _without_lists(world: World, times: Int64Array, day: int, rng: np.random.Generator) -> Events:
    """Customers who come for something by themselves, on a day with lists at `times`."""
    count = int(rng.poisson(BY_THEMSELVES * len(times)))
    if not count:
        return _events(Kind.VIEW, np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64))
    people = rng.choice(world.customers, size=count, p=world.activity)
    drawn = OWN_CHOICE * world.attraction(people, np.zeros(count, dtype=np.bool_))
    drawn += OWN_NEED * world.need(people[:, None], np.arange(world.shop.products), day)
    drawn += rng.gumbel(size=drawn.shape).astype(np.float32)
    products = drawn.argmax(axis=1).astype(np.int32)
    when = (rng.choice(times, size=count) + rng.integers(3_600_000, size=count)) * 1000
    visits = _ALONE * (day + 1) + np.arange(count)
    bought = rng.random(count) < THEN_BOUGHT
    world.buy(people[bought], products[bought], day)
    looked = _events(Kind.VIEW, products, when, customers=people, visits=visits)
    paid = _events(
        *(Kind.PURCHASE, products[bought], when[bought] + 240 * _SECOND),
        customers=people[bought],
        visits=visits[bought],
    )
    return _together([looked, paid])


def _completed(
    events: Events, world: World, period: Period, rated: float, rng: np.random.Generator
) -> Events:
    """With reviews, values, and what they say of their lists; only what happened by the end."""
    bought = events.take(events.kinds == KINDS.index(Kind.PURCHASE))
    reviewed = bought.take((bought.customers >= 0) & (rng.random(len(bought)) < rated))
    waited = (_SECOND * 86_400 * rng.exponential(RATED_DAYS, size=len(reviewed))).astype(np.int64)
    stars = rng.choice(np.arange(1, 6), size=len(reviewed), p=STARS)
    reviews = _events(
        *(Kind.RATING, reviewed.products, reviewed.times + waited),
        customers=reviewed.customers,
        ratings=stars,
    )
    events = _together([events, reviews])
    events = events.take(events.times < period.bounds[1] * 1000)
    count = len(events)
    events = events.take(np.lexsort((events.kinds, events.products, events.lists, events.times)))
    chance = np.array([NAMED.get(kind, 0.0) for kind in KINDS])[events.kinds]
    paid = events.kinds == KINDS.index(Kind.PURCHASE)
    pieces = np.where(paid, rng.geometric(SINGLE, size=count), 1)
    values = np.where(paid, pieces * world.shop.prices[events.products], np.nan)
    return replace(
        events,
        numbers=np.arange(count),
        named=(events.lists >= 0) & (rng.random(count) < chance),
        received=events.times + rng.integers(_SECOND // 5, 2 * _SECOND, size=count),
        quantities=pieces.astype(np.float32),
        values=values,
    )


def _disordered(events: Events, disorder: Disorder, rng: np.random.Generator) -> Events:
    """With what goes wrong on the way, in the order in which they arrive."""

    def some(of: Events, share: float) -> BoolArray:
        return np.asarray(rng.random(len(of)) < share)

    again = events.take(some(events, disorder.doubled))
    again = replace(
        again,
        numbers=len(events) + np.arange(len(again)),
        times=again.times + _MINUTE,
        received=again.received + _MINUTE,
    )
    events = _together([events, again])
    events = replace(events, strange=events.named & some(events, disorder.strange))
    hours = rng.uniform(1, LATEST_HOURS, size=len(events)) * some(events, disorder.late)
    events = replace(events, received=events.received + (hours * 3_600 * _SECOND).astype(np.int64))
    twice = events.take(some(events, disorder.repeated))
    sent = twice.received + rng.integers(3_600 * _SECOND, size=len(twice))
    events = _together([events, replace(twice, received=sent)])
    return events.take(np.lexsort((events.numbers, events.received)))


def _sides_of(
    world: World, shown: Shown, sides: tuple[Side, ...], seed: int, rng: np.random.Generator
) -> Int8Array:
    """The side of each list: that of its customer, whatever the day, else that of the visit."""
    bounds = np.cumsum([side.share for side in sides])
    if not np.isclose(bounds[-1], 1):
        raise InputError(f"the shares of the sides must be 1 together: {bounds[-1]:g}")
    most = max(int(shown.customers.max(initial=0)) + 1, world.customers)
    of_customer = np.random.default_rng([seed, 2]).random(most)
    of_visit = rng.random(int(shown.visits.max(initial=0)) + 1)
    drawn = np.where(shown.known, of_customer[shown.customers], of_visit[shown.visits])
    return np.searchsorted(bounds[:-1], drawn, side="right").astype(np.int8)


def _uuids(times: Int64Array, rng: np.random.Generator) -> UInt8Array:
    """``(n, 16)`` UUIDs of version 7 (RFC 9562) of the milliseconds `times`."""
    ids = rng.integers(256, size=(len(times), 16), dtype=np.uint8)
    ids[:, :6] = times.astype(">u8")[:, None].view(np.uint8)[:, 2:]
    ids[:, 6] = ids[:, 6] & 0x0F | 0x70
    ids[:, 8] = ids[:, 8] & 0x3F | 0x80
    return ids


def _events(kind: Kind, products: Int32Array, times: Int64Array, **columns: AnyArray) -> Events:
    """Events of one kind; what is not given is not known."""
    count = len(times)
    unknown = np.full(count, -1, dtype=np.int64)
    given: dict[str, AnyArray] = {
        **dict.fromkeys(("numbers", "lists", "customers", "visits", "places"), unknown),
        **dict.fromkeys(("named", "strange"), np.zeros(count, dtype=np.bool_)),
        **dict.fromkeys(("quantities", "values", "ratings"), np.full(count, np.nan)),
        **columns,
    }
    numbers = np.full(count, KINDS.index(kind), dtype=np.int8)
    return Events(products=products, kinds=numbers, times=times, received=times, **given)


def _together(parts: list[Events]) -> Events:
    columns = [one.name for one in fields(Events)]
    return Events(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in columns})
