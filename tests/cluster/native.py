"""The containers of docker-compose.yaml as plain processes of this machine.

Commands and environments are the compose file's, only addresses and folders differ: the processes
of one machine share a state root, machines share nothing but a bucket. The supervisor
starts again what dies, as the containers' restart policy does; a worker that was killed stays away,
as if its host were gone.
"""

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import xmlrpc.client
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
from celery import Celery
from supervisor.xmlrpc import SupervisorTransport

from recsys.orchestration.client import AirflowClient
from recsys.orchestration.stack import end_processes, session_processes
from recsys.settings import REPOSITORY, Settings
from recsys.tracking import PipelineTracker
from tests.cluster.shape import (
    CONTAINER_OF,
    DEFAULT_QUEUE,
    MAIN,
    SCHEDULERS,
    WORKERS,
    Shape,
    make_shape,
)
from tests.live_stack import wait_for
from tests.test_compose import DOCKER

DATABASE_USER = "postgres"
SUPERVISOR = """
[unix_http_server]
file = {folder}/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisord]
logfile = {logs}/supervisord.log
pidfile = {folder}/supervisord.pid
childlogdir = {folder}
"""
PROGRAM = """
[program:{name}]
command = {command}
environment = {environment}
directory = {directory}
autostart = false
autorestart = {restart}
startsecs = 1
startretries = 20
stopasgroup = true
killasgroup = true
stopsignal = {stop}
stopwaitsecs = 15
redirect_stderr = true
stdout_logfile = {logs}/{name}.log
{user}
"""


@dataclass(frozen=True)
class Servers:
    """The programs that the distribution's packages bring."""

    postgres: str
    initdb: str
    broker: str


