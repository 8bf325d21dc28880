"""The page of the models, of one of them, and what served when."""

from datetime import UTC, datetime, timedelta

import pytest

from recsys.deployment.history import append_history
from recsys.errors import InputError
from recsys.orchestration.monitor import models
from recsys.orchestration.monitor.overview import run_tracker
from recsys.registry import Registry
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunRecord, RunStatus
from tests.orchestration.monitor_pages import render
from tests.serving.shops import add_model

NOW = datetime.now(UTC)


def deployed(settings: Settings, days_ago: float, model_id: str, previous: str | None) -> None:
    moment = (NOW - timedelta(days=days_ago)).isoformat()
    about = {"previous_model_id": previous, "status": "success"}
    append_history(settings, {"timestamp": moment, "model_id": model_id, **about})


@pytest.fixture
def shop(settings: Settings) -> Settings:
    """`als_2` is the best and serves after `als_1`; `als_3` was held."""
    add_model(settings, "als_1", recall=0.10)
    add_model(settings, "als_3", recall=0.11, select=False, metrics={"ndcg_at_10": 0.4})
    add_model(settings, "als_2", recall=0.12)
    Registry(settings).hold("als_3")
    deployed(settings, 200, "als_1", None)
    deployed(settings, 30, "als_2", "als_1")
    return settings


def names(settings: Settings, sort: str, down: bool) -> list[str]:
    return [row.entry.model_id for row in models.gather_models(settings, sort, down)]


def details(settings: Settings, model_id: str) -> models.Details:
    return models.gather_model(settings, model_id, run_tracker(settings), "score", True)


def shown(settings: Settings, model_id: str) -> str:
    about = {"sort": "score", "down": True, "most": 25}
    return render(settings, "model.html", "en", found=details(settings, model_id), **about)


def test_the_table_sorts_by_any_column_and_what_has_no_value_comes_last(shop: Settings) -> None:
    assert names(shop, "recall_at_10", True) == ["als_2", "als_3", "als_1"]
    assert names(shop, "recall_at_10", False) == ["als_1", "als_3", "als_2"]
    for down in (True, False):
        assert names(shop, "ndcg_at_10", down)[0] == "als_3"
    for column in models.COLUMNS:
        assert sorted(names(shop, column, True)) == ["als_1", "als_2", "als_3"]


def test_every_model_has_the_state_that_a_person_asks_for(shop: Settings) -> None:
    states = {row.entry.model_id: row.state for row in models.gather_models(shop, "state", True)}
    assert states == {"als_1": "stands", "als_2": "serving", "als_3": "held"}


def test_the_timeline_has_the_last_weeks_and_begins_where_they_do(shop: Settings) -> None:
    stints = models.gather_stints(shop)
    assert [stint.model_id for stint in stints] == ["als_2", "als_1", None]
    bars = models.timeline(stints, NOW)
    assert [bar.stint.model_id for bar in bars] == ["als_1", "als_2"]
    assert bars[0].start == 0
    assert bars[1].start == pytest.approx(60 / 90, abs=1e-6)
    assert sum(bar.width for bar in bars) == pytest.approx(1, abs=1e-6)


def test_a_model_says_what_the_selection_said_of_it(shop: Settings) -> None:
    why = "it loses more than 20% against als_2 in new_products"
    summary = {"select_best": {"refused": {"als_1": why}, "trained": []}}
    tracker = PipelineTracker(shop.pipeline_db)
    run = RunRecord("r", "model_training", RunStatus.SUCCESS, NOW, NOW, None, {"summary": summary})
    tracker.record_run(run)
    assert details(shop, "als_1").refused == why
    best = details(shop, "als_2")
    assert best.refused is None
    assert best.selection is not None
    page = shown(shop, "als_1")
    assert why in page
    assert "The selection refused it." in page
    assert "Release this model" in shown(shop, "als_3")


def test_models_are_compared_by_what_differs(shop: Settings) -> None:
    rows = models.compare(shop, ["als_2", "als_1", "als_2"])
    assert [row.entry.model_id for row in rows] == ["als_2", "als_1"]
    rows[0].entry.hyperparameters.update(factors=64, seed=1)
    rows[1].entry.hyperparameters.update(factors=32, seed=1)
    assert models.hyperparameters(rows) == {"factors": [64, 32]}
    assert models.hyperparameters(rows[:1]) == {"factors": [64], "seed": [1]}
    with pytest.raises(InputError, match="'als_9': no model of this id"):
        models.compare(shop, ["als_9"])
