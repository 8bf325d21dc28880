"""A state root of earlier code goes on: what `README.md` beside this file describes."""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from recsys.alerting import AlertManager
from recsys.content.job import build_embeddings
from recsys.data.versions import current_version, list_versions, open_version
from recsys.deployment.history import read_history
from recsys.deployment.job import bring_into_service, check_gate
from recsys.health.data import check_data_health
from recsys.health.examination import evaluate
from recsys.health.model import check_model_health
from recsys.health.pipelines import check_pipeline_health
from recsys.models.artifacts import load_artifact
from recsys.refresh.job import run_refresh
from recsys.registry import Registry
from recsys.schedule import DataInterval
from recsys.settings import REPOSITORY, Settings
from recsys.tracking import PipelineTracker
from recsys.training.job import train_model
from recsys.upkeep import job as upkeep
from tests.ports import find_free_port
from tests.serving.service_process import running_service
from tests.storage.buckets import CREDENTIALS, machine, new_bucket, put_object, s3_server

END = datetime(2025, 6, 1, tzinfo=UTC)
"""End of the view of the one version that is there."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``home``, a backup of it, and what its service answered."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(Path(__file__).with_name("old_state.tar.xz")) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The state root, as the old code left it."""
    home = tmp_path / "home"
    shutil.copytree(unpacked / "home", home, symlinks=True)
    monkeypatch.setenv("RECSYS_HOME", str(home))
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{find_free_port()}")
    return Settings(home)


def refresh(settings: Settings, end: datetime) -> dict[str, Any]:
    return run_refresh(settings, DataInterval(end - timedelta(days=1), end))


def test_its_version_opens_and_is_sound(old):
    version = current_version(old)
    version.verify()
    users, items = version.mappings()
    assert version.as_of == END
    assert len(version.interactions()) == version.manifest["rows"]["accepted"] == 579
    assert version.matrix().shape == (len(users), len(items)) == (60, len(version.products()))
    assert len(version.user_metadata()) == version.stats()["users"]
    assert check_data_health(old)["interactions"] == 579


def test_the_next_refresh_is_a_full_one_that_takes_what_was_staged_and_keeps_the_version(old):
    before = current_version(old)
    summary = refresh(old, END + timedelta(days=1))
    assert summary["strategy"] == "full"
    assert "the code" in summary["reason"]
    assert summary["previous_version"] == before.version_id
    assert summary["changes"]["new"] == 5  # three of the service, two of a dropped file
    assert current_version(old).version_id == summary["version_id"]
    assert list_versions(old) == [before.version_id, summary["version_id"]]
    open_version(old, before.version_id).verify()
    assert list((old.raw / "events/viecomrec").glob("*.parquet"))
    assert list((old.raw / "dropped/viecomrec").glob("*more.csv"))


def test_the_next_refresh_uses_the_comment_scorer_and_its_cache(old):
    before = current_version(old)
    refresh(old, END + timedelta(days=1))
    after = current_version(old)
    assert after.manifest["comment_scorer"] == before.manifest["comment_scorer"]
    assert after.manifest["comments"]["scored_now"] <= 5
    columns = ["user_id", "product_id", "comment_quality"]
    old_rows, new_rows = before.interactions(columns), after.interactions(columns)
    old_rows = old_rows[old_rows["user_id"] != "0"]  # stands for many people by now
    both = old_rows.merge(new_rows, on=columns[:2])
    assert len(both) == (old_rows["user_id"] != "0").sum()  # which is a placeholder since
    assert (both["comment_quality_x"] == both["comment_quality_y"]).all()


def test_after_the_full_refresh_the_next_one_is_incremental(old):
    (old.staging / "files" / "more.csv").unlink()
    refresh(old, END)
    files = old.staging / "files"
    files.joinpath("late.csv").write_text(
        "user_id,product_id,cmt_date,rating,comment\nlate,1,2025-06-02 09:00:00,5,Giao nhanh\n"
    )
    summary = refresh(old, END + timedelta(days=2))
    assert summary["strategy"] == "incremental"
    assert summary["changes"]["new"] == 4


def test_its_embeddings_are_taken_as_they_are(old):
    summary = build_embeddings(old)
    assert (summary["encoded"], summary["reason"]) == (0, None)
    assert summary["set_id"] == (old.embeddings / "current").resolve().name


def test_its_registry_reads_and_its_models_load(old):
    registry = Registry(old)
    best = registry.current_best()
    assert best is not None
    assert best.model_type == "hybrid"
    assert {entry.model_type for entry in registry.list()} == {"als", "hybrid"}
    for entry in registry.list():
        artifact = load_artifact(registry.folder(entry))
        assert len(artifact.user_ids) == 153
        assert artifact.model.model_type == entry.model_type
    assert check_model_health(old)["healthy"]


def test_its_last_good_registry_serves_when_the_registry_is_damaged(old):
    best = Registry(old).current_best()
    als = next(entry for entry in Registry(old).list() if entry.model_type == "als")
    old.registry.write_text("{ not a registry")
    assert Registry(old).current_best() == best
    Registry(old).archive(als.model_id)
    assert Registry(old).get(als.model_id).status == "archived"


