"""Which components join a blend: those whose own training found parameters, where they help."""

import numpy as np
import pytest

from recsys.data.versions import current_version
from recsys.evaluation.leave_one_out import read_leave_one_out
from recsys.publishing import write_json
from recsys.training.config import TrainingConfig, TuningConfig
from recsys.training.subject import Subject
from recsys.training.tuning import choose_parameters, tune
from tests.models.shop import DAY, ITEMS, START, publish_shop, taste_interactions

POOR = {
    "item_knn": {"window": 1, "reverse": 0.0, "together": 0.0, "history_decay": 0.2},
    "als": {"factors": 1, "starts": 1},
}
GOOD = {**POOR, "item_knn": {}}
USELESS = {"linear": {"regularization": 1e9, "kept": 1}}
TRIALS = 6


@pytest.fixture
def subject(settings):
    publish_shop(settings, taste_interactions(users=600))
    data = read_leave_one_out(current_version(settings))
    return Subject(data.training, data.validation, ITEMS, 1)


def blend(subject, tuned, start=None):
    return tune("hybrid", subject, start or {}, seconds=60, trials=TRIALS, tuned_components=tuned)


def test_what_was_not_trained_by_itself_is_left_out(subject):
    found = blend(subject, POOR, {"weights": {"linear": 2.0, "self_attention": 1.0}})
    assert found.parameters["weights"]["linear"] == 0
    assert found.parameters["weights"]["self_attention"] == 0


def test_a_quick_one_that_makes_the_blend_better_joins_it(subject):
    alone = blend(subject, POOR)
    found = blend(subject, POOR | {"linear": {"regularization": 100.0}})
    assert found.parameters["weights"]["linear"] > 0
    assert found.parameters["linear"]["regularization"] == 100
    assert found.score > alone.score
    assert found.history == sorted(found.history)


def test_what_does_not_help_costs_no_fits(subject):
    found = blend(subject, GOOD | USELESS)
    assert found.parameters["weights"]["linear"] == 0


def test_a_slow_one_joins_only_if_the_blend_is_clearly_better(subject):
    alone = blend(subject, GOOD)
    untaught = {"dimensions": 8, "epochs": 1, "learning_rate": 1e-9}
    found = blend(subject, GOOD | {"self_attention": untaught})
    assert found.parameters["weights"] == alone.parameters["weights"]
    assert found.score == alone.score


def test_what_cannot_be_fitted_any_more_is_left_out(subject, caplog):
    found = blend(subject, POOR | {"linear": {"most_items": ITEMS - 1}})
    assert found.parameters["weights"]["linear"] == 0
    assert "goes without linear" in caplog.text
    assert "most_items" in caplog.text


def test_the_last_result_of_a_type_that_the_shop_trains_is_looked_at(settings, subject):
    config = TrainingConfig(
        model_types=["linear", "hybrid"],
        tuning=TuningConfig(seconds=60, trials=TRIALS),
        parameters={"hybrid": POOR},
    )
    plain = config.model_copy(update={"model_types": ["hybrid"]})

    def chosen(config):
        return choose_parameters(settings, config, "v1", "hybrid", subject)

    before = chosen(config)
    assert before.parameters["weights"]["linear"] == 0
    found = {"parameters": {"regularization": 10.0}, "score": 0.1, "trials": 1, "key": {}}
    write_json(settings.artifacts / "tuning" / "linear.json", found)
    assert chosen(plain).reused
    joined = chosen(config)
    assert not joined.reused
    assert joined.parameters["linear"]["regularization"] == 10
    assert chosen(config).reused


def test_of_blends_as_good_the_one_that_shares_least_with_what_is_popular_is_taken(settings):
    """One purchase in five is one of what everybody buys that month."""
    table = taste_interactions(users=600)
    everybodys = np.random.default_rng(1).random(len(table)) < 0.2
    popular = (table["time"] - START) // (30 * DAY) * 6 + np.arange(len(table)) % 4
    table["item"] = np.where(everybodys, popular % ITEMS, table["item"])
    publish_shop(settings, table.drop_duplicates(["user", "item"]))
    data = read_leave_one_out(current_version(settings))
    subject = Subject(data.training, data.validation, ITEMS, 1)
    tuned = {"item_knn": {}, "als": {"factors": 4, "starts": 1}}
    found = tune("hybrid", subject, {}, seconds=60, trials=25, tuned_components=tuned)
    best = max(found.history)
    assert 0.9 * best < found.score < best
    assert found.parameters["weights"]["recent_popularity"] < 0.1
