"""Settings of the drift job: ``config/drift.yaml`` and ``config/holidays.yaml``."""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, field_validator

from recsys.config import ConfigModel

Severity = Literal["low", "medium", "high"]
Share = Annotated[float, Field(gt=0, le=1)]


class RatingConfig(ConfigModel):
    threshold: Share = 0.06


class PopularityConfig(ConfigModel):
    top_k: int = Field(default=100, ge=1)


class VolumeConfig(ConfigModel):
    min_change: Share = 0.2


class CampaignConfig(ConfigModel):
    min_share: Share = 0.1


class ModelConfig(ConfigModel):
    min_drop: Share = 0.3


class ActionsConfig(ConfigModel):
    retrain_on_drift: bool = True
    retrain_cooldown_days: float = Field(default=7, ge=0)


class DriftConfig(ConfigModel):
    """Everything in ``config/drift.yaml``; the file explains each key."""

    FILE = "drift.yaml"

    reference: Literal["moving", "model"] = "moving"
    reference_weeks: int = Field(default=12, ge=4)
    false_discovery_rate: float = Field(default=0.05, gt=0, lt=1)
    rating: RatingConfig = RatingConfig()
    popularity: PopularityConfig = PopularityConfig()
    volume: VolumeConfig = VolumeConfig()
    campaign: CampaignConfig = CampaignConfig()
    model: ModelConfig = ModelConfig()
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

    def touches(self, first_day: date) -> bool:
        """Whether the holiday's span shares a day with the week from `first_day`."""
        years = (first_day.year - 1, first_day.year, first_day.year + 1)
        centres = [*self.dates, *(_in_year(text, y) for text in self.every_year for y in years)]
        distances = [(centre - first_day).days for centre in centres]
        return any(-self.days_after <= days <= 6 + self.days_before for days in distances)


class HolidayCalendar(ConfigModel):
    FILE = "holidays.yaml"

    holidays: tuple[Holiday, ...] = ()

    def touching(self, first_day: date) -> list[Holiday]:
        """The holidays of the week that starts on `first_day`."""
        return [holiday for holiday in self.holidays if holiday.touches(first_day)]

    def widening(self, first_day: date) -> float:
        """The factor on the width of that week's band."""
        return max((holiday.widen for holiday in self.touching(first_day)), default=1.0)


def _in_year(month_and_day: str, year: int) -> date:
    try:
        return date.fromisoformat(f"{year}-{month_and_day}")
    except ValueError:
        raise ValueError(f"expected month and day such as '03-08', got {month_and_day!r}") from None
