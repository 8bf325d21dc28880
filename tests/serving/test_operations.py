import asyncio
import contextlib
import gc
import json
import socket
import sqlite3
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from recsys.data.shown import write_shown
from recsys.merchandising.served_model import last_served
from recsys.publishing import write_json
from recsys.registry import Registry
from recsys.settings import Settings
from serving import engine
from serving.app import create_app
from serving.config import ServiceEnvironment
from serving.coordination import PREPARED, Channel
from tests.serving.conftest import TOKEN
from tests.serving.shops import DATA_VERSION, ITEMS, add_model, products


def service(settings: Settings, token: str | None = None) -> TestClient:
    return TestClient(create_app(settings, ServiceEnvironment(admin_token=token)))


def test_health_tries_recommendations(shared_client: TestClient):
    answer = shared_client.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "healthy"
    assert answer.json()["model_id"] == "als_1"


def test_a_service_without_a_model_starts_and_says_so(settings: Settings):
    with service(settings) as client:
        health = client.get("/health")
        assert health.status_code == 503
        assert health.json()["status"] == "no_model"
        answer = client.post("/recommend", json={"user_id": 1})
        assert answer.status_code == 503
        assert "No model" in answer.json()["detail"]
        assert client.get("/model_info").status_code == 503


def test_reload_serves_the_named_model_and_model_info_says_which(
    settings: Settings, client: TestClient, admin: dict[str, str]
):
    add_model(settings, "als_2", seed=1, select=False)
    answer = client.post("/reload_model", json={"model_id": "als_2"}, headers=admin)
    assert answer.status_code == 200
    assert answer.json()["model_id"] == "als_2"
    assert answer.json()["previous_model_id"] == "als_1"
    assert client.get("/model_info").json()["model_id"] == "als_2"
    assert client.post("/recommend", json={"user_id": 1}).json()["model_id"] == "als_2"


def test_reload_without_a_name_serves_the_current_best(
    settings: Settings, client: TestClient, admin: dict[str, str]
):
    add_model(settings, "als_2", recall=0.5)
    assert client.post("/reload_model", headers=admin).json()["model_id"] == "als_2"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model_id": "als_9"}, 409),
        ({"model_id": "../../etc/passwd"}, 422),
        ({"model_id": ""}, 422),
        ({"model_id": 5}, 422),
        ({"model": "als_1"}, 422),
    ],
)
def test_a_reload_of_nonsense_is_refused(
    shared_client: TestClient, admin: dict[str, str], body: dict, status: int
):
    assert shared_client.post("/reload_model", json=body, headers=admin).status_code == status
    assert shared_client.get("/model_info").json()["model_id"] == "als_1"


def test_a_changed_artefact_is_refused_and_the_old_model_stays(
    settings: Settings, client: TestClient, admin: dict[str, str]
):
    add_model(settings, "als_2", seed=1, select=False)
    factors = settings.artifacts / "als" / "als_2" / "model" / "item_factors.npy"
    content = bytearray(factors.read_bytes())
    content[-1] ^= 1
    factors.write_bytes(content)
    answer = client.post("/reload_model", json={"model_id": "als_2"}, headers=admin)
    assert answer.status_code == 409
    assert "item_factors" in answer.json()["detail"]
    assert client.post("/recommend", json={"user_id": 1}).json()["model_id"] == "als_1"
    assert last_served(settings) is None


