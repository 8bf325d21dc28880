"""``config/data.yaml`` as a typed object."""

from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

from pydantic import Field, PastDate

from recsys.config import ConfigModel


class Engine(StrEnum):
    """What computes a heavy step."""

    PANDAS = "pandas"
    SPARK = "spark"


class DataConfig(ConfigModel):
    """What a refresh accepts, when it is incremental and what it keeps."""

    FILE = "data.yaml"

    source: str = "viecomrec"
    events: tuple[str, ...] = ()
    engine: Engine = Engine.PANDAS
    max_invalid_fraction: float = Field(default=0.2, ge=0, le=1)
    max_shrink_fraction: float = Field(default=0.5, ge=0, le=1)
    earliest: PastDate = date(2000, 1, 1)
    incremental_limit: int = Field(default=100, ge=0)
    keep_view_days: float = Field(default=180, gt=0, le=36_500)
    keep_versions: int = Field(default=7, ge=1)
    keep_quarantine_days: float = Field(default=90, ge=0)

    @property
    def views_count_for(self) -> timedelta:
        return timedelta(days=self.keep_view_days)

    @property
    def earliest_time(self) -> datetime:
        return datetime(self.earliest.year, self.earliest.month, self.earliest.day, tzinfo=UTC)
