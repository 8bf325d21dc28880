"""The jobs and their timetable, from ``config/scheduler_config.json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter
from pydantic import Field, field_validator, model_validator

from recsys.config import ConfigModel, load_config
from recsys.settings import Settings


class JobSchedule(ConfigModel):
    """When a job runs and how long it may take.

    The timeout counts from the start of a run, the deadline from the moment it was queued. With
    `queue`, only Celery workers that listen to it run the job's tasks.
    """

    enabled: bool = True
    cron: str
    timeout_minutes: float = Field(gt=0)
    deadline_minutes: float = Field(gt=0)
    queue: str | None = Field(default=None, min_length=1)

    @field_validator("cron")
    @classmethod
    def _cron_is_valid(cls, value: str) -> str:
        if not croniter.is_valid(value):
            raise ValueError("expected a cron expression of five fields such as '0 2 * * *'")
        return value

    @property
    def timeout(self) -> timedelta:
        return timedelta(minutes=self.timeout_minutes)

    @property
    def deadline(self) -> timedelta:
        return timedelta(minutes=self.deadline_minutes)


class SchedulerConfig(ConfigModel):
    """All jobs by name, and the time zone that their cron expressions are read in."""

    FILE = "scheduler_config.json"

    timezone: str
    jobs: dict[str, JobSchedule]

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError("expected a time zone such as 'Asia/Ho_Chi_Minh'") from None
        return value

    @model_validator(mode="after")
    def _has_jobs(self) -> "SchedulerConfig":
        if not self.jobs:
            raise ValueError("jobs: expected at least one job")
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


@dataclass(frozen=True)
class DataInterval:
    """The half-open span of time ``[start, end)`` that a run is responsible for; both aware."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("a data interval needs time zones on both bounds")
        if self.end < self.start:
            raise ValueError(f"a data interval ends before it starts: {self.start} - {self.end}")


def load_schedule(settings: Settings) -> SchedulerConfig:
    """Read ``scheduler_config.json``. Raises `ConfigError` that names the key."""
    return load_config(settings, SchedulerConfig)


def interval_of(context: Mapping[str, Any]) -> DataInterval:
    """The data interval of an Airflow task context.

    A run that was triggered by hand without a date has none; then it is the day that ends when
    the run was asked for.
    """
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is not None and end is not None:
        return DataInterval(start, end)
    asked = getattr(context["dag_run"], "run_after", None) or datetime.now(UTC)
    return DataInterval(asked - timedelta(days=1), asked)
