from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from recsys.comments import ngrams
from recsys.comments.features import describe
from recsys.comments.linear import ScorerFolder, save_scorer, weigh
from recsys.comments.training import (
    auc_with_interval,
    calibration_error,
    choose,
    gather_units,
    train,
)
from recsys.errors import InputError

AS_OF = datetime(2025, 1, 1, tzinfo=UTC)


def units_of(view):
    codes, texts = pd.factorize(view["comment"])
    texts = pd.Series(texts, dtype="str")
    key = describe(texts).key
    group = np.where(key == 0, -1, np.unique(key, return_inverse=True)[1])
    rows = pd.DataFrame({"text": codes, "user": view["user_id"], "rating": view["rating"]})
    return gather_units(texts, key, group, rows)


@pytest.fixture(scope="module")
def scorer(make_shop):
    return train(units_of(make_shop(3000)), AS_OF)


def score(scorer, *texts):
    texts = pd.Series(texts, dtype="str")
    return scorer.score(texts, describe(texts).key)


def test_it_learns_what_the_stars_say(scorer):
    good, bad = score(scorer, "son thơm, rất thích, dùng 7 lần", "toner hàng giả, thất vọng quá")
    assert good > 0.8
    assert bad < 0.3
    assert scorer.metrics["auc"] > 0.95
    assert scorer.metrics["auc_without_accents"] > 0.9
    assert scorer.metrics["calibration_error"] < 0.05


def test_it_reads_texts_without_accents(scorer):
    good, bad = score(scorer, "son thom, rat thich, dung 7 lan", "toner hang gia, that vong qua")
    assert good > 0.7
    assert bad < 0.4


def test_no_text_is_scored_by_a_model_that_was_trained_on_it(make_view, make_shop):
    # A word that only one user writes, twice, tells the stars of that user's texts. The model
    # that scores them was fitted without that user, so it cannot know the word.
    marked = make_view(
        [("marked", f"qwertyuiop ngày thứ {n} của mình", 1, "2024-05-01") for n in range(2)]
    )
    others = make_shop(800)
    scorer = train(units_of(pd.concat([others, marked], ignore_index=True)), AS_OF)
    fold = scorer._folds(describe(marked["comment"]).key)
    assert len(set(fold)) == 1
    own = np.setdiff1d(
        ngrams.count(pd.Series(["qwertyuiop"])).indices, ngrams.count(others["comment"]).indices
    )
    weights = scorer.arrays["weights"][np.searchsorted(scorer.arrays["columns"], own)]
    assert len(own) > 5
    assert np.allclose(weights[:, fold[0]], 0, atol=1e-6)
    assert np.abs(np.delete(weights, fold[0], axis=1)).max() > 0.01


def test_texts_of_one_user_and_copies_of_one_text_share_a_fold(make_view):
    rows = [(f"u{n % 10}", f"câu số {n} của tôi đây", 5, "2024-01-01") for n in range(60)]
    shared = [(f"u{n}", "cùng một câu", 1, "2024-01-01") for n in range(10)]
    units = units_of(make_view(rows + shared))
    assert len(units.key) == 61
    own = [set(units.fold[[f"câu số {n} " in text for text in units.texts]]) for n in range(60)]
    for user in range(10):
        assert len(set.union(*own[user::10])) == 1


def test_the_known_texts_are_scored_by_one_model_and_others_by_all(scorer, make_shop):
    view = make_shop(3000)
    texts = view["comment"].drop_duplicates().iloc[:50].reset_index(drop=True)
    keys = describe(texts).key
    decisions = (
        weigh(ngrams.count(texts), scorer._dense("idf")) @ scorer._dense("weights")
        + scorer.arrays["intercepts"]
    )
    fold = scorer._folds(keys)
    assert (fold >= 0).all()
    slope, offset = scorer.arrays["calibration"]
    expected = 1 / (1 + np.exp(-(slope * decisions[np.arange(50), fold] + offset)))
    assert np.allclose(scorer.score(texts, keys), expected, atol=1e-5)
    unknown = np.zeros(50, dtype=np.uint64)
    expected = 1 / (1 + np.exp(-(slope * decisions.mean(axis=1) + offset)))
    assert np.allclose(scorer.score(texts, unknown), expected, atol=1e-5)


def test_training_is_repeatable_whatever_the_order_of_rows(scorer, make_shop):
    again = train(units_of(make_shop(3000).sample(frac=1, random_state=3)), AS_OF)
    assert again.version == scorer.version


def test_a_limit_keeps_the_rarer_class(make_shop):
    units = units_of(make_shop(1000))
    chosen = units.take(choose(units, 400))
    assert len(chosen.key) == 400
    assert (~chosen.positive).sum() == min(200, (~units.positive).sum())


def test_saved_and_loaded_it_gives_the_same_scores(scorer, tmp_path):
    save_scorer(scorer, tmp_path)
    save_scorer(scorer, tmp_path)
    loaded = ScorerFolder(tmp_path / scorer.version).load()
    texts = ("kem tốt", "kem tệ", "")
    assert np.array_equal(score(loaded, *texts), score(scorer, *texts))
    assert loaded.metrics == scorer.metrics


def test_a_changed_file_is_refused(scorer, tmp_path):
    save_scorer(scorer, tmp_path)
    model = tmp_path / scorer.version / "model.npz"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"changed since it was written"):
        ScorerFolder(tmp_path / scorer.version).load()


def test_the_area_under_the_curve_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.8
    scores = np.round(rng.normal(size=400) + positive, 1)
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    measured = auc_with_interval(positive, scores)
    assert measured["auc"] == pytest.approx(expected, abs=1e-4)
    assert 0.02 < measured["interval"] < 0.1
    assert auc_with_interval(np.ones(5, dtype=bool), np.ones(5))["auc"] is None


def test_the_calibration_error_sees_overconfidence():
    rng = np.random.default_rng(1)
    probability = rng.random(20_000)
    positive = rng.random(20_000) < probability
    even = np.ones(20_000)
    assert calibration_error(positive, probability, even) < 0.02
    assert calibration_error(positive, np.clip(probability + 0.2, 0, 1), even) > 0.1


def test_on_hasaki_it_tells_happy_from_unhappy_with_and_without_accents(hasaki_view):
    metrics = train(units_of(hasaki_view), AS_OF).metrics
    assert metrics["auc"] > 0.94
    assert metrics["auc_without_accents"] > 0.93
    assert metrics["calibration_error"] < 0.03
