"""A list that is kept is the one that would be composed, and goes with what it was made from."""

from pathlib import Path

import numpy as np
import pytest

from recsys.merchandising.kept_lists import KeptLists
from recsys.merchandising.placements import Placement, Spread
from recsys.merchandising.ranking import NOTHING, Ranked
from recsys.merchandising.recommending import Snapshot, made_in_advance
from recsys.merchandising.rules import Rule, RuleSet
from recsys.merchandising.snapshots import compose_ahead, steered, with_more_candidates
from recsys.merchandising.steering import Steering
from tests.merchandising.steered_shops import NOW, PLACE, USERS, make_shop

PLACEMENTS = {PLACE: Placement(length=4, spread=Spread(brand=2))}


@pytest.fixture
def shop(tmp_path: Path) -> Snapshot:
    """With candidates of all users."""
    snapshot, _ = make_shop(tmp_path, np.random.default_rng(1))
    return with_more_candidates(steered(snapshot, RuleSet(), PLACEMENTS, NOW), 20, 20)


def steering_of(snapshot: Snapshot) -> Steering:
    found = snapshot.steerings.of(PLACE)
    assert found is not None
    return found


def hide(item: int) -> RuleSet:
    meant = {"products": {"ids": [f"p{item:02}"]}, "author": "lan", "reason": "x"}
    return RuleSet((Rule.model_validate({"name": "gone", "action": "hide"} | meant),), "x")


def test_what_is_kept_comes_back_as_it_was(shop: Snapshot) -> None:
    kept, steering = KeptLists(), steering_of(shop)
    scores = np.array([0.1, 1e-30, -3.4e38], dtype=np.float32).tolist()
    lists = [Ranked([7, 1_000_000, 0], scores, "r  "), Ranked([3], [0.5], " "), Ranked([], [], "")]
    for position, ranked in enumerate(lists):
        kept.keep(steering, 3, position, ranked)
    assert [kept.get(steering, 3, position) for position in range(3)] == lists
    assert kept.get(steering, 3, 3) is None
    assert kept.get(steering, 2, 0) is None


def test_all_are_forgotten_when_they_are_too_many(shop: Snapshot) -> None:
    kept, steering = KeptLists(most_bytes=10_000), steering_of(shop)
    ranked = Ranked([*range(10)], [1.0] * 10, " " * 10)
    most = 0
    for position in range(200):
        kept.keep(steering, 10, position, ranked)
        assert kept.get(steering, 10, position) == ranked
        standing = [kept.get(steering, 10, one) for one in range(position + 1)]
        most = max(most, sum(one is not None for one in standing))
    assert 30 < most < 60


def test_lists_are_composed_before_anybody_asks(shop: Snapshot) -> None:
    compose_ahead(shop, PLACEMENTS, 100, 20)
    steering, content = steering_of(shop), shop.content
    assert content is not None
    for position in range(USERS):
        kept = shop.kept.get(steering, 4, position)
        assert kept == shop.candidates.of[steering].first(position, 4, content.vectors)
        assert shop.kept.get(steering, 10, position) is None


def test_no_list_is_composed_ahead_at_a_length_that_may_not_be_asked_for(shop: Snapshot) -> None:
    compose_ahead(shop, PLACEMENTS, 3, 20)
    assert shop.kept.get(steering_of(shop), 4, 0) is None
    assert shop.kept.get(steering_of(shop), 3, 0) is not None


def test_composing_ahead_ends_when_its_time_is_over_and_goes_on_at_the_next_look(
    shop: Snapshot,
) -> None:
    compose_ahead(shop, PLACEMENTS, 100, 0)
    assert shop.kept.ahead == 0
    compose_ahead(shop, PLACEMENTS, 100, 20)
    assert shop.kept.ahead >= USERS


def test_other_rules_and_another_catalogue_keep_nothing_of_before(shop: Snapshot) -> None:
    compose_ahead(shop, PLACEMENTS, 100, 20)
    listed = made_in_advance(shop, 0, 4, steering_of(shop), NOTHING)
    assert listed is not None
    after = steered(shop, hide(listed.items[0]), PLACEMENTS, NOW)
    assert made_in_advance(after, 0, 4, steering_of(after), NOTHING) is None
    after = with_more_candidates(after, 20, 20)
    fresh = made_in_advance(after, 0, 4, steering_of(after), NOTHING)
    assert fresh is not None
    assert listed.items[0] not in fresh.items
    assert made_in_advance(shop, 0, 4, steering_of(shop), NOTHING) == listed
