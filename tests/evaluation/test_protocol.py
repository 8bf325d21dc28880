import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from recsys import schema
from recsys.data.versions import current_version
from recsys.evaluation import leave_one_out
from recsys.evaluation.leave_one_out import (
    number_interactions,
    read_leave_one_out,
    rolling_windows,
)
from recsys.evaluation.metrics import list_metrics, metrics_per_user
from recsys.evaluation.ranking import rank_targets
from recsys.evaluation.report import (
    compare_on_leave_one_out,
    compare_on_slices,
    compare_on_windows,
    judge,
    report_on,
    segments_of,
    summarise_segments,
)
from recsys.models.histories import user_rows
from recsys.models.item_knn import ItemKnn
from recsys.models.popularity import Popularity, RecentPopularity
from tests.models.shop import DAY, EVENTS, ITEMS, USERS, publish_shop, taste_interactions


@pytest.fixture
def data(settings):
    publish_shop(settings, taste_interactions())
    return read_leave_one_out(current_version(settings))


def test_each_side_knows_only_what_came_before_it(data):
    for questions in (data.validation, data.test):
        owner = user_rows(questions.histories)
        assert (questions.histories.times < questions.now[owner]).all()
    assert len(data.everything.items) == USERS * EVENTS


def test_training_has_all_but_the_held_out_events(settings, monkeypatch):
    monkeypatch.setattr(leave_one_out, "BURST_LEAST", USERS)  # which takes two rows out of it
    publish_shop(settings, taste_interactions())
    data = read_leave_one_out(current_version(settings))
    assert len(data.training.items) == USERS * (EVENTS - 2)
    assert len(data.training_and_validation.items) == USERS * (EVENTS - 1)
    assert len(data.learnt.items) == USERS * EVENTS


def test_folds_ask_everybody_once_and_know_what_the_others_did_before_their_test(data):
    folds = data.folds(seed=3)
    assert len(folds) == leave_one_out.FOLDS
    asked = np.concatenate([fold.questions.now for fold in folds])
    assert sorted(asked) == sorted(data.validation.now)
    known = data.training_and_validation
    for fold in folds:
        questions = fold.questions
        missing = len(known.items) - len(fold.training.items)
        assert missing == questions.users == len(questions.targets)
        # Whose last entry is missing is who is asked, for just that product and time.
        held_out = np.flatnonzero(np.diff(known.indptr) > np.diff(fold.training.indptr))
        last = known.indptr[held_out + 1] - 1
        assert questions.targets.tolist() == known.items[last].tolist()
        assert questions.now.tolist() == known.times[last].tolist()
    histories = [fold.questions.histories for fold in folds]
    assert sum(len(one.items) for one in histories) == len(data.validation.histories.items)


def test_who_is_not_asked_is_known_in_every_fold(settings):
    table = taste_interactions()
    newcomer = table[table["user"] == 0].tail(2)  # one validation event, and the test
    publish_shop(settings, pd.concat([newcomer, table[table["user"] > 0]], ignore_index=True))
    data = read_leave_one_out(current_version(settings))
    user = data.user_ids.index("u0")
    assert not np.diff(data.training.indptr)[user]
    for fold in data.folds(seed=3):
        assert np.diff(fold.training.indptr)[user] == 1


def test_many_questions_are_not_dealt(data, monkeypatch):
    monkeypatch.setattr(leave_one_out, "MANY_QUESTIONS", data.validation.users)
    assert data.folds(seed=3) == []


def test_targets_are_the_held_out_products(data):
    table = taste_interactions()
    last = table.groupby("user")["item"].last()
    user = data.user_ids.index("u7")
    assert data.item_ids[data.test.targets[user]] == f"p{last[7]}"


def test_a_window_asks_at_its_start_about_what_followed():
    table = taste_interactions()
    frame = pd.DataFrame(
        {
            schema.USER: "u" + table["user"].astype(str),
            schema.PRODUCT: "p" + table["item"].astype(str),
            schema.RATING: np.where(table["item"] % 2 == 0, 5.0, 2.0),
            schema.TIMESTAMP: pd.to_datetime(table["time"], unit="s", utc=True),
            schema.CONFIDENCE: 5.0,
            schema.WEIGHT: 1.0,
        }
    )
    items = [f"p{item}" for item in range(ITEMS)]
    windows = windows_of(frame, items)
    assert 1 <= len(windows) <= 4
    assert [window.start for window in windows] == sorted(window.start for window in windows)
    for window in windows:
        start = window.start
        assert (window.training.times < start).all()
        assert (window.questions.now == start).all()
        assert (window.questions.targets % 2 == 0).all()
    assert windows[-1].start > table["time"].max() - 91 * DAY


def windows_of(frame: pd.DataFrame, items: list[str]) -> list:
    numbered = number_interactions(frame, items)
    positive = (frame[schema.RATING] >= schema.POSITIVE_RATING).to_numpy()
    return rolling_windows(numbered, positive[numbered.rows])


def test_a_shop_younger_than_a_window_has_none():
    frame = pd.DataFrame(
        {
            schema.USER: ["a", "a"],
            schema.PRODUCT: ["x", "y"],
            schema.RATING: 5.0,
            schema.TIMESTAMP: pd.to_datetime([0, DAY], unit="s", utc=True),
            schema.CONFIDENCE: 5.0,
            schema.WEIGHT: 1.0,
        }
    )
    assert windows_of(frame, ["x", "y"]) == []


