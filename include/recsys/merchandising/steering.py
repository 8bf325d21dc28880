"""What a placement and the shop's rules ask of a list, compiled against one catalogue.

Everything that holds a product back is a group with a most of products in a list: its family (one),
its brand and category where the placement spreads them, each limit, and what is hidden (none). A
product may stand while none of its groups is full, whatever their kind."""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from recsys.arrays import BoolArray, Float64Array, Int32Array
from recsys.ids import normalise_id
from recsys.merchandising.catalogue import Catalogue
from recsys.merchandising.placements import Placement
from recsys.merchandising.rules import Rule, active, matching

NO_GROUP: Final = -1
_NO_LIMIT: Final = 1 << 30
# Of one rule, in its order: who pins a brand of thousands does not mean all of them.
_MOST_PINS: Final = 100

LIFTING: Final = ("pin", "quota", "boost")
FAMILY, HIDDEN, BRAND, CATEGORY = "family", "hidden", "brand", "category"


MayStand = Callable[[Int32Array], BoolArray]
"""Which of the columns of products may stand at the place in question, ``(n,)``."""

Explore = Callable[[int, int, MayStand], tuple[int, float, bool]]
"""Called for each place (from 0) that no pin has, with the product that is to stand there: the
product that does, the probability of that, and whether it was drawn. A list that is begun again,
because its candidates were too few, takes another of these, which has to draw the same."""


class Pin(NamedTuple):
    """One product that is to stand at `place` (from 0), or at the first free one after it."""

    item: int
    place: int
    rule: str


class Quota(NamedTuple):
    """At least so many of the ``(n,)`` columns `items`, the members of `group` that there are."""

    items: Int32Array
    at_least: int
    group: int
    rule: str


class Kinds(NamedTuple):
    """The ``(items,)`` kind and family of each product, and of each kind the groups but for the
    family, and each with how many of it a list may have."""

    of_item: Int32Array
    families: Int32Array
    groups: list[tuple[int, ...]]
    limits: list[tuple[tuple[int, int], ...]]


@dataclass(frozen=True, eq=False)
class Steering:
    """The wishes for the lists of one placement. `groups` is ``(items, columns)``, in each column
    one group of the product or `NO_GROUP`; every group has a number of its own."""

    hidden: BoolArray | None  # ``(items,)`` by rules; None: nothing is
    strength: Float64Array | None  # ``(items,)`` boosts less buries; None: there are none
    pins: tuple[Pin, ...]
    quotas: tuple[Quota, ...]
    groups: Int32Array
    most: tuple[int, ...]  # of the groups of each column, how many in a list
    names: tuple[str, ...]  # of the columns: the rule of a limit, or what is spread
    closed: frozenset[int]  # groups that are full from the beginning
    diversity: float = 0.0
    explore: float = 0.0
    rules: tuple[tuple[Rule, BoolArray], ...] = ()
    """The active ones with the ``(items,)`` products that each means."""

    @property
    def is_simple(self) -> bool:
        """Whether nothing but groups decides: products are passed over, none is moved."""
        return self.strength is None and not self.pins and not self.quotas

    @functools.cached_property
    def kinds(self) -> "Kinds":
        """Products that are in the same groups are of one kind: there are few."""
        rows, of_item = np.unique(self.groups[:, 1:], axis=0, return_inverse=True)
        real = [
            [(group, most) for group, most in zip(row, self.most[1:], strict=True) if group >= 0]
            for row in rows.tolist()
        ]
        return Kinds(
            of_item.ravel().astype(np.int32),
            self.groups[:, 0].copy(),
            [tuple(group for group, _ in row) for row in real],
            [tuple(row) for row in real],
        )

    def mark_groups(self, groups: Collection[int]) -> BoolArray:
        """By number of a group whether it is one of `groups`; `NO_GROUP` is not."""
        marked = np.zeros(self._group_count + 1, dtype=bool)
        marked[list(groups)] = True
        return marked

    @cached_property
    def _group_count(self) -> int:
        return int(self.groups.max(initial=NO_GROUP)) + 1

    def lifting(self, item: int) -> list[Rule]:
        """The active rules that want the product in column `item` in lists, or higher: pins, then
        quotas, then boosts, the strongest first."""
        found = [rule for rule, meant in self.rules if rule.action in LIFTING and meant[item]]
        return sorted(found, key=lambda rule: (LIFTING.index(rule.action), -rule.strength))

    def without(self, names: Collection[str]) -> "Steering | None":
        """The same without what the rules of these `names` lift, and with nothing drawn; None if
        that asks for nothing."""
        kept = [one for one in self.rules if one[0].name not in names]
        boosts = [one for one in kept if one[0].action == "boost"]
        buries = [one for one in kept if one[0].action == "bury"]
        calm = replace(
            self,
            strength=_strength(boosts, buries),
            pins=tuple(pin for pin in self.pins if pin.rule not in names),
            quotas=tuple(quota for quota in self.quotas if quota.rule not in names),
            explore=0.0,
        )
        calm.__dict__["kinds"] = self.kinds  # of the groups, which are the same
        held_back = self.closed or any(most < _NO_LIMIT for most in self.most[1:])
        return calm if held_back or calm.diversity or not calm.is_simple else None


