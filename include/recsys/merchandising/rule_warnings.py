"""What rules ask for and will not get: said to whoever looks, and in no case a reason to obey less.

Upper bounds decide, not lists: a warning is never a false alarm, but not every short list is
foreseen."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import Final, Literal

import numpy as np

from recsys.arrays import BoolArray, Float64Array, Int32Array, UInt8Array
from recsys.ids import normalise_id
from recsys.merchandising.catalogue import Catalogue
from recsys.merchandising.placements import Placement
from recsys.merchandising.rules import Rule, matching
from recsys.text import fold

Kind = Literal[
    "expired", "unknown_placement", "unknown_name", "matches_nothing", "contradiction", "short_list"
]

_SHOWN: Final = 5
_FOREVER: Final = 1e12  # seconds since 1970: beyond the calendar


@dataclass(frozen=True, order=True)
class RuleWarning:
    """One of them: the rule (the first, if it takes two), its key, and a sentence that names both
    and what is the matter."""

    rule: str
    kind: Kind
    key: str
    sentence: str

    @property
    def identity(self) -> str:
        """The same as long as the matter is: how many products it is about may change."""
        return f"{self.rule}/{self.kind}/{self.key}"


def warnings_of(
    rules: Collection[Rule],
    catalogue: Catalogue,
    placements: Mapping[str, Placement],
    now: datetime,
    *,
    since: Float64Array | None = None,
    also_placements: Collection[str] = (),
) -> list[RuleWarning]:
    """What is the matter with `rules` at `now` or later, in their order, each once. `placements`
    are those that are configured, `also_placements` names of others that requests may give; `since`
    is what `matching` takes."""
    found: list[RuleWarning] = []
    coming = [rule for rule in rules if not rule.expired(now)]
    groups = _Groups(coming, catalogue, now, since)
    for rule in rules:
        if rule.expired(now):
            text = f"it ended at {rule.end:%Y-%m-%d %H:%M %z}; take it out of the file"
            found.append(_about(rule, "expired", "end", text))
            continue
        found += _unknown_placements(rule, {*placements, *also_placements})
        unknown = list(_unknown_names(rule, catalogue))
        # Of what the shop does not have there are no products: that is said once.
        found += unknown or _too_few(rule, groups)
    found += _beyond_all(coming, placements)
    for one, other in combinations(coming, 2):
        if _meet(one, other, placements):
            found += _contradictions(one, other, groups)
    for name, placement in placements.items():
        here = [rule for rule in coming if _counts(rule, name, placements)]
        found += _in_placement(name, placement, here, groups, now)
    order = {rule.name: number for number, rule in enumerate(rules)}
    found.sort(key=lambda one: order.get(one.rule, len(order)))
    return list({one.identity: one for one in found[::-1]}.values())[::-1]


class _Groups:
    """The available products that rules mean, a bit each: a million products times many rules."""

    def __init__(
        self, rules: list[Rule], catalogue: Catalogue, now: datetime, since: Float64Array | None
    ) -> None:
        self.catalogue = catalogue
        self._bits: dict[str, UInt8Array] = {}
        self.known: dict[str, int] = {}
        """How many products each rule means, available or not."""
        for rule in rules:
            mask = matching(rule.products, catalogue, now, since)
            self.known[rule.name] = int(mask.sum())
            self._bits[rule.name] = np.packbits(mask & catalogue.available)

    def of(self, rule: Rule) -> BoolArray:
        """``(items,)`` the available products that it means."""
        items = len(self.catalogue.item_ids)
        return np.unpackbits(self._bits[rule.name], count=items).astype(bool)

    def size(self, rule: Rule) -> int:
        return int(np.bitwise_count(self._bits[rule.name]).sum())

    def both(self, one: Rule, other: Rule) -> int:
        """Available products that both mean."""
        return int(np.bitwise_count(self._bits[one.name] & self._bits[other.name]).sum())

    def named(self, one: Rule, other: Rule) -> str:
        """Some of the products that both mean, by id."""
        columns = np.flatnonzero(self.of(one) & self.of(other))
        return _listed([self.catalogue.item_ids[column] for column in columns])


def _unknown_placements(rule: Rule, known: Collection[str]) -> Iterator[RuleWarning]:
    unknown = [name for name in rule.placements if name not in known]
    if unknown:
        text = f"there is no placement {_listed(unknown)}; there are {', '.join(sorted(known))}"
        yield _about(rule, "unknown_placement", "placements", text)


def _unknown_names(rule: Rule, catalogue: Catalogue) -> Iterator[RuleWarning]:
    products = rule.products
    for key, names, known in (
        ("brands", products.brands, catalogue.brand_items),
        ("categories", products.categories, catalogue.category_items),
        ("tags", products.tags, catalogue.tag_items),
        ("ids", products.ids, catalogue.index),
    ):
        spelled = normalise_id if key == "ids" else fold
        unknown = [name for name in names if spelled(name) not in known]
        if not unknown:
            continue
        text = f"the shop has no product of {_listed(unknown)}"
        close = difflib.get_close_matches(spelled(unknown[0]), known, 1) if key != "ids" else []
        if close:
            near = f"{close[0]!r} is near to {unknown[0]!r}"
            text = f"{text}; {near}"
        yield _about(rule, "unknown_name", f"products.{key}", text)


def _too_few(rule: Rule, groups: _Groups) -> Iterator[RuleWarning]:
    catalogue, asked = groups.catalogue, rule.products
    if groups.known[rule.name] == 0:
        text = "no product of the shop is meant by it"
        if catalogue.stock is None and (asked.min_stock, asked.max_stock) != (None, None):
            unsaid = "the shop's data do not say what is in stock"
            text = f"{text}; {unsaid}"
        yield _about(rule, "matches_nothing", "products", text)
    elif rule.action != "hide" and groups.size(rule) == 0:
        text = f"none of the {groups.known[rule.name]} products that it means may be shown now"
        yield _about(rule, "matches_nothing", "products", text)
    elif rule.at_least is not None and rule.at_least > groups.size(rule):
        text = f"it asks for {rule.at_least} products, and there are {groups.size(rule)}"
        yield _about(rule, "contradiction", "at_least", text)


def _meet(one: Rule, other: Rule, placements: Mapping[str, Placement]) -> bool:
    """Whether both count at some moment in one list."""
    starts = [rule.start.timestamp() if rule.start else 0.0 for rule in (one, other)]
    ends = [rule.end.timestamp() if rule.end else _FOREVER for rule in (one, other)]
    if max(starts) >= min(ends):
        return False
    everywhere = {*one.placements, *other.placements} or {""}
    return any(
        _counts(one, name, placements) and _counts(other, name, placements) for name in everywhere
    )


def _counts(rule: Rule, placement: str, placements: Mapping[str, Placement]) -> bool:
    known = placements.get(placement)
    return rule.holds(placement) and (known is None or known.rules or rule.action == "hide")


def _contradictions(one: Rule, other: Rule, groups: _Groups) -> Iterator[RuleWarning]:
    """Between two rules that count in one list."""
    actions = {one.action: one, other.action: other}
    if one.action == other.action == "pin" and one.position == other.position:
        text = f"the rule {one.name} pins to place {one.position} as well; that one comes first"
        yield _about(other, "contradiction", f"position/{one.name}", text)
    if {"pin", "hide"} == actions.keys() and groups.both(one, other):
        pin, hide = actions["pin"], actions["hide"]
        text = f"the rule {hide.name} hides {groups.named(pin, hide)}, which is never shown"
        yield _about(pin, "contradiction", f"products/{hide.name}", text)
    if {"quota", "limit"} == actions.keys():
        yield from _quota_and_limit(actions["quota"], actions["limit"], groups)
    if {"pin", "limit"} == actions.keys():
        pin, limit = actions["pin"], actions["limit"]
        pinned = groups.both(pin, limit)
        if pinned > (limit.at_most or 0):
            text = f"it pins {pinned} products of which the rule {limit.name} wants {limit.at_most}"
            yield _about(pin, "contradiction", f"products/{limit.name}", text)


def _quota_and_limit(quota: Rule, limit: Rule, groups: _Groups) -> Iterator[RuleWarning]:
    shared = groups.both(quota, limit)
    most = groups.size(quota) - shared + min(shared, limit.at_most or 0)
    if most < (quota.at_least or 0) <= groups.size(quota):
        text = f"it asks for {quota.at_least}, and the rule {limit.name} leaves room for {most}"
        yield _about(quota, "contradiction", f"at_least/{limit.name}", text)


def _in_placement(
    name: str, placement: Placement, rules: list[Rule], groups: _Groups, now: datetime
) -> Iterator[RuleWarning]:
    """What does not fit into the lists of one placement: `rules` count there, now or later."""
    for rule in rules:
        if rule.action == "pin" and rule.placements and (rule.position or 1) > placement.length:
            text = f"lists of {name} have {placement.length} places"
            yield _about(rule, "contradiction", f"position/{name}", text)
        if rule.action == "quota":
            most = _most_under_spread(groups.of(rule), placement, groups.catalogue)
            if most < (rule.at_least or 0) <= groups.size(rule):
                text = f"it asks for {rule.at_least}, and the spread of {name} has room for {most}"
                yield _about(rule, "contradiction", f"at_least/{name}", text)
    starts = [rule.start for rule in rules if rule.start is not None and rule.start > now]
    for moment in sorted({now, *starts}):
        active = [rule for rule in rules if rule.active(moment)]
        yield from _quotas_together(name, placement, active, groups)
        yield from _shortened(name, placement, active, groups)


def _beyond_all(
    rules: Collection[Rule], placements: Mapping[str, Placement]
) -> Iterator[RuleWarning]:
    """Pins for all placements to a place that the lists of none have."""
    longest = max((one.length for one in placements.values() if one.rules), default=0)
    for rule in rules if longest else ():
        if rule.action == "pin" and not rule.placements and (rule.position or 1) > longest:
            text = f"no placement's lists have so many places: the longest have {longest}"
            yield _about(rule, "contradiction", "position", text)


def _quotas_together(
    name: str, placement: Placement, active: list[Rule], groups: _Groups
) -> Iterator[RuleWarning]:
    counted: list[Rule] = []
    for rule in active:
        # A product of two quotas serves both: of those that share none the sum is needed.
        if rule.action == "quota" and not any(groups.both(rule, one) for one in counted):
            counted.append(rule)
            if sum(one.at_least or 0 for one in counted) > placement.length:
                others = ", ".join(one.name for one in counted[:-1])
                text = f"lists of {name} have {placement.length} places"
                if others:
                    before = f"the quotas of {others} come first"
                    text = f"{text}; {before}"
                yield _about(rule, "contradiction", f"at_least/{name}", text)
                counted.pop()


def _shortened(
    name: str, placement: Placement, active: list[Rule], groups: _Groups
) -> Iterator[RuleWarning]:
    """If what rules and spread leave is fewer than the placement's places, and without them is
    not."""
    allowed, catalogue = groups.catalogue.available, groups.catalogue
    if _families(allowed, catalogue) < placement.length:
        return
    left = allowed
    for rule in active:
        if rule.action == "hide":
            left = left & ~groups.of(rule)
            if _families(left, catalogue) < placement.length:
                yield _short(rule, name, placement, _families(left, catalogue))
                return
    limits = [rule for rule in active if rule.action == "limit"]
    counted, most = _under_limits(limits, left, placement.length, groups)
    if counted and most < placement.length:
        yield _short(max(counted, key=active.index), name, placement, most)
        return
    spread = _most_under_spread(left, placement, catalogue)
    hides = [rule for rule in active if rule.action == "hide"]
    if spread < placement.length and hides:
        yield _short(hides[-1], name, placement, spread)


def _under_limits(
    limits: list[Rule], left: BoolArray, enough: int, groups: _Groups
) -> tuple[list[Rule], int]:
    """Which of `limits` narrow a list of the ``(items,)`` products `left`, and how many it may have
    at most: the narrowest first, whatever their order in the file, until there are not `enough`."""

    def beside(free: BoolArray, rule: Rule) -> tuple[BoolArray, int]:
        group = groups.of(rule) & left
        return free & ~group, min(rule.at_most or 0, int(np.count_nonzero(group)))

    def alone(rule: Rule) -> tuple[int, str]:
        others, own = beside(left, rule)
        return _families(others, groups.catalogue) + own, rule.name

    counted: list[Rule] = []
    free, most, bound = left, 0, _families(left, groups.catalogue)
    for rule in sorted(limits, key=alone):
        # Else some are counted with another limit already.
        if bound >= enough and not (groups.of(rule) & left & ~free).any():
            free, own = beside(free, rule)
            most += own
            if (fewer := _families(free, groups.catalogue) + most) < bound:
                bound, counted = fewer, [*counted, rule]
    return counted, bound


def _short(rule: Rule, name: str, placement: Placement, most: int) -> RuleWarning:
    text = f"with it lists of {name} have at most {most} products, and {placement.length} places"
    return _about(rule, "short_list", f"placements/{name}", text)


def _most_under_spread(group: BoolArray, placement: Placement, catalogue: Catalogue) -> int:
    """How many products of the ``(items,)`` `group` may stand in one list, by family, brand and
    category."""
    bounds = [_families(group, catalogue)]
    for most, members in (
        (placement.spread.brand, catalogue.brand_items),
        (placement.spread.category, catalogue.category_items),
    ):
        if most is not None:
            bounds.append(_most_of_each(group, most, members))
    return min(bounds)


def _most_of_each(group: BoolArray, most: int, members: Mapping[str, Int32Array]) -> int:
    counts = [int(group[columns].sum()) for columns in members.values()]
    without = int(group.sum()) - sum(counts)
    return without + sum(min(most, count) for count in counts)


def _families(group: BoolArray, catalogue: Catalogue) -> int:
    return int(np.count_nonzero(np.bincount(catalogue.families[group])))


def _about(rule: Rule, kind: Kind, key: str, text: str) -> RuleWarning:
    return RuleWarning(rule.name, kind, key, f"rule {rule.name}: {key.partition('/')[0]}: {text}")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
