"""``config/health.yaml``; every key is explained there."""

from pydantic import Field

from recsys.config import ConfigModel


class DataConfig(ConfigModel):
    max_age_days: float = Field(default=7, gt=0)


class ModelHealthConfig(ConfigModel):
    deployment_grace_hours: float = Field(default=26, ge=0)


class PipelineConfig(ConfigModel):
    window_days: int = Field(default=7, ge=1)
    min_success_rate: float = Field(default=0.5, ge=0, le=1)
    max_running_hours: float = Field(default=24, gt=0)


class MetricsConfig(ConfigModel):
    window_minutes: float = Field(default=60, gt=0)
    min_requests: int = Field(default=5, ge=1)


class ReportsConfig(ConfigModel):
    overdue_hours: float = Field(default=2, gt=0)


class HealthConfig(ConfigModel):
    """All sections; each can be left out."""

    FILE = "health.yaml"

    data: DataConfig = DataConfig()
    model: ModelHealthConfig = ModelHealthConfig()
    pipeline: PipelineConfig = PipelineConfig()
    metrics: MetricsConfig = MetricsConfig()
    reports: ReportsConfig = ReportsConfig()
