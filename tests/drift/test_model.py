from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from recsys.config import load_config
from recsys.drift.config import DriftConfig
from recsys.drift.model import PastModel, Prediction, check_model, model_before
from recsys.drift.weeks import Week
from recsys.evaluation.leave_one_out import number_interactions
from recsys.models.als import Als
from recsys.models.artifacts import load_artifact, save_artifact
from recsys.registry import Registry
from recsys.settings import Settings
from tests.drift.shop import MONDAY, WEEK, ZONE

ITEMS = [f"P{item}" for item in range(60)]
GROUPS = 6


def purchases(weeks: int = 20, users: int = 720, seed: int = 0, moved: int = 0) -> pd.DataFrame:
    """Each user buys from one group of products; in the last `moved` weeks from the next one."""
    rng = np.random.default_rng(seed)
    rows = []
    for week in range(weeks):
        start = MONDAY - timedelta(weeks=weeks - week)
        buyers = rng.choice(users, users // 2, replace=False)
        for user in buyers:
            group = (user + (week >= weeks - moved) * 3) % GROUPS
            item = int(rng.integers(0, 60 // GROUPS)) * GROUPS + group
            rows.append(
                (f"u{user}", f"P{item}", start + timedelta(hours=int(rng.integers(0, 160))))
            )
    frame = pd.DataFrame(rows, columns=["user_id", "product_id", "timestamp"])
    frame = frame.drop_duplicates(["user_id", "product_id"])
    return frame.assign(
        timestamp=pd.to_datetime(frame["timestamp"], utc=True),
        rating=np.float32(5),
        confidence_score=np.float32(5.5),
        weight=np.float32(1),
    )


@pytest.fixture
def config(settings: Settings) -> DriftConfig:
    return load_config(settings, DriftConfig)


def register_model(settings: Settings, frame: pd.DataFrame, until: datetime, name: str) -> None:
    known = frame[frame["timestamp"] < pd.Timestamp(until)]
    numbered = number_interactions(known, ITEMS)
    histories = numbered.histories
    save_artifact(
        settings.artifacts / "als" / name,
        model=Als().fit(histories, len(ITEMS)),
        item_ids=ITEMS,
        user_ids=numbered.user_ids,
        histories=histories,
        popularity=np.ones(len(ITEMS), dtype=np.float32),
        products=pd.DataFrame({"product_id": ITEMS}),
        manifest={"model_id": name, "data_version": "v"},
    )
    Registry(settings).register(
        name,
        data_version="v",
        model_type="als",
        hyperparameters={},
        metrics={"recall_at_10": 0.5, "recall_at_10_low": 0.4},
        baseline_comparison={"passes": True},
        training_info={},
    )


def test_the_model_that_could_not_know_the_week_is_judged(settings: Settings) -> None:
    frame = purchases()
    assert model_before(settings, WEEK.start) is None
    register_model(settings, frame, MONDAY + timedelta(days=1), "als_20240604_000000")
    assert model_before(settings, WEEK.start) is None
    register_model(settings, frame, WEEK.start - timedelta(weeks=4), "als_20240501_000000")
    past = model_before(settings, WEEK.start)
    assert past is not None
    assert past.artifact.model_id == "als_20240501_000000"
    assert past.trained_until < WEEK.start


def test_a_model_of_a_steady_taste_predicts_and_does_not_drift(
    settings: Settings, config: DriftConfig
) -> None:
    check = checked(settings, config, purchases())
    assert check.status == "tested"
    assert check.details["hit_rate"] > 1.5 * check.details["popularity_hit_rate"]
    assert not check.large or check.p_value > 0.01


def test_a_taste_that_moved_is_a_drift_of_the_model(
    settings: Settings, config: DriftConfig
) -> None:
    check = checked(settings, config, purchases(moved=1))
    assert check.large
    assert check.p_value is not None
    assert check.p_value < 0.001
    assert check.details["hit_rate"] < 0.5 * check.details["past_hit_rate"]


def test_without_a_model_it_is_said(config: DriftConfig) -> None:
    check = check_model(None, WEEK, config)
    assert check.status == "insufficient_data"
    assert "no registered model" in check.details["reason"]


def test_a_week_without_customers_of_old_has_no_hits(settings: Settings) -> None:
    frame = purchases()
    past = trained(settings, frame)
    later = Week.last_full(MONDAY + timedelta(weeks=3), ZONE)
    assert len(Prediction(past, frame).hits(later).model) == 0


def trained(settings: Settings, frame: pd.DataFrame) -> PastModel:
    register_model(settings, frame, WEEK.start - timedelta(weeks=5), "als_20240401_000000")
    artifact = load_artifact(settings.artifacts / "als" / "als_20240401_000000")
    until = datetime.fromtimestamp(int(artifact.histories.times.max()), UTC)
    return PastModel(artifact, until)


def checked(settings: Settings, config: DriftConfig, frame: pd.DataFrame):
    return check_model(Prediction(trained(settings, frame), frame), WEEK, config)
