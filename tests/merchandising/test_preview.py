"""The list before and after, and which rule did what: what is otherwise without it."""

from pathlib import Path

import numpy as np
import pytest

from recsys.merchandising.placements import Placement
from recsys.merchandising.preview import Preview, preview
from recsys.merchandising.rules import Rule, matching
from recsys.merchandising.steering import Steering
from tests.merchandising.steered_shops import NOW, make_rules, make_shop

PLAIN = Placement()


def rule(name: str, action: str, ids: list[str], **own: object) -> Rule:
    content = {"name": name, "action": action, "products": {"ids": ids}, **own}
    return Rule.model_validate(content | {"author": "lan", "reason": "a test"})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory):
    return make_shop(tmp_path_factory.mktemp("shop"), np.random.default_rng(4))[0]


def previewed(shop, *rules: Rule, topk: int = 3) -> tuple[Preview, dict[str, tuple]]:
    """The best products by a fixed score, under the real composing."""
    from recsys.merchandising.composing import compose
    from recsys.merchandising.ranking import NOTHING, top_items

    catalogue = shop.catalogue
    scores = -np.arange(len(catalogue.item_ids), dtype=np.float32)

    def make(steering: Steering | None) -> list[int]:
        if steering is None:
            ranked = top_items(scores, catalogue.available, NOTHING, catalogue.families, topk)
        else:
            ranked = compose(scores, catalogue.available, steering, topk)
        return ranked.items

    meant = [(one, matching(one.products, catalogue, NOW)) for one in rules]
    found = preview(catalogue, meant, PLAIN, make)
    ids = catalogue.item_ids
    told = {f"{e.rule}/{ids[e.item]}": (e.what, e.without, e.with_it) for e in found.effects}
    assert len(told) == len(found.effects)
    return found, told


def first(shop, count: int) -> list[str]:
    """The products that stand first without rules."""
    return [shop.catalogue.item_ids[item] for item in previewed(shop, topk=count)[0].before]


def test_without_rules_nothing_is_otherwise(shop) -> None:
    found, told = previewed(shop)
    assert (found.before, told) == (found.after, {})


def test_each_rule_is_told_what_it_did_to_its_products(shop) -> None:
    one, two, three, four = first(shop, 4)
    assert previewed(shop, rule("h", "hide", [one, four]))[1] == {f"h/{one}": ("hidden", 1, None)}
    assert previewed(shop, rule("p", "pin", [three], position=1))[1] == {f"p/{three}": ("up", 3, 1)}
    assert previewed(shop, rule("p", "pin", [four], position=2))[1] == {
        f"p/{four}": ("brought_in", None, 2)
    }
    assert previewed(shop, rule("b", "bury", [one], strength=10))[1] == {
        f"b/{one}": ("left_out", 1, None)
    }
    assert previewed(shop, rule("l", "limit", [one, two], at_most=1))[1] == {
        f"l/{two}": ("left_out", 2, None)
    }
    assert previewed(shop, rule("q", "quota", [four], at_least=1))[1] == {
        f"q/{four}": ("brought_in", None, 3)
    }


def test_what_two_rules_hide_is_told_of_both(shop) -> None:
    one, *_ = first(shop, 1)
    told = previewed(shop, rule("a", "hide", [one]), rule("b", "hide", [one]))[1]
    assert told == {f"{name}/{one}": ("hidden", 1, None) for name in "ab"}


def test_a_rule_that_means_nothing_here_did_nothing(shop) -> None:
    assert previewed(shop, rule("a", "pin", ["p99"], position=1))[1] == {}


@pytest.mark.parametrize("seed", range(20))
def test_effects_agree_with_the_lists(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    shop, products = make_shop(tmp_path, random)
    rules = make_rules(random, products)
    found, _ = previewed(shop, *rules, topk=5)
    by_name = {one.name: one for one in rules}
    ranks = {item: rank for rank, item in enumerate(found.after, 1)}
    for effect in found.effects:
        acting = by_name[effect.rule]
        assert matching(acting.products, shop.catalogue, NOW)[effect.item]
        assert ranks.get(effect.item) == effect.with_it != effect.without
        assert (effect.what == "hidden") <= (acting.action == "hide")
    hides = [one.products for one in rules if one.action == "hide"]
    hidden = {effect.item for effect in found.effects if effect.what == "hidden"}
    for item in set(found.before):
        meant = any(matching(one, shop.catalogue, NOW)[item] for one in hides)
        assert meant == (item in hidden)
