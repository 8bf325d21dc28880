"""``config/serving.yaml`` as a typed object: the service's settings, which its upkeep reads too."""

from pydantic import Field

from recsys.config import ConfigModel


class RequestLogConfig(ConfigModel):
    """How requests are written down. Seconds, rows, days."""

    flush_seconds: float = Field(default=0.5, gt=0, le=60)
    max_pending_rows: int = Field(default=50_000, ge=100)
    retention_days: float = Field(default=30, gt=0)


class ServingConfig(ConfigModel):
    """``config/serving.yaml``; every key is explained there."""

    FILE = "serving.yaml"

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
