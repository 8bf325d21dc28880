"""Settings of the drift job: ``config/drift.yaml`` and ``config/holidays.yaml``."""

from datetime import date, timedelta
from typing import Literal

from pydantic import Field, field_validator

from recsys.settings import ConfigModel, Settings

CONFIG_NAME = "drift.yaml"
HOLIDAYS_NAME = "holidays.yaml"

Severity = Literal["low", "medium", "high"]
Share = Field(gt=0, le=1)


class RatingConfig(ConfigModel):
    threshold: float = Share
    high: float = Share
    min_events: int = Field(ge=2)


class PopularityConfig(ConfigModel):
    top_k: int = Field(ge=1)
    min_events: int = Field(ge=2)
    min_shortfall: float = Share
    high_shortfall: float = Share


class VolumeConfig(ConfigModel):
    history_weeks: int = Field(ge=4)
    min_history_weeks: int = Field(ge=4)
    min_expected: float = Field(gt=0)
    min_change: float = Share
    high_drop: float = Share
    collapse: float = Share
    burst: float = Field(gt=1)


class CampaignConfig(ConfigModel):
    min_users: int = Field(ge=2)
    min_characters: int = Field(ge=1)
    min_share: float = Share


class CustomersConfig(ConfigModel):
    min_users: int = Field(ge=2)
    min_activity_change: float = Field(gt=0)
    min_new_users_change: float = Share


class CommentsConfig(ConfigModel):
    min_comments: int = Field(ge=2)
    min_length_change: float = Field(gt=0)
    min_share_change: float = Share
    min_quality_change: float = Share


class EmbeddingConfig(ConfigModel):
    min_events: int = Field(ge=2)
    min_distance: float = Field(gt=0)


class ModelConfig(ConfigModel):
    top_k: int = Field(ge=1)
    min_users: int = Field(ge=2)
    past_weeks: int = Field(ge=1)
    min_drop: float = Share


class SeverityConfig(ConfigModel):
    campaign: Severity
    activity: Severity
    new_users: Severity
    comments: Severity
    embedding: Severity
    model: Severity


class ActionsConfig(ConfigModel):
    retrain_on_drift: bool
    retrain_cooldown_days: float = Field(ge=0)


class DriftConfig(ConfigModel):
    """Everything in ``config/drift.yaml``; the file explains each key."""

    reference: Literal["moving", "model"]
    reference_weeks: int = Field(ge=4)
    gap_weeks: int = Field(ge=0)
    false_discovery_rate: float = Field(gt=0, lt=1)
    rating: RatingConfig
    popularity: PopularityConfig
    volume: VolumeConfig
    campaign: CampaignConfig
    customers: CustomersConfig
    comments: CommentsConfig
    embedding: EmbeddingConfig
    model: ModelConfig
    severity: SeverityConfig
    actions: ActionsConfig


class Holiday(ConfigModel):
    """Days of high or low season; see ``config/holidays.yaml``."""

    name: str
    dates: tuple[date, ...] = ()
    every_year: tuple[str, ...] = ()
    days_before: int = Field(ge=0)
    days_after: int = Field(ge=0)
    widen: float = Field(ge=1)

    @field_validator("every_year")
    @classmethod
    def _is_month_and_day(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            _in_year(text, 2023)
        return value

    def touches(self, first_day: date, days: int = 7) -> bool:
        """Whether the holiday's span shares a day with the `days` from `first_day`."""
        years = (first_day.year - 1, first_day.year, first_day.year + 1)
        centres = [*self.dates, *(_in_year(text, y) for text in self.every_year for y in years)]
        last_day = first_day + timedelta(days=days - 1)
        return any(
            centre - timedelta(days=self.days_before) <= last_day
            and first_day <= centre + timedelta(days=self.days_after)
            for centre in centres
        )


class HolidayCalendar(ConfigModel):
    holidays: tuple[Holiday, ...] = ()

    def touching(self, first_day: date) -> list[Holiday]:
        """The holidays of the week that starts on `first_day`."""
        return [holiday for holiday in self.holidays if holiday.touches(first_day)]


def load_config(settings: Settings) -> DriftConfig:
    """Read ``drift.yaml``. Raises `recsys.settings.ConfigError` that names the key."""
    return settings.read_config(CONFIG_NAME, DriftConfig)


def load_holidays(settings: Settings) -> HolidayCalendar:
    """Read ``holidays.yaml``. Raises `recsys.settings.ConfigError` that names the key."""
    return settings.read_config(HOLIDAYS_NAME, HolidayCalendar)


def _in_year(month_and_day: str, year: int) -> date:
    try:
        return date.fromisoformat(f"{year}-{month_and_day}")
    except ValueError:
        raise ValueError(f"expected month and day such as '03-08', got {month_and_day!r}") from None
