"""``config/alerts_config.yaml`` as typed settings, with ``${VAR}`` from the environment.

Error texts show the value as the file has it (``"${SMTP_PORT}"``, not what it stands for), and
never that of a key which can hold a secret.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parseaddr
from pathlib import Path
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from recsys.alerting.message import DEFAULT_CHANNELS, Channel, Severity
from recsys.config import ConfigError, ConfigModel, read_document
from recsys.settings import Settings

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Sections that work without their variables: the channel is then not set up.
_OPTIONAL_SECTIONS: Final = ("email", "slack")


Metric = Literal[
    "requests",
    "requests_per_minute",
    "avg_latency_ms",
    "p95_latency_ms",
    "error_rate",
    "fallback_rate",
]
"""What the hourly health check measures of the service."""


class Rule(ConfigModel):
    """Alert when `metric` is above (or below) `threshold`."""

    enabled: bool = True
    metric: Metric
    threshold: float = Field(allow_inf_nan=False)
    comparison: Literal["above", "below"] = "above"
    severity: Severity
    channels: tuple[Channel, ...]
    cooldown_minutes: float | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _channels_of_the_severity(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("channels") is None:
            severity = content.get("severity")
            if severity in list(Severity):
                return content | {"channels": DEFAULT_CHANNELS[Severity(severity)]}
        return content

    @field_validator("channels")
    @classmethod
    def _has_channels(cls, values: tuple[Channel, ...]) -> tuple[Channel, ...]:
        if not values:
            raise ValueError("expected at least one channel")
        return values

    def is_broken_by(self, value: float) -> bool:
        return value > self.threshold if self.comparison == "above" else value < self.threshold


class EmailConfig(ConfigModel):
    """The mail channel."""

    enabled: bool = True
    smtp_server: str | None = None
    smtp_port: int = Field(default=587, ge=1, le=65535)
    sender: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    recipients: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        """The account to log in as."""
        return self.username or parseaddr(self.sender or "")[1]

    @field_validator("sender")
    @classmethod
    def _sender_is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not _is_address(value):
            raise ValueError("expected an e-mail address")
        return value

    @field_validator("recipients")
    @classmethod
    def _recipients_are_addresses(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not _is_address(value):
                raise ValueError("expected a list of e-mail addresses")
        return values


class SlackConfig(ConfigModel):
    """The Slack channel: an incoming webhook."""

    enabled: bool = True
    webhook_url: SecretStr | None = None
    channel: str | None = None

    @field_validator("webhook_url")
    @classmethod
    def _webhook_is_a_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.match(r"https?://[^/\s]+", value.get_secret_value()):
            raise ValueError("expected a URL that starts with https:// (or http://)")
        return value


class LoggingConfig(ConfigModel):
    """The alert log; a relative path starts at the state root."""

    enabled: bool = True
    path: Path = Path("logs/service/alerts.log")


class AlertsConfig(ConfigModel):
    """Everything in ``alerts_config.yaml``."""

    FILE = "alerts_config.yaml"
    ENTRIES: ClassVar = {
        "alerts": {
            "high_latency": {"metric": "avg_latency_ms", "threshold": 200, "severity": "warning"},
            "critical_latency": {
                "metric": "avg_latency_ms",
                "threshold": 500,
                "severity": "critical",
            },
            "high_error_rate": {"metric": "error_rate", "threshold": 0.05, "severity": "critical"},
            "high_fallback_rate": {
                "metric": "fallback_rate",
                "threshold": 0.3,
                "severity": "warning",
            },
        }
    }

    language: Literal["vi", "en"] = "vi"
    cooldown_minutes: float = Field(default=240, ge=0)
    alerts: dict[str, Rule] = Field(default_factory=dict)
    email: EmailConfig = EmailConfig()
    slack: SlackConfig = SlackConfig()
    logging: LoggingConfig = LoggingConfig()

    @property
    def secrets(self) -> list[str]:
        """What the channels know and nobody else may, in the pieces that errors quote."""
        secrets = []
        if self.email.password is not None:
            password = self.email.password.get_secret_value()
            secrets += [password, f"\0{self.email.user}\0{password}"]
        if self.slack.webhook_url is not None:
            url = self.slack.webhook_url.get_secret_value()
            parts = urlsplit(url)
            secrets += [url, parts.path + (f"?{parts.query}" if parts.query else "")]
            secrets.append(parts.path.rsplit("/", 1)[-1])
        return secrets


@dataclass(frozen=True)
class AlertingSetup:
    """The configuration, and the variables that a channel lacks (by its section's name)."""

    config: AlertsConfig
    unset: Mapping[str, tuple[str, ...]]


def load_alerts_config(settings: Settings, environment: Mapping[str, str]) -> AlertingSetup:
    """Read ``alerts_config.yaml``, with ``${VAR}`` replaced from `environment`.

    Raises `ConfigError` if the file is missing or unreadable, or a key is unknown or has a bad
    value: one line each, with the file and the key. A variable that is not set (or empty) is an
    error outside the sections ``email`` and ``slack``.
    """
    document = read_document(settings, AlertsConfig.FILE)
    content = document.content
    missing = [(key, name) for key, name in _variables(content) if not environment.get(name)]
    fatal = [
        f"{document.path(key)}: {'.'.join(map(str, key))}: the environment variable {name} is "
        "not set"
        for key, name in missing
        if key[0] not in _OPTIONAL_SECTIONS
    ]
    if fatal:
        raise ConfigError("\n".join(fatal))
    expanded = _expand(content, environment)
    unset: dict[str, tuple[str, ...]] = {}
    for (section, *keys), name in missing:
        if keys:
            expanded[section].pop(keys[0], None)
        unset[section] = tuple(dict.fromkeys((*unset.get(section, ()), name)))
    return AlertingSetup(document.validate(AlertsConfig, expanded), unset)


def _is_address(value: str) -> bool:
    """Whether `value` is ``a@b``, or ``Name <a@b>``."""
    return re.fullmatch(r"[^@\s,;<>]+@[^@\s,;<>]+", parseaddr(value)[1]) is not None


def _expand(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: environment.get(match[1], ""), value)
    if isinstance(value, dict):
        return {key: _expand(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, environment) for item in value]
    return value


def _variables(value: Any, key: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Every ``${VAR}`` in `value`: where it stands and its name."""
    if isinstance(value, str):
        for match in _VARIABLE.finditer(value):
            yield key, match[1]
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _variables(item, (*key, name))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _variables(item, (*key, position))
