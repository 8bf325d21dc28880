"""The synthetic shop is deterministic, of the size asked for, and has tastes to learn."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from recsys.data.sample import write_sample_shop
from recsys.errors import InputError
from tests.data.shop import refresh

UNTIL = date(2025, 2, 1)


def test_same_arguments_same_bytes(tmp_path):
    shops = [
        write_sample_shop(tmp_path / name, reviews=3_000, seed=seed, until=UNTIL)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    contents = [(shop.reviews_path.read_bytes(), shop.products_path.read_bytes()) for shop in shops]
    assert contents[0] == contents[1]
    assert contents[0][0] != contents[2][0]


def test_the_load_test_shop_has_the_shape_of_the_public_one(tmp_path):
    shop = write_sample_shop(tmp_path, reviews=369_099, users=304_708, products=2_244, until=UNTIL)
    reviews = pd.read_csv(shop.reviews_path, usecols=["user_id", "product_id", "rating"])
    counts = reviews.groupby("user_id").size()
    assert (len(reviews), len(counts)) == (369_099, 304_708)
    assert len(pd.read_csv(shop.products_path)) == 2_244
    assert (counts >= 2).mean() == pytest.approx(0.086, abs=0.0005)
    assert (reviews["rating"] == 5).mean() == pytest.approx(0.95, abs=0.01)


def test_no_row_of_the_embedded_shop_is_bad_and_most_customers_come_back(settings):
    write_sample_shop(settings, until=UNTIL)
    summary = refresh(settings)
    assert (summary["rows"]["read"], summary["rows"]["quarantined"]) == (12_000, 0)
    assert summary["rows"]["accepted"] > 11_900


def test_customers_buy_from_a_taste_of_their_own(tmp_path):
    shop = write_sample_shop(tmp_path, until=UNTIL)
    reviews = pd.read_csv(shop.reviews_path)
    pairs = reviews.merge(reviews, on="user_id")
    pairs = pairs[pairs["product_id_x"] != pairs["product_id_y"]]
    together = np.zeros((480, 480))
    np.add.at(together, (pairs["product_id_x"], pairs["product_id_y"]), 1)
    share = np.sort(together, axis=1)[:, -24:].sum() / together.sum()
    popular = np.bincount(reviews["product_id"], minlength=480)
    assert share > 2 * np.sort(popular)[-24:].sum() / popular.sum()


def test_impossible_sizes_are_refused(tmp_path):
    with pytest.raises(InputError, match="1 to 10 users"):
        write_sample_shop(tmp_path, reviews=10, users=11)
    with pytest.raises(InputError, match="at least 24 products"):
        write_sample_shop(tmp_path, products=3)
