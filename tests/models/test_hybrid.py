import json

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.models.base import Histories
from recsys.models.histories import histories_from_codes, keep_entries, take_users, user_rows
from recsys.models.hybrid import COMPONENTS, Hybrid, normalised, softened
from recsys.models.newcomers import MOST_LIFTED, Traits
from recsys.models.storage import ArtifactError
from tests.models.shop import DAY, GROUPS, ITEMS, START, taste_histories

NOW = START + 301 * DAY


def without_item(histories, item):
    return keep_entries(histories, histories.items != item)


def test_a_row_is_scaled_by_the_best_product_that_is_not_known_yet():
    histories = histories_from_codes(np.array([0]), np.array([1]), np.array([0]), count=1)
    scaled = normalised(np.array([[2.0, 8.0, -1.0, 4.0]], dtype=np.float32), histories)
    np.testing.assert_allclose(scaled, [[0.5, 1.0, 0.0, 1.0]])


def test_odds_of_a_row_are_those_beside_the_best_product_that_is_not_known_yet():
    histories = histories_from_codes(np.array([0]), np.array([1]), np.array([0]), count=1)
    scores = np.array([[2.0, 8.0, -1.0, 4.0]], dtype=np.float32)
    expected = np.exp(np.array([[-2, 0, -5, 0]]) / 2)
    np.testing.assert_allclose(softened(scores, histories, 2.0), expected, rtol=1e-6)
    assert scores.tolist() == [[2.0, 8.0, -1.0, 4.0]]


def test_who_had_everything_is_scored_all_the_same():
    histories = histories_from_codes(np.zeros(2, int), np.arange(2), np.arange(2), count=1)
    assert np.isfinite(softened(np.array([[3.0, -2.0]], np.float32), histories, 1.0)).all()


ALL_MEMBERS = {
    "weights": {"linear": 0.5, "self_attention": 2.0},
    "temperature": 2.0,
    "als": {"factors": 4, "starts": 1},
    "self_attention": {"dimensions": 8, "epochs": 1},
}


def test_a_blend_of_all_components_is_the_sum_of_their_parts_and_survives_saving(tmp_path):
    histories = taste_histories()
    model = Hybrid.create(ALL_MEMBERS).fit(histories, ITEMS)
    some = take_users(histories, np.arange(20))
    parts = model.parts(some, NOW)
    assert set(parts) == set(COMPONENTS)
    np.testing.assert_allclose(sum(parts.values()), model.score(some, NOW), rtol=1e-5)
    assert parts["self_attention"].max() == pytest.approx(2.0)
    assert set(model.parts_of_similar(3)) == {*COMPONENTS} - {"recent_popularity"}
    assert np.array_equal(sum(model.parts_of_similar(3).values()), model.similar(3))
    model.save(tmp_path)
    loaded = Hybrid.load(tmp_path)
    assert np.array_equal(loaded.score(some, NOW), model.score(some, NOW))
    assert loaded.hyperparameters == model.hyperparameters


def test_what_was_saved_before_components_joined_means_the_same(tmp_path):
    histories = taste_histories()
    model = Hybrid.create({}).fit(histories, ITEMS)
    model.save(tmp_path)
    stored = json.loads((tmp_path / "parameters.json").read_text())
    for name in ("linear", "self_attention"):
        assert not (tmp_path / name).exists()
        del stored[name], stored["weights"][name]
    del stored["temperature"]
    (tmp_path / "parameters.json").write_text(json.dumps(stored))
    loaded = Hybrid.load(tmp_path)
    assert np.array_equal(loaded.score(histories, NOW), model.score(histories, NOW))
    assert loaded.hyperparameters == model.hyperparameters


def test_a_new_product_competes_by_its_text():
    histories = without_item(taste_histories(), 6)
    content = np.eye(6, dtype=np.float32)[np.arange(ITEMS) % 6]
    weights = {"item_knn": 1.0, "als": 0.0, "recent_popularity": 0.0, "content": 1.0}
    plain = Hybrid.create({"weights": weights}).fit(histories, ITEMS)
    with_text = Hybrid.create({"weights": weights}).use_content(content).fit(histories, ITEMS)
    fans = take_users(histories, np.arange(0, 60, 6))  # of the new product's group

    def place(model):
        scores = model.score(fans, NOW)
        return (scores >= scores[:, [6]]).sum(axis=1)

    assert place(with_text).mean() < place(plain).mean() / 2


def test_the_text_of_a_known_product_counts_less():
    histories = without_item(taste_histories(), 6)
    content = np.ones((ITEMS, 2), dtype=np.float32) / np.sqrt(np.float32(2))
    model = Hybrid.create({"weights": {"content": 1.0}}).use_content(content)
    model.fit(histories, ITEMS)
    assert model._novelty[6] == 1
    assert model._novelty[0] < 0.5


def test_without_history_recent_popularity_speaks():
    histories = taste_histories()
    nobody = take_users(keep_entries(histories, np.zeros(len(histories.items), bool)), np.arange(1))
    scores = Hybrid.create({}).fit(histories, ITEMS).score(nobody, NOW)[0]
    assert scores.max() > 0


def test_a_component_of_weight_zero_is_neither_fitted_nor_saved(tmp_path):
    Hybrid.create({"weights": {"als": 0.0}}).fit(taste_histories(), ITEMS).save(tmp_path)
    assert not (tmp_path / "als").exists()
    assert (tmp_path / "item_knn").is_dir()


