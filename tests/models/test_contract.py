"""What every model family promises."""

from pathlib import Path

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.models.base import InnerProductModel, Model
from recsys.models.histories import keep_entries, take_users
from recsys.models.model_types import MODEL_TYPES, model_class
from recsys.models.storage import ArtifactError
from tests.models.shop import DAY, ITEMS, START, USERS, taste_histories

NOW = START + 301 * DAY


@pytest.fixture(params=sorted(MODEL_TYPES))
def family(request: pytest.FixtureRequest) -> type[Model]:
    return MODEL_TYPES[request.param]


QUICK = {"self_attention": {"dimensions": 8, "epochs": 2}}
"""What keeps the slow types short."""


def fitted(family: type[Model], seed: int = 0) -> Model:
    return created(family).fit(taste_histories(seed), ITEMS)


def created(family: type[Model]) -> Model:
    return family.create(QUICK.get(family.model_type, {}), seed=7)


def test_scores_have_one_row_a_user_and_are_finite(family):
    scores = fitted(family).score(taste_histories(), NOW)
    assert scores.shape == (USERS, ITEMS)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_a_saved_model_scores_the_same_after_loading(family, tmp_path: Path):
    model = fitted(family)
    model.save(tmp_path)
    loaded = family.load(tmp_path)
    histories = taste_histories()
    assert np.array_equal(loaded.score(histories, NOW), model.score(histories, NOW))
    assert np.array_equal(loaded.similar(3), model.similar(3))
    assert loaded.hyperparameters == model.hyperparameters


def test_the_files_of_a_model_hold_no_pickles(family, tmp_path: Path):
    fitted(family).save(tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {
        ".npy",
        ".npz",
        ".json",
    }


def test_a_second_fit_forgets_the_first(family):
    histories = taste_histories(1)
    again = fitted(family).fit(histories, ITEMS)
    once = created(family).fit(histories, ITEMS)
    assert np.array_equal(again.score(histories, NOW), once.score(histories, NOW))


def test_the_same_seed_gives_the_same_scores(family):
    histories = taste_histories()
    assert np.array_equal(
        fitted(family).score(histories, NOW), fitted(family).score(histories, NOW)
    )


def test_a_user_scores_the_same_alone_and_in_a_crowd(family):
    model, histories = fitted(family), taste_histories()
    some = np.array([5, 17, 200])
    np.testing.assert_allclose(
        model.score(take_users(histories, some), NOW),
        model.score(histories, NOW)[some],
        rtol=1e-3,
        atol=1e-5,
    )


def test_one_time_for_each_user_is_the_same_as_asking_one_by_one(family):
    model = fitted(family)
    histories = take_users(taste_histories(), np.arange(4))
    times = np.array([START + 250 * DAY, START, START + 100 * DAY, NOW + 7], dtype=np.int64)
    together = model.score(histories, times)
    for user, time in enumerate(times):
        alone = model.score(take_users(histories, np.array([user])), int(time))
        np.testing.assert_allclose(
            together[user] / max(together[user].max(), 1e-9),
            alone[0] / max(alone.max(), 1e-9),
            rtol=1e-3,
            atol=1e-5,
        )


def test_a_user_without_history_gets_finite_scores(family):
    histories = taste_histories()
    nobody = keep_entries(histories, np.zeros(len(histories.items), dtype=bool))
    assert np.isfinite(fitted(family).score(nobody, NOW)).all()


def test_similar_gives_a_finite_score_to_every_product(family):
    similar = fitted(family).similar(0)
    assert similar.shape == (ITEMS,)
    assert np.isfinite(similar).all()


def test_an_inner_product_model_scores_by_its_vectors(family):
    model, histories = fitted(family), taste_histories()
    if not isinstance(model, InnerProductModel):
        pytest.skip("not an inner-product model")
    product = model.query_vectors(histories, NOW) @ model.item_vectors.T
    np.testing.assert_allclose(product, model.score(histories, NOW), rtol=1e-5, atol=1e-6)


def test_its_own_hyperparameters_make_the_same_model(family):
    model = family.create({})
    assert family.create(model.hyperparameters).hyperparameters == model.hyperparameters


def test_an_unknown_parameter_is_named(family):
    with pytest.raises(InputError, match="colour"):
        family.create({"colour": 3})


def test_a_missing_file_is_named_when_loading(family, tmp_path: Path):
    fitted(family).save(tmp_path)
    victim = next(tmp_path.rglob("*.npy"))
    victim.unlink()
    with pytest.raises(ArtifactError, match=victim.stem):
        family.load(tmp_path)


def test_an_unknown_type_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="als"):
        model_class("deep_thought")
