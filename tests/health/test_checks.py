import json
import os
import re
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from recsys import schema
from recsys.health import (
    check_data_health,
    check_model_health,
    check_pipeline_health,
    check_service_health,
)
from recsys.refresh.job import run_refresh
from recsys.registry import Registry
from recsys.schedule import DataInterval
from recsys.tracking import PipelineTracker
from tests.serving.shops import add_model

HEALTHY = {"status": "healthy", "model_id": "als_1"}


@pytest.fixture
def fake_service(shop, monkeypatch):
    """A server that answers each path as told: (status, body)."""
    answers: dict[str, tuple[int, bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, body = answers[self.path]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{server.server_port}")
    yield answers
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_service_that_recommends_is_healthy(shop, serve):
    add_model(shop, "als_1")
    serve()
    result = check_service_health()
    assert result["healthy"] is True
    assert 0 < result["latency_ms"] < 5000
    assert result["response"]["model_id"] == "als_1"
    assert result["recommendations"] == 5
    json.dumps(result)


def test_a_service_that_is_not_there_is_critical(shop):
    result = check_service_health()
    assert (result["healthy"], result["severity"]) == (False, "critical")
    assert "ConnectionError" in result["error"]


@pytest.mark.parametrize("body", [b'{"recommendations": []}', b"{}", b"[]", b"oops"])
def test_a_healthy_answer_with_nothing_to_recommend_is_unhealthy(fake_service, body):
    fake_service["/health"] = (200, json.dumps(HEALTHY).encode())
    fake_service["/recommend"] = (200, body)
    result = check_service_health()
    assert (result["healthy"], result["severity"]) == (False, "critical")
    assert "/recommend" in result["error"]


@pytest.mark.parametrize("answer", [(500, b"{}"), (200, b"<html>"), (503, b'{"status": "x"}')])
def test_a_health_page_that_says_anything_else_is_unhealthy(fake_service, answer):
    fake_service["/health"] = answer
    assert check_service_health()["severity"] == "critical"


def test_a_new_installation_without_a_model_is_only_a_warning(shop, serve):
    serve()
    assert check_service_health()["severity"] == "warning"
    assert check_model_health()["severity"] == "warning"
    assert check_data_health()["severity"] == "warning"


def test_a_service_that_lost_its_model_is_critical(shop, serve):
    serve()
    add_model(shop, "als_1")
    assert check_service_health()["severity"] == "critical"


def test_published_data_is_healthy(publish):
    publish()
    result = check_data_health()
    assert result["healthy"] is True, result
    assert set(result["files"]) == {
        "interactions.parquet",
        "X_train_confidence.npz",
        "user_item_mappings.json",
        "user_metadata.pkl",
    }
    assert result["interactions"] > 0
    assert 0 <= result["age_days"] < 3
    json.dumps(result)


@pytest.mark.parametrize(
    "name",
    ["interactions.parquet", "X_train_confidence.npz", "user_item_mappings.json",
     "user_metadata.pkl"],
)  # fmt: skip
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_damaged_data_is_critical_and_named(publish, name, damage):
    file = publish() / name
    content = file.read_bytes()
    file.chmod(0o644)
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    result = check_data_health()
    assert (result["healthy"], result["severity"]) == (False, "critical")
    assert name in result["error"]


def test_a_link_to_nowhere_is_critical(publish, shop):
    folder = publish()
    folder.rename(folder.with_name("elsewhere"))
    assert check_data_health()["severity"] == "critical"


def test_the_pickle_is_never_opened(publish, shop, tmp_path):
    """Not even when its hash is right, as somebody who can write files can make it."""
    import pickle

    from recsys.publishing import sha256_of

    folder = publish()

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    folder.chmod(0o755)
    pickled = folder / schema.USER_METADATA_PICKLE
    pickled.chmod(0o644)
    pickled.write_bytes(pickle.dumps(Trap()))
    manifest = folder / schema.MANIFEST_FILE
    manifest.chmod(0o644)
    content = json.loads(manifest.read_text())
    content["files"][schema.USER_METADATA_PICKLE]["sha256"] = sha256_of(pickled)
    manifest.write_text(json.dumps(content))
    assert check_data_health()["healthy"] is True
    assert not (tmp_path / "sprung").exists()


def test_old_data_is_a_warning(publish):
    publish(days_ago=8)
    result = check_data_health()
    assert result["severity"] == "warning"
    assert re.search(r" (8|9)\.\d days old \(at most 7 are expected\)", result["error"])


def test_a_dead_feed_is_not_renewed_by_a_new_version(publish, shop):
    publish(days_ago=730)
    now = datetime.now(UTC)
    # The catalogue has changed since: a new version of old reviews.
    products = next((shop.raw / "viecomrec").glob("*product*.csv"))
    products.write_text(products.read_text(encoding="utf-8").replace("Kem", "Sữa"), "utf-8")
    run_refresh(shop, DataInterval(now - timedelta(days=1), now))
    result = check_data_health()
    assert datetime.fromisoformat(result["as_of"]) == now
    assert 729 < result["age_days"] < 732
    assert datetime.fromisoformat(result["newest_event"]) < now - timedelta(days=729)
    assert result["severity"] == "warning"
    assert "the newest review or purchase is 73" in result["error"]


def test_a_critical_problem_is_not_hidden_by_a_warning(publish):
    (publish(days_ago=8) / "X_train_confidence.npz").unlink()
    result = check_data_health()
    assert result["severity"] == "critical"
    assert [one["severity"] for one in result["problems"]] == ["critical", "warning"]


def test_a_selected_and_intact_model_is_healthy(shop):
    add_model(shop, "als_1")
    result = check_model_health()
    assert result["healthy"] is True
    assert (result["model_id"], result["serving_model_id"]) == ("als_1", None)


def test_a_damaged_model_is_critical(shop):
    add_model(shop, "als_1")
    folder = Registry(shop).folder(Registry(shop).get("als_1"))
    (folder / "popularity.npy").unlink()
    result = check_model_health()
    assert result["severity"] == "critical"
    assert "popularity.npy" in result["error"]


@pytest.mark.parametrize("text", ["{", '{"current_best": {"model_id": "x"}}', "[]"])
def test_a_registry_that_does_not_parse_is_critical(shop, text):
    shop.registry.parent.mkdir(parents=True)
    shop.registry.write_text(text)
    assert check_model_health()["severity"] == "critical"


def test_a_registry_that_is_gone_is_critical_and_repaired(shop):
    add_model(shop, "als_1")
    shop.registry.unlink()
    result = check_model_health()
    assert result["severity"] == "critical"
    assert "is gone; it was written again" in result["error"].replace(
        "; artifacts/cf/registry.last_good.json has its content", ""
    )
    assert check_model_health()["healthy"] is True


def test_a_selected_model_may_wait_for_its_deployment_but_not_for_ever(shop, serve):
    add_model(shop, "als_1")
    serve()
    add_model(shop, "als_2", seed=1)
    result = check_model_health()
    assert result["healthy"] is True
    assert (result["model_id"], result["serving_model_id"]) == ("als_2", "als_1")
    (shop.home / "config" / "health.yaml").write_text("model: {deployment_grace_hours: 0}")
    result = check_model_health()
    assert result["severity"] == "warning"
    assert "the service serves als_1, although als_2 was selected" in result["error"]


def test_runs_are_judged_in_the_database_that_the_connection_names(shop, tmp_path, monkeypatch):
    elsewhere = PipelineTracker(tmp_path / "elsewhere.db")
    for _ in range(3):
        elsewhere.fail_run(elsewhere.start_run("data_refresh"), "KeyError")
    assert check_pipeline_health()["healthy"] is True
    monkeypatch.setenv(
        "AIRFLOW_CONN_RECSYS_TRACKER",
        f"recsys-tracker://{str(elsewhere.db_path).replace('/', '%2F')}",
    )
    assert check_pipeline_health()["healthy"] is False
    assert not shop.pipeline_db.exists() or not PipelineTracker(shop.pipeline_db).get_recent_runs()


def runs(settings, pipeline, successes, failures):
    tracker = PipelineTracker(settings.pipeline_db)
    for _ in range(successes):
        tracker.complete_run(tracker.start_run(pipeline))
    for _ in range(failures):
        tracker.fail_run(tracker.start_run(pipeline), "KeyError")


def test_pipelines_are_healthy_at_one_half_and_not_below(shop):
    runs(shop, "data_refresh", 1, 1)
    assert check_pipeline_health()["healthy"] is True
    runs(shop, "model_training", 1, 2)
    result = check_pipeline_health()
    assert (result["healthy"], result["severity"]) == (False, "critical")
    assert result["error"] == "model_training: 2 of 3 runs of the last 7 days failed"
    assert result["stats_by_pipeline"]["data_refresh"]["success_rate"] == 0.5


def test_pipelines_that_never_ran_are_healthy(shop):
    assert check_pipeline_health()["healthy"] is True


def test_abandoned_runs_are_closed(shop):
    tracker = PipelineTracker(shop.pipeline_db)
    run_id = tracker.start_run("data_refresh")
    (shop.home / "config" / "health.yaml").write_text("pipeline: {max_running_hours: 0.0000001}")
    assert check_pipeline_health()["closed_runs"] == 1
    assert tracker.get_run(run_id)["status"] == "cancelled"
