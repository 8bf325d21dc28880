"""A real stack (Airflow, service, supervisor) in a temporary home on ports of its own."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from recsys.orchestration.client import ENDED, AirflowClient
from recsys.orchestration.environment import read_env
from recsys.orchestration.stack import Stack
from recsys.settings import Settings
from recsys.tracking import PipelineTracker
from tests.ports import find_free_port


@dataclass(frozen=True)
class LiveStack:
    """Handles on a running stack."""

    settings: Settings
    env: Mapping[str, str]

    @property
    def client(self) -> AirflowClient:
        stored = read_env(self.settings)
        return AirflowClient(
            f"http://127.0.0.1:{stored['AIRFLOW_PORT']}",
            stored["RECSYS_AIRFLOW_USER"],
            stored["RECSYS_AIRFLOW_PASSWORD"],
        )

    @property
    def service_url(self) -> str:
        return f"http://127.0.0.1:{read_env(self.settings)['RECSYS_SERVICE_PORT']}"

    @property
    def tracker(self) -> PipelineTracker:
        return PipelineTracker(self.settings.pipeline_db)

    def airflow(self, method: str, path: str, body: Any = None) -> Any:
        """One request to Airflow's REST API as the stack's user; the content of the answer."""
        stored = read_env(self.settings)
        credentials = {
            "username": stored["RECSYS_AIRFLOW_USER"],
            "password": stored["RECSYS_AIRFLOW_PASSWORD"],
        }
        url = self.client.url
        token = requests.post(f"{url}/auth/token", json=credentials, timeout=30).json()
        answer = requests.request(
            method,
            f"{url}/api/v2{path}",
            json=body,
            headers={"Authorization": f"Bearer {token['access_token']}"},
            timeout=30,
        )
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    @contextlib.contextmanager
    def without_service(self) -> Iterator[None]:
        """The supervisor keeps the service stopped during the block."""
        supervisor = Stack(self.settings)._supervisor.supervisor
        supervisor.stopProcess("service")
        try:
            yield
        finally:
            supervisor.startProcess("service")

    def recsys(self, *arguments: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        """Run ``python -m recsys ...`` as a person in this home would."""
        return subprocess.run(
            [sys.executable, "-m", "recsys", *arguments],
            env=dict(self.env),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def component_pid(self, name: str) -> int:
        parts = json.loads(self.recsys("scheduler", "status", "--json").stdout)["components"]
        return next(part["pid"] for part in parts if part["name"] == name)


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `condition`, asked twice a second."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.5)
    pytest.fail(f"not within {seconds:g} s: {what}")


def wait_for_end(client: AirflowClient, job: str, run_id: str, seconds: float = 120) -> str:
    """The state in which a run ended."""
    wait_for(
        lambda: client.run(job, run_id)["state"] in ENDED, seconds, f"the end of {job} {run_id}"
    )
    return str(client.run(job, run_id)["state"])


def make_home(home: Path, variables: Mapping[str, str] | None = None) -> LiveStack:
    """A state root with ports of its own and `variables` in its ``.env``; nothing started."""
    home.mkdir(parents=True, exist_ok=True)
    names = (
        "AIRFLOW_PORT",
        "AIRFLOW_EXECUTION_PORT",
        "RECSYS_SERVICE_PORT",
        "AIRFLOW_WORKER_LOG_PORT",
        "AIRFLOW_TRIGGERER_LOG_PORT",
    )
    values = {name: str(find_free_port()) for name in names}
    values |= {"RECSYS_AIRFLOW_USER": "admin", **(variables or {})}
    (home / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "RECSYS_"))
    }
    # Reading unchanged DAG files again and again takes a third of a core.
    rarely = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600"}
    return LiveStack(Settings(home), {**inherited, **rarely, "RECSYS_HOME": str(home)})
