"""The exporter and an Airflow scheduler as operators start them, in processes of their own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import requests

from recsys.settings import REPOSITORY, Settings


def free_udp_port() -> int:
    """A loopback UDP port that nothing listens on."""
    with contextlib.closing(socket.socket(type=socket.SOCK_DGRAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def exporter_process(
    settings: Settings, port: int, statsd_port: int, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The exporter as its operators start it; it must end cleanly."""
    path = f"{REPOSITORY}:{REPOSITORY / 'include'}"
    environment = os.environ | {"RECSYS_HOME": str(settings.home), "PYTHONPATH": path} | variables
    command = [sys.executable, "-m", "recsys", "exporter"]
    command += ["--port", str(port), "--statsd-port", str(statsd_port)]
    process = subprocess.Popen(command, env=environment, cwd=REPOSITORY)
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).ok:
                    break
            assert process.poll() is None, "the exporter ended"
            assert time.monotonic() < until, "the exporter does not answer"
            time.sleep(0.05)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()


def start_scheduler(home: Path, log: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """An Airflow scheduler that leads a session, over ``airflow.db`` in its `home`."""
    foreign = ("AIRFLOW", "RECSYS_")
    kept = {name: one for name, one in os.environ.items() if not name.startswith(foreign)}
    own = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    }
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "airflow", "scheduler"],
            env={**kept, **own, **variables},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