def test_admin_routes_are_off_without_a_configured_token(settings: Settings):
    add_model(settings, "als_1")
    with service(settings) as client:
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
            assert client.post("/reload_model", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", "Basic a-token-for-tests", "Bearer đỏ", "a-token-for-tests"]
)
def test_a_stranger_cannot_reload(shared_client: TestClient, header: str | None):
    headers = {"Authorization": header.encode()} if header else {}
    answer = shared_client.post("/reload_model", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


def with_ids_in_logs(settings: Settings) -> None:
    (settings.home / "config").mkdir(parents=True, exist_ok=True)
    (settings.home / "config" / "privacy.yaml").write_text("pseudonymous_logs: false\n")


def asked_at_loading(client: TestClient, settings: Settings, users: list[str]) -> int:
    """How many users a new model was asked for, when `users` have asked for lists before."""
    for user in users:
        client.post("/recommend", json={"user_id": user})
    client.app.state.service.requests.flush()
    add_model(settings, "als_2", seed=1, select=False)
    headers = {"Authorization": "Bearer tok"}
    assert client.post("/reload_model", json={"model_id": "als_2"}, headers=headers).is_success
    return int(client.app.state.service.engine.snapshot.position.cache_info().currsize)


def test_a_fresh_model_has_been_asked_for_the_recent_users_before_it_serves(settings: Settings):
    add_model(settings, "als_1")
    with_ids_in_logs(settings)
    users = [str(user) for user in range(10, 30)]
    with service(settings, "tok") as client:
        asked_at_loading(client, settings, users)
        position = client.app.state.service.engine.snapshot.position
        before = position.cache_info()
        assert all(position(user) is not None for user in users)
        assert position.cache_info().misses == before.misses


def test_where_logs_name_nobody_a_fresh_model_is_asked_for_as_many_known_users(settings: Settings):
    add_model(settings, "als_1")
    users = [str(user) for user in range(10, 30)]
    with service(settings, "tok") as client:
        assert asked_at_loading(client, settings, users) >= len(users)


def test_a_replaced_model_leaves_the_memory_at_once(
    settings: Settings,
    client: TestClient,
    admin: dict[str, str],
    caplog: pytest.LogCaptureFixture,
):
    """The cycle collector does not look at snapshots, so they must not need it."""
    caplog.set_level("INFO")  # log records must not hold them either
    add_model(settings, "als_2", seed=1, select=False)
    for number in range(3):
        old = weakref.ref(client.app.state.service.engine.snapshot)
        client.post("/recommend", json={"user_id": 1})
        gc.disable()
        try:
            wanted = {"model_id": f"als_{2 - number % 2}"}
            assert client.post("/reload_model", json=wanted, headers=admin).status_code == 200
            assert old() is None
        finally:
            gc.enable()


def test_a_restarted_service_serves_what_it_served_last(
    settings: Settings, client: TestClient, admin: dict[str, str]
):
    add_model(settings, "als_2", seed=1, select=False)
    client.post("/reload_model", json={"model_id": "als_2"}, headers=admin)
    with service(settings) as again:
        assert again.get("/model_info").json()["model_id"] == "als_2"


def test_without_a_note_a_best_that_is_held_is_not_served(settings: Settings):
    add_model(settings, "als_1")
    add_model(settings, "als_2", seed=1, recall=0.13)
    registry = Registry(settings)
    assert registry.selection().model_id == "als_2"
    registry.hold("als_2")
    with service(settings) as client:
        assert client.get("/model_info").json()["model_id"] == "als_1"


def test_a_service_whose_models_are_damaged_starts_with_the_newest_sound_one(settings: Settings):
    for number, name in enumerate(("als_1", "als_2", "als_3")):
        add_model(settings, name, seed=number, recall=0.1 + number / 10)
    write_json(settings.artifacts / "served_model.json", {"model_id": "als_2"})
    for name, found in (("als_2", "als_3"), ("als_3", "als_1"), ("als_1", None)):
        factors = settings.artifacts / "als" / name / "model" / "item_factors.npy"
        factors.write_bytes(factors.read_bytes()[:100])
        with service(settings) as client:
            health = client.get("/health").json()
            assert health["model_id"] == found
    assert "none of them can be loaded" in health["detail"]


def test_a_model_of_the_sample_shop_never_stands_in_for_one_of_the_shop(settings: Settings):
    for version_id, source in (("v0", "sample"), (DATA_VERSION, "hasaki")):
        manifest = {"as_of": "2025-01-15T00:00:00+00:00", "source": {"name": source}, "files": {}}
        write_json(settings.versions / version_id / "manifest.json", manifest)
    add_model(settings, "als_1", recall=0.1)
    add_model(settings, "als_2", seed=1, recall=0.11, data_version="v0", select=False)
    add_model(settings, "als_3", seed=2, recall=0.3)
    for name, found in (("als_3", "als_1"), ("als_1", None)):
        (settings.artifacts / "als" / name / "model" / "item_factors.npy").write_bytes(b"junk")
        with service(settings) as client:
            assert client.get("/health").json()["model_id"] == found


@pytest.mark.parametrize("link", ["data/embeddings/current", "data/processed"])
def test_a_folder_in_the_place_of_a_link_keeps_nobody_from_being_served(
    settings: Settings, admin: dict[str, str], link: str
):
    add_model(settings, "als_1")
    add_model(settings, "als_2", seed=1, select=False)
    (settings.home / link).mkdir(parents=True)
    with service(settings, TOKEN) as client:
        assert client.get("/health").json()["model_id"] == "als_1"
        answer = client.post("/reload_model", json={"model_id": "als_2"}, headers=admin)
        assert (answer.status_code, answer.json()["model_id"]) == (200, "als_2")


@pytest.mark.parametrize("note", ['{"model_id": "gone"}', "nonsense", "[]"])
def test_a_useless_note_of_the_last_model_falls_back_to_the_current_best(
    settings: Settings, note: str
):
    add_model(settings, "als_1")
    (settings.artifacts / "served_model.json").write_text(note)
    with service(settings) as client:
        assert client.get("/model_info").json()["model_id"] == "als_1"


def test_every_request_is_a_row_and_a_line(settings: Settings):
    add_model(settings, "als_1")
    with_ids_in_logs(settings)
    with service(settings) as client:
        client.post("/recommend", json={"user_id": 7, "topk": 3})
        client.post("/recommend", json={"user_id": "nobody\nforged | line", "topk": 4})
        client.post("/recommend", json={"user_id": 7, "topk": 200})
        client.post("/recommend", json={"user_id": 7, "forged\nline | ": 1})
    columns = "user_id, topk, fallback, error IS NULL, model_id, status, known"
    rows = (
        sqlite3.connect(settings.service_db).execute(f"SELECT {columns} FROM requests").fetchall()
    )
    assert rows == [
        (7, 3, 0, 1, "als_1", 200, 1),
        ("nobody\nforged | line", 4, 1, 1, "als_1", 200, 0),
        (7, 200, None, 0, None, 422, None),
        (None, None, None, 0, None, 422, None),
    ]
    lines = (settings.logs / "service" / "recommender.log").read_text().splitlines()
    assert len(lines) == 4
    assert " | INFO | recommender | recommend | user_id=7, topk=3" in lines[0]
    assert " | WARNING | " in lines[2]
    assert "status=422, error=The request is not valid. body.forged" in lines[3]


def test_bad_requests_are_told_from_failures_of_the_service(
    client: TestClient,
):
    for body in ({"user_id": 1}, {"user_id": 1}, {"user_id": 1, "topk": 200}):
        client.post("/recommend", json=body)
    client.app.state.service.requests.flush()
    assert client.get("/stats").json()["traffic"][0]["error_rate"] == 0
    client.app.state.service.engine.snapshot = None
    client.post("/recommend", json={"user_id": 1})
    client.app.state.service.requests.flush()
    assert client.get("/stats").json()["traffic"][0]["error_rate"] == 0.25


def test_a_request_table_of_an_earlier_version_gets_the_new_column(settings: Settings):
    add_model(settings, "als_1")
    settings.service_db.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(settings.service_db)) as old:
        old.execute(
            "CREATE TABLE requests (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TIMESTAMP, "
            "user_id INTEGER, topk INTEGER, latency_ms REAL, fallback BOOLEAN, error TEXT, "
            "model_id TEXT, endpoint TEXT, fallback_method TEXT)"
        )
        old.execute(
            "INSERT INTO requests (timestamp, latency_ms, error, endpoint) "
            "VALUES (datetime('now'), 5.0, 'broken', 'recommend')"
        )
        old.commit()
    with service(settings) as client:
        client.post("/recommend", json={"user_id": 1})
        client.app.state.service.requests.flush()
        assert client.get("/stats").json()["traffic"][0]["error_rate"] == 0.5


