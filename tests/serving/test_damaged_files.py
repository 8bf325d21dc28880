"""A damaged helper file keeps nobody from being served: it is set aside, told of and made again."""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.alerting import AlertManager
from recsys.publishing import set_aside
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from serving.housekeeping import DamageWatch
from tests.serving.shops import add_model

HELPERS = ["data/live_events.db", "logs/service_metrics.db", "logs/service/alert_state.db"]


def junk(path: Path) -> None:
    path.write_bytes(b"\x00\xffjunk" * 1000)


def truncated(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA page_size = 512")
        database.execute("CREATE TABLE IF NOT EXISTS t (x)")
        database.execute("INSERT INTO t VALUES (zeroblob(9000))")
        database.commit()
    path.write_bytes(path.read_bytes()[:700])


def foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        for table in ("events", "requests", "alerts"):
            database.execute(f"CREATE TABLE {table} (colour TEXT, number INTEGER)")
        database.execute("PRAGMA user_version = 1")


def folder(path: Path) -> None:
    path.mkdir()
    (path / "something").touch()


def ask_everything(client: TestClient) -> None:
    assert client.post("/recommend", json={"user_id": 1}).status_code == 200
    event = {"event_id": "e", "user_id": "new", "product_id": "p3", "rating": 5}
    assert client.post("/interactions", json=event).status_code == 200
    assert client.post("/recommend", json={"user_id": "new"}).status_code == 200
    assert client.get("/health").status_code == 200
    client.app.state.service.requests.flush()
    assert client.get("/stats").status_code == 200


@pytest.mark.parametrize("damage", [junk, truncated, foreign, folder])
@pytest.mark.parametrize("name", HELPERS)
def test_a_service_starts_with_a_damaged_helper_and_makes_it_again(
    settings: Settings, name: str, damage: Callable[[Path], None]
):
    add_model(settings, "als_1")
    path = settings.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    damage(path)
    since = datetime.now(UTC)
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        ask_everything(client)
        if "alert" in name:
            AlertManager(settings).send_alert("something", "happened")
        DamageWatch(settings, since).look()
        if "live" in name:
            assert client.post("/recommend", json={"user_id": "new"}).json()["fallback"] is False
    assert path.is_file()
    assert len(list(path.parent.glob(f"{path.name}.damaged-*"))) == 1
    told = (settings.logs / "service" / "alerts.log").read_text(encoding="utf-8")
    assert "file_set_aside" in told


@pytest.mark.parametrize("name", HELPERS[:2])
def test_a_service_goes_on_when_a_helper_is_damaged_under_it(settings: Settings, name: str):
    add_model(settings, "als_1")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        ask_everything(client)
        path = settings.home / name
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.unlink()
        junk(path)
        for _ in range(3):
            assert client.post("/recommend", json={"user_id": "new"}).status_code == 200
            event = {"event_id": "f", "user_id": "other", "product_id": "p4", "rating": 5}
            assert client.post("/interactions", json=event).status_code == 200
            client.app.state.service.requests.flush()
        assert client.get("/stats").status_code == 200
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)


@pytest.mark.parametrize("name", ["logs/service/recommender.log", "logs/service/alerts.log"])
def test_a_folder_in_the_place_of_a_log_is_set_aside(settings: Settings, name: str):
    add_model(settings, "als_1")
    path = settings.home / name
    path.mkdir(parents=True)
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        ask_everything(client)
        AlertManager(settings).send_alert("something", "happened")
        DamageWatch(settings, datetime.now(UTC)).look()
    assert list(path.parent.glob(f"{path.name}.damaged-*"))
    assert path.is_file()


def test_what_is_damaged_next_is_told_as_well(settings: Settings):
    folder = settings.logs / "service"
    folder.mkdir(parents=True)
    watch = DamageWatch(settings, datetime.now(UTC))
    for name in ("first.log", "second.log"):
        (folder / name).mkdir()
        set_aside(folder / name)
        watch.look()
    told = (folder / "alerts.log").read_text(encoding="utf-8")
    assert "first.log" in told
    assert "second.log" in told


@pytest.mark.parametrize("name", ["logs", "logs/service", "data/live_events.db-wal"])
def test_a_file_in_the_place_of_a_folder_keeps_nobody_from_being_served(
    settings: Settings, name: str
):
    add_model(settings, "als_1")
    path = settings.home / name
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("not what should be here")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        for user in (1, "nobody"):
            assert client.post("/recommend", json={"user_id": user}).status_code == 200
        event = {"event_id": "e", "user_id": "new", "product_id": "p3", "rating": 5}
        assert client.post("/interactions", json=event).status_code == 200
        assert client.get("/health").status_code == 200
