"""Brings a version of the containers into service without an outage; goes back by itself if that
does not become healthy. Gives everything new secrets in the same way, with or without a version.

    python docker/deploy.py VERSION
    python docker/deploy.py --rotate

Needs nothing but Python and docker. Exits with 1 if what served before serves again, with 2 if it
needs you.
"""

import argparse
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from write_env import new_secret, read_values

FOLDER = Path(__file__).resolve().parent
ENV_FILE = FOLDER / "cluster.env"
NEW_ENV_FILE = FOLDER / "cluster.env.new"
DUMP = FOLDER / "cluster.dump"
PRIVATE = 0o600

REPLICAS = ("service-1", "service-2")
AIRFLOW = ("scheduler", "dag-processor", "triggerer", "worker")
WATCHING = ("exporter",)
"""Of the profile monitoring, what has our image: replaced where the profile is used."""
ROTATED = (
    "RECSYS_AIRFLOW_PASSWORD",
    "POSTGRES_PASSWORD",
    "VALKEY_PASSWORD",
    "RECSYS_ADMIN_TOKEN",
    "AIRFLOW_JWT_SECRET",
    "AIRFLOW_SECRET_KEY",
)

HEALTHY_SECONDS = 300.0
QUEUE_SECONDS = 120.0
"""How long workers may take to begin what was handed out before they stop."""
SETTLE_SECONDS = 8.0
"""Until the proxy has asked for the new address of a replica, and has forgotten that it failed."""
RESTARTS = 2
"""So often may a container die before it is given up: waiting on would not make it better."""


class DeployError(RuntimeError):
    """The version cannot be brought into service; the text says why."""


class StrandedError(RuntimeError):
    """What served before cannot be brought back either; the text says why."""


@dataclass(frozen=True)
class Target:
    """What the containers are made from: the version of their images, and their variables."""

    version: str
    env_file: Path

    def compose(
        self,
        *arguments: str,
        stdin: bytes | IO[bytes] | None = None,
        stdout: IO[bytes] | int = subprocess.PIPE,
    ) -> bytes:
        """What `docker compose` prints. Raises `DeployError` with what it says of a failure."""
        command = ["docker", "compose", "--project-directory", str(FOLDER.parent)]
        command += ["--env-file", str(self.env_file), *arguments]
        given: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        done: subprocess.CompletedProcess[bytes] = subprocess.run(  # noqa: S603
            command,
            env={**os.environ, "RECSYS_VERSION": self.version},
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
            **given,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-1000:]
            raise DeployError(f"docker compose {' '.join(arguments)}: {said}")
        return done.stdout or b""

    def replace(self, *services: str) -> None:
        """Start `services` anew where they differ, and wait until all their containers are well."""
        self.compose("up", "--detach", "--no-deps", *services)
        deadline = time.monotonic() + HEALTHY_SECONDS
        for service in services:
            while not all(_is_well(service, one) for one in self._containers(service)):
                if time.monotonic() > deadline:
                    raise DeployError(f"{service} is not healthy after {HEALTHY_SECONDS:g} s")
                time.sleep(1)

    def sql(self, statement: str) -> str:
        """The answer of Airflow's database, as one who sits in its container."""
        psql = ("psql", "-U", "airflow", "-d", "airflow", "-tA", "-v", "ON_ERROR_STOP=1")
        return self.compose("exec", "-T", "postgres", *psql, stdin=statement.encode()).decode()

    def is_used(self, service: str) -> bool:
        """Whether there is a container of `service`, which belongs to a profile."""
        return bool(self._ids(service))

    def _containers(self, service: str) -> list[dict[str, Any]]:
        if not (ids := self._ids(service)):
            raise DeployError(f"{service} has no container")
        return list(json.loads(_docker("inspect", *ids)))

    def _ids(self, service: str) -> list[str]:
        everywhere = ("--profile", "monitoring", "ps", "--all", "--quiet")
        return self.compose(*everywhere, service).decode().split()


def _is_well(service: str, container: dict[str, Any]) -> bool:
    health = container["State"].get("Health", {}).get("Status")
    died = container["RestartCount"] > RESTARTS
    if health == "unhealthy" or died:
        why = "ends again and again" if container["RestartCount"] else "is unhealthy"
        log = _docker("logs", "--tail", "5", container["Id"], stderr=subprocess.STDOUT)
        state = container["State"]
        silent = f"its log is empty, its exit code {state['ExitCode']} {state['Error']}"
        said = log.decode(errors="replace").strip() or silent.strip()
        raise DeployError(f"{service} {why}: {said}")
    return health == "healthy"


def _docker(*arguments: str, stderr: int = subprocess.PIPE) -> bytes:
    command = ["docker", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, check=True).stdout  # noqa: S603


def drain(target: Target) -> None:
    """Stop the workers when they have ended what was handed out to them. Raises `DeployError`."""
    # What waits in the broker for longer than task_queued_timeout fails, and so does what was
    # signed with a secret of before: so first stops who hands tasks out.
    target.compose("stop", "scheduler")
    deadline = time.monotonic() + QUEUE_SECONDS
    while left := int(target.sql("SELECT count(*) FROM task_instance WHERE state = 'queued'")):
        if time.monotonic() > deadline:
            print(f"{left} tasks were not begun and are tried again;", end=" ", flush=True)
            break
        time.sleep(1)
    target.compose("stop", "worker")


