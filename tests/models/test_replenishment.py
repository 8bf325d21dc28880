"""When products are due again, in a shop whose customers buy them again after known days."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.models.artifacts import load_artifact, save_artifact
from recsys.models.base import Histories
from recsys.models.histories import one_a_product
from recsys.models.popularity import Popularity
from recsys.models.replenishment import last_got, learn_due_days
from recsys.models.storage import ArtifactError
from tests.models.shop import DAY, START
from tests.models.test_complements import events

ITEMS = 12
ALONE = np.arange(ITEMS, dtype=np.int32)
CLEANSERS, CREAMS, BRUSHES = range(4), range(4, 8), range(8, 12)
GAPS = {0: 30.0, 4: 60.0}
"""Days until a cleanser, and a cream, is used up. A brush never is."""
CATEGORIES = 1 + ALONE // 4


def shop(
    seed: int = 0, customers: int = 60, spread: float = 0.15, days: int = 720
) -> list[tuple[int, int, float]]:
    """Purchases (user, product, day): `customers` of each product, who buy it again when it is used
    up, give or take."""
    random = np.random.default_rng(seed)
    rows, user = [], 0
    for item in range(ITEMS):
        gap = GAPS.get(item - item % 4)
        for _ in range(customers):
            day = random.uniform(0, 120)
            while day < days:
                rows.append((user, item, day))
                day += np.inf if gap is None else gap * np.exp(random.normal(0, spread))
            user += 1
    return rows


def bought(rows: list[tuple[int, int, float]]) -> Histories:
    return events(rows, ["purchase"] * len(rows))


def due(histories: Histories, families=ALONE, categories=CATEGORIES):
    return learn_due_days(histories, families, categories)


@pytest.mark.parametrize("seed", range(3))
def test_the_gaps_of_the_shop_are_found(seed: int):
    days = due(bought(shop(seed)))
    assert days[CLEANSERS] == pytest.approx(30, rel=0.1)
    assert days[CREAMS] == pytest.approx(60, rel=0.1)
    assert np.isnan(days[BRUSHES]).all()


def test_a_product_that_few_bought_again_leans_on_its_category():
    others = [(user, 6 if item == 7 else item, day) for user, item, day in shop()]
    rare = [(10_000 + user, 7, day) for user in range(3) for day in (0.0, 200.0)]
    assert 60 < due(bought(others + rare))[7] < 110


def test_sizes_of_a_product_are_one():
    """Each purchase is of another size; nobody buys the same listing twice."""
    rows = [(user, step % 3, 40.0 * step) for user in range(50) for step in range(3)]
    families = np.maximum(ALONE - 2, 0)
    days = due(bought(rows), families)
    assert days[:3] == pytest.approx(40, rel=0.05)


def test_a_shop_in_which_nobody_buys_again_has_nothing_due():
    rows = [(user, item, 10.0 * item) for user in range(200) for item in range(4)]
    assert np.isnan(due(events(rows))).all()
    assert np.isnan(due(events(rows[:1]))).all()


def test_reviews_of_purchases_are_no_purchases():
    """Everybody buys once and reviews it a month later."""
    rows = [(user, user % ITEMS, day) for day in (0.0, 30.0) for user in range(240)]
    kinds = ["purchase"] * 240 + ["rating"] * 240
    assert np.isnan(due(events(rows, kinds))).all()
    assert np.isfinite(due(bought(rows))).all()


def test_a_purchase_after_an_old_review_is_one_again():
    rows = [(user, user % 4, day) for day in (0.0, 45.0) for user in range(240)]
    kinds = ["rating"] * 240 + ["purchase"] * 240
    assert due(events(rows, kinds))[CLEANSERS] == pytest.approx(45, rel=0.01)


def test_parts_of_one_order_are_no_gap_and_one_customer_is_no_crowd():
    often = [(0, 0, 9.0 * step) for step in range(80)]
    parts = [(user, 1, day) for user in range(1, 100) for day in (0.0, 2.0)]
    assert np.isnan(due(bought(often + parts))).all()


def test_who_had_no_time_to_buy_again_does_not_count_against_it():
    late = [(10_000 + user, 0, 299.0) for user in range(2_000)]
    assert due(bought(shop(days=300) + late))[0] == pytest.approx(30, rel=0.15)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_is_due_lies_within_the_gaps_and_depends_on_no_order(data):
    user, item, day = st.integers(0, 40), st.integers(0, ITEMS - 1), st.integers(0, 900)
    rows = data.draw(st.lists(st.tuples(user, item, day), min_size=1, max_size=300))
    kind = st.sampled_from(["rating", "purchase", "view", "dismiss"])
    kinds = data.draw(st.lists(kind, min_size=len(rows), max_size=len(rows)))
    days = due(events(rows, kinds))
    known = days[~np.isnan(days)]
    assert ((known >= 7 - 1e-3) & (known <= 400 + 1e-2)).all()
    again = due(events(rows[::-1], kinds[::-1]))
    assert np.allclose(days, again, equal_nan=True)


def test_when_a_product_was_last_bought_is_no_old_review():
    rows = [(0, 1, 0.0), (0, 1, 50.0), (0, 1, 90.0), (0, 2, 5.0), (0, 3, 7.0), (0, 3, 9.0)]
    kinds = ["rating", "purchase", "purchase", "rating", "view", "view"]
    every = events(rows, kinds)
    told = one_a_product(every)
    got = dict(zip(told.items.tolist(), (last_got(told, every) - START) / DAY, strict=True))
    assert got == {1: 90.0, 2: 5.0, 3: 9.0}
    assert told.times[0] == START  # of the review


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_of_each_product_the_latest_purchase_counts_and_else_the_latest_rating(data):
    user, item, day = st.integers(0, 5), st.integers(0, ITEMS - 1), st.integers(0, 900)
    rows = data.draw(st.lists(st.tuples(user, item, day), min_size=1, max_size=40))
    kind = st.sampled_from(["rating", "purchase", "view", "dismiss"])
    kinds = data.draw(st.lists(kind, min_size=len(rows), max_size=len(rows)))
    every = events(rows, kinds)
    told = one_a_product(every)
    found = last_got(told, every)
    for user in range(told.users):
        for entry in range(told.indptr[user], told.indptr[user + 1]):
            mine = [
                (name, START + at * DAY)
                for (who, what, at), name in zip(rows, kinds, strict=True)
                if who == user and what == told.items[entry]
            ]
            paid = [at for name, at in mine if name == "purchase"]
            rated = [at for name, at in mine if name == "rating"]
            best = max(paid or rated or [told.times[entry]])
            assert found[entry] == best


def save(path, **more):
    histories = events([(user, item, 0.0) for user in range(3) for item in range(3)])
    return save_artifact(
        path,
        model=Popularity().fit(histories, ITEMS),
        item_ids=[f"p{item:02}" for item in range(ITEMS)],
        user_ids=["a", "b", "c"],
        histories=histories,
        popularity=np.ones(ITEMS, dtype=np.float32),
        products=pd.DataFrame({"product_id": [f"p{item:02}" for item in range(ITEMS)]}),
        manifest={"model_id": "popularity_1", "data_version": "v1"},
        **more,
    )


def test_an_artifact_keeps_both(tmp_path):
    days = np.array([30, np.nan, 60] * 4, dtype=np.float32)
    got = START + DAY * np.arange(9)
    loaded = load_artifact(save(tmp_path / "one", due_days=days, got=got))
    assert np.array_equal(loaded.due_days, days, equal_nan=True)
    assert loaded.got.tolist() == got.tolist()
    plain = load_artifact(save(tmp_path / "two"))
    assert np.isnan(plain.due_days).all()
    assert plain.got.tolist() == plain.histories.times.tolist()
    assert not (tmp_path / "two" / "histories" / "got.npy").exists()


@pytest.mark.parametrize("more", [{"due_days": np.ones(3, np.float32)}, {"got": np.zeros(2, int)}])
def test_arrays_of_another_length_are_refused(tmp_path, more):
    with pytest.raises(ArtifactError, match=r"does not fit|no days of"):
        save(tmp_path / "one", **more)
