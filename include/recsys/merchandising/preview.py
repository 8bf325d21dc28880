"""What the shop's rules do to one list: as it is without them, as it is with them, and which rule
did what. A rule did what is otherwise when it alone is left out."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from recsys.arrays import BoolArray
from recsys.merchandising.catalogue import Catalogue
from recsys.merchandising.placements import Placement
from recsys.merchandising.rules import Rule
from recsys.merchandising.steering import Steering, compile_steering

What = Literal["hidden", "left_out", "brought_in", "up", "down"]

Make = Callable[[Steering | None], list[int]]
"""The columns of the list under a steering, in order."""


class Effect(NamedTuple):
    """What a rule did to the product in column `item`: its rank without the rule and with it, from
    1, None where it does not stand in the list."""

    rule: str
    item: int
    what: What
    without: int | None
    with_it: int | None


class Preview(NamedTuple):
    """Columns of the list without rules and with them, and the effects, rule by rule."""

    before: list[int]
    after: list[int]
    effects: list[Effect]

    @property
    def crowding(self) -> list[tuple[str, int]]:
        """Rules that bring in more than half of the list, each with how many products."""
        brought = Counter(one.rule for one in self.effects if one.what == "brought_in")
        return [(name, count) for name, count in brought.items() if 2 * count > len(self.after)]


def preview(
    catalogue: Catalogue,
    rules: Sequence[tuple[Rule, BoolArray]],
    placement: Placement,
    make: Make,
) -> Preview:
    """The list that `make` gives for `placement` without and with the active `rules`, each with the
    ``(items,)`` products that it means. Nothing is drawn: what explores differs from list to list,
    and nobody could tell that from a rule's doing."""
    calm = placement.model_copy(update={"explore": 0.0})

    def made(chosen: Sequence[tuple[Rule, BoolArray]]) -> list[int]:
        return make(compile_steering(catalogue, chosen, calm))

    before, after = made([]), made(rules)
    effects: list[Effect] = []
    for number, (rule, meant) in enumerate(rules):
        without = made([*rules[:number], *rules[number + 1 :]])
        effects += _effects(rule, meant, without, after)
        if rule.action == "hide":
            known = {effect.item for effect in effects if effect.rule == rule.name}
            # What two rules hide would be hidden without the one as well.
            effects += [
                effect
                for effect in _effects(rule, meant, before, after)
                if effect.what == "hidden" and effect.item not in known
            ]
    return Preview(before, after, effects)


def _effects(
    rule: Rule, meant: BoolArray, without: Sequence[int], after: Sequence[int]
) -> Iterator[Effect]:
    """On the products that the rule means; that others make room is not its own doing."""
    old = {item: rank for rank, item in enumerate(without, 1)}
    new = {item: rank for rank, item in enumerate(after, 1)}
    for item in dict.fromkeys([*after, *without]):
        was, stands = old.get(item), new.get(item)
        if meant[item] and was != stands:
            yield Effect(rule.name, item, _what(rule, was, stands), was, stands)


def _what(rule: Rule, was: int | None, stands: int | None) -> What:
    if stands is None:
        return "hidden" if rule.action == "hide" else "left_out"
    if was is None:
        return "brought_in"
    return "up" if stands < was else "down"