def test_segments_hold_each_user_once(data):
    purchases = np.bincount(data.training.items, minlength=ITEMS)
    segments = segments_of(data.test, purchases)
    by_activity = [segments[name] for name in segments if name != "new_products"]
    assert (sum(mask.astype(int) for mask in by_activity) == 1).all()
    per_user = metrics_per_user(rank_targets(Popularity().fit(data.training, ITEMS), data.test))
    summary = summarise_segments(per_user, segments)
    assert sum(summary[name]["users"] for name in segments if name != "new_products") == USERS
    assert set(summary["one_known_item"]) == {"users"}


def test_popularity_shows_little_of_the_shop_and_no_long_tail(data):
    purchases = np.bincount(data.training.items, minlength=ITEMS)
    popular = list_metrics(Popularity().fit(data.training, ITEMS), data.test, purchases)
    personal = list_metrics(ItemKnn().fit(data.training, ITEMS), data.test, purchases)
    assert popular["coverage_at_10"] < personal["coverage_at_10"]
    assert popular["long_tail_at_10"] < personal["long_tail_at_10"]
    assert popular["novelty_at_10"] < personal["novelty_at_10"]


def test_a_model_that_loses_to_recent_popularity_in_time_does_not_pass(data):
    class Silent(RecentPopularity):
        def score(self, histories, now):
            return np.zeros_like(super().score(histories, now))

    def fit(histories):
        return Silent().fit(histories, ITEMS)

    comparison = compare_on_windows(fit, data.windows, ITEMS)
    assert comparison["window_users"] > 0
    assert comparison["holds_in_time"] is False
    judged = judge({"baseline_recall_at_10": 0.1, "beats_popularity": True, **comparison}, 0.2)
    assert judged["passes"] is False
    assert "loses to recent popularity" in judged["reason"]


def test_a_model_that_is_a_little_behind_in_time_does_not_pass(data):
    window = data.windows[-1]
    recent = RecentPopularity().fit(window.training, ITEMS)
    ranks = rank_targets(recent, window.questions)
    found = metrics_per_user(ranks)["recall_at_10"] > 0

    class Forgetful(RecentPopularity):
        def score(self, histories, now):
            scores = super().score(histories, now)
            scores[np.argmax(found)] = 0
            return scores

    comparison = compare_on_windows(
        lambda histories: Forgetful().fit(histories, ITEMS), [window], ITEMS
    )
    assert comparison["window_difference_low"] < 0 == comparison["window_difference_high"]
    assert comparison["holds_in_time"] is False


def test_recent_popularity_does_not_lose_to_itself(data):
    comparison = compare_on_windows(
        lambda histories: RecentPopularity().fit(histories, ITEMS), data.windows, ITEMS
    )
    assert comparison["holds_in_time"] is True
    assert comparison["window_difference_low"] == comparison["window_difference_high"] == 0


def test_a_model_that_fails_a_segment_does_not_pass():
    recent = np.repeat([1.0, 0.0], [60, 140])
    worse, as_good = np.repeat([1.0, 0.0], [20, 180]), np.roll(recent, 3)
    few = (np.zeros(19), np.ones(19))
    pairs = {"one_known_item": (worse, recent), "new_products": (as_good, recent), "tiny": few}
    found = compare_on_slices(pairs, 0.2)
    assert found["slices_lost"] == ["one_known_item (recall@10 0.1000 against 0.3000)"]
    base = {"baseline_recall_at_10": 0.1, "beats_popularity": True, "window_users": 0}
    judged = judge({**base, "holds_in_time": True, **found}, 0.2)
    assert judged["passes"] is False
    lost = "loses more than 20% to recent popularity in one_known_item (recall@10 0.1000 against"
    assert lost in judged["reason"]
    assert compare_on_slices(pairs, 0.8)["holds_in_slices"] is True
    assert judge({**base, "holds_in_time": True, **compare_on_slices(pairs, 0.8)}, 0.2)["passes"]


def test_a_loss_that_may_be_chance_is_none():
    recent = np.repeat([1.0, 0.0], [10, 30])
    ours = np.repeat([0.0, 1.0, 0.0], [4, 6, 30])
    assert compare_on_slices({"new_products": (ours, recent)}, 0.2)["holds_in_slices"] is True


def test_without_windows_only_the_first_gate_counts(data):
    metrics = {"recall_at_10": 0.99, "ndcg_at_10": 0.5}
    comparison = compare_on_leave_one_out(metrics, data.training, data.test, ITEMS)
    comparison |= compare_on_windows(lambda histories: Popularity(), [], ITEMS)
    judged = judge(comparison, 0.99)
    assert judged["passes"] is True
    assert "time windows" not in judged["reason"]


@pytest.mark.parametrize("ours", [float("nan"), 0.0])
def test_a_metric_that_is_nan_or_not_above_popularity_does_not_pass(data, ours):
    comparison = compare_on_leave_one_out({"recall_at_10": ours}, data.training, data.test, ITEMS)
    assert comparison["beats_popularity"] is False


def test_a_report_can_be_written_as_json(data):

    report = report_on(lambda histories: ItemKnn().fit(histories, ITEMS), data)
    assert report.comparison["passes"] is True
    assert report.comparison["holds_in_slices"] is True
    windows = report.segments["time_windows"]
    assert windows["users"] == report.comparison["window_users"]
    assert windows["recall_at_10_low"] < windows["recall_at_10"] < windows["recall_at_10_high"]
    json.dumps(asdict(report), allow_nan=False)
