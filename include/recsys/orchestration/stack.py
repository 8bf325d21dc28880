"""The running stack: Airflow's components and the service under supervisord, which starts one with
``python -m recsys.orchestration.stack NAME``."""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import psutil
import requests
from supervisor.xmlrpc import SupervisorTransport

from recsys.errors import InputError
from recsys.orchestration import environment
from recsys.orchestration.environment import StackError
from recsys.settings import REPOSITORY, Settings

# The API that tasks report to is a process of its own. In one process the two APIs can lock each
# other out on SQLite: the event loop waits for the write lock that a task's request holds, and
# that request waits for the event loop to commit (docs/decisions/002-two-api-processes.md).
COMMANDS = {
    "api-server": ("-m", "airflow", "api-server", "--apps", "core"),
    "execution-api": ("-m", "airflow", "api-server", "--apps", "execution"),
    "scheduler": ("-m", "airflow", "scheduler"),
    "dag-processor": ("-m", "airflow", "dag-processor"),
    "triggerer": ("-m", "airflow", "triggerer"),
    "service": ("-m", "serving"),
}
GRACE_SECONDS = 5.0
START_TIMEOUT_SECONDS = 300.0  # a busy machine of two cores needed 130
SUPERVISOR = REPOSITORY / "config" / "supervisord.conf"
POLL_SECONDS = 0.5
PRIVATE_FOLDER = 0o750
PRIVATE_DATABASE = 0o640
HEALTHY_PARTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")


