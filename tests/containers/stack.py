"""The containers of docker-compose.yaml, started as docs/production.md says, from a checkout of
their own."""

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
import yaml

from recsys.orchestration.client import AirflowClient
from recsys.settings import REPOSITORY
from tests.containers.engine import ROOT, Engine, wait_for
from tests.ports import find_free_port

FILES = ("docker-compose.yaml", "Dockerfile", ".dockerignore")
FOLDERS = ("docker", "config", "dags", "plugins", "include", "serving", "monitoring")
RECIPIENT = "team@example.com"
# Long enough to be interrupted, short enough to be waited for.
TUNING_SECONDS = 6
VERSION = "local"
PROFILES = ("--profile", "dev", "--profile", "monitoring")
READY_SECONDS = 5
WELL_SECONDS = 600
AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")
ALL = (*AIRFLOW, "service-1", "service-2", "exporter")
PORTS = ("AIRFLOW_PORT", "RECSYS_SERVICE_PORT", "MAIL_PORT", "PROMETHEUS_PORT")


@dataclass(frozen=True)
class Containers:
    """A checkout, and the containers that were started from it."""

    engine: Engine
    checkout: Path
    ports: dict[str, int]

    @property
    def url(self) -> str:
        """Where the service is published."""
        return f"http://127.0.0.1:{self.ports['RECSYS_SERVICE_PORT']}"

    @property
    def variables(self) -> dict[str, str]:
        lines = (self.checkout / "docker" / "cluster.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line and line[0] != "#")

    @property
    def client(self) -> AirflowClient:
        """One who asks Airflow from outside."""
        known = self.variables
        url = f"http://127.0.0.1:{self.ports['AIRFLOW_PORT']}"
        return AirflowClient(url, known["RECSYS_AIRFLOW_USER"], known["RECSYS_AIRFLOW_PASSWORD"])

    def compose(self, *arguments: str, **options: Any) -> str:
        command = ["docker", "compose", "--env-file", "docker/cluster.env", *arguments]
        return self.engine.run(command, cwd=self.checkout, **options)

    def build(self, index: str, version: str = VERSION) -> None:
        """Both images, as documented. `index` has the CPU build of torch."""
        env = {"PIP_EXTRA_INDEX_URL": index, "RECSYS_VERSION": version}
        self.compose("build", "--quiet", "initialise", "service-1", env=env, timeout=1200)

    def up(self) -> None:
        """Start everything but Grafana, which no package has."""
        services = self.compose(*PROFILES, "config", "--services").split()
        services.remove("grafana")
        self.compose(*PROFILES, "up", "--detach", "--quiet-pull", *services)

    def script(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One of the scripts in docker/, as a person runs it."""
        return subprocess.run(
            [sys.executable, str(self.checkout / "docker" / name), *arguments],
            env=dict(self.engine.environment),
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def recsys(self, *arguments: str, timeout: float = 600) -> str:
        """A command in a worker's container."""
        command = ("exec", "-T", "worker", "python", "-m", "recsys", *arguments)
        return self.compose(*command, timeout=timeout)

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """What the engine knows of the containers of `services`, of all by default."""
        ids = self.compose("ps", "--all", "--quiet", *services).split()
        return list(json.loads(self.engine.docker("inspect", *ids))) if ids else []

    def health(self, *services: str) -> dict[str, str]:
        """By container: healthy, unhealthy, starting, or its state if it has no health."""
        return {
            one["Name"].removeprefix("/recsys-"): one["State"]
            .get("Health", {})
            .get("Status", one["State"]["Status"])
            for one in self.containers(*services)
        }

    def wait_until_well(self, seconds: float, *services: str) -> None:
        def all_well() -> bool:
            states = self.health(*services)
            states.pop("initialise-1", None)
            return bool(states) and set(states.values()) == {"healthy"}

        try:
            wait_for(all_well, seconds, "healthy")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.health(*services)}") from error

    def address(self, service: str) -> str:
        """Where this machine reaches a container that publishes no port."""
        (container,) = self.containers(service)
        return str(container["NetworkSettings"]["Networks"]["recsys_outside"]["IPAddress"])

    def mails(self) -> list[dict[str, Any]]:
        """What the mail catcher has, newest first."""
        url = f"http://127.0.0.1:{self.ports['MAIL_PORT']}/api/v1/messages"
        return list(requests.get(url, timeout=10).json()["messages"])

    def told_since(self, moment: datetime) -> list[str]:
        """Subjects of the mails, by the product or by Alertmanager, oldest first."""
        mails = reversed(self.mails())
        return [mail["Subject"] for mail in mails if mail["Created"] > moment.isoformat()]

    def failed_since(self, moment: datetime) -> list[str]:
        """Runs that ended since then and not well, of all jobs."""
        client, earlier = self.client, moment - timedelta(hours=2)  # none takes longer
        runs = (run for job in client.dags() for run in client.runs_since(job, earlier))
        failed = (run for run in runs if run["state"] == "failed")
        return [
            run["dag_run_id"] for run in failed if datetime.fromisoformat(run["end_date"]) >= moment
        ]

    def recommend(self, user: str = "1") -> requests.Response:
        return requests.post(f"{self.url}/recommend", json={"user_id": user}, timeout=30)


@dataclass
class Load:
    """Customers who ask without a pause, and what they were answered, by status; 0 for nothing.
    Afterwards also the runs that were `lost`."""

    containers: Containers
    answers: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(4)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> int:
        return self.answers.total() - self.answers[200]

    def _ask(self, number: int) -> None:
        session, asked = requests.Session(), 0
        while not self._stop.is_set():
            asked += 1
            body = {"user_id": str(number * 1000 + asked % 500)}
            try:
                answer = session.post(f"{self.containers.url}/recommend", json=body, timeout=30)
                self.answers[answer.status_code] += 1
            except requests.RequestException as error:
                self.answers[0] += 1
                self.errors[str(error)[-200:]] += 1
            time.sleep(0.1)


@contextlib.contextmanager
def row(containers: Containers, what: str) -> Iterator[Load]:
    """Load; after the block prints a row of docs/reliability.md: answers, those that failed, runs
    that failed, mails, seconds."""
    began = datetime.now(UTC)
    with Load(containers) as load:
        yield load
    seconds = (datetime.now(UTC) - began).total_seconds()
    load.lost, told = containers.failed_since(began), containers.told_since(began)
    figures = f"{load.answers.total():,} | {load.failed} | {len(load.lost)} | {len(told)}"
    print(f"| {what} | {figures} | {seconds:.0f} s |", *told, flush=True)
    for error, count in load.errors.most_common(3):
        print(f"{count} times no answer: {error}")


def status(url: str) -> int:
    """What the service at `url` says of its health; 0 if nothing."""
    try:
        return requests.get(f"{url}/health", timeout=5).status_code
    except requests.RequestException:
        return 0


def ask_within(containers: Containers, service: str, *options: str) -> Any:
    """The lists of one replica, without its times and ids of requests."""
    code = (
        "import json, urllib.request as web\n"
        "body = json.dumps({'user_id': '1'}).encode()\n"
        "head = {'Content-Type': 'application/json'}\n"
        "asked = web.Request('http://127.0.0.1:8000/recommend', body, head)\n"
        "print(web.urlopen(asked, timeout=10).read().decode())"
    )
    answer = json.loads(containers.compose(*options, "exec", "-T", service, "python", "-c", code))
    return answer["model_id"], [one["product_id"] for one in answer["recommendations"]]


def make_checkout(folder: Path) -> None:
    """What a clone has, with a short search for parameters, and mails to the catcher."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in (*FILES, *(path.name for path in REPOSITORY.glob("requirements*.txt"))):
        shutil.copy2(REPOSITORY / name, folder)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "cluster.env", "cluster.env.new", "*.dump")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    config = folder / "config"
    training = yaml.safe_load((config / "training.yaml").read_text(encoding="utf-8"))
    training["tuning"]["seconds"] = TUNING_SECONDS
    training["model_types"] = ["als", "item_knn"]
    (config / "training.yaml").write_text(yaml.safe_dump(training))
    alerts = (config / "alerts_config.yaml").read_text(encoding="utf-8")
    assert 'password: "${ALERT_EMAIL_PASSWORD}"' in alerts
    alerts = alerts.replace('password: "${ALERT_EMAIL_PASSWORD}"', "password: null")
    (config / "alerts_config.yaml").write_text(alerts, encoding="utf-8")


def new_containers(engine: Engine) -> Containers:
    """A checkout with `docker/cluster.env`; nothing is built or started."""
    checkout = ROOT / "checkout"
    make_checkout(checkout)
    ports = {name: find_free_port() for name in PORTS}
    containers = Containers(engine, checkout, ports)
    assert containers.script("write_env.py").returncode == 0
    path = checkout / "docker" / "cluster.env"
    set_variables(path, {name: str(port) for name, port in ports.items()})
    set_variables(path, {"SMTP_SERVER": "mail", "ALERT_EMAIL_SENDER": "alerts@example.com"})
    set_variables(path, {"RECSYS_STATSD": "True"})
    return containers


def set_variables(path: Path, values: dict[str, str]) -> None:
    """As a person does it with an editor."""
    lines = path.read_text().splitlines()
    names = [line.partition("=")[0] for line in lines]
    for name, value in values.items():
        lines[names.index(name)] = f"{name}={value}"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)
