"""The order in which products stand in a list, under a steering: docs/placements.md has the rules.

Pins take their places. Every other place, from the first to the last, goes to the best product none
of whose groups is full. What could not stand once never can later, as groups only fill: one walk
through the products in their order makes the list. It looks at some hundred, and at four times as
many whenever they were too few."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Final, NamedTuple

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array
from recsys.merchandising.ranking import Ranked
from recsys.merchandising.steering import Explore, MayStand, Quota, Steering

BY_RULE, EXPLORED, OWN = "r", "e", " "
"""Why a product has its place: pinned or asked for by a rule, drawn, or as the list's own."""

POOL: Final = 50
"""Diversity chooses among so many of the best, one of each family."""
PLACES: Final = 50
"""So many places is a product moved up or down by strength 1."""
_MARGIN: Final = 100
_GROWTH: Final = 4
_AHEAD: Final = 1e-9  # of a place


class TooFewError(Exception):
    """The walk came to the end of its candidates, and there are others."""


@dataclass(slots=True)
class Run:
    """Candidates in order, best first, with their kinds and families, see `Kinds`; of one family
    and kind the best is enough. `complete`: there are no others."""

    items: list[int]
    kinds: list[int]
    families: list[int]
    groups: list[tuple[int, ...]]  # of each kind
    complete: bool
    at: int = 0

    def first(self, full: set[int]) -> int | None:
        """The best that may stand, None if none may. Raises `TooFewError`."""
        items, kinds, families, groups = self.items, self.kinds, self.families, self.groups
        for at in range(self.at, len(items)):
            if families[at] not in full and full.isdisjoint(groups[kinds[at]]):
                self.at = at
                return items[at]
        self.at = len(items)
        if not self.complete:
            raise TooFewError
        return None


@dataclass(slots=True)
class Pool:
    """Some of a `run`, with ``(n,)`` `values` in [0, 1] and ``(n, d)`` `vectors` of their texts:
    the next one is good and unlike those in the list."""

    run: Run
    values: Float64Array
    vectors: Float32Array
    diversity: float
    likeness: Float64Array

    def beside(self, vector: Float32Array) -> None:
        """Another product, of this text, is in the list."""
        self.likeness = np.maximum(self.likeness, self.vectors @ vector)

    def first(self, full: set[int], owed: set[int] | None = None) -> int | None:
        """The best that may stand, and is in one of the groups `owed`."""
        run = self.run
        worth = (1 - self.diversity) * self.values - self.diversity * self.likeness
        for at in np.argsort(-worth, kind="stable").tolist():
            mine = run.groups[run.kinds[at]]
            if run.families[at] in full or not full.isdisjoint(mine):
                continue
            if not owed or not owed.isdisjoint(mine):
                return run.items[at]
        return None


@dataclass(slots=True)
class Supply:
    """What a list can be made of: the `run` of all candidates, and one of each quota's for the few
    lists that come to them; the columns of the pins that may stand, in order, `worth` by which two
    candidates compare, `usable` by which columns are allowed, and where the list is to be diverse
    the pool."""

    run: Run
    quotas: Callable[[], Sequence[Run]]
    pins: Sequence[tuple[int, int]]
    worth: Callable[[int], float]
    usable: MayStand
    pool: Pool | None = None
    vector: Callable[[int], Float32Array] | None = None

    def begin(self) -> None:
        """Offer everything again, to another list."""
        self.run.at = 0
        if self.pool is not None:
            self.pool.likeness = np.zeros(len(self.pool.values))


@dataclass(slots=True)
class Composed:
    """Columns in order, a letter each (see `OWN`), and with exploring the propensity of each."""

    items: list[int]
    marks: str
    propensities: tuple[float, ...] | None


