"""``/metrics`` says what the alerts know, and has no more series whatever strangers send."""

import contextlib
import json
import sqlite3
import time

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.serving.shops import ITEMS, add_model, product_id, products

Figures = dict[tuple[str, ...], float]


def figures_of(client: TestClient) -> Figures:
    """Name and values of the labels, in their order -> value."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


def test_lists_are_counted_by_whom_they_are_for_and_what_made_them(client: TestClient):
    before = figures_of(client)
    for user in (3, 4, 3, "nobody"):
        client.post("/recommend", json={"user_id": user})
    client.post("/batch_recommend", json={"user_ids": [5, "stranger"]})
    after = figures_of(client)
    counted = {key: after[key] - before[key] for key in after if key[0] == "recsys_lists_total"}
    assert counted == {
        ("recsys_lists_total", "known", "model"): 4,
        ("recsys_lists_total", "known", "fallback"): 0,
        ("recsys_lists_total", "unknown", "model"): 0,
        ("recsys_lists_total", "unknown", "fallback"): 2,
    }


HIDDEN = """\
rules:
  - {name: no-lips, action: hide, products: {categories: [Trang điểm]}, author: lan, reason: test}
  - {name: no-hair, action: hide, products: {categories: [Tóc]}, author: lan, reason: test}
"""


def test_an_empty_list_counts_unless_the_request_narrowed_it_down(settings: Settings):
    add_model(settings, "als_1", shop_products=products(unavailable=(3,)))
    (settings.home / "config").mkdir(parents=True, exist_ok=True)
    (settings.home / "config" / "rules.yaml").write_text(HIDDEN, encoding="utf-8")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        for sent in ({}, {"brands": ["Đẹp"]}):
            assert client.post("/recommend", json={"user_id": 3, **sent}).json()["count"] == 0
        figures = figures_of(client)
    assert figures["recsys_rules",] == 2
    assert figures["recsys_lists_empty_total",] == 1
    assert figures["recsys_catalogue_products", "no"] == 1
    assert figures["recsys_catalogue_products", "yes"] == ITEMS - 1


def test_events_are_counted_by_what_became_of_them(settings: Settings):
    add_model(settings, "als_1")
    (settings.home / "config").mkdir(parents=True, exist_ok=True)
    (settings.home / "config" / "serving.yaml").write_text("max_events_of_user_per_day: 2\n")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        events = [
            {"event_id": f"e{n}", "user_id": 1, "product_id": product_id(n), "kind": "purchase"}
            for n in range(3)
        ]
        events.append({"event_id": "e9", "user_id": 2, "product_id": product_id(1), "kind": "?"})
        assert client.post("/interactions", json={"events": events}).json()["accepted"] == 2
        figures = figures_of(client)
    outcomes = {key[1]: value for key, value in figures.items() if key[0] == "recsys_events_total"}
    assert outcomes == {"accepted": 2, "rejected": 2, "left_out": 0, "implausible": 1}


def test_a_file_that_is_refused_is_seen(settings: Settings):
    add_model(settings, "als_1")
    (settings.home / "config").mkdir(parents=True, exist_ok=True)
    (settings.home / "config" / "rules.yaml").write_text("rules: [{hide: 3}]\n")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        figures = figures_of(client)
    assert figures["recsys_file_sound", "rules"] == 0
    assert figures["recsys_file_sound", "placements"] == 1
    assert abs(figures["recsys_clock_timestamp_seconds",] - time.time()) < 60


def test_what_cannot_be_written_is_seen(settings: Settings):
    add_model(settings, "als_1")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        log = client.app.state.service.requests
        client.post("/recommend", json={"user_id": 3})
        log.flush()
        assert figures_of(client)["recsys_unwritten_seconds", "request_log"] == 0
        with contextlib.closing(sqlite3.connect(settings.service_db)) as other:
            other.execute("BEGIN EXCLUSIVE")
            client.post("/recommend", json={"user_id": 3})
            until = time.monotonic() + 60
            while not figures_of(client)["recsys_unwritten_seconds", "request_log"]:
                assert time.monotonic() < until
                time.sleep(0.1)
            other.rollback()
        log.flush()
        assert figures_of(client)["recsys_unwritten_seconds", "request_log"] == 0


def test_strangers_make_no_series(client: TestClient):
    client.post("/recommend", json={"user_id": 3, "placement": "first"})
    client.get("/nowhere")
    before = figures_of(client).keys()
    for number in range(50):
        sent = {"user_id": f"u{number}", "placement": f"p{number}", "session_id": f"s{number}"}
        client.post("/recommend", json=sent)
        client.get(f"/nowhere/{number}")
    named = json.dumps(sorted(figures_of(client).keys() - before))
    assert "u4" not in named
    assert "nowhere" not in named
    # The first request to a route, of an outcome or within a time makes one, and no other does.
    assert all(key[0].startswith("recsys_request") for key in figures_of(client).keys() - before)


@pytest.mark.parametrize("manifest", [{}, {"created_at": "2026-03-01T10:00:00+07:00"}])
def test_when_the_model_was_made_is_shown_where_it_is_known(settings: Settings, manifest: dict):
    add_model(settings, "als_1", manifest=manifest)
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        figures = figures_of(client)
    shown = {key: one for key, one in figures.items() if "created_timestamp" in key[0]}
    assert shown == (
        {("recsys_model_created_timestamp_seconds",): 1772334000.0} if manifest else {}
    )