def test_the_documented_queries_over_the_last_minute_count(settings: Settings):
    add_model(settings, "als_1")
    with service(settings) as client:
        client.post("/recommend", json={"user_id": 7})
    count = (
        sqlite3.connect(settings.service_db)
        .execute("SELECT count(*) FROM requests WHERE timestamp > datetime('now', '-1 minute')")
        .fetchone()[0]
    )
    assert count == 1
    assert np.isfinite(Path(settings.service_db).stat().st_size)


def publish(settings: Settings, version_id: str, unavailable: range) -> Path:
    """A data version of which only the manifest and the catalogue matter here."""
    folder = settings.versions / version_id
    folder.mkdir(parents=True)
    write_shown(folder / "shown_products.jsonl", products(unavailable=tuple(unavailable)))
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, "files": {}}))
    settings.processed.unlink(missing_ok=True)
    settings.processed.symlink_to(f"versions/{version_id}")
    return folder


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("damage", ["empty", "two", "torn", "header"])
def test_a_service_restarts_with_the_last_good_catalogue(
    settings: Settings, damage: str, good: bool
):
    add_model(settings, "als_1")
    if good:
        publish(settings, "v1", range(10))
    folder = publish(settings, "v2", range(2 if damage == "two" else 0, ITEMS))
    path = folder / "shown_products.jsonl"
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:200])
    if damage == "header":
        write_shown(path, products().iloc[:0])
    with service(settings) as client:
        assert client.get("/health").json()["status"] == "healthy"
        expected = {"two": "v2", "header": "als_1"}.get(damage, "v1" if good else "als_1")
        assert client.get("/model_info").json()["catalogue_version"] == expected
        for user in (0, "nobody"):
            assert client.post("/recommend", json={"user_id": user}).json()["recommendations"]
        publish(settings, "v3", range(1))
        assert client.app.state.service.engine.follow_catalogue() is True
        assert client.get("/model_info").json()["catalogue_version"] == "v3"


