"""Fixtures shared by all tests."""

import contextlib
import secrets
import socket
from pathlib import Path

import hypothesis
import pytest

from recsys.settings import REPOSITORY, Settings

# A busy machine fails no test: how long things take is measured in benchmarks.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

# Below those that Linux and macOS give to connections by themselves.
PORTS = range(20_000, 32_000)
_claims: list[socket.socket] = []

SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data sets beside the repository; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with an empty state root of its own; configuration is the repository's."""
    return Settings(tmp_path / "home")


@pytest.fixture
def free_port() -> int:
    """A loopback TCP port that nothing listens on."""
    return find_free_port()


def find_free_port() -> int:
    """A loopback TCP port that nothing listens on, and that no other test is given.

    The UDP port of the same number is the claim: this process holds it as long as it lives, so
    tests that run side by side never get the same one.
    """
    while True:
        port = secrets.choice(PORTS)
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            with contextlib.closing(socket.socket()) as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """What stands beside the tests has no examples to run, and not all of it can be imported."""
    helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return helper or None
