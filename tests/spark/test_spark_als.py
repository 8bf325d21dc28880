"""ALS that Spark trained recommends what ALS that `implicit` trained does."""

import json

import numpy as np
import pytest

from recsys.arrays import Float32Array
from recsys.data.config import Engine
from recsys.data.versions import current_version
from recsys.evaluation.leave_one_out import LeaveOneOut, read_leave_one_out
from recsys.evaluation.metrics import metrics_per_user, summarise
from recsys.evaluation.ranking import rank_targets
from recsys.models.als import Als, AlsParameters
from recsys.models.histories import take_users
from recsys.models.model_types import create_model
from recsys.refresh.job import run_refresh
from recsys.settings import Settings
from recsys.spark.als import als_trainer
from recsys.training.job import train_model
from tests.data.shop import interval
from tests.models.shop import (
    GROUPS,
    ITEMS,
    START,
    publish_shop,
    taste_histories,
    taste_interactions,
)
from tests.spark.cluster import use_spark

pytestmark = [pytest.mark.boots, pytest.mark.usefixtures("spark")]

# Of two lists that differ by their random start alone, Hasaki's users share .53 of ten products.
SHARED_BY_TWO_STARTS = 0.45


def test_a_group_that_somebody_buys_from_ranks_first(settings):
    histories = taste_histories()
    with als_trainer(Engine.SPARK, settings) as trainer:
        model = Als(AlsParameters(factors=8, starts=2, iterations=5)).trained_by(trainer)
        model.fit(histories, ITEMS + 1)  # nobody bought the last one
    assert model.item_vectors.shape == (ITEMS + 1, 16)
    assert not model.item_vectors[ITEMS].any()
    scores = model.score(take_users(histories, np.arange(60)), START)
    top = np.argsort(-scores, axis=1)[:, :7]
    assert (top % GROUPS == (np.arange(60) % GROUPS)[:, None]).mean() > 0.8
    assert not list(settings.work.glob("als-*"))


def test_hasaki_is_as_well_served_as_by_implicit(settings, shared_data):
    data = hasaki(settings, shared_data)
    chosen = AlsParameters(factors=16, regularization=10.0, fold_in_decay=0.8, starts=2)
    items = len(data.item_ids)
    ours = Als(chosen, seed=1).fit(data.training_and_validation, items)
    with als_trainer(Engine.SPARK, settings) as trainer:
        theirs = Als(chosen, seed=1).trained_by(trainer).fit(data.training_and_validation, items)
    figures = summarise({"recall": recall(ours, data)})
    assert recall(theirs, data).mean() >= figures["recall_low"]
    shared = [
        len(set(one) & set(other)) / 10
        for one, other in zip(lists(ours, data), lists(theirs, data), strict=True)
    ]
    assert np.mean(shared) > SHARED_BY_TWO_STARTS


def hasaki(settings: Settings, shared_data) -> LeaveOneOut:
    settings.raw.mkdir(parents=True)
    (settings.raw / "hasaki").symlink_to(shared_data / "hasaki")
    (settings.home / "data" / "source.json").write_text(json.dumps({"source": "hasaki"}))
    run_refresh(settings, interval())
    return read_leave_one_out(current_version(settings))


def recall(model: Als, data: LeaveOneOut) -> Float32Array:
    return metrics_per_user(rank_targets(model, data.test))["recall_at_10"]


def lists(model: Als, data: LeaveOneOut) -> Float32Array:
    some = take_users(data.everything, np.arange(0, data.everything.users, 10))
    return np.argsort(-model.score(some, 0), axis=1)[:, :10]


def test_training_with_the_engine_registers_a_model_like_any_other(settings):
    use_spark(settings)
    own = settings.home / "config" / "training.yaml"
    text = (
        own.read_text()
        .replace("trials: 25", "trials: 1")
        .replace("parameters: {}", "parameters: {als: {starts: 1, iterations: 3, factors: 8}}")
    )
    assert "starts: 1" in text
    own.write_text(text)
    version_id = publish_shop(settings, taste_interactions())
    summary = train_model(settings, "als", version_id)
    folder = settings.artifacts / "als" / summary["model_id"]
    assert json.loads((folder / "evaluation.json").read_text())["training"]["engine"] == "spark"
    assert summary["recall_at_10"] > 0.2
    assert Als.load(folder / "model").item_vectors.shape == (ITEMS, 8)


def test_the_als_of_a_hybrid_is_trained_by_the_same(settings):
    asked = []

    def trainer(matrix, parameters, seed):
        asked.append((matrix.shape, parameters.factors, seed))
        return np.ones((matrix.shape[1], parameters.factors), dtype=np.float32)

    histories = taste_histories()
    parameters = {"als": {"factors": 4, "starts": 2}}
    create_model("hybrid", parameters, 7, trainer).fit(histories, ITEMS)
    assert asked == [((histories.users, ITEMS), 4, seed) for seed in (7, 8)]
