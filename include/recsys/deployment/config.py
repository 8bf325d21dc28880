"""``config/deployment.yaml`` and where the service is."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import Field

from recsys.config import ConfigModel


class GateConfig(ConfigModel):
    """What a model has to be before it is reloaded."""

    metric: str = "recall_at_10"
    max_worsening: float = Field(default=0.1, ge=0)


class VerifyConfig(ConfigModel):
    """What the service has to answer afterwards."""

    sample_users: int = Field(default=10, ge=1)
    cold_users: int = Field(default=2, ge=0)
    topk: int = Field(default=10, ge=1)
    max_latency_ms: float = Field(default=1000, gt=0)
    min_personal_share: float = Field(default=0.5, ge=0, le=1)


class CanaryConfig(ConfigModel):
    """A trial on a share of the users before everybody gets the model."""

    enabled: bool = False
    share: float = Field(default=0.1, gt=0, le=1)
    minutes: float = Field(default=5, gt=0, le=60)
    min_requests: int = Field(default=50, ge=1)
    max_error_rate: float = Field(default=0.01, ge=0, le=1)
    max_fallback_increase: float = Field(default=0.1, ge=0, le=1)
    max_latency_ratio: float = Field(default=3, gt=0)


class DeploymentConfig(ConfigModel):
    """Every key is explained in the file."""

    FILE = "deployment.yaml"

    require_approval: bool = False
    approval_hours: float = Field(default=12, gt=0)

    reload_timeout_seconds: float = Field(default=150, gt=0)
    request_timeout_seconds: float = Field(default=5, gt=0)
    patience_seconds: float = Field(default=60, ge=0)
    gate: GateConfig = GateConfig()
    verify: VerifyConfig = VerifyConfig()
    canary: CanaryConfig = CanaryConfig()
    history_entries: int = Field(default=1000, ge=1)


@dataclass(frozen=True)
class ServiceAddress:
    """Where the service listens, and the token that it wants for administration."""

    url: str = "http://127.0.0.1:8000"
    token: str | None = field(default=None, repr=False)


def read_address(variables: Mapping[str, str] | None = None) -> ServiceAddress:
    """The service's address and token from the environment."""
    variables = os.environ if variables is None else variables
    return ServiceAddress(
        url=(variables.get("RECSYS_SERVICE_URL") or "http://127.0.0.1:8000").rstrip("/"),
        token=variables.get("RECSYS_ADMIN_TOKEN", "").strip() or None,
    )
