"""Fixtures shared by all tests."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from recsys.settings import REPOSITORY, Settings
from tests.ports import find_free_port
from tests.sinks import (
    MailSink,
    WebhookSink,
    alerts_config,
    mail_sink,
    webhook_sink,
    write_alerts_config,
)

# A busy machine fails no test: how long things take is measured in benchmarks.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

# Hundreds of processes would compile the same modules again and again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Spark's short sessions end before the optimising compiler has paid for itself.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")

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


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty metadata database of Airflow, to be copied: making one takes seconds."""
    home = tmp_path_factory.mktemp("airflow")
    foreign = ("AIRFLOW", "RECSYS_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    env |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(command, env=env, check=True, capture_output=True)
    return home / "airflow.db"


@pytest.fixture
def free_port() -> int:
    """A loopback TCP port that nothing listens on."""
    return find_free_port()


@pytest.fixture
def mails() -> Iterator[MailSink]:
    with mail_sink() as sink:
        yield sink


@pytest.fixture
def slack() -> Iterator[WebhookSink]:
    with webhook_sink() as sink:
        yield sink


@pytest.fixture
def configure(
    settings: Settings, mails: MailSink, slack: WebhookSink, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Writes a configuration of alerts that leads to the two sinks."""
    monkeypatch.setenv("SMTP_SERVER", "127.0.0.1")
    monkeypatch.setenv("SLACK_WEBHOOK_URL", slack.url)

    def write(language: str = "en", port: int | None = None, password: str = "null") -> None:
        write_alerts_config(settings, alerts_config(port or mails.port, language, password))

    return write


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """What stands beside the tests has no examples to run, and not all of it can be imported."""
    helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return helper or None


# Fixtures that start a server or an engine.
BOOTING = {"s3_address", "serve", "service", "spark"}
# Whole stacks.
STACKS = ("e2e", "cluster")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what boots, and let whole stacks begin: they take longest.

    A file's tests stay in one process (`--dist loadfile`), so that what it boots is booted once.
    """
    for item in items:
        if BOOTING.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("boots")
    items.sort(key=lambda item: (not _is_stack(item), item.get_closest_marker("boots") is None))


def _is_stack(item: pytest.Item) -> bool:
    return item.path.parent.name in STACKS
