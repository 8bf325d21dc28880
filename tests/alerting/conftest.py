"""An alert manager whose mail server and Slack are real servers on loopback."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from recsys.alerting import AlertManager
from recsys.settings import Settings


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
def manager(settings: Settings, configure: Callable[..., None], clock: Clock) -> AlertManager:
    configure()
    return AlertManager(settings, clock=clock)
