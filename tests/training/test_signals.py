"""Trainings of a shop with signals: their weights, and what the report says of them."""

import json

import numpy as np
import pandas as pd
import pytest

from recsys import schema
from recsys.data.versions import current_version
from recsys.evaluation.leave_one_out import read_leave_one_out
from recsys.models.artifacts import load_artifact
from recsys.models.item_knn import ItemKnnParameters
from recsys.models.kinds import CODE_OF
from recsys.models.model_types import MODEL_TYPES, model_class
from recsys.registry import Registry
from recsys.schema import Kind
from recsys.training import signals
from recsys.training.job import train_model
from tests.models.shop import DAY, publish_shop, taste_interactions

CONFIGURED = {"purchase": 1.0, "cart": 0.5, "click": 0.2, "view": 0.05}


@pytest.fixture(autouse=True)
def short_search(settings):
    write_config(settings, "{seconds: 60, trials: 2}")


def write_config(settings, tuning: str, more: str = "") -> None:
    file = settings.home / "config" / "training.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    als = "{factors: 4, starts: 1, iterations: 5}"
    small = f"als: {als}, bpr: {{factors: 4, iterations: 5}}, hybrid: {{als: {als}}}"
    small += ", self_attention: {dimensions: 8, epochs: 2}"
    file.write_text(f"tuning: {tuning}\nparameters: {{{small}}}\n{more}")


