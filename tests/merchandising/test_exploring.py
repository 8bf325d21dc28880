"""Exploration: who is drawn, with what probability, and that the probability is the truth."""

import dataclasses
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import schema
from recsys.errors import InputError
from recsys.merchandising.catalogue import Catalogue, build_catalogue
from recsys.merchandising.composing import EXPLORED
from recsys.merchandising.exploring import (
    IMPRESSIONS_KEY,
    MOST_EXPLORED,
    Explorable,
    Impressions,
    Seen,
    explorable,
    explorer,
    read_impressions,
    thompson,
    write_impressions,
)
from recsys.merchandising.placements import Placement
from recsys.merchandising.ranking import NOTHING, Wanted
from recsys.merchandising.recommending import Recommended, history_of, recommend
from recsys.merchandising.rules import RuleSet
from recsys.merchandising.snapshots import steered
from recsys.settings import Settings
from tests.merchandising.steered_shops import (
    NOW,
    PLACE,
    Case,
    Reference,
    make_case,
    make_placement,
    make_rules,
    make_shop,
)


def a_catalogue(count: int, sold_out: tuple[int, ...] = ()) -> Catalogue:
    ids = [f"p{number}" for number in range(count)]
    available = [number not in sold_out for number in range(count)]
    return build_catalogue(ids, {schema.PRODUCT: ids, schema.AVAILABLE: available}, "v1")


def seen(**products: tuple[int, int]) -> Seen:
    return Seen(Impressions("2026-03-10", products), 200)


def test_what_few_have_seen_and_can_be_bought_is_explored() -> None:
    found = explorable(
        a_catalogue(6, sold_out=(1,)), seen(p2=(199, 3), p3=(200, 0), p4=(5000, 90)), seed=1
    )
    assert found is not None
    assert found.items.tolist() == [0, 2, 5]
    assert found.chances.sum() == pytest.approx(1)
    again = explorable(
        a_catalogue(6, sold_out=(1,)), seen(p2=(199, 3), p3=(200, 0), p4=(5000, 90)), seed=1
    )
    assert again is not None
    assert again.chances.tolist() == found.chances.tolist()


def test_a_shop_whose_products_all_were_seen_explores_none() -> None:
    assert explorable(a_catalogue(2), seen(p0=(200, 1), p1=(300, 0)), seed=1) is None


def test_of_very_many_some_have_their_turn() -> None:
    catalogue = a_catalogue(3 * MOST_EXPLORED)
    one, other = (explorable(catalogue, seen(), seed) for seed in (1, 2))
    assert one is not None
    assert other is not None
    assert len(one.items) == len(set(one.items.tolist())) == MOST_EXPLORED
    assert one.items.tolist() != other.items.tolist()
    assert one.chances.min() > 0


def test_thompson_prefers_what_may_be_best() -> None:
    shown, clicks = np.array([150, 150, 0, 150]), np.array([15, 1, 0, 0])
    chances = thompson(shown, clicks, np.random.default_rng(1))
    # Of the unseen one nothing is known; the clicked one may still be better; the others are not.
    assert chances[2] > chances[0] > 0.05
    assert chances[1] == chances[3] == 0.05 / 4
    assert chances.sum() == pytest.approx(1)


def test_more_clicks_than_impressions_are_no_error() -> None:
    assert thompson(np.array([0, 3]), np.array([2, 5]), np.random.default_rng(1)).sum() == 1


def all_may(items: np.ndarray) -> np.ndarray:
    return np.ones(len(items), dtype=bool)


FEW = Explorable(np.array([2, 5, 9], dtype=np.int32), np.array([0.2, 0.3, 0.5]))


@pytest.mark.parametrize("item", [1, 5])
@pytest.mark.parametrize("barred", [(), (9,), (2, 9)])
def test_what_is_recorded_is_how_often_it_happens(item: int, barred: tuple[int, ...]) -> None:
    def may_stand(items: np.ndarray) -> np.ndarray:
        return ~np.isin(items, barred)

    count, share = 5_000, 0.3
    stood, said = Counter[int](), dict[int, set[float]]()
    for seed in range(count):
        product, chance, drawn = explorer(FEW, share, seed)(0, item, may_stand)
        assert drawn == (product != item)
        stood[product] += 1
        said.setdefault(product, set()).add(round(chance, 12))
    for product, times in stood.items():
        [chance] = said[product]
        # Six standard errors: less than one in a hundred million.
        assert times / count == pytest.approx(chance, abs=6 * (0.25 / count) ** 0.5)
    assert sum(chance for [chance] in said.values()) == pytest.approx(1)
    assert stood.keys().isdisjoint(barred)


@given(
    st.integers(0, 12),
    st.lists(st.booleans(), min_size=40, max_size=40),
    st.floats(0, 0.5),
    st.integers(0, 2**32),
)
def test_what_may_not_stand_never_does(item: int, may: list[bool], share: float, seed: int) -> None:
    mask = np.array(may)
    mask[item] = True  # who would stand there may
    found = Explorable(np.arange(2, 40, dtype=np.int32), np.full(38, 1 / 38))
    explore, again = explorer(found, share, seed), explorer(found, share, seed)
    for place in range(10):
        answer = explore(place, item, lambda items: mask[items])
        product, chance, drawn = answer
        assert mask[product]
        assert 0 < chance <= 1
        assert drawn == (product != item)
        assert answer == again(place, item, lambda items: mask[items])


