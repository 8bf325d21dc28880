"""``config/alerts_config.yaml`` as typed settings, with ``${VAR}`` from the environment.

Error texts show the value as the file has it (``"${SMTP_PORT}"``, not what it stands for), and
never that of a key which can hold a secret."""

import re
from collections.abc import Mapping
from email.utils import parseaddr
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from recsys.alerting.message import DEFAULT_CHANNELS, Channel, LanguageCode, Severity
from recsys.config import ConfigError, ConfigModel, read_document
from recsys.settings import Settings

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

Metric = Literal[
    "requests",
    "requests_per_minute",
    "avg_latency_ms",
    "p95_latency_ms",
    "error_rate",
    "fallback_rate",
]
"""What the hourly health check measures of the service."""


def _checked_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not re.match(r"https?://[^/\s]+", value.get_secret_value()):
        raise ValueError("expected a URL that starts with https:// (or http://)")
    return value


class Rule(ConfigModel):
    """Alert when `metric` is above (or below) `threshold`."""

    enabled: bool = True
    metric: Metric
    threshold: float
    comparison: Literal["above", "below"] = "above"
    severity: Severity
    channels: tuple[Channel, ...] = Field(default=None, validate_default=True)
    cooldown_minutes: float | None = Field(default=None, ge=0)

    @field_validator("channels", mode="before")
    @classmethod
    def _or_those_of_the_severity(cls, value: Any, info: ValidationInfo) -> Any:
        severity = info.data.get("severity", Severity.INFO)
        channels = DEFAULT_CHANNELS[severity] if value is None else value
        if not channels:
            raise ValueError("expected at least one channel")
        return channels

    def is_broken_by(self, value: float) -> bool:
        return value > self.threshold if self.comparison == "above" else value < self.threshold


class EmailConfig(ConfigModel):
    """The mail channel."""

    NEEDED: ClassVar = ("smtp_server", "sender", "recipients")

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

    @field_validator("sender", "recipients")
    @classmethod
    def _holds_addresses(cls, value: Any) -> Any:
        """An address is ``a@b``, or ``Name <a@b>``."""
        addresses = value if isinstance(value, tuple) else [value or "a@b"]
        if all(re.fullmatch(r"[^@\s,;<>]+@[^@\s,;<>]+", parseaddr(one)[1]) for one in addresses):
            return value
        if addresses is value:
            raise ValueError("expected a list of e-mail addresses")
        raise ValueError("expected an e-mail address")


class SlackConfig(ConfigModel):
    """The Slack channel: an incoming webhook."""

    NEEDED: ClassVar = ("webhook_url",)

    enabled: bool = True
    webhook_url: SecretStr | None = None
    channel: str | None = None

    @field_validator("webhook_url")
    @classmethod
    def _webhook_is_a_url(cls, value: SecretStr | None) -> SecretStr | None:
        return _checked_url(value)


class HeartbeatConfig(ConfigModel):
    """The dead-man's switch outside that hears of it when all is well."""

    url: SecretStr | None = None

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, value: SecretStr | None) -> SecretStr | None:
        return _checked_url(value)


class LoggingConfig(ConfigModel):
    """The alert log; a relative path starts at the state root."""

    enabled: bool = True
    path: Path = Path("logs/service/alerts.log")


class AlertsConfig(ConfigModel):
    """Everything in ``alerts_config.yaml``."""

    FILE = "alerts_config.yaml"
    ENTRIES: ClassVar = {
        "alerts": {
            name: {"metric": metric, "threshold": threshold, "severity": severity}
            for name, metric, threshold, severity in (
                ("high_latency", "avg_latency_ms", 200, "warning"),
                ("critical_latency", "avg_latency_ms", 500, "critical"),
                ("high_error_rate", "error_rate", 0.05, "critical"),
                ("high_fallback_rate", "fallback_rate", 0.3, "warning"),
            )
        }
    }

    language: LanguageCode = "vi"
    public_url: str | None = None
    cooldown_minutes: float = Field(default=240, ge=0)
    alerts: dict[str, Rule] = Field(default_factory=dict)
    email: EmailConfig = EmailConfig()
    slack: SlackConfig = SlackConfig()
    heartbeat: HeartbeatConfig = HeartbeatConfig()
    logging: LoggingConfig = LoggingConfig()

    @field_validator("public_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        _checked_url(None if value is None else SecretStr(value))
        return value

    @property
    def secrets(self) -> list[str]:
        """What the channels know and nobody else may, in the pieces that errors quote."""
        secrets = []
        if self.email.password is not None:
            password = self.email.password.get_secret_value()
            secrets += [password, f"\0{self.email.user}\0{password}"]
        for secret in (self.slack.webhook_url, self.heartbeat.url):
            if secret is None:
                continue
            url = secret.get_secret_value()
            parts = urlsplit(url)
            secrets += [url, parts.path + (f"?{parts.query}" if parts.query else "")]
            secrets.append(parts.path.rsplit("/", 1)[-1])
        return secrets


class AlertingSetup(NamedTuple):
    """The configuration, and the variables that a channel lacks (by its section's name)."""

    config: AlertsConfig
    unset: Mapping[str, tuple[str, ...]]

    def lacks(self, channel: Channel) -> str | None:
        """Why `channel` cannot be tried, None if it can."""
        section: EmailConfig | SlackConfig = getattr(self.config, channel)
        if not section.enabled:
            return f"switched off by {channel}.enabled"
        if channel in self.unset:
            return f"{', '.join(self.unset[channel])} not set"
        lacking = [f"{channel}.{key}" for key in section.NEEDED if not getattr(section, key)]
        return f"needs {', '.join(lacking)}" if lacking else None


def load_alerts_config(settings: Settings, environment: Mapping[str, str]) -> AlertingSetup:
    """Read ``alerts_config.yaml``, with ``${VAR}`` replaced from `environment`.

    Raises `ConfigError` as `load_config` does, and for a variable that is not set (or empty). One
    of ``email``, ``slack`` or ``heartbeat`` is no error: that is then not set up."""
    document = read_document(settings, AlertsConfig.FILE)
    missing: list[tuple[tuple[Any, ...], str]] = []

    def expand(value: Any, *key: Any) -> Any:
        if isinstance(value, str):
            names = _VARIABLE.findall(value)
            missing.extend((key, name) for name in names if not environment.get(name))
            return _VARIABLE.sub(lambda match: environment.get(match[1], ""), value)
        if isinstance(value, dict):
            return {name: expand(item, *key, name) for name, item in value.items()}
        if isinstance(value, list):
            return [expand(item, *key, position) for position, item in enumerate(value)]
        return value

    expanded = expand(document.content)
    fatal = [
        f"{document.path(key)}: {'.'.join(map(str, key))}: the environment variable {name} is "
        "not set"
        for key, name in missing
        if key[0] not in ("email", "slack", "heartbeat")
    ]
    if fatal:
        raise ConfigError("\n".join(fatal))
    unset: dict[str, tuple[str, ...]] = {}
    for (section, *keys), name in missing:
        if keys:
            expanded[section].pop(keys[0], None)
        unset[section] = tuple(dict.fromkeys((*unset.get(section, ()), name)))
    return AlertingSetup(document.validate(AlertsConfig, expanded), unset)