def telling_signals(seed: int = 1, users: int = 240) -> pd.DataFrame:
    """Everybody clicks on six products of what they like, and views six of anything, before they
    rate; who dismisses, dismisses what is of another taste."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        liked = random.choice(np.arange(user % 6, 60, 6), 6, replace=False)
        seen = random.choice(60, 6, replace=False)
        rows += [(user, item, Kind.CLICK) for item in liked]
        rows += [(user, item, Kind.VIEW) for item in seen]
        rows.append((user, (user + 1) % 60, Kind.DISMISS))
    table = pd.DataFrame(rows, columns=["user", "item", "kind"])
    table["time"] = 1_700_000_000 - DAY * random.integers(1, 20, len(table))
    # Signals of what is held out say too much, and the refresh excludes them.
    held = taste_interactions().groupby("user").tail(2)
    pairs = set(zip(held["user"], held["item"], strict=True))
    leaks = [(user, item) in pairs for user, item in zip(table["user"], table["item"], strict=True)]
    return table.assign(split=np.where(leaks, schema.EXCLUDED, schema.TRAIN))


@pytest.fixture
def version(settings):
    return publish_shop(settings, taste_interactions(), signals=telling_signals())


@pytest.mark.parametrize("model_type", sorted({*MODEL_TYPES} - {"als"}))  # the hybrid has one
def test_every_type_learns_from_signals_and_serves_with_their_weights(
    settings, version, model_type
):
    # A dozen fits follow, of as many passes as were found in this time.
    seconds = 0.1 if model_class(model_type).slow else 60
    write_config(settings, f"{{seconds: {seconds}, trials: 1}}")
    summary = train_model(settings, model_type, version)
    artifact = load_artifact(settings.artifacts / model_type / summary["model_id"])
    weights = artifact.manifest["signal_weights"]
    assert set(weights) == set(CONFIGURED)
    clicks = artifact.histories.kinds == CODE_OF[Kind.CLICK]
    assert clicks.any()
    assert artifact.histories.weight[clicks] == pytest.approx(weights["click"])
    assert np.isfinite(artifact.model.score(artifact.histories, 1_800_000_000)).all()


def test_the_report_says_what_each_kind_added(settings, version):
    summary = train_model(settings, "item_knn", version)
    told = summary["signals"]
    folder = settings.artifacts / "item_knn" / summary["model_id"]
    written = json.loads((folder / "evaluation.json").read_text())["training"]["signals"]
    assert written == told
    assert Registry(settings).get(summary["model_id"]).training_info["signals"] == told
    assert told["events"]["click"] > 1000
    assert set(told["without"]) == {"click", "view", "dismiss", "signals"}
    click, view = told["without"]["click"], told["without"]["view"]
    assert click["recall_at_10_added"] > 0.01
    assert click["recall_at_10_added"] > view["recall_at_10_added"]
    for figures in told["without"].values():
        added = told["recall_at_10"] - figures["recall_at_10"]
        assert figures["recall_at_10_added"] == pytest.approx(added, abs=2e-6)
        low, high = (figures[f"recall_at_10_added_{end}"] for end in ("low", "high"))
        assert low <= figures["recall_at_10_added"] <= high
    log = (settings.logs / "cf" / "item_knn.log").read_text(encoding="utf-8")
    assert "signals | without=click, recall_at_10=" in log
    assert f"click={told['weights']['click']}" in log


def test_weights_are_found_once_a_version_for_all_types(settings, version):
    write_config(settings, "{seconds: 60, trials: 8}")
    first = train_model(settings, "item_knn", version)
    found = first["signals"]
    assert found["tuned"] == ["click", "view"]
    assert found["weights"]["purchase"] == 1
    assert found["weights"]["click"] > found["weights"]["view"]
    stored = settings.artifacts / "tuning" / "signals.json"
    before = stored.stat().st_mtime_ns
    assert (
        train_model(settings, "recent_popularity", version)["signals"]["weights"]
        == found["weights"]
    )
    assert stored.stat().st_mtime_ns == before
    stored.write_text("{", encoding="utf-8")
    assert train_model(settings, "item_knn", version)["signals"]["weights"] == found["weights"]


def test_signals_that_say_nothing_do_not_drive_ratings_out(settings):
    """Whoever clicks on anything after each rating has the ratings several moments further back."""
    write_config(settings, "{seconds: 60, trials: 4}", "signals: {click: 1}\n")
    ratings = taste_interactions()
    alone = train_model(settings, "item_knn", publish_shop(settings, ratings))
    random = np.random.default_rng(3)
    last = ratings.groupby("user").nth(-3)  # before those that are asked for
    clicks = last.loc[last.index.repeat(4)].assign(kind=Kind.CLICK, split=schema.TRAIN)
    clicks["item"] = random.integers(0, 60, len(clicks))
    clicks["time"] += 60 * (1 + np.arange(len(clicks)) % 4)
    noisy = train_model(
        settings, "item_knn", publish_shop(settings, ratings, version_id="noisy", signals=clicks)
    )
    assert noisy["signals"]["tuned"] == []
    decays = [
        Registry(settings).get(each["model_id"]).hyperparameters["history_decay"]
        for each in (alone, noisy)
    ]
    assert decays == [ItemKnnParameters().history_decay, 0.9]


def test_of_a_rare_kind_the_configured_weight_is_kept(settings, version, monkeypatch):
    monkeypatch.setattr(signals, "LEAST_EVENTS", 10_000)
    write_config(settings, "{seconds: 60, trials: 2}", "signals: {click: 0.3}\n")
    told = train_model(settings, "item_knn", version)["signals"]
    assert told["tuned"] == []
    assert told["weights"] == {**CONFIGURED, "click": 0.3}
    assert not (settings.artifacts / "tuning" / "signals.json").exists()


def test_other_weights_are_another_search(settings, version, monkeypatch):
    monkeypatch.setattr(signals, "LEAST_EVENTS", 10_000)
    train_model(settings, "item_knn", version)
    again = train_model(settings, "item_knn", version)
    write_config(settings, "{seconds: 60, trials: 2}", "signals: {click: 1}\n")
    other = train_model(settings, "item_knn", version)
    reused = [
        Registry(settings).get(run["model_id"]).training_info["tuning"]["reused"]
        for run in (again, other)
    ]
    assert reused == [True, False]


def test_a_shop_of_ratings_says_nothing_of_signals(settings):
    summary = train_model(settings, "item_knn", publish_shop(settings, taste_interactions()))
    folder = settings.artifacts / "item_knn" / summary["model_id"]
    assert "signals" not in summary
    assert "signals" not in json.loads((folder / "evaluation.json").read_text())["training"]
    assert load_artifact(folder).manifest["signal_weights"] == CONFIGURED
    assert not (folder / "histories" / "kinds.npy").exists()


def test_a_shop_without_any_rating_learns_from_purchases(settings):
    table = taste_interactions()
    back = table.groupby("user").cumcount(ascending=False)
    split = np.select([back == 0, back == 1], [schema.TEST, schema.VALIDATION], schema.TRAIN)
    bought = table.assign(split=split, kind=Kind.PURCHASE)
    version = publish_shop(settings, table.iloc[:0], signals=bought)
    assert read_leave_one_out(current_version(settings)).test.users == 240
    summary = train_model(settings, "item_knn", version)
    assert summary["recall_at_10"] > 2 * summary["baseline_recall_at_10"]
    assert set(summary["signals"]["without"]) == {"signals"}
    assert summary["signals"]["without"]["signals"]["recall_at_10"] == 0