def test_where_nothing_can_be_drawn_nothing_is_left_to_chance() -> None:
    explore = explorer(FEW, 0.5, seed=1)
    for place in range(20):
        assert explore(place, 1, lambda items: np.zeros(len(items), dtype=bool)) == (1, 1.0, False)


def test_impressions_are_read_as_they_were_written(settings: Settings) -> None:
    assert read_impressions(settings) is None
    written = seen(p1=(10, 2), p2=(0, 0)).impressions
    write_impressions(settings, written)
    assert read_impressions(settings) == written
    path: Path = settings.home / IMPRESSIONS_KEY
    before = path.read_bytes()
    write_impressions(settings, written)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"[]", b'{"last_day": "x"}', b"\xff\xfe"])
def test_a_damaged_file_is_named(settings: Settings, content: bytes) -> None:
    path = settings.home / IMPRESSIONS_KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"data/outcomes/impressions.json: is no file of"):
        read_impressions(settings)


def explored_case(seed: int, root: Path) -> Case:
    """A request to a random shop under random rules, of whose places a third is explored."""
    random = np.random.default_rng(seed)
    bare, products = make_shop(root / str(seed), random)
    rules, placement = make_rules(random, products), make_placement(random)
    placement = placement.model_copy(update={"explore": 0.3})
    counts = {f"p{item:02}": (int(random.integers(8)), 1) for item in range(len(products))}
    few_seen = Seen(Impressions("2026-03-10", counts), 5)
    snapshot = steered(bare, RuleSet(rules, "x"), {PLACE: placement}, NOW, few_seen)
    case = make_case(random, snapshot, products, rules, placement)
    return case if case.placement and case.path != "popular" else explored_case(seed + 1000, root)


def again(case: Case, seed: int) -> Recommended:
    """The answer to the same request, drawn with another seed."""
    found, steering = case.snapshot.explorable, case.wanted.steering
    explore = None
    if found is not None and steering is not None:
        explore = partial(explorer, found, steering.explore, seed)
    wanted = dataclasses.replace(case.wanted, explore=explore)
    return case.ask(wanted)


@pytest.mark.parametrize("seed", range(30))
def test_nothing_that_the_shop_asks_for_is_broken_by_exploring(tmp_path: Path, seed: int) -> None:
    case = explored_case(seed, tmp_path)
    found = case.snapshot.explorable
    anyway = case.made.ranked.items
    for number in range(12):
        made = again(case, number)
        assert made == again(case, number)
        if made.fallback_method != case.made.fallback_method:
            continue
        reference, items = Reference(case._replace(made=made)), made.ranked.items
        allowed = {product.item for product in reference.allowed}
        listed = [case.products[item] for item in items]
        reference.pin()
        pinned = reference.here
        reference.places = list(pinned)
        for mark, product in zip(made.ranked.marks, listed, strict=True):
            assert product.item in allowed
            if product not in pinned:
                assert reference.breaks_nothing(product)
                reference.places.append(product)
            if mark == EXPLORED:
                assert product.item not in anyway
                assert found is not None
                assert product.item in found.place
        if len(items) < case.wanted.topk and not reference.nothing:
            assert not any(reference.breaks_nothing(product) for product in reference.order)
        propensities = made.ranked.propensities
        assert not items or (propensities is None) == (found is None)
        assert all(0 < one <= 1 for one in propensities or ())


def test_the_chances_of_a_list_are_how_often_it_comes(tmp_path: Path) -> None:
    tried = 0
    for seed in range(100, 106):
        case = explored_case(seed, tmp_path / str(seed))
        stood, said = Counter[tuple[int, ...]](), dict[tuple[int, ...], float]()
        count = 800
        for number in range(count):
            ranked = again(case, number).ranked
            if ranked.propensities is None or len(ranked.items) < 2:
                break
            tried += 1
            # What stands at the first two places: the second given the first.
            key, chances = tuple(ranked.items[:2]), ranked.propensities[:2]
            stood[key] += 1
            assert said.setdefault(key, chances[0] * chances[1]) == pytest.approx(
                chances[0] * chances[1]
            )
        for key, times in stood.items():
            assert times / count == pytest.approx(said[key], abs=6 * (0.25 / count) ** 0.5)
        if stood:
            assert sum(said.values()) == pytest.approx(1, abs=0.1)
    assert tried > 3 * 800


def test_what_was_displaced_does_not_move_down(tmp_path: Path) -> None:
    snapshot, products = make_shop(tmp_path, np.random.default_rng(1))
    placement, wide = Placement(explore=0.5), Placement(length=len(products))
    few_seen = Seen(Impressions("x", {}), 5)
    snapshot = steered(snapshot, RuleSet(), {PLACE: placement, "all": wide}, NOW, few_seen)
    found = snapshot.explorable
    assert found is not None
    history = history_of(snapshot, "0", (), [], 0)
    steering, allowed = snapshot.steerings.of(PLACE), snapshot.catalogue.available
    own = recommend(snapshot, history, Wanted(3, False, allowed, NOTHING, steering), 0).ranked
    for seed in range(50):
        wanted = Wanted(3, False, allowed, NOTHING, steering, partial(explorer, found, 0.5, seed))
        ranked = recommend(snapshot, history, wanted, 0).ranked
        for place, (item, mark) in enumerate(zip(ranked.items, ranked.marks, strict=True)):
            if mark != EXPLORED and not set(ranked.items[:place]) - set(own.items):
                assert item == own.items[place]
