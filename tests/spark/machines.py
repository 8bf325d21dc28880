"""Machines that share a network and no disk: namespaces of this one."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

# A disk of its own in place of a folder, and then the command.
_OWN_DISK = 'mount -t tmpfs tmpfs "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class Machine:
    """A namespace with an `address`; `disk` is a folder of its own disk."""

    name: str
    address: str
    disk: Path

    @property
    def prefix(self) -> list[str]:
        """Starts a command there."""
        enter = ["ip", "netns", "exec", self.name, "unshare", "--mount"]
        return [*enter, "sh", "-c", _OWN_DISK, "sh", str(self.disk)]

    def processes(self) -> list[int]:
        found = _run("ip", "netns", "pids", self.name)
        return [int(pid) for pid in found.split()]

    def kill(self) -> None:
        """End everything there at once."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Network:
    """This machine's `address` in the network, and the other `machines`."""

    address: str
    machines: list[Machine]


@contextlib.contextmanager
def network(names: list[str], disk: Path) -> Iterator[Network]:
    """Machines of these names for the block, each with a disk of its own at the folder `disk` where
    this one has another. Skips the test where namespaces may not be made."""
    if os.getuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("needs root, and the packages iproute2 and util-linux, for namespaces")
    mark = uuid4().hex[:6]
    subnet = f"10.{random.randrange(128, 256)}.{random.randrange(256)}"
    bridge = f"sp{mark}"
    machines = [
        Machine(f"recsys-{mark}-{name}", f"{subnet}.{number}", disk)
        for number, name in enumerate(names, start=2)
    ]
    with contextlib.ExitStack() as stack:
        try:
            _run("ip", "link", "add", bridge, "type", "bridge")
        except RuntimeError as error:
            pytest.skip(f"namespaces may not be made here: {error}")
        stack.callback(_run, "ip", "link", "delete", bridge)
        _run("ip", "address", "add", f"{subnet}.1/24", "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
        for number, machine in enumerate(machines):
            try:
                _run("ip", "netns", "add", machine.name)
            except RuntimeError as error:
                pytest.skip(f"namespaces may not be made here: {error}")
            stack.callback(_run, "ip", "netns", "delete", machine.name)
            stack.callback(machine.kill)
            _connect(machine, bridge, f"sp{mark}{number}")
        yield Network(f"{subnet}.1", machines)


def _connect(machine: Machine, bridge: str, here: str) -> None:
    there = ["peer", "name", "eth0", "netns", machine.name]
    _run("ip", "link", "add", here, "type", "veth", *there)
    _run("ip", "link", "set", here, "master", bridge, "up")
    inside = ("ip", "-n", machine.name)
    _run(*inside, "address", "add", f"{machine.address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        _run(*inside, "link", "set", device, "up")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
