"""What can be configured about the service, and what it takes from the environment."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import Field

from recsys.settings import ConfigError, ConfigModel, Settings

CONFIG_NAME = "serving.yaml"


class RequestLogConfig(ConfigModel):
    """How requests are written down. Seconds, rows, days."""

    flush_seconds: float = Field(default=0.5, gt=0, le=60)
    max_pending_rows: int = Field(default=50_000, ge=100)
    retention_days: float = Field(default=30, gt=0)


class ServingConfig(ConfigModel):
    """``config/serving.yaml``; every key is explained there."""

    workers: int = Field(default=1, ge=1, le=64)
    max_topk: int = Field(default=100, ge=1, le=1000)
    max_batch_users: int = Field(default=1000, ge=1, le=10_000)
    max_events: int = Field(default=1000, ge=1, le=10_000)
    max_body_bytes: int = Field(default=1_000_000, ge=1000)
    request_timeout_seconds: float = Field(default=15, gt=0)
    requests_per_client_minute: int = Field(default=60_000, ge=0)
    allowed_origins: tuple[str, ...] = ()
    request_log: RequestLogConfig = RequestLogConfig()
    inline_milliseconds: float = Field(default=2, ge=0)
    index_min_items: int = Field(default=300_000, ge=1000)
    personal_lists_seconds: float = Field(default=20, ge=0)
    catalogue_check_seconds: float = Field(default=30, gt=0)
    warmup_requests: int = Field(default=200, ge=0)
    warmup_seconds: float = Field(default=10, ge=0)
    reload_timeout_seconds: float = Field(default=120, gt=0)
    live_interaction_days: float = Field(default=30, gt=0)


def load_config(settings: Settings) -> ServingConfig:
    """Read ``serving.yaml``. Raises `ConfigError` that names the key."""
    return settings.read_config(CONFIG_NAME, ServingConfig)


@dataclass(frozen=True)
class ServiceEnvironment:
    """Where the service stands.

    Attributes
    ----------
    host, port
        Where to listen.
    admin_token
        Who has it administers the service; None: nobody may.
    trusted_proxies
        Addresses and networks of proxies that say, in X-Forwarded-For, whom they ask for.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    admin_token: str | None = field(default=None, repr=False)
    trusted_proxies: tuple[str, ...] = ()


def read_environment(variables: Mapping[str, str] | None = None) -> ServiceEnvironment:
    """The service's part of the environment.

    Raises
    ------
    ConfigError
        If ``RECSYS_SERVICE_PORT`` is no port, or ``RECSYS_SERVICE_TRUSTED_PROXIES`` are not
        addresses and networks with commas between them.
    """
    variables = os.environ if variables is None else variables
    text = variables.get("RECSYS_SERVICE_PORT") or "8000"
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigError(f"RECSYS_SERVICE_PORT: expected a port from 1 to 65535, got {text!r}")
    return ServiceEnvironment(
        host=variables.get("RECSYS_SERVICE_HOST") or "127.0.0.1",
        port=int(text),
        admin_token=variables.get("RECSYS_ADMIN_TOKEN", "").strip() or None,
        trusted_proxies=_networks(variables.get("RECSYS_SERVICE_TRUSTED_PROXIES", "")),
    )


def _networks(text: str) -> tuple[str, ...]:
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    try:
        return tuple(str(ipaddress.ip_network(part)) for part in parts)
    except ValueError as error:
        raise ConfigError(
            "RECSYS_SERVICE_TRUSTED_PROXIES: expected addresses and networks with commas between "
            f"them, such as 10.0.0.5,172.16.0.0/12: {error}"
        ) from error
