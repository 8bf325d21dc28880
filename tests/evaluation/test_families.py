import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.versions import current_version
from recsys.evaluation.leave_one_out import read_leave_one_out
from recsys.evaluation.metrics import metrics_per_user
from recsys.evaluation.ranking import rank_families, rank_targets
from recsys.evaluation.report import report_on
from recsys.models.item_knn import ItemKnn
from tests.evaluation.test_ranking import Table, questions
from tests.models.shop import ITEMS, publish_shop, taste_interactions


def test_a_family_is_ranked_by_its_best_listing():
    families = np.array([0, 0, 1, 1, 2, 3], dtype=np.int32)
    #                    had      target      better by one of its listings
    scores = np.array([[9.0, 8.0, 1.0, 4.0, 3.0, 5.0]], dtype=np.float32)
    ranked = rank_families(Table(scores), questions([[0]], [[2]]), families)
    assert ranked.users.tolist() == [0]
    assert ranked.ranks.ranks.tolist() == [2]


def test_a_purchase_from_a_family_that_the_user_had_is_no_question():
    families = np.array([0, 0, 1, 1, 2], dtype=np.int32)
    scores = np.ones((3, 5), dtype=np.float32)
    asked = questions([[0], [0], [2]], [[1], [1, 2], [3]])
    ranked = rank_families(Table(scores), asked, families)
    assert ranked.users.tolist() == [1]
    assert ranked.ranks.indptr.tolist() == [0, 1]


def test_two_listings_of_one_family_are_one_answer():
    families = np.array([0, 1, 1, 2], dtype=np.int32)
    scores = np.array([[0.0, 1.0, 2.0, 3.0]], dtype=np.float32)
    ranked = rank_families(Table(scores), questions([[0]], [[1, 2]]), families)
    assert ranked.ranks.ranks.tolist() == [2]


@given(st.integers(0, 10_000))
def test_if_every_product_is_a_family_it_is_the_ranking_of_products(seed):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(5, 9)).astype(np.float32)
    orders = [generator.permutation(9).tolist() for _ in range(5)]
    asked = questions([order[:2] for order in orders], [sorted(order[2:5]) for order in orders])
    ranked = rank_families(Table(scores), asked, np.arange(9, dtype=np.int32))
    assert ranked.ranks.ranks.tolist() == rank_targets(Table(scores), asked).ranks.tolist()


def test_nobody_who_bought_something_new_is_no_error():
    families = np.zeros(3, dtype=np.int32)
    ranked = rank_families(Table(np.ones((1, 3), np.float32)), questions([[0]], [[1]]), families)
    assert len(ranked.users) == 0


def test_a_report_says_how_purchases_from_another_family_are_found(settings):
    publish_shop(settings, taste_interactions(), families=[f"f{n // 2}" for n in range(ITEMS)])
    data = read_leave_one_out(current_version(settings))
    assert data.families.tolist() == [n // 2 for n in range(ITEMS)]
    model = ItemKnn().fit(data.training_and_validation, ITEMS)
    segment = report_on(lambda histories: ItemKnn().fit(histories, ITEMS), data).segments[
        "another_family"
    ]
    ranked = rank_families(model, data.test, data.families)
    expected = metrics_per_user(ranked.ranks)["recall_at_10"].mean()
    assert segment["users"] == len(ranked.users) > 0
    assert segment["recall_at_10"] == round(float(expected), 6)


def test_a_product_without_a_family_is_one_of_its_own(settings):
    publish_shop(settings, taste_interactions(), families=[None] * ITEMS)
    data = read_leave_one_out(current_version(settings))
    assert data.families.tolist() == list(range(ITEMS))
