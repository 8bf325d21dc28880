"""The production shape at work: PostgreSQL, Celery, two schedulers, two workers, two services.

Each worker and each service has a state root of its own, and a bucket is all that they share.
The tests follow the life of one cluster and run in this order.
"""

import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from recsys.data.versions import current_version
from recsys.orchestration.client import ENDED, AirflowError
from recsys.orchestration.mirror import tracker_id
from recsys.registry import Registry
from recsys.schedule import load_schedule
from tests.cluster.native import Cluster
from tests.cluster.shape import WORKERS
from tests.live_stack import wait_for

pytestmark = [pytest.mark.boots, pytest.mark.timeout(600)]

# A lost worker's heartbeat times out after 30 s; ten seconds later its task is tried again.
END_SECONDS = 180
SMALL_RUNS = {
    "model_deployment": {"dry_run": True},
    "health_check": {"component": "data"},
}


@dataclass(frozen=True)
class Chain:
    """The runs of refresh, training and deployment, and the index of the training that was cut."""

    runs: dict[str, str]
    cut: int


@pytest.fixture(scope="session")
def chain(cluster: Cluster) -> Chain:
    runs = {"data_refresh": cluster.client.trigger("data_refresh")}
    with cluster.without_new_tasks(first_worker_of(cluster, "data_refresh", runs["data_refresh"])):
        end_of(cluster, "data_refresh", runs["data_refresh"])
    runs["model_training"] = cluster.client.trigger("model_training")
    task = running_task(cluster, "model_training", runs["model_training"], "train")
    worker = cluster.worker_of(task["pid"])
    assert worker is not None
    cluster.kill(worker)
    end_of(cluster, "model_training", runs["model_training"])
    # The other one did it alone: nobody has started this one again until now.
    assert cluster.pid(worker) == 0
    cluster.start(worker)
    runs["model_deployment"] = cluster.client.trigger("model_deployment")
    end_of(cluster, "model_deployment", runs["model_deployment"])
    return Chain(runs, task["map_index"])


def test_the_chain_succeeds_although_a_worker_is_killed_in_mid_training(cluster, chain):
    states = {job: cluster.client.run(job, run)["state"] for job, run in chain.runs.items()}
    assert set(states.values()) == {"success"}, states
    tries = {
        task["map_index"]: task["try_number"]
        for task in cluster.client.task_instances("model_training", chain.runs["model_training"])
        if task["task_id"] == "train"
    }
    assert tries == {chain.cut: 2, 1 - chain.cut: 1}


def test_the_tasks_of_a_refresh_met_only_in_the_bucket(cluster, chain):
    first, second = (
        cluster.tasks_on(worker, "data_refresh", chain.runs["data_refresh"]) for worker in WORKERS
    )
    assert first
    assert second
    steps = {"ingest", "score_comments", "publish", "report_quality", "find_new_texts"}
    assert first | second == steps
    current_version(cluster.onlooker).verify()


def test_the_killed_training_left_one_model_of_each_type(cluster, chain):
    entries = Registry(cluster.onlooker).list()
    assert sorted(entry.model_type for entry in entries) == ["als", "item_knn"]
    published = current_version(cluster.onlooker).version_id
    assert {entry.data_version for entry in entries} == {published}


def test_both_services_serve_the_best_model_and_answer_alike(cluster, chain):
    best = Registry(cluster.onlooker).current_best()
    assert best is not None
    replicas = [cluster.shape.address(name) for name in ("service-1", "service-2")]
    served = [requests.get(f"{url}/model_info", timeout=10).json()["model_id"] for url in replicas]
    assert served == [best.model_id] * 2
    interactions = current_version(cluster.onlooker).interactions(["user_id"])
    customer = str(interactions["user_id"].value_counts().index[0])
    answers = [
        requests.post(f"{url}/recommend", json={"user_id": customer, "topk": 5}, timeout=10).json()
        for url in replicas
    ]
    products = [[item["product_id"] for item in answer["recommendations"]] for answer in answers]
    assert products[0] == products[1]
    assert not answers[0]["fallback"]
    assert all(cluster.is_well(name) for name in ("service-1", "service-2"))


