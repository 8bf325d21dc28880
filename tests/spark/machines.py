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
    machines = [
        Machine(f"recsys-{mark}-{name}", f"{subnet}.{number}", disk)
        for number, name in enumerate(names, start=2)
    ]
    # In a namespace of its own: rules of this machine (Docker's) would drop what passes a bridge.
    switch = f"recsys-{mark}-switch"
    with contextlib.ExitStack() as stack:
        for name in (switch, *(machine.name for machine in machines)):
            try:
                _run("ip", "netns", "add", name)
            except RuntimeError as error:
                pytest.skip(f"namespaces may not be made here: {error}")
            stack.callback(_run, "ip", "netns", "delete", name)
        _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "bridge", "up")
        here = f"sp{mark}"
        _plug_in(switch, "port1", here, str(os.getpid()))
        _run("ip", "address", "add", f"{subnet}.1/24", "dev", here)
        _run("ip", "link", "set", here, "up")
        for number, machine in enumerate(machines, start=2):
            stack.callback(machine.kill)
            _plug_in(switch, f"port{number}", "eth0", machine.name)
            inside = ("ip", "-n", machine.name)
            _run(*inside, "address", "add", f"{machine.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _run(*inside, "link", "set", device, "up")
        yield Network(f"{subnet}.1", machines)


def _plug_in(switch: str, port: str, device: str, namespace: str) -> None:
    """Connect a new `device` of a namespace with a new port of the switch."""
    there = ["peer", "name", device, "netns", namespace]
    _run("ip", "-n", switch, "link", "add", port, "type", "veth", *there)
    _run("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