def test_text_survives_saving(tmp_path):
    histories = taste_histories()
    content = np.eye(6, dtype=np.float32)[np.arange(ITEMS) % 6]
    model = Hybrid.create({"weights": {"content": 1.0}}).use_content(content)
    model.fit(histories, ITEMS).save(tmp_path)
    assert np.array_equal(Hybrid.load(tmp_path).score(histories, NOW), model.score(histories, NOW))


@pytest.mark.parametrize(
    "parameters",
    [
        {"weights": {"magic": 1.0}},
        {"weights": {"als": -1.0}},
        {"weights": {"als": float("nan")}},
        {"weights": 3},
        {"weights": {"als": 0, "item_knn": 0, "recent_popularity": 0}},
        {"few_purchases": 0},
        {"temperature": 0},
        {"weights": {"self_attention": -1}},
        {"als": {"colour": 1}},
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters):
    with pytest.raises(InputError):
        Hybrid.create(parameters)


def test_text_of_another_number_of_products_is_refused():
    with pytest.raises(InputError, match="60 products"):
        Hybrid.create({}).use_content(np.ones((3, 2), np.float32)).fit(taste_histories(), ITEMS)


def test_the_parts_of_a_blend_add_up_to_its_scores():
    histories = taste_histories()
    content = np.eye(6, dtype=np.float32)[np.arange(ITEMS) % 6]
    small = {"weights": {"content": 0.3}, "als": {"factors": 4, "starts": 1}}
    model = Hybrid.create(small).use_content(content).fit(histories, ITEMS)
    some = take_users(histories, np.arange(20))
    parts = model.parts(some, NOW)
    assert set(parts) == {"item_knn", "als", "recent_popularity", "content"}
    np.testing.assert_allclose(sum(parts.values()), model.score(some, NOW), atol=1e-6)
    assert np.array_equal(sum(model.parts_of_similar(3).values()), model.similar(3))


LIFTED = {"weights": {"als": 0.0, "recent_popularity": 0.5}, "lift": 0.5}


def shop_of_brands() -> Traits:
    """Taste groups are brands, prices are unknown."""
    nobody = np.full(ITEMS, -1, dtype=np.int32)
    brands = (np.arange(ITEMS) % GROUPS).astype(np.int32)
    return Traits(np.arange(ITEMS, dtype=np.int32), brands, nobody, np.full(ITEMS, np.nan))


def few_of_each_brand() -> Histories:
    """The first four products of each brand have one purchase, by who else buys the brand."""
    histories = taste_histories()
    first = np.unique(histories.items, return_index=True)[1]
    kept = histories.items >= 4 * GROUPS
    kept[first] = True
    return keep_entries(histories, kept)


def test_products_with_few_purchases_are_lifted_by_those_near_to_them():
    histories = few_of_each_brand()
    plain = Hybrid.create({**LIFTED, "lift": 0.0}).use_traits(shop_of_brands())
    lifted = Hybrid.create(LIFTED).use_traits(shop_of_brands())
    before = plain.fit(histories, ITEMS).score(histories, NOW)
    after = lifted.fit(histories, ITEMS).score(histories, NOW)
    rare = np.bincount(histories.items, minlength=ITEMS) < 5
    assert rare[: 4 * GROUPS].all()
    assert (after[:, ~rare] == before[:, ~rare]).all()
    higher = after > before
    assert higher.any(axis=1).mean() > 0.9
    assert higher.sum(axis=1).max() <= MOST_LIFTED
    rows, items = np.nonzero(higher)
    groups = np.arange(len(before)) % GROUPS
    assert (items % GROUPS == groups[rows]).mean() > 0.8
    had_rows, had_items = user_rows(histories), histories.items
    assert not higher[had_rows, had_items].any(), "who has it needs no more of it"


def test_without_traits_nothing_is_lifted():
    histories = few_of_each_brand()
    plain = Hybrid.create({**LIFTED, "lift": 0.0}).fit(histories, ITEMS)
    lifted = Hybrid.create(LIFTED).fit(histories, ITEMS)
    assert np.array_equal(plain.score(histories, NOW), lifted.score(histories, NOW))


def test_parts_of_lifted_products_sum_up_to_their_scores():
    histories = few_of_each_brand()
    model = Hybrid.create(LIFTED).use_traits(shop_of_brands()).fit(histories, ITEMS)
    parts = model.parts(histories, NOW)
    np.testing.assert_allclose(sum(parts.values()), model.score(histories, NOW), rtol=1e-4)


def test_a_lift_survives_saving_and_a_damaged_one_is_refused(tmp_path):
    histories = few_of_each_brand()
    model = Hybrid.create(LIFTED).use_traits(shop_of_brands()).fit(histories, ITEMS)
    model.save(tmp_path)
    loaded = Hybrid.load(tmp_path)
    assert np.array_equal(loaded.score(histories, NOW), model.score(histories, NOW))
    assert loaded.hyperparameters == model.hyperparameters
    np.save(tmp_path / "rare_near.npy", np.load(tmp_path / "rare_near.npy") + ITEMS)
    with pytest.raises(ArtifactError, match=r"rare_near\.npy"):
        Hybrid.load(tmp_path)


def test_what_its_components_measure_has_their_names():
    told = {}

    def progress(iteration, measured):
        for name in measured:
            told.setdefault(name, []).append(iteration)

    als = {"factors": 4, "iterations": 3, "starts": 2}
    Hybrid.create({"als": als}).fit(taste_histories(), ITEMS, progress)
    assert told["als.loss"] == [1, 2, 3, 4, 5, 6]
    assert {name.partition(".")[0] for name in told} <= set(COMPONENTS)
