"""Exploration: who is drawn, with what probability, and that the probability is the truth."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import schema
from recsys.errors import InputError
from recsys.merchandising.catalogue import Catalogue, build_catalogue
from recsys.merchandising.exploring import (
    IMPRESSIONS_KEY,
    MOST_EXPLORED,
    Explorable,
    Impressions,
    explorable,
    explorer,
    read_impressions,
    thompson,
    write_impressions,
)
from recsys.settings import Settings


def a_catalogue(count: int, sold_out: tuple[int, ...] = ()) -> Catalogue:
    ids = [f"p{number}" for number in range(count)]
    available = [number not in sold_out for number in range(count)]
    return build_catalogue(ids, {schema.PRODUCT: ids, schema.AVAILABLE: available}, "v1")


def seen(**products: tuple[int, int]) -> Impressions:
    return Impressions("2026-03-10", products)


def test_what_few_have_seen_and_can_be_bought_is_explored() -> None:
    found = explorable(
        a_catalogue(6, sold_out=(1,)), seen(p2=(199, 3), p3=(200, 0), p4=(5000, 90)), 200, seed=1
    )
    assert found is not None
    assert found.items.tolist() == [0, 2, 5]
    assert found.chances.sum() == pytest.approx(1)
    again = explorable(
        a_catalogue(6, sold_out=(1,)), seen(p2=(199, 3), p3=(200, 0), p4=(5000, 90)), 200, seed=1
    )
    assert again is not None
    assert again.chances.tolist() == found.chances.tolist()


def test_a_shop_whose_products_all_were_seen_explores_none() -> None:
    assert explorable(a_catalogue(2), seen(p0=(200, 1), p1=(300, 0)), 200, seed=1) is None


def test_of_very_many_some_have_their_turn() -> None:
    catalogue = a_catalogue(3 * MOST_EXPLORED)
    one, other = (explorable(catalogue, seen(), 200, seed) for seed in (1, 2))
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
    written = seen(p1=(10, 2), p2=(0, 0))
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
