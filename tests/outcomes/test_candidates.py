"""Estimates of other models, from the lists that a service gave and recorded."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from recsys import schema
from recsys.merchandising.exploring import Impressions, write_impressions
from recsys.outcomes.candidates import judge_candidates
from recsys.outcomes.job import compute_outcomes
from recsys.outcomes.report import write_outcome_report
from recsys.registry import Registry
from recsys.schedule import DataInterval, load_zone
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.outcomes.shop import a_list, an_event, record, send
from tests.outcomes.test_job import DAY
from tests.outcomes.test_report import english_page, run, text_of
from tests.serving.shops import USERS, add_model, histories
from tests.serving.test_steering import write

LISTS, KNOWN = 6, USERS - 1  # "0" is nobody's id


@pytest.fixture
def shop(settings: Settings) -> Settings:
    """A service whose customers had six lists each, of which a third of the places was explored,
    and clicked what stood at the top."""
    add_model(settings, "als_1")
    add_model(settings, "als_2", seed=1, select=False)
    write(settings, "placements.yaml", "placements: {home: {explore: 0.3}}\n")
    write_impressions(settings, Impressions("2026-03-10", {}))
    rng, events = np.random.default_rng(1), []
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        for number in range(LISTS * USERS):
            user = str(number % USERS)
            asked = {"user_id": user, "placement": "home"}
            answer = client.post("/recommend", json=asked).json()
            for place, one in enumerate(answer["recommendations"]):
                if rng.random() < 0.6 / (1 + place):
                    events.append(
                        an_event(f"{number}-{place}", one["product_id"], user=user)
                        | {schema.RECOMMENDATION: answer["recommendation_id"]}
                    )
    now = datetime.now(UTC)
    moment = {schema.TIMESTAMP: now, schema.RECEIVED: now}
    send(settings, [event | moment for event in events])
    compute_outcomes(settings, DataInterval(now, now + timedelta(seconds=1)))
    return settings


def tomorrow(settings: Settings) -> date:
    return datetime.now(load_zone(settings)).date() + timedelta(days=1)


def by_model(found: dict[str, Any] | None) -> dict[str, Any]:
    assert found is not None
    return {one["model_id"]: one for one in found["models"]}


def test_a_model_is_judged_by_lists_of_customers_whom_it_knows(shop: Settings) -> None:
    found = judge_candidates(shop, tomorrow(shop))
    assert found is not None
    assert (found["lists"], found["customers"]) == (LISTS * KNOWN, KNOWN)
    assert [(one["model_id"], one["deployed"]) for one in found["models"]] == [
        ("als_1", True),
        ("als_2", False),
    ]
    own = by_model(found)["als_1"]
    assert own["deployed"]
    assert own["refused"] is None
    assert own["lists"] == LISTS * KNOWN
    assert own["support"] > 0.9
    # It would show what it showed, without what was drawn: in this shop that is clicked as much.
    clicks = own["clicks"]
    assert clicks["low"] < own["served"] < clicks["high"]
    assert clicks["value"] == pytest.approx(own["served"], rel=0.2)
    assert own["metrics"]["recall_at_10"] == 0.12


def test_the_report_has_them_once_a_day_and_again_with_other_models(shop: Settings) -> None:
    day = tomorrow(shop)
    path = shop.home / write_outcome_report(shop, day)["report"]
    first = json.loads(path.read_text(encoding="utf-8"))
    text = text_of(english_page(first))
    assert "What other models would have earned" in text
    assert "als_1 deployed" in text
    first["candidates"]["lists"] = -1  # to know it again
    path.write_text(json.dumps(first), encoding="utf-8")
    write_outcome_report(shop, day)
    assert json.loads(path.read_text(encoding="utf-8"))["candidates"]["lists"] == -1
    add_model(shop, "als_9", seed=5, select=False)
    write_outcome_report(shop, day)
    again = json.loads(path.read_text(encoding="utf-8"))["candidates"]
    assert again["lists"] == LISTS * KNOWN
    assert "als_9" in by_model(again)
    # One that is damaged, and one that knows what came after the lists.
    registry = Registry(shop)
    for entry in registry.list():
        if entry.model_id == "als_9":
            (registry.folder(entry) / "popularity.npy").write_bytes(b"x")
    rows = by_model(judge_candidates(shop, day))
    assert "it cannot be loaded" in rows["als_9"]["refused"]
    registry.archive("als_9")
    registry.archive("als_2")
    late = histories(2)
    late.times[-1] = 4_000_000_000
    add_model(shop, "als_10", done=late, select=False)
    rows = by_model(judge_candidates(shop, day))
    assert rows.keys() == {"als_1", "als_10"}
    assert "later than its data" in rows["als_10"]["refused"]
    assert rows["als_10"]["clicks"] == {"value": None, "low": None, "high": None}


def test_without_explored_lists_of_customers_nobody_is_judged(settings: Settings) -> None:
    record(
        settings,
        [
            a_list(1, "ab"),
            a_list(2, "ab", user="", propensities=[0.5, 0.5]),
            a_list(3, "ab", endpoint="search", propensities=[0.5, 0.5]),
        ],
    )
    send(settings, [an_event(1, "a")])
    run(settings)
    assert judge_candidates(settings, DAY + timedelta(days=1)) is None
