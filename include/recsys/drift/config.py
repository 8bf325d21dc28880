"""Settings of the drift job: ``config/drift.yaml`` and ``config/holidays.yaml``."""

from datetime import date, timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator

from recsys.config import ConfigModel

Severity = Literal["low", "medium", "high"]
Share = Annotated[float, Field(gt=0, le=1)]


class RatingConfig(ConfigModel):
    threshold: Share = 0.06
    high: Share = 0.15
    min_events: int = Field(default=300, ge=2)


class PopularityConfig(ConfigModel):
    top_k: int = Field(default=100, ge=1)
    min_events: int = Field(default=300, ge=2)
    min_shortfall: Share = 0.12
    high_shortfall: Share = 0.35


class VolumeConfig(ConfigModel):
    history_weeks: int = Field(default=26, ge=4)
    min_history_weeks: int = Field(default=6, ge=4)
    min_expected: float = Field(default=10, gt=0)
    min_change: Share = 0.2
    high_drop: Share = 0.5
    collapse: Share = 0.7
    burst: float = Field(default=2.0, gt=1)


class CampaignConfig(ConfigModel):
    min_users: int = Field(default=8, ge=2)
    min_characters: int = Field(default=12, ge=1)
    min_share: Share = 0.1


class CustomersConfig(ConfigModel):
    min_users: int = Field(default=50, ge=2)
    min_activity_change: float = Field(default=0.2, gt=0)
    min_new_users_change: Share = 0.1


class CommentsConfig(ConfigModel):
    min_comments: int = Field(default=200, ge=2)
    min_length_change: float = Field(default=0.25, gt=0)
    min_share_change: Share = 0.1
    min_quality_change: Share = 0.08


class EmbeddingConfig(ConfigModel):
    min_events: int = Field(default=300, ge=2)
    min_distance: float = Field(default=0.02, gt=0)


class ModelConfig(ConfigModel):
    top_k: int = Field(default=10, ge=1)
    min_users: int = Field(default=100, ge=2)
    past_weeks: int = Field(default=4, ge=1)
    min_drop: Share = 0.3


class SeverityConfig(ConfigModel):
    campaign: Severity = "medium"
    activity: Severity = "medium"
    new_users: Severity = "medium"
    comments: Severity = "low"
    embedding: Severity = "medium"
    model: Severity = "high"


class ActionsConfig(ConfigModel):
    retrain_on_drift: bool = True
    retrain_cooldown_days: float = Field(default=7, ge=0)


class DriftConfig(ConfigModel):
    """Everything in ``config/drift.yaml``; the file explains each key."""

    FILE = "drift.yaml"

    reference: Literal["moving", "model"] = "moving"
    reference_weeks: int = Field(default=12, ge=4)
    gap_weeks: int = Field(default=1, ge=0)
    false_discovery_rate: float = Field(default=0.05, gt=0, lt=1)
    rating: RatingConfig = RatingConfig()
    popularity: PopularityConfig = PopularityConfig()
    volume: VolumeConfig = VolumeConfig()
    campaign: CampaignConfig = CampaignConfig()
    customers: CustomersConfig = CustomersConfig()
    comments: CommentsConfig = CommentsConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    model: ModelConfig = ModelConfig()
    severity: SeverityConfig = SeverityConfig()
    actions: ActionsConfig = ActionsConfig()


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
    FILE = "holidays.yaml"

    holidays: tuple[Holiday, ...] = ()

    def touching(self, first_day: date) -> list[Holiday]:
        """The holidays of the week that starts on `first_day`."""
        return [holiday for holiday in self.holidays if holiday.touches(first_day)]


def _in_year(month_and_day: str, year: int) -> date:
    try:
        return date.fromisoformat(f"{year}-{month_and_day}")
    except ValueError:
        raise ValueError(f"expected month and day such as '03-08', got {month_and_day!r}") from None