def test_a_training_on_its_version_stands_beside_its_models(old):
    (old.home / "config").mkdir()
    (old.home / "config/training.yaml").write_text(
        "model_types: [als]\ntuning: {seconds: 5, trials: 2}\n"
    )
    before = Registry(old).current_best()
    summary = train_model(old, "als", current_version(old).version_id)
    assert summary["passes"]
    assert len(Registry(old).list()) == 3
    assert Registry(old).current_best() == before
    with contextlib.closing(sqlite3.connect(old.training_db)) as connection:
        statuses = connection.execute("SELECT status FROM training_runs").fetchall()
    assert statuses == [("success",)] * 3


def nearly(value: Any) -> Any:
    """What equals `value` up to the last digits of scores, which processors round in other ways."""
    if isinstance(value, dict):
        return {name: nearly(one) for name, one in value.items()}
    if isinstance(value, list):
        return [nearly(one) for one in value]
    return pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value


@pytest.mark.boots
def test_the_service_starts_from_it_and_answers_as_the_old_one_did(old, unpacked):
    # Live events count for some days after they came: let them have come just now.
    with contextlib.closing(sqlite3.connect(old.home / "data/live_events.db")) as connection:
        connection.execute("UPDATE events SET received = ?", (time.time(),))
        connection.commit()
    asked = json.loads((unpacked / "answers.json").read_text(encoding="utf-8"))
    port = find_free_port()
    with running_service(old, port):
        for path, body, expected in asked:
            answer = requests.post(f"http://127.0.0.1:{port}/{path}", json=body, timeout=10).json()
            assert {name: answer[name] for name in expected} == nearly(expected)


@pytest.mark.boots
def test_a_rollback_goes_to_the_model_that_was_deployed_before(old, monkeypatch):
    *_, last = read_history(old)
    port = find_free_port()
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("RECSYS_ADMIN_TOKEN", "tok")
    with running_service(old, port):
        plan = check_gate(old, {"rollback": True})
        assert bring_into_service(old, plan, {"rollback": True})["status"] == "success"
        served = requests.get(f"http://127.0.0.1:{port}/model_info", timeout=10).json()["model_id"]
    assert served == last["previous_model_id"]
    assert [entry["model_id"] for entry in read_history(old)][-2:] == [last["model_id"], served]


def test_a_health_check_reads_its_databases_and_reports(old):
    results = {
        "service": None,
        "data": check_data_health(old),
        "model": check_model_health(old),
        "pipeline": check_pipeline_health(old),
    }
    before = json.loads((old.reports / "health/latest.json").read_text())
    with pytest.raises(RuntimeError):  # because no service was asked
        evaluate(old, results)
    after = json.loads((old.reports / "health/latest.json").read_text())
    assert after["generated_at"] > before["generated_at"]
    assert after["checks"]["data"]["version_id"] == before["checks"]["data"]["version_id"]
    assert after["checks"]["model"]["model_id"] == before["checks"]["model"]["model_id"]
    runs = PipelineTracker(old.pipeline_db).get_recent_runs()
    assert sorted(run["status"] for run in runs) == ["failed", "success", "success", "success"]
    told = [row["alert"].name for row in AlertManager(old).recent(50)]
    assert "kept_alert" in told


def test_its_backup_restores(old, unpacked, tmp_path):
    home = tmp_path / "restored"
    done = subprocess.run(
        [sys.executable, "-m", "recsys", "restore", str(unpacked / "backup.tar")],
        env=os.environ | {"RECSYS_HOME": str(home), "PYTHONPATH": str(REPOSITORY / "include")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    restored = Settings(home)
    current_version(restored).verify()
    assert Registry(restored).current_best() == Registry(old).current_best()
    assert read_history(restored) == read_history(old)
    assert build_embeddings(restored)["encoded"] == 0


@pytest.mark.boots
def test_another_machine_reads_the_bucket_that_the_old_code_filled(
    old, unpacked, tmp_path, monkeypatch
):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    objects = unpacked / "bucket"
    with s3_server(tmp_path / "s3.log") as address:
        url = new_bucket(address)
        for file in sorted(path for path in objects.rglob("*") if path.is_file()):
            put_object(address, url, file.relative_to(objects).as_posix(), file.read_bytes())
        settings = machine(tmp_path / "machine", url, address)
        version = current_version(settings)
        version.verify()
        assert version.version_id == current_version(old).version_id
        registry = Registry(settings)
        assert registry.current_best() == Registry(old).current_best()
        for entry in registry.list():
            load_artifact(registry.folder(entry))
        assert read_history(settings) == read_history(old)
        assert build_embeddings(settings)["encoded"] == 0
        summary = refresh(settings, END + timedelta(days=1))
        assert summary["changes"]["new"] == 5
        assert list_versions(settings) == [version.version_id, summary["version_id"]]


def test_a_dry_run_of_maintenance_changes_nothing(old):
    before = content_of(old.home)
    for step in (upkeep.clean_models, upkeep.clean_data, upkeep.clean_records):
        step(old, dry_run=True)
    assert content_of(old.home) == before


def content_of(home: Path) -> dict[str, object]:
    """Hashes of all files, and the rows of databases."""
    content: dict[str, object] = {}
    for path in home.rglob("*"):
        if path.suffix == ".db":
            with contextlib.closing(sqlite3.connect(path)) as connection:
                content[path.name] = list(connection.iterdump())
        elif path.is_file() and not path.name.endswith(("-wal", "-shm", ".lock")):
            name = path.relative_to(home).as_posix()
            content[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return content
