"""The regression is the one that is written down, and what is stored of it is its largest part."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.models.base import Histories
from recsys.models.histories import histories_from_codes, keep_entries
from recsys.models.item_knn import ItemKnn
from recsys.models.linear import Linear
from recsys.models.storage import ArtifactError
from tests.models.shop import DAY, ITEMS, taste_histories

ALL = {"kept": 1000, "user_norm": 0.0}


def histories(*users: list[tuple[int, int]], **others: np.ndarray) -> Histories:
    """Of each user the (product, day) pairs."""
    rows = [(user, *entry) for user, entries in enumerate(users) for entry in entries]
    user, item, day = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return histories_from_codes(user, item, day * DAY, count=len(users), **others)


def expected(users: list[list[tuple[int, int]]], items: int, chosen: dict) -> np.ndarray:
    """The weights of the regression, from examples that are written down one by one."""
    around, targets, weights = [], [], []
    newest = max(day for entries in users for _, day in entries)
    for entries in users:
        moments = {day: number for number, day in enumerate(sorted({day for _, day in entries}))}
        for place, (target, day) in enumerate(entries):
            rows = {True: np.zeros(items), False: np.zeros(items)}
            for other, (product, when) in enumerate(entries):
                gap = abs(moments[day] - moments[when])
                if other != place and gap <= chosen["window"]:
                    much = chosen["gap_decay"] ** (gap - 1) if gap else chosen["together"]
                    rows[when <= day][product] += much
            around += [rows[True], rows[False]]
            targets += [np.eye(items)[target]] * 2
            age = chosen["age_decay"] ** (newest - day)
            norm = len(entries) ** -chosen["user_norm"]
            weights += [age * norm, age * norm * chosen["reverse"]]
    left, right, weight = np.array(around), np.array(targets), np.array(weights)[:, None]
    ridge = np.eye(items) * chosen["regularization"]
    found = np.linalg.solve(left.T @ (weight * left) + ridge, left.T @ (weight * right))
    np.fill_diagonal(found, 0)
    return found


@settings(max_examples=40, deadline=None)
@given(
    users=st.lists(
        st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), max_size=6, unique=True),
        min_size=1,
        max_size=8,
    ).filter(any),
    gap_decay=st.sampled_from([0.5, 0.9, 1.0]),
    together=st.sampled_from([0.0, 0.5, 2.0]),
    reverse=st.sampled_from([0.0, 0.3, 1.0]),
    window=st.sampled_from([1, 3]),
    age_decay=st.sampled_from([0.9, 1.0]),
    user_norm=st.sampled_from([0.0, 0.5]),
)
def test_the_weights_are_those_of_the_regression(users, **chosen):
    chosen |= {"regularization": 1.5}
    users = [sorted(entries, key=lambda entry: (entry[1], entry[0])) for entries in users]
    model = Linear.create({**chosen, "kept": 100}).fit(histories(*users), 7)
    found = np.stack([model.similar(item) for item in range(7)])
    np.testing.assert_allclose(found, expected(users, 7, chosen), rtol=1e-3, atol=1e-5)


def test_what_two_products_say_alike_is_not_counted_twice():
    users = [[(0, 1), (1, 1), (2, 5)]] * 30 + [[(3, 1), (4, 5)]] * 30
    asked = histories([(0, 1), (1, 1)], [(3, 1)])
    both = Linear.create({**ALL, "regularization": 1.0}).fit(histories(*users), 5).score(asked, 0)
    counted = ItemKnn.create({}).fit(histories(*users), 5).score(asked, 0)
    assert both[0, 2] < 1.2 * both[1, 4]
    assert counted[0, 2] > 1.5 * counted[1, 4]


def test_the_largest_weights_are_kept():
    shop = taste_histories()
    full = Linear.create({"kept": ITEMS}).fit(shop, ITEMS)
    for kept, item in itertools.product((1, 7), (0, 13)):
        cut, whole = (
            Linear.create({"kept": kept}).fit(shop, ITEMS).similar(item),
            full.similar(item),
        )
        assert np.count_nonzero(cut) == kept
        assert np.array_equal(cut[cut != 0], whole[cut != 0])
        assert np.abs(whole[cut == 0]).max() <= np.abs(cut[cut != 0]).min()


def test_a_weight_of_a_half_twice_is_one():
    halves = np.full(4, 0.5, np.float32)
    twice = histories([(0, 1), (1, 2)], [(0, 1), (1, 2)], weight=halves, confidence=halves * 10)
    # An example counts its weight, and so does what tells of it.
    once = histories([(0, 1), (1, 2)], weight=np.array([0.5, 1], np.float32))
    models = [Linear.create({**ALL, "reverse": 0}).fit(one, 3) for one in (twice, once)]
    np.testing.assert_allclose(models[0].similar(0), models[1].similar(0), rtol=1e-5)


def test_the_newest_customs_count_most_if_old_examples_fade():
    old, new = [(0, 0), (1, 1)], [(0, 1000), (2, 1001)]
    shop = histories(*[old] * 20, *[new] * 10)
    equal, fading = (Linear.create({**ALL, "age_decay": decay}).fit(shop, 3).similar(0)
                     for decay in (1.0, 0.999))  # fmt: skip
    assert equal[1] > equal[2]
    assert fading[1] < fading[2]


@pytest.mark.parametrize(
    "shop",
    [
        histories([(0, 1)], [(1, 2)], [(2, 3)]),  # of everybody one product is known
        histories([(0, 1), (1, 1), (2, 1)]),  # one moment
        keep_entries(histories([(0, 1)]), np.zeros(1, bool)),  # nothing at all
    ],
)
def test_a_shop_that_says_little_gives_finite_scores(shop, tmp_path: Path):
    model = Linear.create({}).fit(shop, 3)
    model.save(tmp_path)
    scores = Linear.load(tmp_path).score(histories([(0, 1)], []), 0)
    assert scores.shape == (2, 3)
    assert np.isfinite(scores).all()


def test_too_many_products_are_refused_before_anything_is_computed():
    with pytest.raises(InputError, match=r"20,001 products.*1\.6 GB.*training\.yaml"):
        Linear.create({}).fit(taste_histories(), 20_001)


def test_a_regularization_of_nothing_is_refused():
    with pytest.raises(InputError, match="regularization: expected more than 0"):
        Linear.create({"regularization": 0.0})


def test_an_artifact_whose_cells_lie_outside_is_refused(tmp_path: Path):
    model = Linear.create({}).fit(taste_histories(), ITEMS)
    model.save(tmp_path)
    items = np.load(tmp_path / "link_items.npy")
    np.save(tmp_path / "link_items.npy", np.where(items == 3, ITEMS, items).astype(np.int32))
    with pytest.raises(ArtifactError, match="links are not sound: a cell lies in a column"):
        Linear.load(tmp_path)
