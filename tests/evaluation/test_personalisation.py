from dataclasses import replace

import numpy as np
import pytest

from recsys.data.versions import current_version
from recsys.evaluation.leave_one_out import read_leave_one_out
from recsys.evaluation.personalisation import (
    Expected,
    as_good,
    expected,
    overlap_with_popular,
    personal_lists,
    personal_recall,
)
from recsys.evaluation.ranking import Ranks, rank_targets, user_of_target
from recsys.evaluation.report import report_on
from recsys.models.item_knn import ItemKnn
from recsys.models.popularity import RecentPopularity
from tests.models.shop import ITEMS, USERS, publish_shop, taste_interactions


@pytest.fixture
def data(settings):
    publish_shop(settings, taste_interactions())
    return read_leave_one_out(current_version(settings))


def knn(data):
    return ItemKnn().fit(data.learnt, ITEMS)


def recent(data):
    return RecentPopularity().fit(data.learnt, ITEMS)


def test_a_rare_answer_counts_more_than_one_that_sells(data):
    answers = expected(data.test, data.training_and_validation, ITEMS)
    sold = RecentPopularity().fit(data.training_and_validation, ITEMS)
    scores = sold.score(data.test.histories, data.test.now)
    owner = user_of_target(data.test)
    of_target = scores[owner, data.test.targets]
    of_best = scores.max(axis=1)[owner]
    assert np.allclose(answers.rarity, np.sqrt((of_best + 1) / (of_target + 1)))
    rank = (scores[owner] >= of_target[:, None]).sum(axis=1)
    assert answers.outside.tolist() == (rank > 20).tolist()


def test_debiased_recall_is_the_share_of_the_weight_that_is_found(data):
    ranks = Ranks(data.test.indptr, np.full(USERS, 11))
    ranks.ranks[:2] = 10, 1
    rarity, outside = np.ones(USERS), np.zeros(USERS, dtype=np.bool_)
    rarity[0], outside[:4] = 5.0, (False, True, True, True)
    figures = personal_recall(ranks, data.test, Expected(rarity, outside))
    assert figures["debiased_recall_at_10"] == pytest.approx(6 / (USERS + 4), abs=1e-6)
    assert figures["recall_at_10_outside_best_20"] == pytest.approx(1 / 3, abs=1e-6)
    for name in ("debiased_recall_at_10", "recall_at_10_outside_best_20"):
        assert figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"]


def test_where_all_answers_sell_recall_beyond_them_is_none(data):
    ranks = Ranks(data.test.indptr, np.ones(USERS, dtype=np.int64))
    answers = Expected(np.ones(USERS), np.zeros(USERS, dtype=np.bool_))
    assert personal_recall(ranks, data.test, answers)["recall_at_10_outside_best_20"] == 0
    assert personal_recall(ranks, data.test, answers)["debiased_recall_at_10"] == 1


def test_a_personal_model_gives_other_lists_than_what_is_popular(data):
    popular, personal = personal_lists(recent(data), data), personal_lists(knn(data), data)
    assert popular["first_products"] < personal["first_products"] <= ITEMS
    assert personal["newcomer_overlap"] < popular["newcomer_overlap"] < 10
    assert personal["newcomer_overlap_low"] < personal["newcomer_overlap"]
    assert personal_lists(knn(data), data) == personal


def test_who_is_scored_alike_for_all_products_has_the_list_of_newcomers(data):
    class Silent:
        def score(self, histories, now):
            return np.zeros((histories.users, ITEMS), dtype=np.float32)

    assert personal_lists(Silent(), data) == personal_lists(recent(data), data)


def test_what_is_not_sold_and_another_size_of_what_was_had_stand_in_no_list(settings):
    publish_shop(
        settings, taste_interactions(), families=[f"f{item // 2}" for item in range(ITEMS)]
    )
    data = read_leave_one_out(current_version(settings))

    class Favourite:
        """Puts the other size of what each had last first, then product 0, then product 2."""

        def score(self, histories, now):
            scores = np.zeros((histories.users, ITEMS), dtype=np.float32)
            scores[:, 0], scores[:, 2] = 8, 7
            last = histories.items[histories.indptr[1:] - 1]
            scores[np.arange(histories.users), last ^ 1] = 9
            return scores

    available = np.ones(ITEMS, dtype=np.bool_)
    available[[0, 1]] = False
    figures = personal_lists(Favourite(), replace(data, available=available))
    # Product 2 for all who had neither size of it.
    assert 1 < figures["first_products"] < 10


def test_a_ranking_is_as_good_if_it_loses_at_most_one_standard_error():
    generator = np.random.default_rng(0)
    best, other = generator.random(400), generator.normal(size=400)
    changes = 0.2 * (other - other.mean()) / other.std()  # a standard error of .01
    assert as_good(best + changes - 0.009, best)
    assert not as_good(best + changes - 0.011, best)


def test_with_few_users_a_great_loss_is_not_as_good_though_chance_could_explain_it():
    best, other = np.array([1.0, 0, 1, 0, 1, 0]), np.array([0.0, 1, 0, 1, 0, 0])
    assert not as_good(other, best)
    assert as_good(best, best)


def test_overlap_counts_what_may_stand_in_the_list():
    popularity = np.tile(np.arange(30, dtype=np.float32), (2, 1))
    scores = np.stack([popularity[0], -popularity[0]])
    assert overlap_with_popular(scores, popularity) == 5
    barred = scores.copy()
    barred[0, 25:] = -np.inf
    assert overlap_with_popular(barred, popularity) == 5
    few = np.array([[1.0, -np.inf, -np.inf]], dtype=np.float32)
    assert overlap_with_popular(few, popularity[:1, :3]) == 1


def test_a_report_says_how_personal_the_served_model_is(data):
    def fit(histories):
        return ItemKnn().fit(histories, ITEMS)

    metrics = report_on(fit, data).metrics
    assert metrics == report_on(fit, data, knn(data)).metrics
    assert metrics["first_products"] == personal_lists(knn(data), data)["first_products"]
    known = data.training_and_validation
    ranks = rank_targets(fit(known), data.test)
    found = personal_recall(ranks, data.test, expected(data.test, known, ITEMS))
    assert found.items() <= metrics.items()