class _List:
    """A list that is being made."""

    def __init__(self, steering: Steering, supply: Supply, topk: int) -> None:
        self.steering, self.supply = steering, supply
        self.places: list[int | None] = [None] * topk
        self.marks = [OWN] * topk
        self.left = topk
        self.full = set(steering.closed)
        self._counts: dict[int, int] = {}
        self._displaced: set[int] = set()
        self._owing = sum([quota.at_least for quota in steering.quotas])  # at most
        self._quotas: Sequence[Run] | None = None
        supply.begin()

    def put(self, place: int, item: int, mark: str) -> None:
        self.places[place] = item
        self.marks[place] = mark
        self.left -= 1
        kinds, counts, full = self.steering.kinds, self._counts, self.full
        kind = kinds.of_item.item(item)
        family = kinds.families.item(item)
        full.add(family)
        self._displaced.discard(family)
        for group, most in kinds.limits[kind]:
            count = counts[group] = counts.get(group, 0) + 1
            if count >= most:
                full.add(group)
        pool, vector = self.supply.pool, self.supply.vector
        if pool is not None and vector is not None:
            pool.beside(vector(item))

    def displace(self, item: int) -> None:
        """Another product was drawn for the place of `item`, which does not move down: what was
        drawn takes one place from one product, and is compared with that."""
        family = self.steering.kinds.families.item(item)
        if family not in self.full:
            self.full.add(family)
            self._displaced.add(family)

    def readmit(self) -> bool:
        """Let what was displaced stand after all, as nothing else may; whether there was any."""
        back, self._displaced = self._displaced, set()
        self.full -= back
        self.supply.run.at, self._quotas = 0, None
        return bool(back)

    def pin(self) -> None:
        """Put what is pinned to its place, or to the first free one after it."""
        places, seen = self.places, set[int]()
        for item, place in self.supply.pins:
            if item in seen:
                continue
            seen.add(item)
            while place < len(places) and places[place] is not None:
                place += 1
            if place < len(places):
                self.put(place, item, BY_RULE)

    def fill(self) -> None:
        """Put the best that may stand to the places that owe nothing to a quota: what `next` and
        `put` do, one after the other, in a fifth of the time."""
        run, places, full, counts = self.supply.run, self.places, self.full, self._counts
        items, kinds, families, groups = run.items, run.kinds, run.families, run.groups
        limits, at, count = self.steering.kinds.limits, run.at, len(items)
        for place, taken in enumerate(places):
            if self.left <= self._owing:
                break
            if taken is not None:
                continue
            while at < count and (families[at] in full or not full.isdisjoint(groups[kinds[at]])):
                at += 1
            if at == count:
                break
            places[place] = items[at]
            full.add(families[at])
            self.left -= 1
            for group, most in limits[kinds[at]]:
                counts[group] = standing = counts.get(group, 0) + 1
                if standing >= most:
                    full.add(group)
        run.at = at

    def next(self) -> tuple[int, str, set[int] | None] | None:
        """What stands at the next place, why, and the groups that are owed a product there."""
        if self.left <= self._owing:
            found = self._owed()
            if found is not None:
                return found
        pool = self.supply.pool
        item = pool.first(self.full) if pool is not None else None
        if item is None:
            item = self.supply.run.first(self.full)
        return None if item is None else (item, OWN, None)

    def _owed(self) -> tuple[int, str, set[int] | None] | None:
        counts, quotas, supply = self._counts, self.steering.quotas, self.supply
        due = [max(0, quota.at_least - counts.get(quota.group, 0)) for quota in quotas]
        if self.left > sum(due):
            return None
        owed = {quota.group for quota, count in zip(quotas, due, strict=True) if count}
        item = None if supply.pool is None else supply.pool.first(self.full, owed)
        if item is None:
            if self._quotas is None:
                self._quotas = supply.quotas()
            best = [
                run.first(self.full) for run, count in zip(self._quotas, due, strict=True) if count
            ]
            found = [one for one in best if one is not None]
            if not found:
                return None
            several = len(found) > 1
            item = min(found, key=lambda one: (-supply.worth(one), one)) if several else found[0]
        return item, BY_RULE, owed

    def may_stand(self, owed: set[int] | None) -> MayStand:
        def look(items: Int32Array) -> BoolArray:
            groups, marks = self.steering.groups[items], self.steering.mark_groups
            stands = ~marks(self.full)[groups].any(axis=1) & self.supply.usable(items)
            if owed is not None:
                stands &= marks(owed)[groups].any(axis=1)
            return np.asarray(stands)

        return look


