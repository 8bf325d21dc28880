"""Fixtures shared by all tests."""

import contextlib
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
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def _no_inherited_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never touch the state root of whoever runs them."""
    for name in ("RECSYS_HOME", "RECSYS_ADMIN_TOKEN", "RECSYS_SERVICE_URL"):
        monkeypatch.delenv(name, raising=False)