def find_servers() -> Servers:
    """Skips the test where they are not installed and could not be."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    search = os.pathsep.join([os.environ.get("PATH", ""), *map(str, debian)])
    found = [shutil.which(name, path=search) for name in ("postgres", "initdb")]
    found.append(shutil.which("valkey-server") or shutil.which("redis-server"))
    names = [name for name in found if name]
    if len(names) < len(found):
        pytest.skip("needs the packages postgresql and redis-server: run make cluster-packages")
    return Servers(*names)


@dataclass(frozen=True)
class Cluster:
    """A running cluster: its processes by name, and what one asks of it.

    Attributes
    ----------
    settings
        Of the machine with the schedulers: its state root has the record of runs.
    onlooker
        Of a machine without a process: what it sees is in the bucket.
    """

    folder: Path
    settings: Settings
    onlooker: Settings
    shape: Shape
    environments: Mapping[str, Mapping[str, str]]

    @property
    def supervisor(self) -> Any:
        transport = SupervisorTransport("", "", f"unix://{self.folder}/supervisor.sock")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    @functools.cached_property
    def client(self) -> AirflowClient:
        names = ("RECSYS_AIRFLOW_URL", "RECSYS_AIRFLOW_USER", "RECSYS_AIRFLOW_PASSWORD")
        return AirflowClient(*(self.environments["worker-1"][name] for name in names))

    @property
    def tracker(self) -> PipelineTracker:
        return PipelineTracker(self.settings.pipeline_db)

    def start(self, *names: str) -> None:
        for name in names:
            self.supervisor.startProcess(name, False)

    def is_well(self, name: str) -> bool:
        """What the container's health check says."""
        done = subprocess.run(
            [sys.executable, str(DOCKER / "healthcheck.py")],
            env=dict(self.environments[name]),
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    def run(self, *words: str) -> str:
        """The output of a command in the environment of a worker's container."""
        done = subprocess.run(
            [sys.executable, *words],
            env=dict(self.environments["worker-1"]),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pid(self, name: str) -> int:
        """0 if it does not run."""
        return int(self.supervisor.getProcessInfo(name)["pid"])

    def tasks_on(self, worker: str, job: str, run_id: str) -> set[str]:
        """The tasks of a run that the worker has begun: their logs are on its machine."""
        logs = Path(self.environments[worker]["AIRFLOW__LOGGING__BASE_LOG_FOLDER"])
        folders = (logs / f"dag_id={job}" / f"run_id={run_id}").glob("task_id=*")
        return {folder.name.removeprefix("task_id=") for folder in folders}

    @contextlib.contextmanager
    def without_new_tasks(self, worker: str) -> Iterator[None]:
        """The worker finishes what it has and takes nothing more for the block."""
        broker = self.environments[worker]["AIRFLOW__CELERY__BROKER_URL"]
        command: dict[str, Any] = {"destination": [f"{worker}@{socket.gethostname()}"]}
        command |= {"reply": True, "timeout": 10}
        with Celery(broker=broker) as app:
            assert app.control.cancel_consumer(DEFAULT_QUEUE, **command)
            yield
            assert app.control.add_consumer(DEFAULT_QUEUE, **command)

    def worker_of(self, pid: int) -> str | None:
        """The worker that the process of a task belongs to."""
        for name in WORKERS:
            if pid in {process.pid for process in _tree(self.pid(name))}:
                return name
        return None

    def kill(self, name: str) -> None:
        """SIGKILL to all processes of a component."""
        for process in _tree(self.pid(name)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)

    def restart_database(self) -> None:
        """A shutdown that cuts every connection, and a start."""
        self.supervisor.stopProcess("postgres")
        self.start("postgres")
        wait_for(lambda: _connects(self.shape, "airflow"), 30, "PostgreSQL is back")

    def execute(self, statement: str) -> Any:
        """The first column of the first row of what Airflow's database answers."""
        return _execute(self.shape, "airflow", statement)


@contextlib.contextmanager
def running_cluster(machines: Mapping[str, Settings], onlooker: Settings) -> Iterator[Cluster]:
    """Everything, with two schedulers, for the block; nothing of it runs afterwards."""
    servers = find_servers()
    # The database's own user has to get in: pytest's folders are closed to others.
    folder = Path(tempfile.mkdtemp(prefix="recsys-cluster-"))
    folder.chmod(0o755)
    shape = make_shape({name: settings.home for name, settings in machines.items()}, folder)
    environments = {name: shape.environment(name) for name in CONTAINER_OF}
    cluster = Cluster(folder, machines[MAIN], onlooker, shape, environments)
    try:
        _create_database(servers, cluster)
        _start_supervisor(servers, cluster)
        _bring_up(cluster)
        yield cluster
    finally:
        _stop(cluster)


def _start_supervisor(servers: Servers, cluster: Cluster) -> None:
    config = cluster.folder / "supervisord.conf"
    config.touch(mode=0o600)
    config.write_text(_supervisor_config(servers, cluster))
    subprocess.run([sys.executable, "-m", "supervisor.supervisord", "-c", str(config)], check=True)
    wait_for((cluster.folder / "supervisor.sock").exists, 15, "the supervisor")


def _bring_up(cluster: Cluster) -> None:
    """In the order of the compose file: what others depend on has to be well first."""
    cluster.start("postgres", "valkey")
    wait_for(lambda: _connects(cluster.shape, "postgres"), 30, "PostgreSQL")
    _execute(cluster.shape, "postgres", "CREATE DATABASE airflow")
    cluster.run(str(DOCKER / "initialise.py"))
    cluster.start("api-server", "service-1", "service-2")
    wait_for(lambda: cluster.is_well("api-server"), 180, "the API server is well")
    cluster.start(*SCHEDULERS, "dag-processor", "triggerer", *WORKERS)
    for name in ("scheduler-1", "dag-processor", "triggerer"):
        wait_for(lambda name=name: cluster.is_well(name), 180, f"{name} is well")


def _stop(cluster: Cluster) -> None:
    record = cluster.folder / "supervisord.pid"
    if record.exists():
        session = int(record.read_text())
        found = {*_tree(session), *session_processes(session)}
        # The supervisor first, or it starts again what ends; it would stop one after the other.
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(session).kill()
        end_processes(list(found))
    shutil.rmtree(cluster.folder)


def _supervisor_config(servers: Servers, cluster: Cluster) -> str:
    shape, folder = cluster.shape, cluster.folder
    # Below pytest's folder, which it keeps for a while: whoever looks into a failure needs them.
    logs = cluster.settings.home / "processes"
    logs.mkdir()
    (folder / "valkey").mkdir()
    environment = {"VALKEY_PASSWORD": shape.variables["VALKEY_PASSWORD"]}
    database = [servers.postgres, "-D", f"{folder}/postgres", "-p", str(shape.ports["postgres"])]
    database += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    programs = [
        # INT is PostgreSQL's fast shutdown: it does not wait for its clients.
        _program(logs, "postgres", " ".join(database), {}, stop="INT", user=_database_user()),
        _program(
            logs,
            "valkey",
            f"/bin/sh -c '{shape.broker_command(servers.broker)}'",
            environment,
            directory=folder / "valkey",
        ),
    ]
    for name, environment in cluster.environments.items():
        command = " ".join(shape.command(name)).replace("%", "%%")
        programs.append(_program(logs, name, command, environment, restart=name not in WORKERS))
    return SUPERVISOR.format(folder=folder, logs=logs) + "".join(programs)


def _program(
    logs: Path,
    name: str,
    command: str,
    environment: Mapping[str, str],
    *,
    directory: Path = REPOSITORY,
    restart: bool = True,
    stop: str = "TERM",
    user: str | None = None,
) -> str:
    pairs = (f'{key}="{value}"'.replace("%", "%%") for key, value in environment.items())
    return PROGRAM.format(
        logs=logs,
        name=name,
        command=command,
        environment=",".join(pairs),
        directory=directory,
        restart=str(restart).lower(),
        stop=stop,
        user=f"user = {user}" if user else "",
    )


def _database_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    return DATABASE_USER if os.getuid() == 0 else None


def _create_database(servers: Servers, cluster: Cluster) -> None:
    data, password = cluster.folder / "postgres", cluster.folder / "password"
    data.mkdir()
    password.touch(mode=0o600)
    password.write_text(cluster.shape.variables["POSTGRES_PASSWORD"])
    user = _database_user()
    if user:
        for path in (data, password):
            shutil.chown(path, user)
    command = [servers.initdb, "-D", str(data), "-U", "airflow", f"--pwfile={password}"]
    command += ["--auth=scram-sha-256", "--data-checksums", "--encoding=UTF8", "--no-sync"]
    subprocess.run(command, user=user, check=True, capture_output=True, cwd=cluster.folder)


def _connects(shape: Shape, database: str) -> bool:
    try:
        return bool(_execute(shape, database, "SELECT true"))
    except psycopg2.OperationalError:
        return False


def _execute(shape: Shape, database: str, statement: str) -> Any:
    connection = psycopg2.connect(
        host="127.0.0.1",
        port=shape.ports["postgres"],
        user="airflow",
        password=shape.variables["POSTGRES_PASSWORD"],
        dbname=database,
    )
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def _tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; none of a process that is gone."""
    try:
        main = psutil.Process(pid) if pid else None
        return [main, *main.children(recursive=True)] if main else []
    except psutil.NoSuchProcess:
        return []
