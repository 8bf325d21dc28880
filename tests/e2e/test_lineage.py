"""What came of what, in Airflow's own words; and a dropped file on its way to an answer."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
import requests

from recsys.data.sample import write_sample_shop
from recsys.data.staging import waiting_files
from recsys.data.versions import current_version, list_versions
from recsys.orchestration.causes import DONE
from recsys.orchestration.client import ENDED
from recsys.orchestration.environment import read_env
from recsys.orchestration.stack import Stack
from recsys.schedule import MADE_BY
from recsys.settings import REPOSITORY
from tests.live_stack import LiveStack, make_home, wait_for

pytestmark = [pytest.mark.boots, pytest.mark.timeout(900)]

FOLLOWING = {
    "data_refresh": ["raw_drop"],
    "model_training": ["data_version"],
    "model_deployment": ["selected_model"],
}
NEWCOMER = "lan-anh"


@pytest.fixture(scope="module")
def rows(home_folder: Path) -> pd.DataFrame:
    """What the shop drops later, last first: it is in no file of the source."""
    shop = write_sample_shop(home_folder / "data" / "raw" / "viecomrec", reviews=6_000)
    reviews = pd.read_csv(shop.reviews_path, dtype=str, keep_default_na=False)
    liked = reviews[reviews["rating"] == "5"].drop_duplicates("product_id")
    later = reviews.tail(40)
    reviews.drop(index=later.index).to_csv(shop.reviews_path, index=False)
    newcomer = liked.head(8).assign(user_id=NEWCOMER)
    return pd.concat([newcomer, later], ignore_index=True)


@pytest.fixture(scope="module")
def live(rows: pd.DataFrame, stopped_afterwards: Path) -> LiveStack:
    stack = make_home(stopped_afterwards)
    config = stopped_afterwards / "config"
    config.mkdir()
    schedule = json.loads((REPOSITORY / "config" / "scheduler_config.json").read_text())
    far = (datetime.now(ZoneInfo(schedule["timezone"])).hour + 12) % 24
    for job, entry in schedule["jobs"].items():
        entry |= {"enabled": job in FOLLOWING, "cron": f"0 {far} * * *"}
        entry |= {"after": FOLLOWING.get(job, [])}
    (config / "scheduler_config.json").write_text(json.dumps(schedule))
    training = {"model_types": ["item_knn"], "tuning": {"trials": 2}}
    (config / "training.yaml").write_text(json.dumps(training))
    # A job that is switched on is watched for from the next reading of its file on.
    often = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5"}
    stack = replace(stack, env={**stack.env, **often})
    started = stack.recsys("scheduler", "start")
    assert started.returncode == 0, started.stderr
    wait_for(lambda: set(FOLLOWING) <= set(stack.client.dags()), 120, "all DAGs are read")
    # The first answer of the API that tasks report to takes more than they wait, on a busy machine.
    port = read_env(stack.settings)["AIRFLOW_EXECUTION_PORT"]
    requests.get(f"http://127.0.0.1:{port}/execution/health/ping", timeout=300)
    return stack


def drop(live: LiveStack, name: str, rows: pd.DataFrame) -> None:
    """As the manual says: under another name first."""
    folder = live.settings.staging / "files"
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / f"{name}.part", index=False)
    (folder / f"{name}.part").rename(folder / name)


def runs(live: LiveStack, job: str, run_type: str | None = None) -> list[dict[str, Any]]:
    found = live.airflow("GET", f"/dags/{job}/dagRuns?limit=100&order_by=id")["dag_runs"]
    return [run for run in found if run_type in (None, run["run_type"])]


def wait_until_idle(live: LiveStack, job: str, at_least: int) -> None:
    """Until so many runs have ended, and no other one is to come or at work."""

    def idle() -> bool:
        states = [run["state"] for run in runs(live, job)]
        return len(states) >= at_least and all(state in ENDED for state in states)

    wait_for(idle, 240, f"the end of {at_least} runs of {job}")


def summary(live: LiveStack, job: str, run: Mapping[str, Any]) -> dict[str, Any]:
    return live.client.returned_values(job, run["dag_run_id"])


def did_nothing(live: LiveStack, job: str, run: Mapping[str, Any]) -> bool:
    return any(DONE in step for step in summary(live, job, run).values() if isinstance(step, dict))


def asset_id(live: LiveStack, name: str) -> int:
    found = live.airflow("GET", f"/assets?name_pattern={name}")["assets"]
    return next(int(asset["id"]) for asset in found if asset["name"] == name)


def tell_of_a_drop(live: LiveStack) -> None:
    """As the watcher does, at a moment that the test chooses."""
    body = {"asset_id": asset_id(live, "raw_drop"), "extra": {}}
    live.airflow("POST", "/assets/events", body)


def events(live: LiveStack, name: str) -> list[dict[str, Any]]:
    path = f"/assets/events?asset_id={asset_id(live, name)}&limit=100&order_by=timestamp"
    return list(live.airflow("GET", path)["asset_events"])


def test_what_is_due_by_the_clock_and_by_a_drop_at_once_is_done_once(live, rows):
    supervisor = Stack(live.settings)._supervisor.supervisor
    supervisor.stopProcess("scheduler")
    # Switched on now, the job is late by a run of the clock, which the scheduler has to catch up.
    live.client.unpause("data_refresh")
    drop(live, "first.csv", rows.tail(20))
    tell_of_a_drop(live)
    tell_of_a_drop(live)
    supervisor.startProcess("scheduler")

    wait_for(lambda: len(runs(live, "data_refresh")) >= 2, 120, "both runs")
    wait_until_idle(live, "data_refresh", 2)

    made = runs(live, "data_refresh")  # three if the watcher was as fast as the refresh
    assert {run["run_type"] for run in made} == {"asset_triggered", "scheduled"}
    assert {run["state"] for run in made} == {"success"}
    assert [did_nothing(live, "data_refresh", run) for run in made].count(False) == 1
    assert len(list_versions(live.settings)) == 1
    assert waiting_files(live.settings) == {}
    (event,) = events(live, "data_version")
    assert event["extra"]["id"] == current_version(live.settings).version_id
    assert event["extra"]["files"] == ["first.csv"]


def test_a_dropped_file_is_recommended_from_within_a_quarter_of_an_hour(live, rows):
    for job in ("model_training", "model_deployment"):
        live.client.unpause(job)  # the first model, by the clock
        wait_until_idle(live, job, 1)
        assert runs(live, job)[-1]["state"] == "success"
    assert recommended(live)["fallback"]
    before = {job: len(runs(live, job)) for job in FOLLOWING}

    began = time.monotonic()
    drop(live, "newcomer.csv", rows[rows["user_id"] == NEWCOMER])
    wait_for(lambda: not recommended(live)["fallback"], 900, "a list of the newcomer's own")
    print(f"dropped -> recommended from in {time.monotonic() - began:.0f} s")

    for job in FOLLOWING:
        wait_until_idle(live, job, before[job] + 1)
        (run,) = runs(live, job)[before[job] :]
        assert (run["run_type"], run["state"]) == ("asset_triggered", "success")
        assert not did_nothing(live, job, run)


def recommended(live: LiveStack) -> dict[str, Any]:
    body = {"user_id": NEWCOMER, "topk": 5}
    return dict(requests.post(f"{live.service_url}/recommend", json=body, timeout=10).json())


def test_a_file_that_a_refresh_at_work_takes_in_is_not_refreshed_again(live, rows):
    before, versions = len(runs(live, "data_refresh")), len(list_versions(live.settings))
    drop(live, "second.csv", rows.tail(40).head(20))
    asked = live.client.trigger("data_refresh", {})
    wait_for(
        lambda: live.client.run("data_refresh", asked)["state"] == "running", 60, "the refresh"
    )
    for _ in range(3):
        tell_of_a_drop(live)

    wait_until_idle(live, "data_refresh", before + 2)

    first, *others = runs(live, "data_refresh")[before:]
    assert first["dag_run_id"] == asked
    for run in others:
        assert run["run_type"] == "asset_triggered"
        assert summary(live, "data_refresh", run)["ingest"][DONE] == f"data_refresh__{asked}"
    assert len(list_versions(live.settings)) == versions + 1
    assert waiting_files(live.settings) == {}


def test_each_thing_that_was_made_names_what_it_was_made_of(live):
    told = {name: [event["extra"] for event in events(live, name)] for name in MADE_BY}
    drops = [one["payload"] for one in told["raw_drop"] if "payload" in one]
    assert {"count": 1, "files": ["newcomer.csv"]} in drops
    versions = {one["id"]: one for one in told["data_version"]}
    newcomers = next(one for one in versions.values() if one["files"] == ["newcomer.csv"])
    assert newcomers["previous"] in versions
    assert newcomers["new_rows"] == 8
    page = requests.get(newcomers["link"], timeout=10, allow_redirects=False)
    assert page.status_code != requests.codes.not_found
    selected = {one["id"]: one for one in told["selected_model"]}
    assert {one["data_version"] for one in selected.values()} <= versions.keys()
    assert {one["id"] for one in told["served_model"]} <= selected.keys()

    def last_told_serves() -> bool:
        """It is told when the deployment has verified it: a moment after it serves."""
        last = events(live, "served_model")[-1]["extra"]["id"]
        info = requests.get(f"{live.service_url}/model_info", timeout=10).json()
        return bool(last == info["model_id"])

    wait_for(last_told_serves, 120, "the model that serves is told of")


def test_the_graph_of_the_ui_leads_from_the_drop_to_the_outcomes(live):
    node = f"asset:{asset_id(live, 'raw_drop')}"
    path = f"/../../ui/dependencies?node_id={node}&dependency_type=data"
    graph = live.airflow("GET", path)
    names = {one["id"]: one["label"] for one in graph["nodes"]}
    assert {one["label"] for one in graph["nodes"] if one["type"] == "asset"} == set(MADE_BY)
    edges = {(names[one["source_id"]], names[one["target_id"]]) for one in graph["edges"]}
    assert {
        ("raw_drop", "data_refresh.publish"),
        ("data_refresh.publish", "data_version"),
        ("data_version", "model_training.select_best"),
        ("model_training.select_best", "selected_model"),
        ("selected_model", "model_deployment.deploy"),
        ("model_deployment.deploy", "served_model"),
        ("served_model", "outcomes.compute"),
        ("outcomes.compute", "outcomes"),
    } <= edges
