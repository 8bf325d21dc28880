"""What can be configured about the service, and what it takes from the environment."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from recsys.config import ConfigError, ConfigModel
from recsys.events import PLACEMENT
from recsys.request_log import RequestLogConfig


class ServingConfig(ConfigModel):
    """``config/serving.yaml``; every key is explained there."""

    FILE = "serving.yaml"

    workers: int = Field(default=1, ge=1, le=64)
    max_topk: int = Field(default=100, ge=1, le=1000)
    max_body_bytes: int = Field(default=1_000_000, ge=1000)
    request_timeout_seconds: float = Field(default=15, gt=0)
    requests_per_client_minute: int = Field(default=60_000, ge=0)
    allowed_origins: tuple[str, ...] = ()
    request_log: RequestLogConfig = RequestLogConfig()
    record_lists: bool = True
    placements: tuple[Annotated[str, Field(pattern=PLACEMENT)], ...] = ()
    personal_lists_seconds: float = Field(default=20, ge=0)
    catalogue_check_seconds: float = Field(default=30, gt=0)
    live_interaction_days: float = Field(default=30, gt=0)
    max_events_of_user_per_day: int = Field(default=200, ge=0)
    max_events_of_product_per_day: int = Field(default=2000, ge=0)
    holdout_share: float = Field(default=0, ge=0, le=0.5)


@dataclass(frozen=True)
class ServiceEnvironment:
    """Where the service stands."""

    host: str = "127.0.0.1"
    port: int = 8000
    admin_token: str | None = field(default=None, repr=False)  # None: nobody administers
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies that say, in X-Forwarded-For, whom they ask for."""
    write_tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Names of senders by their token: who has one may send interactions. The ids of events are
    those of their sender. Without any, everybody may if only this machine reaches the service,
    nobody otherwise."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the service."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_environment(variables: Mapping[str, str] | None = None) -> ServiceEnvironment:
    """The service's part of the environment. Raises `ConfigError` if ``RECSYS_SERVICE_PORT`` is no
    port, ``RECSYS_WRITE_TOKEN`` has a name or a token twice, or ``RECSYS_SERVICE_TRUSTED_PROXIES``
    are not addresses and networks with commas between them."""
    variables = os.environ if variables is None else variables
    text = variables.get("RECSYS_SERVICE_PORT") or "8000"
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigError(f"RECSYS_SERVICE_PORT: expected a port from 1 to 65535, got {text!r}")
    return ServiceEnvironment(
        host=variables.get("RECSYS_SERVICE_HOST") or "127.0.0.1",
        port=int(text),
        admin_token=variables.get("RECSYS_ADMIN_TOKEN", "").strip() or None,
        write_tokens=_senders(variables.get("RECSYS_WRITE_TOKEN", "")),
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


def _senders(text: str) -> dict[str, str]:
    """Senders by token: ``token`` is that of the shop, whose ids stay as they are, and
    ``name:token, name:token`` those of several."""
    tokens: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, separator, token = part.partition(":")
        name, token = (name.strip(), token.strip()) if separator else ("", part)
        if not token or token in tokens or name in tokens.values():
            raise ConfigError(
                "RECSYS_WRITE_TOKEN: expected one token, or name:token with commas between them, "
                "each name and each token once"
            )
        tokens[token] = name
    if len(tokens) > 1 and "" in tokens.values():
        raise ConfigError("RECSYS_WRITE_TOKEN: expected name:token for each of several tokens")
    return tokens
