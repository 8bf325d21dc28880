"""A container engine of the tests' own, from Debian's packages: it needs no registry, and leaves
nothing behind but its data root, which makes the next run faster."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import psutil

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
ROOT = Path(os.environ.get("CONTAINER_TEST_ROOT") or CACHE / "recsys-containers").resolve()
"""Where images and packages stay between runs: 8 GB."""

GATEWAY = "172.30.0.1"
"""This machine, as a container that is being built sees it."""
BRIDGE = "docker0"
SOCKET = ROOT / "engine.sock"
FREE_GB = 12
START_SECONDS = 60
STOP_SECONDS = 90
# The distribution's own; there may be another client in front of it in PATH.
DOCKERD, DOCKER = Path("/usr/sbin/dockerd"), Path("/usr/bin/docker")
PLUGINS = {"docker-compose": "2.26", "docker-buildx": "0.13"}
"""Debian 13's packages of the client's plugins; their binaries need nothing else."""


def why_not() -> str | None:
    """Why no engine can be started here, None if one can."""
    if os.geteuid() != 0:
        return "needs root"
    for program in (DOCKERD, DOCKER, "mmdebstrap", "iptables-save"):
        if shutil.which(program) is None:
            return f"needs {program}: run tests/containers/packages.sh"
    if (Path("/sys/class/net") / BRIDGE).exists() and _running() is None:
        return f"another engine runs here: {BRIDGE} is there"
    rights = subprocess.run(
        ["unshare", "--mount", "--net", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        check=False,
        text=True,
    )
    if rights.returncode != 0:
        return f"may not make namespaces and mounts: {rights.stderr.strip()}"
    ROOT.mkdir(parents=True, exist_ok=True)
    if not (ROOT / "data").exists() and shutil.disk_usage(ROOT).free < FREE_GB * 1e9:
        return f"needs {FREE_GB} GB below {ROOT}"
    return None


class Engine:
    """A running engine. `docker` and `compose` are its command line."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.environment: Mapping[str, str] = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "COMPOSE_"))},
            "DOCKER_HOST": f"unix://{SOCKET}",
            "DOCKER_CONFIG": str(ROOT / "client"),
            "DOCKER_BUILDKIT": "1",
            "PATH": os.pathsep.join([str(DOCKER.parent), os.environ.get("PATH", "")]),
        }

    def start(self) -> None:
        """Start it and wait until it answers; containers that should run, run again."""
        command = [str(DOCKERD), "--host", f"unix://{SOCKET}", "--pidfile", str(_pid_file())]
        command += ["--data-root", str(ROOT / "data"), "--exec-root", str(ROOT / "exec")]
        command += ["--bip", f"{GATEWAY}/24", "--mtu", _mtu()]
        # Names of other networks than this machine's own.
        command += ["--default-address-pool", "base=172.30.64.0/18,size=24"]
        with (ROOT / "engine.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (ROOT / "engine.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the engine does not start: {tail}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it, and with it all containers."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(STOP_SECONDS)
        self._process = None

    def docker(self, *arguments: str, **options: Any) -> str:
        """What the command prints. Raises `EngineError`, with what it printed before."""
        return self.run([str(DOCKER), *arguments], **options)

    def run(
        self,
        command: list[str],
        timeout: float = 600,
        env: Mapping[str, str] | None = None,
        output: IO[bytes] | int = subprocess.PIPE,
        **options: Any,
    ) -> str:
        """Any command in the client's environment; what it prints, unless that goes to `output`.
        Raises `EngineError`."""
        done = subprocess.run(
            command,
            env={**self.environment, **(env or {})},
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=timeout,
            check=False,
            **options,
        )
        printed = (done.stdout or b"").decode(errors="replace")
        if done.returncode:
            said = done.stderr.decode(errors="replace")
            raise EngineError(f"{' '.join(command)}: {done.returncode}\n{printed}\n{said}")
        return printed

    def images(self) -> dict[str, dict[str, Any]]:
        """Every image by name: its size in bytes, its labels."""
        names = self.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
        named = [name for name in names if "<none>" not in name]
        if not named:
            return {}
        found = json.loads(self.docker("image", "inspect", *named))
        return {
            tag: {"size": one["Size"], "labels": one["Config"].get("Labels") or {}}
            for one in found
            for tag in one["RepoTags"]
        }

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(SOCKET))
            asked.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return asked.recv(64).startswith(b"HTTP/1.0 200")
        return False


class EngineError(RuntimeError):
    """A command of the engine failed; the text has what it printed."""


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine that leaves network, packet filter and kernel settings as they were. One at a time:
    the next one waits."""
    with (ROOT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from _alone()


def _alone() -> Iterator[Engine]:
    if (left := _running()) is not None:
        left.terminate()
        left.wait(STOP_SECONDS)
    for device in _bridges():
        subprocess.run(["ip", "link", "delete", device], check=False)
    with _network_as_it_was():
        engine = Engine()
        install_plugins(ROOT / "client" / "cli-plugins")
        engine.start()
        try:
            yield engine
        finally:
            engine.stop()


def install_plugins(folder: Path) -> None:
    """Debian 13's `docker compose` and `docker buildx`, unpacked only; 26 MB to fetch."""
    if all((folder / name).exists() for name in PLUGINS):
        return
    packages = ROOT / "packages"
    for name in ("lists/partial", "cache/archives/partial"):
        (packages / name).mkdir(parents=True, exist_ok=True)
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    source = f"deb [signed-by={key}] http://deb.debian.org/debian trixie main\n"
    (packages / "trixie.list").write_text(source)
    options = {
        "Dir::Etc::sourcelist": packages / "trixie.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": packages / "lists",
        "Dir::Cache": packages / "cache",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", *PLUGINS], check=True, cwd=packages)
    folder.mkdir(parents=True, exist_ok=True)
    for name in PLUGINS:
        (package,) = packages.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), str(packages / name)], check=True)
        (binary,) = (packages / name).rglob(f"cli-plugins/{name}")
        shutil.copy2(binary, folder / name)


def _running() -> psutil.Process | None:
    """The engine that an interrupted run of these tests has left."""
    with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
        process = psutil.Process(int(_pid_file().read_text()))
        if str(ROOT / "data") in process.cmdline():
            return process
    return None


def _pid_file() -> Path:
    return ROOT / "engine.pid"


def _mtu() -> str:
    """That of the way out: a larger one would lose what is built."""
    route = subprocess.run(["ip", "route", "show", "default"], capture_output=True, text=True)
    device = re.search(r"dev (\S+)", route.stdout)
    return Path(f"/sys/class/net/{device[1]}/mtu").read_text().strip() if device else "1500"


@contextlib.contextmanager
def _network_as_it_was() -> Iterator[None]:
    rules = subprocess.run(["iptables-save"], capture_output=True, check=True).stdout
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    before, devices = forwarding.read_text(), _bridges()
    try:
        yield
    finally:
        for device in _bridges() - devices:
            subprocess.run(["ip", "link", "delete", device], check=False)
        # Tables that had nothing in them are not in the text.
        tables = [line for line in rules.decode().splitlines() if line.startswith("*")]
        for table in {"*filter", "*nat"} - set(tables):
            rules += f"{table}\nCOMMIT\n".encode()
        subprocess.run(["iptables-restore"], input=rules, check=True)
        forwarding.write_text(before)


def _bridges() -> set[str]:
    links = Path("/sys/class/net").iterdir()
    return {link.name for link in links if link.name == BRIDGE or link.name.startswith("br-")}


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first answer of `condition` that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.5)
    return answer
