"""From a shop's raw files to answers of the live service, through one command and real Airflow."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import filelock
import pandas as pd
import pytest
import requests

from recsys.data.sample import write_sample_shop
from recsys.data.sources import resolve_source
from recsys.data.versions import current_version, list_versions, open_version
from recsys.refresh.job import run_refresh
from recsys.registry import Registry
from recsys.schedule import DataInterval
from recsys.settings import Settings
from tests.live_stack import LiveStack, make_home, wait_for

pytestmark = [pytest.mark.boots, pytest.mark.timeout(600)]

CHAIN = ("data_refresh", "model_training", "model_deployment")
TOPK = 10


@pytest.fixture(scope="module")
def home_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a Vietnamese shop would name it."""
    return tmp_path_factory.mktemp("stack") / "cửa hàng mỹ phẩm"


@pytest.fixture(scope="module")
def held_out(home_folder: Path) -> pd.DataFrame:
    """The sample shop as raw data, without the last good purchase of every regular customer."""
    shop = write_sample_shop(home_folder / "data" / "raw" / "viecomrec", reviews=12_000)
    reviews = pd.read_csv(shop.reviews_path, dtype=str)
    order = pd.to_datetime(reviews["cmt_date"], format="ISO8601", utc=True)
    counts = reviews.groupby("user_id")["product_id"].transform("nunique")
    candidates = reviews[(reviews["rating"].astype(float) >= 4) & (counts >= 4)]
    last = candidates.loc[order[candidates.index].groupby(candidates["user_id"]).idxmax()]
    last = last.sample(300, random_state=0)
    copies = reviews.merge(last[["user_id", "product_id"]], on=["user_id", "product_id"])
    key = ["user_id", "product_id"]
    kept = reviews[~reviews.set_index(key).index.isin(copies.set_index(key).index)]
    kept.to_csv(shop.reviews_path, index=False)
    return last


@pytest.fixture(scope="module")
def live(held_out: pd.DataFrame, stopped_afterwards: Path) -> LiveStack:
    stack = make_home(stopped_afterwards)
    # A password as a person might choose it, and a locale that knows no accents.
    with (stopped_afterwards / ".env").open("a", encoding="utf-8") as file:
        file.write("ALERT_EMAIL_PASSWORD='a${HOME}b c%d'\n")
    stack = LiveStack(stack.settings, {**stack.env, "LC_ALL": "C"})
    up = stack.recsys("up", timeout=420)
    assert up.returncode == 0, up.stderr
    assert "Recommendations" in up.stdout
    assert "personal" in up.stdout
    assert "fallback" in up.stdout
    return stack


def test_every_run_of_the_chain_is_a_success_in_the_mirror_with_its_summary(live):
    for job in CHAIN:
        run = live.tracker.get_recent_runs(job, limit=1)[0]
        assert run["status"] == "success"
        assert run["metadata"]["summary"]
        assert live.client.run(job, run["metadata"]["airflow_run_id"])["state"] == "success"


def test_the_first_training_comes_after_the_embeddings(live):
    (embedded,) = live.tracker.get_recent_runs("bert_embeddings", limit=1)
    (trained,) = live.tracker.get_recent_runs("model_training", limit=1)
    assert embedded["status"] == "success"
    assert embedded["finished_at"] <= trained["started_at"]


def test_the_outcomes_of_the_lists_are_computed_as_soon_as_everything_runs(live):
    def ended():
        run = next(iter(live.tracker.get_recent_runs("outcomes", limit=1)), None)
        return run if run and run["status"] != "running" else None

    run = wait_for(ended, 120, "the first run of outcomes")
    assert run["status"] == "success", run["error_message"]
    summary = run["metadata"]["summary"]
    assert (live.settings.home / summary["report"]["page"]).is_file()
    assert summary["alert"]["alerts"] == []


def test_airflows_database_is_nobody_elses_business(live):
    folder = live.settings.home / ".airflow"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert stat.S_IMODE((folder / "airflow.db").stat().st_mode) == 0o640


def test_the_plan_of_a_refresh_is_the_note_of_its_run(live):
    run = live.tracker.get_recent_runs("data_refresh", limit=1)[0]
    run_id = run["metadata"]["airflow_run_id"]
    note = wait_for(lambda: live.client.run("data_refresh", run_id)["note"], 10, "the note")
    assert run["metadata"]["summary"]["ingest"]["note"] == note
    assert "new interactions" in note


def test_registry_history_service_and_training_log_name_the_same_model(live):
    best = Registry(live.settings).current_best()
    assert best is not None
    history = json.loads(live.settings.deployment_history.read_text())["deployments"][-1]
    assert history["model_id"] == best.model_id
    assert history["status"] == "success"
    assert history["verification"] == {
        "health_check": True,
        "model_id_match": True,
        "recommendations_work": True,
    }
    info = requests.get(f"{live.service_url}/model_info", timeout=10).json()
    assert info["model_id"] == best.model_id
    with contextlib.closing(sqlite3.connect(live.settings.training_db)) as connection:
        status, recall, baseline = connection.execute(
            "SELECT status, recall_at_10, baseline_recall_at_10 FROM training_runs"
            " WHERE model_id = ?",
            (best.model_id,),
        ).fetchone()
    assert status in ("success", "completed")
    assert recall > baseline
    entry = Registry(live.settings).get(best.model_id)
    assert entry.data_version == current_version(live.settings).version_id


