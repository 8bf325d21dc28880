"""What every channel has in common: how a delivery ends."""

from datetime import datetime
from typing import Protocol

from recsys.alerting.message import Alert


class NotSetUpError(Exception):
    """The channel lacks something or is switched off; the text says what."""


class DeliveryError(Exception):
    """The channel was tried and did not take the alert."""


class Sender(Protocol):
    """A channel that leaves this machine."""

    name: str

    def send(self, alert: Alert, at: datetime) -> str:
        """Deliver `alert`; returns the line for the log.

        Raises `NotSetUpError` if the channel cannot be tried, anything else if it failed.
        """
        ...
