"""What a catalogue knows beyond names and prices: stock, tags, when products begin."""

import numpy as np
import pytest

from recsys.merchandising.catalogue import build_catalogue, filter_products
from recsys.merchandising.recommending import Snapshot
from recsys.models.artifacts import load_artifact
from recsys.settings import Settings
from tests.serving.shops import ITEMS, add_model, product_id

PRODUCTS = {
    "product_id": ["a", "b", "c", "d"],
    "stock": [3.0, None, 0.0, 12.5],
    "tags": ["tet\nqua tang", "", None, "tet"],
    "available_from": [None, 1000.0, 2000.0, 500.0],
    "since": [100.0, 1000.0, 2000.0, 500.0],
    "available": [True, True, True, False],
}


def test_stock_tags_and_beginnings_stand_in_the_order_of_the_model_then_of_ids():
    catalogue = build_catalogue(["d", "x", "a", "b"], PRODUCTS, "v", now=5000)
    assert catalogue.stock is not None
    assert catalogue.stock.dtype == np.float32
    np.testing.assert_array_equal(catalogue.stock, [12.5, np.nan, 3, np.nan, 0])
    np.testing.assert_array_equal(catalogue.available_from, [500, np.nan, np.nan, 1000, 2000])
    np.testing.assert_array_equal(catalogue.since, [500, np.nan, 100, 1000, 2000])
    tags = {tag: items.tolist() for tag, items in catalogue.tag_items.items()}
    assert tags == {"tet": [0, 2], "qua tang": [2]}


def test_a_shop_that_says_nothing_of_that_has_none():
    catalogue = build_catalogue(["a"], {"product_id": ["a"]}, "v")
    assert (catalogue.stock, catalogue.available_from, catalogue.since) == (None, None, None)
    assert not catalogue.tag_items
    assert catalogue.next_launch == np.inf
    assert catalogue.available.all()


@pytest.mark.parametrize(
    ("now", "allowed", "next_launch"),
    [(999, "a", 1000), (1000, "ab", 2000), (2000, "abc", np.inf)],
)
def test_a_product_is_available_from_its_moment_on(now: float, allowed: str, next_launch: float):
    catalogue = build_catalogue(list("abcd"), PRODUCTS, "v", now=now)
    found = filter_products(catalogue, None, None, None, None)
    assert "".join(np.array(catalogue.item_ids)[found]) == allowed
    assert catalogue.next_launch == next_launch


def test_by_default_the_clock_says_what_is_launched():
    catalogue = build_catalogue(["a"], {"product_id": ["a"], "available_from": [2**40]}, "v")
    assert not catalogue.available.any()


def test_without_a_word_of_the_shop_a_product_began_with_its_first_interaction(settings: Settings):
    add_model(settings, "als_1")
    artifact = load_artifact(settings.artifacts / "als" / "als_1")
    ids = [product_id(item) for item in range(ITEMS)]

    def since(**columns: list[float]) -> list[float]:
        catalogue = build_catalogue([*ids, "new"], {"product_id": ids, **columns}, "v")
        snapshot = Snapshot("als_1", "als", artifact, lambda user: None, catalogue, None, 0)
        return snapshot.since.tolist()

    histories = artifact.histories
    item = int(histories.items[0])
    assert since()[item] == histories.times[histories.items == item].min()
    assert np.isnan(since()[-1])
    assert since(since=[7.0] * ITEMS)[:ITEMS] == [7.0] * ITEMS
