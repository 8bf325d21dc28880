"""A shop with published data, a served model and alerts that go to real servers."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvicorn

from recsys.data.sample import write_sample_shop
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.alerting.conftest import CONFIG
from tests.conftest import find_free_port
from tests.sinks import (
    MailSink,
    WebhookSink,
    mail_sink,
    webhook_sink,
    write_alerts_config,
)


@pytest.fixture
def mails() -> Iterator[MailSink]:
    with mail_sink() as sink:
        yield sink


@pytest.fixture
def slack() -> Iterator[WebhookSink]:
    with webhook_sink() as sink:
        yield sink


@pytest.fixture
def shop(
    settings: Settings, mails: MailSink, slack: WebhookSink, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """An empty state root whose alerts go to `mails` and `slack`; no service listens."""
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{find_free_port()}")
    monkeypatch.setenv("SMTP_SERVER", "127.0.0.1")
    monkeypatch.setenv("SLACK_WEBHOOK_URL", slack.url)
    text = CONFIG.format(language="en", port=mails.port, password="null")
    write_alerts_config(settings, text)
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
            running.enter_context(_listening(app, port))
            monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{port}")

        yield start


@contextlib.contextmanager
def _listening(app: object, port: int) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        yield
    finally:
        server.should_exit = True
        thread.join()
