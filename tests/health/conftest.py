"""A shop with published data, a served model and alerts that go to real servers."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recsys.data.sample import write_sample_shop
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.ports import find_free_port
from tests.serving.service_process import service_in_thread


@pytest.fixture
def shop(
    settings: Settings, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """An empty state root whose alerts go to `mails` and `slack`; no service listens."""
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{find_free_port()}")
    configure()
    return settings


@pytest.fixture
def publish(shop: Settings) -> Callable[..., Path]:
    """Publishes a data version whose view ended `days_ago`; returns its folder."""

    def run(days_ago: float = 0.1) -> Path:
        end = datetime.now(UTC) - timedelta(days=days_ago)
        write_sample_shop(shop, reviews=600, until=end.date())
        run_refresh(shop, DataInterval(end - timedelta(days=1), end))
        return shop.processed.resolve()

    return run


@pytest.fixture
def serve(shop: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Starts the real service on a free port; the checks then find it."""
    with contextlib.ExitStack() as running:

        def start() -> None:
            port = find_free_port()
            app = create_app(shop, ServiceEnvironment(port=port))
            running.enter_context(service_in_thread(app, port))
            monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{port}")

        yield start