def test_recommendations_for_known_customers_beat_popularity_on_held_out_purchases(live, held_out):
    interactions = current_version(live.settings).interactions(["user_id", "product_id"])
    popular = interactions["product_id"].value_counts().index.to_numpy()
    seen = interactions.groupby("user_id")["product_id"].agg(set)
    personal_hits = popular_hits = 0
    for user, product in zip(held_out["user_id"], held_out["product_id"], strict=True):
        answer = _recommend(live, user)
        assert not answer["fallback"]
        offered = [str(item["product_id"]) for item in answer["recommendations"]]
        assert len(offered) == TOPK
        assert not set(offered) & seen[user]
        personal_hits += product in offered
        popular_hits += product in [p for p in popular if p not in seen[user]][:TOPK]
    assert personal_hits > 1.3 * popular_hits


def test_a_stranger_gets_popular_products_marked_as_fallback(live):
    answer = _recommend(live, "nobody-knows-me")
    assert answer["fallback"]
    assert answer["count"] == TOPK


def test_every_request_is_a_row(live):
    def rows() -> int:
        with contextlib.closing(sqlite3.connect(live.settings.service_db)) as connection:
            return int(connection.execute("SELECT count(*) FROM requests").fetchone()[0])

    before = wait_for(rows, 10, "the first rows")
    for _ in range(5):
        _recommend(live, "counted")
    wait_for(lambda: rows() >= before + 5, 10, "five more rows")


def test_up_again_is_idempotent(live):
    best = Registry(live.settings).current_best()
    again = live.recsys("up", timeout=200)
    assert again.returncode == 0, again.stderr
    assert "trained on this data already" in again.stderr
    assert Registry(live.settings).current_best() == best


def test_a_backfill_makes_the_versions_of_past_days_and_leaves_the_published_one(live, tmp_path):
    published = current_version(live.settings)
    first = (published.as_of - timedelta(days=40)).date()
    days = ("--from-date", f"{first}", "--to-date", f"{first + timedelta(days=1)}")
    kept = set(list_versions(live.settings))
    done = live.recsys("backfill", "data_refresh", *days)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"] == {"success": 2}

    again = live.recsys("backfill", "data_refresh", *days)
    assert (again.returncode, json.loads(again.stdout)["runs"]) == (0, {})
    assert "Nothing was to be done: data_refresh has a run for every one of these" in again.stderr

    assert current_version(live.settings).version_id == published.version_id
    runs = live.tracker.get_recent_runs("data_refresh", limit=2)[::-1]
    ingested = [run["metadata"]["summary"]["ingest"] for run in runs]
    # The second day finds the version of the first.
    assert [one["strategy"] for one in ingested] == ["full", "incremental"]
    assert not any(run["metadata"]["summary"]["publish"]["published"] for run in runs)
    versions = [
        open_version(live.settings, version_id)
        for version_id in list_versions(live.settings)
        if version_id not in kept
    ]
    assert [version.as_of - versions[0].as_of for version in versions] == [
        timedelta(days=number) for number in range(2)
    ]
    then = Settings(tmp_path / "then")
    shutil.copytree(live.settings.raw, then.raw)
    for version in versions:
        version.verify()
        run_refresh(then, DataInterval(version.as_of - timedelta(days=1), version.as_of))
        nightly = current_version(then)
        assert version.interactions().equals(nightly.interactions())
        assert version.products().equals(nightly.products())
        assert (version.matrix() != nightly.matrix()).nnz == 0
        assert version.stats() == nightly.stats()


def test_a_refresh_with_a_launched_product_has_it_embedded(live):
    (shop,) = resolve_source(live.settings).product_files
    with shop.open("a", encoding="utf-8") as file:
        width = len(pd.read_csv(shop, nrows=0).columns)
        file.write(",".join(["launched", "Nước hoa Hoa Sen", *[""] * (width - 2)]) + "\n")
    refreshed = live.recsys("data-refresh")
    assert refreshed.returncode == 0, refreshed.stderr

    def embedded() -> list[dict[str, Any]]:
        runs = live.tracker.get_recent_runs("bert_embeddings", limit=10)
        asked = [run for run in runs if run["metadata"]["airflow_run_id"].startswith("texts__")]
        return [] if any(run["status"] == "running" for run in asked) else asked

    (run,) = wait_for(embedded, 60, "the embeddings of the launched product")
    assert run["status"] == "success", run["error_message"]
    assert (
        run["metadata"]["airflow_run_id"] == f"texts__{current_version(live.settings).version_id}"
    )
    assert run["metadata"]["summary"]["embed"]["encoded"] == 1