class Stack:
    """Starts, stops and describes the processes of one state root."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._run = environment.airflow_home(settings) / "run"

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other ``make up`` and ``make down`` of this state root out meanwhile."""
        self._run.mkdir(parents=True, exist_ok=True)
        try:
            lock = filelock.FileLock(self._run / "up.lock").acquire(timeout=0)
        except filelock.Timeout:
            at_work = f"another `make up` or `make down` is at work in {self.settings.home}"
            raise InputError(f"{at_work}; wait for it to end") from None
        with lock:
            yield

    def check(self) -> dict[str, str]:
        """The environment to start in. Raises `InputError` for what the caller must change: a port
        in use, or one that is none."""
        environment.ensure_env(self.settings)
        env = environment.stack_environment(self.settings)
        if not self.is_running():
            self._require_free_ports(env)
        return env

    def start(self) -> bool:
        """Start what is not running and wait until Airflow answers; whether anything had to be
        started. Raises as `check` does, and `StackError` when a component does not come up."""
        env, was_running = self.check(), self.is_running()
        if not was_running:
            self._prepare_airflow(env)
            self._start_supervisor(env)
        self.wait_until_healthy(env)
        if was_running:  # a job that was added since needs its pool
            self._import_pools(env)
        return not was_running

    def stop(self) -> bool:
        """Stop everything that belongs to this stack; returns whether anything was running."""
        was_running = self.is_running()
        if was_running:
            with contextlib.suppress(xmlrpc.client.Fault, OSError):
                self._supervisor.supervisor.shutdown()
            deadline = time.monotonic() + 40
            while self.is_running() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        leftovers = []
        if self._session_file.exists():
            session = int(self._session_file.read_text())
            leftovers = session_processes(session, folder=self.settings.home)
        end_processes(leftovers)
        self._session_file.unlink(missing_ok=True)
        return was_running or bool(leftovers)

    def is_running(self) -> bool:
        """Whether the supervisor answers."""
        try:
            return bool(self._supervisor.supervisor.getState()["statename"])
        except (OSError, xmlrpc.client.Error):
            return False

    def components(self) -> list[dict[str, Any]]:
        """Name, state, pid (0 when not running) and uptime in seconds of every component."""
        if not self.is_running():
            stopped = {"state": "STOPPED", "pid": 0, "uptime_seconds": 0}
            return [{"name": name, **stopped} for name in COMMANDS]
        return [
            {
                "name": one["name"],
                "state": one["statename"],
                "pid": one["pid"],
                "uptime_seconds": one["now"] - one["start"] if one["pid"] else 0,
            }
            for one in self._supervisor.supervisor.getAllProcessInfo()
        ]

    def wait_until_healthy(self, env: dict[str, str]) -> None:
        """Wait for Airflow's health page to report a live scheduler and dag-processor."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        url, problem = f"{env['RECSYS_AIRFLOW_URL']}/api/v2/monitor/health", "no answer yet"
        while time.monotonic() < deadline:
            try:
                health = requests.get(url, timeout=5).json()
                states = {name: (part or {}).get("status") for name, part in health.items()}
                if all(states.get(name) == "healthy" for name in HEALTHY_PARTS):
                    return
                problem = str(states)
            except (requests.RequestException, ValueError) as error:
                problem = type(error).__name__
            time.sleep(POLL_SECONDS)
        raise StackError(
            f"Airflow did not come up within {START_TIMEOUT_SECONDS:g} s ({problem}); "
            f"see {self.settings.logs / 'scheduler'}. On a slow machine, start it again: what is "
            "done already is not done twice"
        )

    @property
    def _session_file(self) -> Path:
        """Keeps the number of the session that the supervisor leads, for `stop`."""
        return self._run / "session"

    @property
    def _socket(self) -> Path:
        # A Unix socket's path is limited to about 100 characters; a state root's is not.
        digest = hashlib.sha256(str(self.settings.home).encode()).hexdigest()[:16]
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108
        return runtime / f"recsys-{os.getuid()}-{digest}.sock"

    @property
    def _supervisor(self) -> Any:
        transport = SupervisorTransport("", "", f"unix://{self._socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)

    def _require_free_ports(self, env: dict[str, str]) -> None:
        for name, text in environment.VARIABLES.items():
            if (variable := (text or "").strip("${}")) not in environment.PORTS:
                continue
            port = int(env[name])
            with contextlib.closing(socket.socket()) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    raise InputError(
                        f"port {port} is in use; `make down` ends what is left of this stack, else "
                        f"set {variable} in {self.settings.home / environment.ENV_FILE}"
                    ) from None

    def _prepare_airflow(self, env: dict[str, str]) -> None:
        environment.write_passwords(self.settings)
        for folder in ("scheduler", "service"):
            (self.settings.logs / folder).mkdir(parents=True, exist_ok=True)
        environment.run_airflow(env, "db", "migrate")
        # Sessions, connections and what tasks returned are nobody else's business.
        home = environment.airflow_home(self.settings)
        home.chmod(PRIVATE_FOLDER)
        if (home / "airflow.db").exists():
            (home / "airflow.db").chmod(PRIVATE_DATABASE)
        self._import_pools(env)

    def _import_pools(self, env: dict[str, str]) -> None:
        path = self._run / "pools.json"
        environment.write_pools(self.settings, path)
        environment.run_airflow(env, "pools", "import", str(path))

    def _start_supervisor(self, env: dict[str, str]) -> None:
        own = {"RECSYS_RUN": str(self._run), "RECSYS_SOCKET": str(self._socket)}
        subprocess.run(  # noqa: S603
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(SUPERVISOR)],
            env={**env, **own, "RECSYS_PYTHON": sys.executable},
            cwd=self.settings.home,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 15
        while not self.is_running():
            if time.monotonic() > deadline:
                log = self.settings.logs / "scheduler" / "supervisord.log"
                raise StackError(f"the process supervisor does not answer; see {log}")
            time.sleep(0.1)
        self._session_file.write_text(str(self._supervisor.supervisor.getPID()))


def session_processes(
    session: int, group: int | None = None, folder: Path | None = None
) -> list[psutil.Process]:
    """The living processes of a session (and group, and working folder), without the caller."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if (
                process.pid != os.getpid()
                and os.getsid(process.pid) == session
                and group in (None, os.getpgid(process.pid))
                and (folder is None or Path(process.cwd()) == folder)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
    return found


def end_processes(processes: list[psutil.Process]) -> None:
    """Ask processes to end, and kill those that have not after a grace period."""
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                end(process)
        _, processes = psutil.wait_procs(processes, timeout=GRACE_SECONDS)


def become(component: str) -> None:
    """Clean up after the predecessor, then replace this process by the component.

    One that was killed with SIGKILL leaves its children behind, still holding their ports. They are
    found by process group and session: Airflow overwrites the environment with process titles."""
    record = Path(os.environ["RECSYS_RUN"]) / f"{component}.group"
    if record.exists():
        end_processes(session_processes(os.getsid(0), int(record.read_text())))
    record.write_text(str(os.getpgrp()))
    if component == "execution-api":
        os.environ["AIRFLOW__API__PORT"] = os.environ["RECSYS_EXECUTION_PORT"]
    # What strangers reach has no need of Airflow's keys and password.
    kept = {
        name: value
        for name, value in os.environ.items()
        if component != "service" or not name.startswith(("AIRFLOW", "RECSYS_AIRFLOW"))
    }
    os.execve(sys.executable, [sys.executable, *COMMANDS[component]], kept)  # noqa: S606


if __name__ == "__main__":
    become(sys.argv[1])