def test_every_run_is_mirrored_once_with_two_schedulers_at_work(cluster, chain):
    started = [
        (job, cluster.client.trigger(job, conf))
        for _ in range(2)
        for job, conf in SMALL_RUNS.items()
    ]
    for job, run_id in started:
        assert end_of(cluster, job, run_id) == "success"
    assert cluster.execute("SELECT count(DISTINCT queued_by_job_id) FROM task_instance") == 2
    assert_mirrored(cluster)
    # Rows have a key and cannot double, and a health check repairs what is missing. Lines do not.
    path = cluster.settings.logs / "scheduler" / "scheduler.log"
    expected = 2 * [len(all_runs(cluster))]

    def lines() -> list[int]:
        log = path.read_text(encoding="utf-8")
        patterns = ("Starting job: ", "Job completed: .*status=success")
        return [len(re.findall(pattern, log)) for pattern in patterns]

    wait_for(lambda: lines() == expected, 10, f"{expected} lines in the scheduler's log")


def test_a_run_ends_right_although_a_scheduler_is_killed_and_the_database_restarted(cluster, chain):
    before = current_version(cluster.onlooker).version_id
    run_id = cluster.client.trigger("data_refresh", {"force_full": True})
    running_task(cluster, "data_refresh", run_id)
    cluster.kill("scheduler-1")
    cluster.restart_database()
    assert end_of(cluster, "data_refresh", run_id) == "success"
    assert current_version(cluster.onlooker).version_id != before
    for name in ("api-server", "scheduler-1", "dag-processor", "triggerer"):
        wait_for(lambda name=name: cluster.is_well(name), 60, f"{name} is well again")
    cluster.run("-m", "recsys", "tracker", "reconcile")
    assert_mirrored(cluster)


def test_maintenance_cleans_airflows_records_from_a_worker(cluster, chain):
    cluster.execute("UPDATE log SET dttm = dttm - interval '200 days' WHERE event LIKE 'cli_%'")
    old = "SELECT count(*) FROM log WHERE dttm < now() - interval '100 days'"
    aged = cluster.execute(old)
    assert aged
    run_id = cluster.client.trigger("maintenance")
    assert end_of(cluster, "maintenance", run_id) == "success"
    summary = cluster.client.returned_values("maintenance", run_id)["summarise"]
    assert summary["removed"]["Airflow's records"]["count"] == aged
    assert not cluster.execute(old)
    # The record of runs, which it cleans as well, is on the first worker's machine.
    assert not cluster.tasks_on("worker-2", "maintenance", run_id)


def running_task(
    cluster: Cluster, job: str, run_id: str, task_id: str | None = None
) -> dict[str, Any]:
    """The instance of the task (or of any) that runs in a process of a worker by now."""

    def find() -> dict[str, Any] | None:
        for task in cluster.client.task_instances(job, run_id):
            named = task_id in (None, task["task_id"])
            if named and task["state"] == "running" and task["pid"]:
                return task
        return None

    return dict(wait_for(find, 60, f"a task of {job} runs"))


def first_worker_of(cluster: Cluster, job: str, run_id: str) -> str:
    """The worker that the run's first task landed on."""

    def find() -> str | None:
        found = [worker for worker in WORKERS if cluster.tasks_on(worker, job, run_id)]
        return found[0] if found else None

    return str(wait_for(find, 60, f"a task of {job} is begun"))


def end_of(cluster: Cluster, job: str, run_id: str) -> str:
    """The state in which a run ended. An API server without a database is waited for."""

    def ended() -> str | None:
        with contextlib.suppress(AirflowError):
            state = str(cluster.client.run(job, run_id)["state"])
            return state if state in ENDED else None
        return None

    return str(wait_for(ended, END_SECONDS, f"the end of {job} {run_id}"))


def all_runs(cluster: Cluster) -> dict[str, str]:
    """The states of all runs that Airflow knows, by their id in the mirror."""
    since = datetime.now(UTC) - timedelta(days=1)
    return {
        tracker_id(job, run["dag_run_id"]): run["state"]
        for job in load_schedule(cluster.settings).jobs
        for run in cluster.client.runs_since(job, since)
    }


def assert_mirrored(cluster: Cluster) -> None:
    """The mirror has the runs that Airflow has, no more and no fewer, in the same states."""
    expected = all_runs(cluster)
    assert set(expected.values()) <= ENDED

    def mirrored() -> dict[str, str]:
        rows = cluster.tracker.get_recent_runs(limit=1000)
        assert len(rows) == len({row["run_id"] for row in rows})
        return {row["run_id"]: row["status"] for row in rows}

    # The mirror writes in the background.
    wait_for(lambda: mirrored() == expected, 10, f"{expected} in the mirror")
    for row in cluster.tracker.get_recent_runs(limit=1000):
        assert row["duration_seconds"] > 0
        assert row["metadata"]["summary"]