def replace_service(target: Target, told: str) -> None:
    """Replace one replica after the other, while the other one answers. Raises `DeployError`."""
    for replica in REPLICAS:
        with _step(f"{replica}: {told}"):
            target.replace(replica)
            time.sleep(SETTLE_SECONDS)
    with _step("proxy: read its configuration"):
        nginx = ("nginx", "-c", "/etc/nginx/recsys/nginx.conf")
        target.compose("exec", "-T", "proxy", *nginx, "-s", "reload")


def replace_airflow(target: Target, told: str) -> None:
    """Replace Airflow, whose database is saved and migrated while nobody uses it. Raises
    `DeployError`."""
    with _step("database and broker"):
        target.compose("stop", *AIRFLOW, "api-server")
        _dump(target)
        target.replace("postgres", "valkey")
        password = read_values(target.env_file)["POSTGRES_PASSWORD"].replace("'", "''")
        target.sql(f"ALTER USER airflow PASSWORD '{password}'")
        target.compose("run", "--rm", "-T", "--no-deps", "initialise")
    with _step(f"Airflow: {told}"):
        target.replace("api-server")
        target.replace(*AIRFLOW)
    if watching := [*filter(target.is_used, WATCHING)]:
        # What only watches takes nobody back: what ails it is told by Prometheus.
        with _step(f"exporter: {told}"):
            target.compose("up", "--detach", "--no-deps", *watching)


def restore_database(target: Target) -> None:
    """Give the database the content that it had before it was migrated: nobody has worked with the
    new one. Raises `DeployError`."""
    with _step("database: go back"):
        target.compose("stop", *AIRFLOW, "api-server")
        within = ("exec", "-T", "postgres")
        target.compose(*within, "dropdb", "-U", "airflow", "--force", "airflow")
        target.compose(*within, "createdb", "-U", "airflow", "airflow")
        with DUMP.open("rb") as dump:
            restore = ("pg_restore", "-U", "airflow", "-d", "airflow")
            target.compose(*within, *restore, stdin=dump)


def _schema(target: Target) -> str:
    return target.sql("SELECT version_num FROM alembic_version").strip()


def _dump(target: Target) -> None:
    descriptor = os.open(DUMP, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        command = ("pg_dump", "-U", "airflow", "--format=custom", "airflow")
        target.compose("exec", "-T", "postgres", *command, stdout=file)


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    print(f"{what} ...", end=" ", flush=True)
    began = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - began:.0f} s", flush=True)


def check(before: Target, version: str) -> None:
    """Refuse what cannot go well. Raises `DeployError`."""
    name = read_values(before.env_file)["RECSYS_IMAGE"]
    for image in (f"{name}-airflow:{version}", f"{name}-service:{version}"):
        try:
            _docker("image", "inspect", image)
        except subprocess.CalledProcessError as error:
            raise DeployError(f"{image} is not here; build or pull it first") from error
    for replica in REPLICAS:
        for container in before._containers(replica):
            if not _is_well(replica, container):
                raise DeployError(f"{replica} is not healthy; for a first start see production.md")


def write_variables(values: dict[str, str], target: Path) -> None:
    """Rewrite the file of variables `target` with `values` in the place of its own."""
    lines = []
    for line in ENV_FILE.read_text("utf-8").splitlines():
        name, sign, _ = line.partition("=")
        known = sign and not line.startswith("#") and name in values
        lines.append(f"{name}={values[name]}" if known else line)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.fsync(file.fileno())


def deploy(version: str | None, rotate: bool) -> None:
    """Bring `version`, or new secrets, into service. Raises `DeployError` if what served before
    serves (again), `StrandedError` if nothing may."""
    values = read_values(ENV_FILE)
    if "RECSYS_VERSION" not in values:
        raise DeployError(f"{ENV_FILE} names no RECSYS_VERSION; run docker/write_env.py")
    before = Target(values["RECSYS_VERSION"], ENV_FILE)
    check(before, version or before.version)
    new = {"RECSYS_VERSION": version or before.version}
    if rotate:
        new |= {name: new_secret(name) for name in ROTATED}
    write_variables(new, NEW_ENV_FILE)
    target, schema, touched = Target(new["RECSYS_VERSION"], NEW_ENV_FILE), _schema(before), False
    try:
        with _step("let the workers end their tasks (12 minutes at most)"):
            drain(before)
        replace_service(target, "replace")
        touched = True
        replace_airflow(target, "replace")
    except (DeployError, subprocess.CalledProcessError, KeyboardInterrupt) as error:
        print(f"{error or 'interrupted'}\nGoing back", flush=True)
        try:
            _go_back(before, schema, touched)
        except (DeployError, subprocess.CalledProcessError) as worse:
            raise StrandedError(f"{before.version} does not come back: {worse}") from error
        NEW_ENV_FILE.unlink()
        raise DeployError("what served before serves again") from error
    NEW_ENV_FILE.replace(ENV_FILE)


def _go_back(before: Target, schema: str, touched: bool) -> None:
    replace_service(before, "go back")
    if not touched:
        before.replace("scheduler", "worker")
        return
    if _schema(before) != schema:
        restore_database(before)
    replace_airflow(before, "go back")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version", nargs="?", help="of images that are here")
    parser.add_argument("--rotate", action="store_true", help="new secrets")
    asked = parser.parse_args()
    if asked.version is None and not asked.rotate:
        parser.error("name a version, or --rotate")
    with (FOLDER / "write_env.py").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            deploy(asked.version, asked.rotate)
        except BlockingIOError:
            print("another deployment is under way", file=sys.stderr)
            return 1
        except DeployError as error:
            print(error, file=sys.stderr)
            return 1
        except StrandedError as error:
            print(error, file=sys.stderr)
            return 2
    print("in service:", *filter(None, (asked.version, asked.rotate and "new secrets")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
