"""How bad an alert is, and where it goes."""

from enum import StrEnum
from typing import Final

from recsys.errors import InputError


class Severity(StrEnum):
    """How soon somebody has to look; ordered by `rank`."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return tuple(Severity).index(self)


class Channel(StrEnum):
    LOG = "log"
    EMAIL = "email"
    SLACK = "slack"


DEFAULT_CHANNELS: Final[dict[Severity, tuple[Channel, ...]]] = {
    Severity.INFO: (Channel.LOG,),
    Severity.WARNING: (Channel.LOG, Channel.EMAIL),
    Severity.CRITICAL: (Channel.LOG, Channel.EMAIL, Channel.SLACK),
}


def parse_severity(value: str) -> Severity:
    """`value` as a severity. Raises `InputError` with the known ones."""
    try:
        return Severity(value)
    except ValueError:
        raise InputError(
            f"severity {value!r} is unknown; expected one of {', '.join(Severity)}"
        ) from None


def parse_channels(values: object) -> tuple[Channel, ...]:
    """A list of channel names, without repeats. Raises `InputError` with the known ones."""
    if not isinstance(values, list | tuple) or not values:
        raise InputError(
            f"channels {values!r}: expected a list of at least one of {', '.join(Channel)}"
        )
    try:
        return tuple(dict.fromkeys(Channel(value) for value in values))
    except ValueError:
        raise InputError(f"channels {list(values)!r}: expected only {', '.join(Channel)}") from None