def walk(steering: Steering, supply: Supply, topk: int, explore: Explore | None = None) -> Composed:
    """The list of `topk` from what the `supply` has. Raises `TooFewError` if it has too little."""
    made = _List(steering, supply, topk)
    if supply.pins:
        made.pin()
    if supply.pool is None and explore is None:
        made.fill()
    chances = [1.0] * topk
    for place in range(topk):
        if made.places[place] is not None:
            continue
        found = made.next()
        if found is None and made.readmit():
            found = made.next()
        if found is None:
            break
        item, mark, owed = found
        if explore is not None:
            own = item
            item, chances[place], drawn = explore(place, own, made.may_stand(owed))
            if drawn:
                mark = EXPLORED
                made.displace(own)
        made.put(place, item, mark)
    if not made.left and explore is None:
        return Composed(made.places, "".join(made.marks), None)  # type: ignore[arg-type]
    # A list that is too short has no gaps before its last pins.
    kept = [place for place, item in enumerate(made.places) if item is not None]
    return Composed(
        [item for item in made.places if item is not None],
        "".join([made.marks[place] for place in kept]),
        None if explore is None else tuple(chances[place] for place in kept),
    )


def compose(
    scores: Float32Array,
    allowed: BoolArray,
    steering: Steering,
    topk: int,
    *,
    among: BoolArray | None = None,
    vectors: Float32Array | None = None,
    explore: Callable[[], Explore] | None = None,
) -> Ranked:
    """The list of `topk` products by their ``(items,)`` `scores`. Only what is `allowed` stands in
    it, and but for pins only what is `among` them; ``(items, d)`` `vectors` are those of texts."""
    if steering.hidden is not None:
        allowed = allowed & ~steering.hidden
    candidates = allowed if among is None else allowed & among
    if among is not None and not candidates.any():
        return Ranked([], [])  # who made it has nothing to say
    usable = np.where(candidates, scores, np.float32(-np.inf))
    pins = [(pin.item, pin.place) for pin in steering.pins if allowed[pin.item]]
    take = _GROWTH * topk + _MARGIN
    while True:
        try:
            supply = _supply(usable, steering, take, pins, vectors)
            made = walk(steering, supply, topk)
            if explore is not None:
                # What stands in the list anyway is not drawn for it.
                others = candidates.copy()
                others[made.items] = False
                supply.usable = partial(np.take, others)
                made = walk(steering, supply, topk, explore())
        except TooFewError:
            take *= _GROWTH
            continue
        return Ranked(made.items, scores[made.items].tolist(), made.marks, made.propensities)


class Moved(NamedTuple):
    """Products of each user in the order that boosts and buries make, best first: ``(users, n)``
    columns, and what each is worth beside the others. So many as ``(users,)`` `certain` are the
    best that there are; `complete`: there are no others that may stand."""

    items: Int64Array
    worth: Float64Array
    certain: Int64Array
    complete: BoolArray


def moved(scores: Float32Array, strength: Float64Array, take: int) -> Moved:
    """By ``(users, items)`` `scores`, -inf of what may not stand: strength 1 moves a product fifty
    places from that which its score gives it. Places mean the same in every list, however steep
    its scores are. Looks for the `take` best, and finds fewer where equal scores hide the last.

    A product is worth what that is whose place it takes, above the first by even steps more."""
    shift = _shift(strength)
    up = max(0.0, float(shift.max(initial=0.0)))
    count = scores.shape[1]
    depth = min(take + int(np.ceil(up)), count)
    best = np.broadcast_to(np.arange(count), scores.shape)
    if depth < count:
        best = np.sort(np.argpartition(scores, count - depth, axis=1)[:, count - depth :], axis=1)
    own = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-own, axis=1, kind="stable")
    best, own = np.take_along_axis(best, order, 1), np.take_along_axis(own, order, 1)
    bound, stands = own.min(axis=1, initial=np.inf), own > -np.inf
    complete = (bound == -np.inf) | (depth == count)
    # Of those that are equal to the last one others may not have been looked at.
    placed = np.where(complete, stands.sum(axis=1), (own > bound[:, None]).sum(axis=1))
    place = np.where(stands, np.arange(depth) - shift[best], np.inf)
    worth = _worth_of_places(np.where(stands, own, 0.0), stands.sum(axis=1), place)
    order = np.argsort(place, axis=1, kind="stable")
    place = np.take_along_axis(place, order, 1)
    certain = (place < np.where(complete, np.inf, placed - up)[:, None]).sum(axis=1)
    items, worth = np.take_along_axis(best, order, 1), np.take_along_axis(worth, order, 1)
    return Moved(items, worth, certain, complete)


def nearness(scores: Float32Array, strength: Float64Array) -> Float64Array:
    """``(users, items)`` how near to the first place each product comes, by scores as in `moved`:
    in the same order, -inf of what may not stand."""
    order = np.argsort(-scores, axis=1, kind="stable")
    rank = np.empty(scores.shape)
    np.put_along_axis(rank, order, np.arange(scores.shape[1], dtype=np.float64)[None], axis=1)
    # Of those that come to one place the first is who was ahead before.
    near = _shift(strength) - rank * (1 + _AHEAD)
    near[scores == -np.inf] = -np.inf
    return near


