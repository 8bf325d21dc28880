"""An alert manager whose mail server and Slack are real servers on loopback."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from recsys.alerting import AlertManager
from recsys.settings import Settings
from tests.sinks import (
    MailSink,
    WebhookSink,
    mail_sink,
    webhook_sink,
    write_alerts_config,
)

CONFIG = """\
language: {language}
cooldown_minutes: 60
alerts:
  high_latency: {{threshold: 200, severity: warning, channels: [log, email]}}
  critical_latency: {{threshold: 500, severity: critical, channels: [log, email, slack]}}
  high_error_rate: {{threshold: 0.05, severity: critical}}
  high_fallback_rate: {{threshold: 0.3, severity: warning, cooldown_minutes: 5}}
  no_traffic: {{metric: requests, threshold: 1, comparison: below, severity: warning}}
email:
  smtp_server: "${{SMTP_SERVER}}"
  smtp_port: {port}
  sender: alerts@example.com
  password: {password}
  recipients: [team@example.com, boss@example.com]
  timeout_seconds: 2
slack:
  webhook_url: "${{SLACK_WEBHOOK_URL}}"
  channel: "#ml-alerts"
  timeout_seconds: 2
"""


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2025, 1, 15, 8, 35, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


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
    """Writes the configuration that leads to the two sinks."""
    monkeypatch.setenv("SMTP_SERVER", "127.0.0.1")
    monkeypatch.setenv("SLACK_WEBHOOK_URL", slack.url)

    def write(language: str = "en", port: int | None = None, password: str = "null") -> None:
        text = CONFIG.format(language=language, port=port or mails.port, password=password)
        write_alerts_config(settings, text)

    return write


@pytest.fixture
def manager(settings: Settings, configure: Callable[..., None], clock: Clock) -> AlertManager:
    configure()
    return AlertManager(settings, clock=clock)