def test_a_swap_does_not_wait_for_a_catalogue_that_is_being_taken_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    add_model(settings, "als_1")
    add_model(settings, "als_2")
    publish(settings, "v1", range(5))
    with service(settings) as client:
        running = client.app.state.service.engine
        running.prepare("als_2")
        began, go_on = threading.Event(), threading.Event()
        taken_over = engine.with_current_catalogue

        def slowly(*arguments: Any) -> Any:
            began.set()
            go_on.wait(20)
            return taken_over(*arguments)

        monkeypatch.setattr(engine, "with_current_catalogue", slowly)
        publish(settings, "v2", range(3))
        with ThreadPoolExecutor(2) as threads:
            following = threads.submit(running.follow_catalogue)
            assert began.wait(10)
            threads.submit(running.commit, "als_2").result(timeout=5)
            go_on.set()
            following.result(timeout=10)
        assert client.get("/health").json()["model_id"] == "als_2"
        # What was committed meanwhile gets the catalogue at the next look.
        running.follow_catalogue()
        assert running.snapshot is not None
        assert (running.model_id, running.snapshot.catalogue.source) == ("als_2", "v2")


def test_a_worker_can_tell_what_is_wrong_with_a_thousand_models():
    async def told(problem: str) -> str:
        ours, theirs = [await Channel.over(end) for end in socket.socketpair()]
        theirs.send(PREPARED, problem=problem)
        message = await ours.receive()
        assert message is not None
        return message["problem"]

    problem = "models.als_1.status: Field required\n" * 5000
    assert asyncio.run(told(problem)) == problem
