import numpy as np

from recsys.models.histories import histories_from_codes
from recsys.models.item_knn import ItemKnn, ItemKnnParameters
from tests.models.shop import DAY

PLAIN = {
    "user_norm": 0.0,
    "from_norm": 0.0,
    "to_norm": 0.0,
    "shrinkage": 0.0,
    "gap_decay": 0.5,
    "reverse": 0.25,
    "together": 2.0,
    "window": 2,
    "history_decay": 0.5,
}


def fit(items, days, users=None, **changes) -> ItemKnn:
    users = np.zeros(len(items), int) if users is None else np.array(users)
    histories = histories_from_codes(
        users, np.array(items), np.array(days) * DAY, count=int(users.max()) + 1
    )
    return ItemKnn(ItemKnnParameters(**{**PLAIN, **changes})).fit(histories, 6)


def test_transitions_have_a_direction_and_fade_with_the_gap():
    model = fit([0, 1, 2, 3], [0, 1, 2, 3])
    np.testing.assert_allclose(model.similar(0), [0, 1, 0.5, 0, 0, 0])
    np.testing.assert_allclose(model.similar(2), [0.125, 0.25, 0, 1, 0, 0])


def test_copies_of_one_review_are_one_moment():
    model = fit([0, 1, 2], [0, 0, 5])
    np.testing.assert_allclose(model.similar(0), [0, 2, 1, 0, 0, 0])
    np.testing.assert_allclose(model.similar(1), [2, 0, 1, 0, 0, 0])


def test_users_do_not_mix():
    model = fit([0, 1, 2, 3], [0, 1, 2, 3], users=[0, 0, 1, 1])
    np.testing.assert_allclose(model.similar(1), [0.25, 0, 0, 0, 0, 0])


def test_frequent_products_are_held_back():
    model = fit(
        [0, 1, 0, 1, 0, 2], [0, 1, 0, 1, 0, 1], users=[0, 0, 1, 1, 2, 2], to_norm=1.0, shrinkage=1.0
    )
    np.testing.assert_allclose(model.similar(0)[1:3], [2 / 3, 1 / 2])


def test_the_latest_moment_of_a_history_counts_most():
    model = fit([0, 1, 2, 3], [0, 1, 0, 1], users=[0, 0, 1, 1])
    asked = histories_from_codes(
        np.zeros(2, int), np.array([0, 2]), np.array([0, 9]) * DAY, count=1
    )
    np.testing.assert_allclose(model.score(asked, 0)[0], [0, 0.5, 0, 1, 0, 0])