def _shift(strength: Float64Array) -> Float64Array:
    """So many places upwards, and past whoever stands there."""
    return PLACES * strength + np.sign(strength) / 2


def _worth_of_places(own: Float64Array, count: Int64Array, place: Float64Array) -> Float64Array:
    """``(users, n)`` what stands at each `place` from 0 is worth by the ``(users, n)`` scores in
    order, of which ``(users,)`` `count` are some."""
    last = np.maximum(count - 1, 0)[:, None]
    first = own[:, :1]
    step = (first - np.take_along_axis(own, np.minimum(last, PLACES - 1), 1)) / PLACES
    step = np.where(step > 0, step, 1.0)
    within = np.clip(place, 0, last)
    above = np.floor(within).astype(np.int64)
    part = within - above
    worth = (1 - part) * np.take_along_axis(own, above, 1)
    worth += part * np.take_along_axis(own, np.minimum(above + 1, last), 1)
    return np.asarray(worth + step * (within - place))


def in_order(worth: Float32Array | Float64Array, take: int) -> tuple[Int64Array, bool]:
    """The `take` best of ``(n,)`` `worth` above -inf, in order, of equal ones the first first; and
    whether these are all."""
    if take >= len(worth):
        best, complete = np.arange(len(worth)), True
    else:
        bound = np.partition(worth, len(worth) - take)[len(worth) - take]
        above = np.flatnonzero(worth > bound)
        equal = np.flatnonzero(worth == bound)[: take - len(above)]
        best, complete = np.concatenate([above, equal]), bool(bound == -np.inf)
    best = best[worth[best] > -np.inf]
    return best[np.lexsort((best, -worth[best]))], complete


def _supply(
    usable: Float32Array,
    steering: Steering,
    take: int,
    pins: list[tuple[int, int]],
    vectors: Float32Array | None,
) -> Supply:
    """From ``(items,)`` scores, -inf of what is no candidate."""
    strength = steering.strength
    if strength is None:
        best, complete = in_order(usable, take)
        worth = usable[best].astype(np.float64)
    else:
        found = moved(usable[None], strength, take)
        best, complete = found.items[0, : found.certain[0]], bool(found.complete[0])
        worth = found.worth[0, : len(best)]

    @cache
    def ahead() -> Float32Array | Float64Array:
        """By which two candidates compare, whatever place they have."""
        return usable if strength is None else nearness(usable[None], strength)[0]

    def run_of_quota(quota: Quota) -> Run:
        found, all_of_it = in_order(ahead()[quota.items], take)
        return run_of(steering, quota.items[found], all_of_it)

    supply = Supply(
        run_of(steering, best, complete),
        lambda: [run_of_quota(quota) for quota in steering.quotas],
        pins,
        worth=lambda item: float(ahead()[item]),
        usable=lambda items: np.asarray(usable[items] > -np.inf),
    )
    if steering.diversity and vectors is not None:
        diversify(supply, steering, best, worth, vectors)
    return supply


def run_of(steering: Steering, items: Int64Array | Int32Array, complete: bool) -> Run:
    kinds = steering.kinds
    return Run(
        items.tolist(),
        kinds.of_item[items].tolist(),
        kinds.families[items].tolist(),
        kinds.groups,
        complete,
    )


def diversify(
    supply: Supply,
    steering: Steering,
    best: Int64Array | Int32Array,
    worth: Float64Array,
    vectors: Float32Array,
) -> None:
    """Give the supply a pool of the ``(n,)`` `best` candidates, in order, which are worth so much.
    Raises `TooFewError` if there are too few of them."""
    families = steering.kinds.families[best]
    first = np.sort(np.unique(families, return_index=True)[1])[:POOL]
    if len(first) < POOL and not supply.run.complete:
        raise TooFewError
    best, worth = best[first], worth[first]
    low, high = worth.min(initial=np.inf), worth.max(initial=-np.inf)
    values = (worth - low) / (high - low) if high > low else np.zeros(len(worth))
    run, unlike = run_of(steering, best, True), np.zeros(len(worth))
    supply.pool = Pool(run, values, vectors[best], steering.diversity, unlike)
    supply.vector = vectors.__getitem__
