"""The drill: back up a running shop, restore it elsewhere, compare what both answer."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from recsys.data.versions import current_version, list_versions
from recsys.deployment.history import append_history, read_history
from recsys.registry import Registry
from recsys.settings import REPOSITORY, Settings
from recsys.tracking import PipelineTracker
from tests.data.shop import refresh, row, write_shop
from tests.ports import find_free_port
from tests.serving.service_process import running_service
from tests.serving.shops import USERS, add_model

pytestmark = pytest.mark.boots

ROWS = [row(f"u{number % 5}", number % 7, time=f"2025-01-{1 + number:02}") for number in range(20)]
STRANGERS = ("nobody", "0 ", "người lạ")


def recsys(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recsys", *arguments],
        env=os.environ | {"RECSYS_HOME": str(home), "PYTHONPATH": str(REPOSITORY / "include")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def shop(settings: Settings) -> Settings:
    """Two data versions, two models, runs, a deployment, and an event that waits."""
    write_shop(settings, ROWS)
    refresh(settings)
    refresh(settings, force_full=True)
    version_id = current_version(settings).version_id
    add_model(settings, "als_1", data_version=version_id)
    add_model(settings, "als_2", data_version=version_id, recall=0.2, seed=1)
    tracker = PipelineTracker(settings.pipeline_db)
    for number in range(5):
        tracker.complete_run(tracker.start_run("data_refresh", {"number": number}))
    append_history(settings, {"model_id": "als_2", "status": "success"})
    return settings


def answers(port: int) -> list[Any]:
    found = []
    for user in (*(str(number) for number in range(USERS)), *STRANGERS):
        body = {"user_id": user, "topk": 10}
        answer = requests.post(f"http://127.0.0.1:{port}/recommend", json=body, timeout=10).json()
        found.append((user, answer["model_id"], answer["fallback"], answer["recommendations"]))
    return found


def test_the_restored_shop_gives_the_same_recommendations_and_has_the_same_history(shop, tmp_path):
    file, other = tmp_path / "backup.tar", Settings(tmp_path / "restored")
    port = find_free_port()
    tracker = PipelineTracker(shop.pipeline_db)
    with running_service(shop, port):
        before = answers(port)
        stop = threading.Event()
        writing = threading.Thread(target=_keep_writing, args=(shop, stop))
        writing.start()
        done = recsys(shop.home, "backup", str(file))
        stop.set()
        writing.join()
        assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["bytes"] == file.stat().st_size
    assert file.stat().st_mode & 0o777 == 0o600

    done = recsys(other.home, "restore", str(file))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == summary["files"]
    # start_service writes a configuration of its own.
    port = find_free_port()
    with running_service(other, port):
        assert answers(port) == before

    assert read_history(other) == read_history(shop)
    known = {run["run_id"]: run for run in tracker.get_recent_runs("data_refresh", limit=99)}
    restored = PipelineTracker(other.pipeline_db).get_recent_runs("data_refresh", limit=99)
    assert {run["run_id"]: run for run in restored} == known
    for database in sorted(other.home.rglob("*.db")):
        with contextlib.closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok", database
    assert list_versions(other) == list_versions(shop)
    assert current_version(other).version_id == current_version(shop).version_id
    current_version(other).verify()
    assert Registry(other).list() == Registry(shop).list()
    assert Registry(other).problem() is None
    best = Registry(other).current_best()
    assert best is not None
    assert best.model_id == "als_2"


def _keep_writing(settings: Settings, stop: threading.Event) -> None:
    tracker = PipelineTracker(settings.pipeline_db)
    while not stop.is_set():
        tracker.complete_run(tracker.start_run("health_check"))


def test_work_goes_on_in_the_restored_shop(shop, tmp_path):
    other = Settings(tmp_path / "restored")
    assert recsys(shop.home, "backup", str(tmp_path / "b.tar")).returncode == 0
    assert recsys(other.home, "restore", str(tmp_path / "b.tar")).returncode == 0
    assert refresh(other)["changes"]["new"] == 0
    write_shop(other, [*ROWS, row("u9", 3, time="2025-02-03")])
    assert refresh(other)["changes"]["new"] == 1