@dataclass(frozen=True)
class Steerings:
    """The steering of each placement that has one; `other` is that of all others, and of lists
    without a placement. They hold until `until`, seconds since 1970."""

    by_placement: Mapping[str, Steering | None] = field(default_factory=dict)
    other: Steering | None = None
    for_users: tuple[Steering, ...] = ()
    """Those whose lists are made for users: none draws, and their placement is not for products."""
    until: float = np.inf
    source: object = None
    """What they were compiled from, to notice others."""

    def of(self, placement: str | None) -> Steering | None:
        return self.by_placement.get(placement, self.other) if placement else self.other


NO_STEERING: Final = Steerings()


def compile_steerings(
    catalogue: Catalogue,
    rules: Sequence[Rule],
    placements: Mapping[str, Placement],
    now: datetime,
    source: object = None,
) -> Steerings:
    """The `rules` that are active at `now` and the `placements`, for this catalogue."""
    names = {*placements, *(name for rule in rules for name in rule.placements)}
    meant = _matching_once(catalogue, now)
    compiled: dict[tuple[object, ...], Steering | None] = {}

    def steering(name: str) -> Steering | None:
        placement = placements.get(name, Placement())
        here = active(rules, now, name)
        if not placement.rules:
            here = tuple(rule for rule in here if rule.action == "hide")
        # Placements that ask for the same share it, and what is made of it.
        key = (*(rule.name for rule in here), placement.spread, placement.explore)
        if key not in compiled:
            compiled[key] = compile_steering(
                catalogue, [(rule, meant(rule)) for rule in here], placement
            )
        return compiled[key]

    by_placement, other = {name: steering(name) for name in names}, steering("")
    of_users = [by_placement[name] for name in names if _for_users(placements.get(name))]
    return Steerings(
        by_placement,
        other,
        for_users=tuple(
            dict.fromkeys(one for one in [other, *of_users] if one is not None and not one.explore)
        ),
        until=_next_change(rules, now),
        source=source,
    )


def compile_steering(
    catalogue: Catalogue, rules: Sequence[tuple[Rule, BoolArray]], placement: Placement
) -> Steering | None:
    """The `rules` with the ``(items,)`` products that each means, and the `placement`, as one
    value. None if they ask for nothing."""
    spread = placement.spread
    chosen = {
        action: [(rule, meant) for rule, meant in rules if rule.action == action and meant.any()]
        for action in ("hide", "pin", "boost", "bury", "limit", "quota")
    }
    asked = spread.brand or spread.category or spread.diversity or placement.explore
    if not asked and not any(chosen.values()):
        return None
    hidden = _any_of(meant for _, meant in chosen["hide"])
    groups = _Groups(catalogue)
    if hidden is not None:
        groups.add(HIDDEN, hidden, most=0)
    for name, members, most in (
        (BRAND, catalogue.brand_items, spread.brand),
        (CATEGORY, catalogue.category_items, spread.category),
    ):
        if most is not None:
            groups.add_partition(name, members.values(), most)
    for rule, meant in chosen["limit"]:
        groups.add(rule.name, meant, rule.at_most or 0)
    offered = catalogue.available if hidden is None else catalogue.available & ~hidden
    quotas = tuple(
        Quota(
            items := _columns(meant & offered),
            min(rule.at_least or 0, len(items)),
            groups.add(rule.name, meant),
            rule.name,
        )
        for rule, meant in chosen["quota"]
    )
    return Steering(
        hidden=hidden,
        strength=_strength(chosen["boost"], chosen["bury"]),
        pins=_pins(catalogue, chosen["pin"]),
        quotas=quotas,
        groups=groups.stacked(),
        most=tuple(groups.most),
        names=tuple(groups.names),
        closed=frozenset(groups.closed),
        diversity=spread.diversity,
        explore=placement.explore,
        rules=tuple(rules),
    )