def test_a_second_up_beside_a_running_one_is_refused(live):
    with filelock.FileLock(live.settings.home / ".airflow" / "run" / "up.lock"):
        second = live.recsys("up")
    assert second.returncode == 2
    assert "another `make up` or `make down` is at work" in second.stderr


def test_an_unknown_source_is_refused_before_anything_starts(live):
    answer = live.recsys("up", "--source", "nowhere")
    assert answer.returncode == 2
    assert "there is no source 'nowhere'" in answer.stderr


def test_a_source_that_cannot_be_refreshed_is_not_selected(live, tmp_path):
    reviews = tmp_path / "bad.csv"
    header = "user_id,product_id,rating,comment,cmt_date"
    rows = (f"{number},1,9,none,2025-01-01" for number in range(50))
    reviews.write_text("\n".join([header, *rows]) + "\n")
    answer = live.recsys("up", "--source", "viecomrec", "--reviews", str(reviews), timeout=200)
    assert answer.returncode == 1, answer.stderr
    assert "data_refresh failed" in answer.stderr
    assert resolve_source(live.settings).review_files != (reviews,)


def test_a_port_in_use_is_refused_with_the_setting_to_change(tmp_path):
    other = make_home(tmp_path / "other")
    port = dict(
        line.split("=") for line in (other.settings.home / ".env").read_text().splitlines()
    )["RECSYS_SERVICE_PORT"]
    with contextlib.closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", int(port)))
        holder.listen()
        answer = other.recsys("scheduler", "start")
    assert answer.returncode == 2
    assert f"port {port} is in use" in answer.stderr
    assert "RECSYS_SERVICE_PORT" in answer.stderr


def test_a_command_prints_its_summary_as_json_and_a_failed_one_exits_with_1(live):
    fine = live.recsys("data-refresh")
    assert fine.returncode == 0, fine.stderr
    assert json.loads(fine.stdout)["state"] == "success"
    best = Registry(live.settings).current_best()
    artefact = live.settings.home / Registry(live.settings).get(best.model_id).path
    artefact.rename(artefact.with_name("elsewhere"))
    broken = live.recsys("model-deployment", "--model-id", best.model_id, "--force")
    artefact.with_name("elsewhere").rename(artefact)
    assert broken.returncode == 1
    assert "model_deployment failed in check_gate: " in broken.stderr
    result = json.loads(broken.stdout)
    assert (result["state"], result["failed_tasks"]) == ("failed", ["check_gate"])
    assert best.model_id in result["error"]


def test_what_is_no_job_no_model_and_no_component_starts_nothing(live):
    days = ("--from-date", "2025-01-01", "--to-date", "2025-01-01")
    for words, said in (
        (("backfill", "nojob", *days), "'nojob' is no job; there are bert_embeddings, "),
        (("model-deployment", "--model-id", "../../etc"), "../../etc"),
        (("health-check", "--component", "foo"), "'foo' is none of service, data, "),
    ):
        answer = live.recsys(*words)
        assert (answer.returncode, said in answer.stderr) == (2, True), answer.stderr


def test_health_check_finds_the_system_healthy(live):
    checked = live.recsys("health-check")
    assert "without Airflow" not in checked.stderr
    report = json.loads((live.settings.reports / "health" / "latest.json").read_text())
    assert report["checks"]["service"]["healthy"], report
    assert report["checks"]["data"]["healthy"], report
    assert report["checks"]["model"]["healthy"], report
    # What failed on purpose before may have its alert.
    assert checked.returncode == (0 if report["status"] == "healthy" else 1), checked.stderr


def test_a_killed_service_comes_back_with_its_model(live):
    best = Registry(live.settings).current_best()
    assert best is not None
    pid = live.component_pid("service")
    os.kill(pid, signal.SIGKILL)

    def model() -> Any:
        with contextlib.suppress(requests.RequestException):
            answer = requests.get(f"{live.service_url}/model_info", timeout=2)
            return live.component_pid("service") != pid and answer.json().get("model_id")
        return None

    assert wait_for(model, 60, "the service is back") == best.model_id


def test_secrets_are_private_and_in_no_log(live):
    env = live.settings.home / ".env"
    assert env.stat().st_mode & 0o777 == 0o600
    secrets = [
        line.split("=", 1)[1]
        for line in env.read_text().splitlines()
        if line.startswith(("RECSYS_ADMIN_TOKEN=", "RECSYS_AIRFLOW_PASSWORD=", "AIRFLOW__"))
    ]
    assert len(secrets) == 5
    logs = [*live.settings.logs.rglob("*.log"), *live.settings.home.rglob(".airflow/logs/**/*.log")]
    for log in logs:
        text = log.read_text(errors="replace")
        assert not any(secret in text for secret in secrets), log


def _recommend(live: LiveStack, user: str) -> dict[str, Any]:
    body = {"user_id": user, "topk": TOPK}
    response = requests.post(f"{live.service_url}/recommend", json=body, timeout=10)
    assert response.ok, response.text
    return dict(response.json())
