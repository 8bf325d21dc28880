"""Bringing a model into service, over HTTP: gate, approval, canary, reload, verify, roll back.

`job` has the steps that the DAG calls. Here is ``config/deployment.yaml``."""

from pydantic import Field

from recsys.config import ConfigModel
from recsys.evaluation import RankingMetric
from recsys.schedule import Approval


class GateConfig(ConfigModel):
    """What a model has to be before it is reloaded."""

    metric: RankingMetric = "recall_at_10"
    max_worsening: float = Field(default=0.1, ge=0)


class VerifyConfig(ConfigModel):
    """What the service has to answer afterwards."""

    sample_users: int = Field(default=10, ge=1)
    max_latency_ms: float = Field(default=1000, gt=0)


class CanaryConfig(ConfigModel):
    """A trial on a share of the users before everybody gets the model."""

    enabled: bool = False
    share: float = Field(default=0.1, gt=0, le=1)
    minutes: float = Field(default=5, gt=0, le=60)
    min_requests: int = Field(default=50, ge=1)
    max_latency_ratio: float = Field(default=3, gt=0)


class DeploymentConfig(Approval):
    """Every key is explained in the file."""

    reload_timeout_seconds: float = Field(default=150, gt=0)
    patience_seconds: float = Field(default=60, ge=0)
    gate: GateConfig = GateConfig()
    verify: VerifyConfig = VerifyConfig()
    canary: CanaryConfig = CanaryConfig()
