"""What docker-compose.yaml says of its containers, for processes on loopback addresses."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recsys.settings import REPOSITORY
from tests.ports import find_free_port
from tests.storage.buckets import CREDENTIALS
from tests.test_compose import COMPOSE, DOCKER, VARIABLE

PORTS = ("postgres", "valkey", "api-server", "service-1", "service-2")
SCHEDULERS = ("scheduler-1", "scheduler-2")
WORKERS = ("worker-1", "worker-2")
REPLICAS = ("service-1", "service-2")
# The compose file has one scheduler; a second one must do no harm.
CONTAINER_OF = {
    **dict.fromkeys(SCHEDULERS, "scheduler"),
    **dict.fromkeys(WORKERS, "worker"),
    **{name: name for name in ("api-server", "dag-processor", "triggerer", *REPLICAS)},
}
# The compose file has one host with one volume. Here every worker and every service has a machine
# with a state root of its own; the first worker's is Airflow's own, with the record of runs.
MAIN = "main"
MACHINE_OF = dict.fromkeys(CONTAINER_OF, MAIN) | {
    "worker-2": "second",
    "service-1": "front-1",
    "service-2": "front-2",
}
MACHINES = tuple(dict.fromkeys(MACHINE_OF.values()))
# Jobs that work on files that only the first machine has go to a queue of its worker's own.
DEFAULT_QUEUE, RECORDS_QUEUE = "default", "records"


@dataclass(frozen=True)
class Shape:
    """State roots by machine, where everything listens, the variables of ``cluster.env``."""

    homes: Mapping[str, Path]
    ports: Mapping[str, int]
    variables: Mapping[str, str]

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def environment(self, process: str) -> dict[str, str]:
        """The whole environment of a process: the machine's, the image's, the container's."""
        home = self.homes[MACHINE_OF[process]]
        machine = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW", "RECSYS_", "AWS_"))
        }
        named = _services()[CONTAINER_OF[process]]["environment"]
        # Without a value in the file, a variable is passed on if it is set.
        values = {
            name: self.variables.get(name) if value is None else self._place(value, home)
            for name, value in named.items()
        }
        container = {name: value for name, value in values.items() if value is not None}
        own = {
            "PYTHONPATH": f"{REPOSITORY / 'include'}:{REPOSITORY}",
            "RECSYS_HOME": str(home),
            "AIRFLOW_HOME": str(home / ".airflow"),
            "HF_HUB_OFFLINE": "1",
            "AIRFLOW__API__PORT": str(self.ports["api-server"]),
            # A lost worker's task is given up after half the time of production, to wait less.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
            # Containers have network stacks of their own; here each needs a port of its own.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(find_free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(find_free_port()),
        }
        if process in REPLICAS:
            own["RECSYS_SERVICE_PORT"] = str(self.ports[process])
        return machine | container | own

    def command(self, process: str) -> list[str]:
        """What the container runs, by this interpreter."""
        program, *rest = _services()[CONTAINER_OF[process]]["command"]
        words = [sys.executable, *(() if program == "python" else ("-m", program)), *rest]
        if process in WORKERS:
            # Containers have host names of their own, from which Celery makes the worker's name.
            words += ["--celery-hostname", f"{process}@%h"]
        if process in WORKERS and MACHINE_OF[process] == MAIN:
            words += ["--queues", f"{DEFAULT_QUEUE},{RECORDS_QUEUE}"]
        return words

    def broker_command(self, server: str) -> str:
        """The shell command of the broker's container, for the installed `server`."""
        line = str(_services()["valkey"]["command"][-1]).replace("$$", "$")
        line = line.replace("valkey-server", server)
        return f"{line} --bind 127.0.0.1 --port {self.ports['valkey']}"

    def _place(self, text: str, home: Path) -> str:
        text = VARIABLE.sub(lambda found: self.variables.get(found[1]) or found[3] or "", text)
        for there, here in {
            "/app/": f"{REPOSITORY}/",
            "/state": str(home),
            "@postgres/": f"@127.0.0.1:{self.ports['postgres']}/",
            "@valkey:6379": f"@127.0.0.1:{self.ports['valkey']}",
            "http://api-server:8080": self.address("api-server"),
            "http://proxy:8000": self.address("service-1"),
            "http://service-1:8000": self.address("service-1"),
            "http://service-2:8000": self.address("service-2"),
            "0.0.0.0": "127.0.0.1",
        }.items():
            text = text.replace(there, here)
        return text


def make_shape(homes: Mapping[str, Path], folder: Path) -> Shape:
    """Free ports, and fresh secrets by ``docker/write_env.py`` in `folder`."""
    for name in ("write_env.py", "cluster.env.example"):
        (folder / name).write_bytes((DOCKER / name).read_bytes())
    subprocess.run([sys.executable, str(folder / "write_env.py")], check=True, capture_output=True)
    lines = (folder / "cluster.env").read_text(encoding="utf-8").splitlines()
    ports = {name: find_free_port() for name in PORTS}
    variables = dict(line.split("=", 1) for line in lines if line and line[0] != "#")
    variables |= CREDENTIALS | {"AIRFLOW_PORT": str(ports["api-server"])}
    return Shape(homes, ports, variables)


def _services() -> dict[str, Any]:
    return dict(yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"])
