"""Things die under load and in mid-job. Prints a row of the table in docs/reliability.md for each:
answers failed, tasks lost, alerts sent."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
import requests

from recsys.orchestration.client import ENDED, AirflowClient
from tests.containers.engine import Engine, wait_for
from tests.containers.stack import ALL, WELL_SECONDS, Containers, Load, row
from tests.containers.volume import MEGABYTES

END_SECONDS = 900
TOLD_SECONDS = 300


@dataclass(frozen=True)
class Drill:
    """What there is to see of a fault."""

    containers: Containers
    client: AirflowClient

    @contextlib.contextmanager
    def broken(self, what: str, job: str | None = None) -> Iterator[tuple[Load, str]]:
        """Load, and a run of `job` under way; after the block the run must end well, and all
        containers must be well again."""
        with row(self.containers, what) as load:
            run = self.client.trigger(job) if job else ""
            if job:
                self.wait_for_task(job, run)
            yield load, run
            if job:
                assert self.end_of(job, run) == "success"
            self.containers.wait_until_well(WELL_SECONDS, *ALL)
        assert load.lost == []

    def wait_for_task(self, job: str, run: str) -> None:
        def running() -> bool:
            return any(one["state"] == "running" for one in self.client.task_instances(job, run))

        wait_for(running, 120, f"a task of {job} runs")

    def end_of(self, job: str, run: str) -> str:
        def ended() -> str | None:
            with contextlib.suppress(Exception):  # the API server may be what was broken
                state = self.client.run(job, run)["state"]
                return str(state) if state in ENDED else None
            return None

        return str(wait_for(ended, END_SECONDS, f"{job} ends"))

    def kill(self, service: str) -> None:
        """Like the kernel, not like a person: then the engine would not start it again."""
        for container in self.containers.containers(service):
            os.kill(container["State"]["Pid"], signal.SIGKILL)

    def worker_of(self, job: str, run: str) -> int:
        """The pid of the container in which a task runs."""
        names = {one["hostname"] for one in self.client.task_instances(job, run) if one["hostname"]}
        for container in self.containers.containers("worker"):
            if container["Config"]["Hostname"] in names or not names:
                return int(container["State"]["Pid"])
        raise AssertionError(f"no container of {names}")


@pytest.fixture(scope="module")
def drill(serving: Containers) -> Drill:
    serving.wait_until_well(WELL_SECONDS, *ALL)
    return Drill(serving, serving.client)


def test_a_killed_replica_costs_no_answer(drill: Drill):
    with drill.broken("a replica of the service is killed") as (load, _):
        drill.kill("service-1")
        time.sleep(5)
    assert load.failed == 0


def test_both_replicas_may_be_replaced_while_the_proxy_runs(drill: Drill):
    """Each takes the address that the other one had: the proxy asks for both again."""
    compose = drill.containers.compose
    compose("stop", "service-1", "service-2")
    compose("rm", "--force", "service-1", "service-2")
    for service in ("service-2", "service-1"):
        compose("up", "--detach", "--no-deps", service)
    drill.containers.wait_until_well(WELL_SECONDS, "service-1", "service-2")
    wait_for(lambda: drill.containers.recommend().status_code == 200, 10, "an answer")


def test_a_killed_worker_costs_no_task(drill: Drill):
    with drill.broken("a worker is killed in mid-training", "model_training") as (load, run):
        os.kill(drill.worker_of("model_training", run), signal.SIGKILL)
    assert load.failed == 0


@pytest.mark.parametrize(
    ("service", "what"),
    [("scheduler", "the scheduler"), ("postgres", "the database"), ("valkey", "the broker")],
)
def test_a_refresh_ends_well_although_this_is_killed(drill: Drill, service: str, what: str):
    with drill.broken(f"{what} is killed in mid-refresh", "data_refresh") as (load, _):
        drill.kill(service)
    assert load.failed == 0


def test_a_full_volume_costs_no_answer_and_is_told(drill: Drill):
    with drill.broken("the volume of state is full, until somebody is told") as (load, _):
        began = datetime.now(UTC)
        fill(drill.containers)
        try:
            wait_for(lambda: drill.containers.told_since(began), TOLD_SECONDS, "a mail")
        finally:
            drill.containers.compose("exec", "-T", "worker", "rm", "-f", "/state/filling")
    assert load.failed == 0


def test_everything_comes_back_after_the_engine(drill: Drill, engine: Engine):
    with drill.broken("the engine is restarted") as (load, _):
        engine.stop()
        stopped = time.monotonic()
        engine.start()
        wait_for(lambda: answers(drill.containers), WELL_SECONDS, "an answer")
        print(f"first answer after {time.monotonic() - stopped:.0f} s")
    assert load.answers[200] > 0


def fill(containers: Containers) -> None:
    """Write until nothing more goes onto the volume, which must be a small one."""
    worker = ("exec", "-T", "worker", "sh", "-c")
    size = containers.compose(*worker, "df -k --output=size /state | tail -1")
    assert int(size) <= MEGABYTES * 1000, "the volume is not the small one"
    containers.compose(*worker, "cat /dev/zero >/state/filling; test -s /state/filling")


def answers(containers: Containers) -> bool:
    with contextlib.suppress(requests.RequestException):
        return containers.recommend().status_code == 200
    return False