def _for_users(placement: Placement | None) -> bool:
    return placement is None or placement.endpoint == "recommend"


class _Groups:
    """Columns of groups, the family's first."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._items = catalogue, len(catalogue.item_ids)
        self._columns = [catalogue.families]
        self.names, self.most, self.closed = [FAMILY], [1], set[int]()
        self._next = int(catalogue.families.max(initial=-1)) + 1

    def add(self, name: str, members: BoolArray, most: int = _NO_LIMIT) -> int:
        """One group of the ``(items,)`` `members`; its number."""
        return self.add_partition(name, [_columns(members)], most)

    def add_partition(self, name: str, groups: Iterable[Int32Array], most: int) -> int:
        """Groups of columns without a common product; the number of the first."""
        first, column = self._next, np.full(self._items, NO_GROUP, dtype=np.int32)
        for items in groups:
            column[items] = self._next
            if most == 0:
                self.closed.add(self._next)
            self._next += 1
        self._columns.append(column)
        self.names.append(name)
        self.most.append(most)
        return first

    def stacked(self) -> Int32Array:
        return np.stack(self._columns, axis=1)


def _pins(catalogue: Catalogue, rules: Sequence[tuple[Rule, BoolArray]]) -> tuple[Pin, ...]:
    pins = []
    for rule, meant in sorted(rules, key=lambda one: one[0].position or 0):
        allowed = meant & catalogue.available
        named = (catalogue.index.get(normalise_id(name), -1) for name in rule.products.ids)
        # As the rule names them, else as the catalogue has them.
        order = list(dict.fromkeys(item for item in named if item >= 0)) or _columns(allowed)
        here = [int(item) for item in order if allowed[item]][:_MOST_PINS]
        pins += [Pin(item, (rule.position or 1) - 1, rule.name) for item in here]
    return tuple(pins)


def _strength(
    boosts: Sequence[tuple[Rule, BoolArray]], buries: Sequence[tuple[Rule, BoolArray]]
) -> Float64Array | None:
    if not boosts and not buries:
        return None
    sums = np.zeros(len((boosts or buries)[0][1]))
    for rules, sign in ((boosts, 1.0), (buries, -1.0)):
        for rule, meant in rules:
            sums[meant] += sign * rule.strength
    return sums


def _any_of(masks: Iterable[BoolArray]) -> BoolArray | None:
    found: BoolArray | None = None
    for mask in masks:
        found = mask if found is None else found | mask
    return found


def _columns(mask: BoolArray) -> Int32Array:
    return np.flatnonzero(mask).astype(np.int32)


def _matching_once(catalogue: Catalogue, now: datetime) -> Callable[[Rule], BoolArray]:
    """`matching` of a rule, looked up once for all placements."""
    known: dict[str, BoolArray] = {}

    def meant(rule: Rule) -> BoolArray:
        if rule.name not in known:
            found = matching(rule.products, catalogue, now)
            known[rule.name] = np.broadcast_to(found, len(catalogue.item_ids))
        return known[rule.name]

    return meant


# Ages of products change with the clock.
_AGE_SECONDS: Final = 600.0


def _next_change(rules: Iterable[Rule], now: datetime) -> float:
    """When other rules are active, or mean other products; in seconds since 1970."""
    moments = [np.inf]
    for rule in rules:
        if rule.expired(now):
            continue
        moments += [at.timestamp() for at in (rule.start, rule.end) if at is not None and at > now]
        if rule.products.asks_for_age:
            moments.append(now.timestamp() + _AGE_SECONDS)
    return min(moments)
