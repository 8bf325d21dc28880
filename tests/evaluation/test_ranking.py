import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.arrays import Float32Array
from recsys.errors import InputError
from recsys.evaluation.metrics import metrics_per_user, resampled_means, summarise
from recsys.evaluation.ranking import HeldOut, Ranks, rank_targets
from recsys.models.base import Histories
from recsys.models.histories import histories_from_codes


class Table:
    """Scores every user of the question by a row of a table; the history's time is the row."""

    def __init__(self, scores: Float32Array) -> None:
        self.scores = scores

    def score(self, histories: Histories, now) -> Float32Array:
        return self.scores[np.asarray(now)].copy()


def questions(seen: list[list[int]], targets: list[list[int]]) -> HeldOut:
    users = np.repeat(np.arange(len(seen)), [len(one) for one in seen])
    items = np.array([item for one in seen for item in one])
    histories = histories_from_codes(users, items, np.zeros(len(items), int), count=len(seen))
    indptr = np.concatenate([[0], np.cumsum([len(one) for one in targets])])
    flat = np.array([item for one in targets for item in one], dtype=np.int32)
    return HeldOut(histories, np.arange(len(seen), dtype=np.int64), indptr, flat)


@given(st.data())
def test_ranks_equal_those_of_a_plain_sort(data):
    users, items = data.draw(st.integers(1, 7)), data.draw(st.integers(3, 12))
    generator = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    scores = generator.integers(0, 6, size=(users, items)).astype(np.float32)
    orders = [generator.permutation(items) for _ in range(users)]
    seen = [order[: generator.integers(1, 2)].tolist() for order in orders]
    targets = [order[1 : 1 + generator.integers(1, items)].tolist() for order in orders]
    held_out = questions(seen, targets)
    ranks = rank_targets(Table(scores), held_out, block=3).ranks
    expected = [
        sum(
            scores[user, other] >= scores[user, target]
            for other in set(range(items)) - set(seen[user])
        )
        for user in range(users)
        for target in targets[user]
    ]
    assert ranks.tolist() == expected


def test_a_model_that_gives_everything_one_score_finds_nothing():
    held_out = questions([[0]] * 4, [[1], [2], [3], [4]])
    ranks = rank_targets(Table(np.ones((4, 50), dtype=np.float32)), held_out).ranks
    assert ranks.tolist() == [49] * 4


def test_nan_scores_are_refused():
    with pytest.raises(InputError, match="NaN"):
        rank_targets(Table(np.full((1, 5), np.nan, dtype=np.float32)), questions([[0]], [[1]]))


def test_metrics_of_one_target():
    per_user = metrics_per_user(Ranks(np.array([0, 1, 2, 3]), np.array([1, 3, 11])))
    assert per_user["recall_at_10"].tolist() == [1, 1, 0]
    np.testing.assert_allclose(per_user["ndcg_at_10"], [1, 1 / 2, 0])
    np.testing.assert_allclose(per_user["mrr_at_10"], [1, 1 / 3, 0])
    np.testing.assert_allclose(per_user["mrr_at_20"], [1, 1 / 3, 1 / 11])


def test_metrics_of_several_targets():
    per_user = metrics_per_user(Ranks(np.array([0, 3]), np.array([2, 1, 30])))
    np.testing.assert_allclose(per_user["recall_at_5"], [2 / 3])
    gained = 1 + 1 / np.log2(3)
    np.testing.assert_allclose(per_user["ndcg_at_5"], [gained / (gained + 0.5)])
    np.testing.assert_allclose(per_user["mrr_at_5"], [1])


def test_the_interval_holds_the_mean_and_narrows_with_more_users():
    few = summarise({"hit": np.tile([0.0, 1.0], 20)})
    many = summarise({"hit": np.tile([0.0, 1.0], 2000)})
    assert few["hit_low"] < few["hit"] == 0.5 < few["hit_high"]
    assert many["hit_high"] - many["hit_low"] < (few["hit_high"] - few["hit_low"]) / 5


def test_the_interval_has_the_width_of_a_binomial():
    means = resampled_means(np.tile([0.0, 1.0], 500)[:, None])
    assert means.std() == pytest.approx(0.5 / np.sqrt(1000), rel=0.1)
