"""Settings of the served lists and of what became of them: ``config/outcomes.yaml``."""

from pydantic import Field, field_validator

from recsys.config import ConfigModel, whole_as_text
from recsys.ids import normalise_id


class OutcomesConfig(ConfigModel):
    """Everything in ``config/outcomes.yaml``; the file explains each key."""

    FILE = "outcomes.yaml"

    keep_served_days: int = Field(default=90, ge=9)
    robot_lists_per_day: int = Field(default=1000, ge=1)
    robot_events_per_day: int = Field(default=500, ge=1)
    robots: tuple[str, ...] = ()

    @field_validator("robots", mode="before")
    @classmethod
    def _are_ids(cls, value: object) -> object:
        """Ids of users and sessions, which YAML may read as numbers."""
        if not isinstance(value, list | tuple):
            raise ValueError("expected a list of users and sessions")
        texts = map(whole_as_text, value)
        return tuple(normalise_id(one) if isinstance(one, str) else one for one in texts)
