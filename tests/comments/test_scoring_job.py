import functools
import json
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from recsys.comments import HEURISTICS, CommentConfig, score_comments, score_view, scorers
from recsys.comments.linear import save_scorer
from recsys.comments.scorers import newest_scorer, scorer_retentions, scorers_folder
from recsys.config import ConfigError, load_config
from recsys.retention import Removal
from recsys.settings import Settings

AS_OF = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture
def configured(settings):
    """Settings whose comments.yaml differs from the repository's by the given keys."""

    def configure(**changes):
        folder = settings.home / "config"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "comments.yaml").write_text(yaml.safe_dump(changes), encoding="utf-8")
        return settings

    return configure


def run(settings, view, as_of=AS_OF, may_train=True):
    return score_view(
        settings, load_config(settings, CommentConfig), view, as_of=as_of, may_train=may_train
    )


def test_a_second_run_scores_nothing_and_gives_the_same(settings, make_shop):
    view = make_shop(600)
    first, second = run(settings, view), run(settings, view)
    assert first.scorer.startswith("ngrams-20250101-")
    assert first.summary["scored_now"] == first.summary["distinct_texts"]
    assert second.summary["scored_now"] == 0
    assert not second.summary["scorer_decision"]["trained"]
    pd.testing.assert_series_equal(first.quality, second.quality)
    json.dumps(second.summary, allow_nan=False)


def test_the_incremental_run_scores_only_new_texts_and_equals_the_full_run(settings, make_shop):
    view = make_shop(700)
    run(settings, view.iloc[:650])
    scored = run(settings, view, may_train=False)
    new = set(view["comment"]) - set(view["comment"].iloc[:650])
    assert scored.summary["scored_now"] == len(new)
    shutil.rmtree(settings.home / "data" / "comments" / "cache")
    afresh = run(settings, view, may_train=False)
    pd.testing.assert_series_equal(scored.quality, afresh.quality)
    pure = score_comments(view, CommentConfig(), newest_scorer(settings, AS_OF))
    pd.testing.assert_series_equal(scored.quality, pure.quality)


def test_new_copies_lower_the_score_of_old_rows_in_an_incremental_run(settings, make_view):
    text = "kem này dùng thích cực kỳ luôn mọi người ơi"
    old = make_view([("u0", text, 5, "2024-05-01")])
    copies = make_view([(f"u{n}", text, 5, "2024-05-03") for n in range(1, 30)])
    before = run(settings, old).quality.iloc[0]
    after = run(settings, pd.concat([old, copies], ignore_index=True)).quality
    assert after.iloc[0] < 0.2 * before


def test_an_edited_comment_is_scored_anew(settings, make_shop):
    view = make_shop(400)
    run(settings, view)
    view.loc[0, "comment"] = "thất vọng, hàng giả, phí tiền quá"
    assert run(settings, view, may_train=False).summary["scored_now"] == 1


def test_a_new_scorer_is_trained_only_when_enough_changed(settings, make_shop):
    first = run(settings, make_shop(600))
    little = pd.concat([make_shop(600), make_shop(20, seed=1)], ignore_index=True)
    much = pd.concat([make_shop(600), make_shop(200, seed=1)], ignore_index=True)
    assert run(settings, little).scorer == first.scorer
    assert run(settings, much, may_train=False).scorer == first.scorer
    later = run(settings, much, as_of=AS_OF + timedelta(days=1))
    assert later.scorer.startswith("ngrams-20250102-")
    assert later.summary["scorer_decision"]["trained"]


def test_a_backfilled_day_is_never_scored_by_a_scorer_of_its_future(settings, make_shop):
    run(settings, make_shop(600))
    earlier = run(settings, make_shop(600), as_of=AS_OF - timedelta(days=30))
    assert earlier.scorer.startswith("ngrams-20241202-")
    too_early = run(settings, make_shop(600), as_of=AS_OF - timedelta(days=60), may_train=False)
    assert too_early.scorer == HEURISTICS
    assert run(settings, make_shop(600), may_train=False).scorer.startswith("ngrams-20250101-")


