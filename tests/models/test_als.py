import json

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.models.als import Als, AlsParameters
from recsys.models.bpr import Bpr, BprParameters
from recsys.models.factor_model import FoldIn
from recsys.models.histories import (
    histories_from_codes,
    steps_from_end,
    take_users,
    user_rows,
)
from tests.models.shop import DAY, GROUPS, ITEMS, START, taste_histories


@pytest.fixture(scope="module")
def model() -> Als:
    return Als(AlsParameters(factors=8, starts=2), seed=1).fit(taste_histories(), ITEMS)


def history(items: list[int], days: list[int]):
    times = START + np.array(days) * DAY
    return histories_from_codes(np.zeros(len(items), int), np.array(items), times, count=1)


def test_a_group_that_somebody_buys_from_ranks_first(model):
    top = np.argsort(-model.score(history([0, 6, 12], [1, 2, 3]), START)[0])[:7]
    assert (top % GROUPS == 0).mean() > 0.8


def test_the_latest_purchase_counts_most(model):
    one_then_two = model.score(history([1, 2], [1, 2]), START)[0]
    two_then_one = model.score(history([2, 1], [1, 2]), START)[0]
    of_one = np.arange(ITEMS) % GROUPS == 1
    assert two_then_one[of_one].mean() > one_then_two[of_one].mean()


@pytest.mark.parametrize("block", [slice(0, 8), slice(8, 16)])
def test_fold_in_solves_the_weighted_least_squares_problem(model, block):
    histories = take_users(taste_histories(), np.arange(3))
    chosen, factors = model._parameters, model.item_vectors[:, block].astype(float)
    for user in range(3):
        entries = slice(*histories.indptr[user : user + 2])
        mine = factors[histories.items[entries]]
        steps = np.arange(len(mine))[::-1]
        weight = chosen.fold_in_weight * chosen.fold_in_decay**steps
        gram = factors.T @ factors + chosen.regularization * np.eye(factors.shape[1])
        expected = np.linalg.solve(gram + mine.T * weight @ mine, mine.T @ weight)
        got = model.query_vectors(histories, START)[user, block]
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_progress_reports_a_falling_loss():
    seen: list[float] = []
    numbers: list[int] = []

    def progress(number, measured):
        numbers.append(number)
        seen.append(measured["loss"])

    Als(AlsParameters(factors=8, starts=2, iterations=5)).fit(taste_histories(), ITEMS, progress)
    assert numbers == list(range(1, 11))
    assert seen[4] < seen[0]
    assert seen[9] < seen[5]


def test_the_starts_differ_and_their_scores_are_added_up(model):
    histories = taste_histories()
    alone = [
        Als(AlsParameters(factors=8, starts=1), seed=seed).fit(histories, ITEMS) for seed in (1, 2)
    ]
    first, second = (one.score(histories, START) for one in alone)
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_allclose(model.score(histories, START), first + second, atol=1e-4)


def test_a_model_that_was_saved_before_there_were_starts_has_one(tmp_path):
    model = Als(AlsParameters(factors=8, starts=1)).fit(taste_histories(), ITEMS)
    model.save(tmp_path)
    parameters = json.loads((tmp_path / "parameters.json").read_text())
    del parameters["starts"]
    (tmp_path / "parameters.json").write_text(json.dumps(parameters))
    loaded = Als.load(tmp_path)
    assert loaded.hyperparameters == model.hyperparameters


def test_long_histories_are_solved_like_short_ones():
    generator = np.random.default_rng(3)
    items = generator.normal(size=(40, 6)).astype(np.float32)
    fold_in = FoldIn(items, 0.5)
    lengths = [1, 3, 6, 7, 20, 33]
    users = np.repeat(np.arange(len(lengths)), lengths)
    chosen = np.concatenate([generator.permutation(40)[:length] for length in lengths])
    asked = histories_from_codes(users, chosen, np.arange(len(users)), count=len(lengths))
    weight = generator.uniform(0, 3, len(users)).astype(np.float32)
    got = fold_in.solve(asked, weight)
    for user in range(len(lengths)):
        entries = slice(*asked.indptr[user : user + 2])
        mine = items[asked.items[entries]].astype(float)
        gram = items.T.astype(float) @ items + 0.5 * np.eye(6) + mine.T * weight[entries] @ mine
        np.testing.assert_allclose(
            got[user], np.linalg.solve(gram, mine.T @ weight[entries]), rtol=2e-3, atol=2e-4
        )


@pytest.mark.parametrize(
    "train",
    [
        Als(AlsParameters(factors=8, starts=2), seed=1),
        Bpr(BprParameters(factors=8, iterations=5), seed=1),
    ],
)
def test_users_of_one_product_do_not_change_what_goes_with_what(train):
    histories = taste_histories()
    bystanders = 500
    users = np.concatenate([user_rows(histories), histories.users + np.arange(bystanders)])
    crowd = histories_from_codes(
        users,
        np.concatenate([histories.items, np.full(bystanders, 3)]),
        np.concatenate([histories.times, np.full(bystanders, START)]),
        count=histories.users + bystanders,
    )
    expected = train.fit(histories, ITEMS).score(histories, START)
    got = train.fit(crowd, ITEMS).score(histories, START)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_shop_where_nobody_bought_twice_is_no_error():
    once = histories_from_codes(np.arange(50), np.arange(50) % 7, np.full(50, START), count=50)
    scores = Als(AlsParameters(factors=4)).fit(once, 7).score(once, START)
    assert np.isfinite(scores).all()


def test_what_is_far_back_is_left_out_without_a_visible_change():
    long = history(list(range(60)), list(range(60)))
    model = Als(AlsParameters(factors=8, fold_in_decay=0.8)).fit(taste_histories(), ITEMS)
    weight = np.float32(40) * np.float32(0.8) ** steps_from_end(long)
    complete = np.hstack([one.solve(long, weight) for one in model._fold_ins])
    scores = model.score(long, START)
    np.testing.assert_allclose(scores, complete @ model.item_vectors.T, atol=0.02)


@pytest.mark.parametrize("parameters", [{"starts": 0}, {"factors": -1}])
def test_a_model_without_factors_is_refused(parameters):
    with pytest.raises(InputError, match="at least 1"):
        Als.create(parameters)
