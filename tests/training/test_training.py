import contextlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from recsys.database import connect
from recsys.errors import InputError
from recsys.evaluation import PERSONAL
from recsys.models.artifacts import load_artifact
from recsys.registry import Registry
from recsys.training.family_tuning import SPACES, STARTS
from recsys.training.job import plan_training, select_best, train_model
from recsys.training.search import Range
from tests.models.shop import publish_shop, taste_interactions


def runs(settings):
    with contextlib.closing(connect(settings.training_db)) as connection:
        return [dict(row) for row in connection.execute("SELECT * FROM training_runs")]


@pytest.fixture(autouse=True)
def short_search(settings):
    write_config(settings, "")


def write_config(settings, more: str) -> None:
    file = settings.home / "config" / "training.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"model_types: [als]\ntuning: {{seconds: 60, trials: 2}}\n{more}")


@pytest.fixture
def version(settings):
    return publish_shop(settings, taste_interactions())


def test_training_registers_a_model_that_beats_popularity(settings, version):
    summary = train_model(settings, "als", version)
    assert summary["recall_at_10"] > 2 * summary["baseline_recall_at_10"]
    selection = select_best(settings, [summary])
    assert selection["model_id"] == summary["model_id"]
    best = Registry(settings).current_best()
    assert best is not None
    artifact = load_artifact(Registry(settings).folder(best))
    assert artifact.manifest["data_version"] == version
    assert all(artifact.history_of(user) is not None for user in artifact.manifest["sample_users"])


def test_a_summary_says_how_personal_the_lists_of_the_model_are(settings, version):
    summary = train_model(settings, "item_knn", version)
    figures = Registry(settings).get(summary["model_id"]).metrics
    for name in PERSONAL:
        assert summary[name] == figures[name]
    artifact = settings.artifacts / "item_knn" / summary["model_id"]
    written = json.loads((artifact / "evaluation.json").read_text())
    assert written["metrics"] == figures
    assert "newcomer_overlap=" in (settings.logs / "cf" / "item_knn.log").read_text()


def test_the_artifact_knows_the_test_purchases(settings, version):
    summary = train_model(settings, "item_knn", version)
    artifact = load_artifact(settings.artifacts / "item_knn" / summary["model_id"])
    table = taste_interactions()
    history = artifact.history_of("u0")
    assert sorted(history.items) == sorted(table.loc[table["user"] == 0, "item"])


def test_the_artifact_knows_what_is_bought_together(settings):
    """Of 60 products p0 to p59, customers buy neighbours on one day."""
    table = taste_interactions()
    beside = table.assign(item=table["item"] ^ 1, time=table["time"] + 60)
    both = (
        pd.concat([table, beside]).drop_duplicates(["user", "item"]).sort_values(["user", "time"])
    )
    summary = train_model(settings, "item_knn", publish_shop(settings, both))
    artifact = load_artifact(settings.artifacts / "item_knn" / summary["model_id"])
    assert artifact.complements is not None
    for item in range(60):
        assert artifact.complements.scores(np.array([item])).argmax() == item ^ 1


def test_a_training_that_could_not_say_so_counts_if_its_model_is_registered(settings, version):
    train_model(settings, "item_knn", version)
    gone = train_model(settings, "item_knn", version)["model_id"]
    Registry(settings).delete(gone)
    with contextlib.closing(connect(settings.training_db)) as connection:
        connection.execute("UPDATE training_runs SET status = 'running', completed_at = NULL")
    train_model(settings, "item_knn", version)
    one, other, _ = runs(settings)
    assert one["status"] == "success"
    assert one["completed_at"]
    assert other["status"] == "failed"
    assert "killed, or the disk was full" in other["error_message"]


def test_a_run_is_a_row_with_the_figures_of_the_registry(settings, version):
    summary = train_model(settings, "item_knn", version)
    (row,) = runs(settings)
    entry = Registry(settings).get(summary["model_id"])
    assert row["status"] == "success"
    assert row["model_id"] == entry.model_id
    assert row["recall_at_10"] == entry.metrics["recall_at_10"]
    assert row["baseline_recall_at_10"] == entry.baseline_comparison["baseline_recall_at_10"]
    assert row["completed_at"] >= row["started_at"]


def test_the_log_has_a_line_for_every_iteration(settings, version):
    train_model(settings, "als", version)
    text = (settings.logs / "cf" / "als.log").read_text()
    assert "Training started | data_version=v1" in text
    assert text.count("| iteration |") == 4 * 15
    assert "Training completed | duration=" in text


def test_the_same_data_and_seed_give_the_same_metrics(settings, version):
    first, second = (train_model(settings, "item_knn", version) for _ in range(2))
    one, two = (Registry(settings).get(run["model_id"]) for run in (first, second))
    assert one.model_id != two.model_id
    assert one.metrics == two.metrics


@pytest.mark.parametrize(
    ("table", "items", "message"),
    [
        (taste_interactions().assign(rating=5.0), 60, "all 1200 ratings are 5"),
        (taste_interactions(users=8), 60, "only 8 users"),
        (taste_interactions(items=1), 1, "at least two"),
        (taste_interactions().iloc[:0], 60, "no interactions"),
    ],
)
def test_data_that_cannot_be_learnt_from_fails_and_registers_nothing(
    settings, table, items, message
):
    version = publish_shop(settings, table, items=items)
    with pytest.raises(InputError, match=message):
        train_model(settings, "als", version)
    assert Registry(settings).list() == []
    assert not list(settings.artifacts.glob("als/*"))
    assert runs(settings)[0]["status"] == "failed"
    assert message.split()[0] in runs(settings)[0]["error_message"]


def test_nothing_is_planned_without_data(settings):
    with pytest.raises(InputError, match="data_refresh"):
        plan_training(settings)


def test_an_unknown_type_is_refused_before_anything_starts(settings, version):
    with pytest.raises(InputError, match="deep_thought"):
        plan_training(settings, ["als", "deep_thought"])


def test_linear_is_planned_for_as_many_products_as_it_takes(settings, version, caplog):
    file = settings.home / "config" / "training.yaml"
    file.unlink()
    planned = [task["model_type"] for task in plan_training(settings)]
    assert planned.index("linear") < planned.index("hybrid")  # which takes its parameters
    file.write_text("parameters: {linear: {most_items: 59}}\n")
    left = [task["model_type"] for task in plan_training(settings)]
    assert left == [name for name in planned if name != "linear"]
    assert "60 products, most_items is 59" in caplog.text
    assert plan_training(settings, ["linear"])[0]["model_type"] == "linear"


def test_a_run_in_which_nothing_was_trained_selects_nothing(settings, version):
    with pytest.raises(InputError, match="no model"):
        select_best(settings, [])


def test_nan_factors_fail_the_run_and_leave_the_old_best(settings, version, monkeypatch):
    good = train_model(settings, "als", version)
    select_best(settings, [good])
    monkeypatch.setattr("recsys.config._MAX_NUMBER", 1e39)  # a file can no longer ask for it
    write_config(settings, "parameters: {als: {alpha: 1.0e+38, factors: 4}}\n")
    shutil.rmtree(settings.artifacts / "tuning")
    monkeypatch.setitem(STARTS, "als", [])
    monkeypatch.setitem(SPACES, "als", {"iterations": Range(15, 16, whole=True)})
    with pytest.raises(InputError, match="NaN"):
        train_model(settings, "als", version)
    best = Registry(settings).current_best()
    assert best is not None
    assert best.model_id == good["model_id"]
    assert len(Registry(settings).list()) == 1