def test_with_too_few_unhappy_texts_the_heuristics_stay_and_the_summary_says_why(
    settings, make_view
):
    view = make_view([(f"u{n}", f"kem tốt lắm {n}", 5, "2024-01-01") for n in range(80)])
    scores = run(settings, view)
    assert scores.scorer == HEURISTICS
    assert "0 distinct texts in the smaller class" in scores.summary["scorer_decision"]["why"]
    assert scores.sentiment.isna().all()


def test_a_scorer_no_better_than_chance_is_not_used(settings, make_shop):
    view = make_shop(600)
    view["rating"] = np.random.default_rng(0).permutation(view["rating"])
    scores = run(settings, view)
    assert scores.scorer == HEURISTICS
    assert "AUC" in scores.summary["scorer_decision"]["why"]


def test_a_damaged_scorer_is_passed_over_and_replaced(settings, make_shop):
    view = make_shop(600)
    name = run(settings, view).scorer
    (scorers_folder(settings) / name / "model.npz").write_bytes(b"x")
    assert run(settings, view, may_train=False).scorer == HEURISTICS
    again = run(settings, view, as_of=AS_OF + timedelta(days=1))
    assert again.summary["scorer_decision"]["trained"]


def test_only_upkeep_removes_scorers_beyond_the_kept_number_and_their_scores(settings, make_shop):
    days = scorers.KEPT + 2
    names = [
        run(settings, make_shop(500, seed=day), as_of=AS_OF + timedelta(days=day)).scorer
        for day in range(days)
    ]
    folders = (scorers_folder(settings), settings.home / scorers.CACHE_KEY)
    for folder in folders:
        assert {path.name for path in folder.glob("ngrams-*")} == set(names)
    # The first one scored a data version that upkeep protects.
    Removal(settings).execute(scorer_retentions(settings, lambda: names[:1]))
    for folder in folders:
        assert {path.name for path in folder.glob("ngrams-*")} == {names[0], *names[2:]}


def test_stars_that_contradict_the_text_cost_credit(settings, make_shop, make_view):
    run(settings, make_shop(1500))
    text = "serum tuyệt vời, rất thích, da mịn, thơm, sẽ mua lại"
    view = make_view([("a", text, 5, "2024-01-01"), ("b", text, 1, "2024-01-01")])
    agreed, contradicted = run(settings, view, may_train=False).quality
    assert agreed > 0.8
    assert contradicted < 0.4 * agreed


def test_scorer_none_means_heuristics_only(configured, make_shop):
    scores = run(configured(scorer="none"), make_shop(300))
    assert scores.scorer == HEURISTICS


def test_a_bad_key_is_named(configured, make_shop):
    with pytest.raises(ConfigError, match="sentiment_weight"):
        run(configured(sentiment_weight=3), make_shop(10))


def test_an_empty_view_is_scored(settings, make_view):
    scores = run(settings, make_view([]))
    assert len(scores.quality) == 0
    assert scores.quality.dtype == np.float32


@settings_of_hypothesis(max_examples=15)
@given(cuts=st.lists(st.integers(1, 399), max_size=4), seed=st.integers(0, 1000))
def test_whatever_the_order_and_batches_of_arrival_the_scores_are_the_same(
    tmp_path_factory, make_shop, cuts, seed
):
    settings = Settings(tmp_path_factory.mktemp("home"))
    view = make_shop(400)
    save_scorer(trained_once(make_shop), scorers_folder(settings))
    shuffled = view.sample(frac=1, random_state=seed)
    for end in sorted(cuts):
        run(settings, shuffled.iloc[:end], may_train=False)
    batched = run(settings, shuffled, may_train=False)
    at_once = score_comments(view, CommentConfig(), trained_once(make_shop))
    assert batched.scorer == at_once.scorer
    pd.testing.assert_series_equal(batched.quality.sort_index(), at_once.quality)


@functools.cache
def trained_once(make_shop):
    home = Path(tempfile.mkdtemp())
    try:
        run(Settings(home), make_shop(400))
        return newest_scorer(Settings(home), AS_OF)
    finally:
        shutil.rmtree(home)
