"""A snapshot keeps its steering for as long as it means the same."""

import dataclasses
from pathlib import Path

import numpy as np

from recsys import schema
from recsys.merchandising.catalogue import build_catalogue
from recsys.merchandising.exploring import Impressions, Seen
from recsys.merchandising.placements import Placement
from recsys.merchandising.rules import Rule, RuleSet
from recsys.merchandising.snapshots import steered
from tests.merchandising.steered_shops import NOW, PLACE, make_shop

HIDE = Rule.model_validate(
    {"name": "gone", "action": "hide", "products": {"ids": ["p01"]}, "author": "lan", "reason": "x"}
)
RULES, PLACEMENTS = RuleSet((HIDE,), "x"), {PLACE: Placement(explore=0.1)}


def test_a_new_catalogue_is_steered_anew_by_the_same_rules(tmp_path: Path) -> None:
    snapshot, products = make_shop(tmp_path, np.random.default_rng(1))
    few = Seen(Impressions("2026-03-10", {}), 5)
    before = steered(snapshot, RULES, PLACEMENTS, NOW, few)
    assert steered(before, RULES, PLACEMENTS, NOW, few) is before
    ids = [f"p{item:02}" for item in range(len(products) + 3)]
    known = snapshot.catalogue.item_ids
    larger = build_catalogue(known, {schema.PRODUCT: ids}, "v2")
    after = steered(dataclasses.replace(before, catalogue=larger), RULES, PLACEMENTS, NOW, few)
    steering = after.steerings.of(PLACE)
    assert steering is not None
    assert steering.hidden is not None
    assert len(steering.hidden) == len(steering.groups) == len(ids)
    assert np.flatnonzero(steering.hidden).tolist() == [1]
    assert after.explorable is not None
    assert after.explorable.items.tolist() == [*range(len(ids))]


def test_other_rules_do_not_draw_the_chances_of_exploring_again(tmp_path: Path) -> None:
    snapshot, _ = make_shop(tmp_path, np.random.default_rng(1))
    few = Seen(Impressions("2026-03-10", {}), 5)
    before = steered(snapshot, RULES, PLACEMENTS, NOW, few)
    after = steered(before, RuleSet(), PLACEMENTS, NOW, few)
    assert after is not before
    assert after.explorable is before.explorable
    assert steered(after, RuleSet(), PLACEMENTS, NOW, None).explorable is None
