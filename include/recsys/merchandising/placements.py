"""The places of the shop in which lists stand, and what each asks of its lists."""

import logging
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from pydantic import Field, ValidationError, field_validator

from recsys.config import ConfigError, ConfigModel, load_config, parse_json
from recsys.events import PLACEMENT
from recsys.publishing import write_json
from recsys.settings import Settings

logger = logging.getLogger(__name__)

UNTIL_DUE: Final = "until_due"
ExcludeSeen = bool | Literal["until_due"]
"""Whether what the customer had is left out: always, never, or until it is due again."""


class Spread(ConfigModel):
    """At most so many products of one brand, and of one category, in a list; products without one
    are not counted. `diversity` is the part of a product's rank that its text decides: how little
    it is like those above it."""

    brand: int | None = Field(default=None, ge=1)
    category: int | None = Field(default=None, ge=1)
    diversity: float = Field(default=0.0, ge=0, lt=1)


class Placement(ConfigModel):
    """What a list of this placement is like, where the request does not say."""

    length: int = Field(default=10, ge=1, le=1000)
    endpoint: Literal["recommend", "similar_items", "search", "bought_together"] = "recommend"
    spread: Spread = Spread()
    explore: float = Field(default=0.0, ge=0, le=0.5)
    rules: bool = True
    exclude_seen: ExcludeSeen = True

    @field_validator("exclude_seen", mode="before")
    @classmethod
    def _is_yes_no_or_until_due(cls, value: Any) -> Any:
        if not isinstance(value, bool) and value != UNTIL_DUE:
            raise ValueError(f"expected true, false or {UNTIL_DUE}")
        return value


class PlacementsConfig(ConfigModel):
    """``config/placements.yaml``; every key is explained there."""

    FILE = "placements.yaml"
    NOTHING = "placements: {}"
    ENTRIES: ClassVar = {
        "placements": {
            "home": {"length": 10, "endpoint": "recommend"},
            "product": {"length": 10, "endpoint": "similar_items"},
            "cart": {"length": 5, "endpoint": "bought_together"},
            "mail": {"length": 6, "endpoint": "recommend"},
        }
    }

    placements: dict[Annotated[str, Field(pattern=PLACEMENT)], Placement] = Field(
        default_factory=dict
    )
    few_impressions: int = Field(default=200, ge=1)


_NOTE: Final = "served_placements.json"


class StandingPlacements(NamedTuple):
    """The last good placements, None before the first, and what somebody was told to be wrong with
    the file."""

    config: PlacementsConfig | None = None
    problem: str | None = None


def placements_in_force(
    settings: Settings, before: PlacementsConfig | None = None
) -> tuple[PlacementsConfig, str | None]:
    """What the file says. Of one that cannot count those `before` it, by default those that this
    machine had in service last, and what is the matter. Raises `ConfigError` if there are none."""
    try:
        return load_config(settings, PlacementsConfig), None
    except ConfigError as error:
        standing = before or read_standing_placements(settings).config
        if standing is None:
            raise
        return standing, str(error)


def read_standing_placements(settings: Settings) -> StandingPlacements:
    """What `write_standing_placements` wrote; nothing without a sound note, which the log says."""
    path = settings.artifacts / _NOTE
    try:
        content = parse_json(path.read_bytes())
        config = PlacementsConfig.model_validate(content["config"])
        return StandingPlacements(config, content["problem"] and str(content["problem"]))
    except FileNotFoundError:
        return StandingPlacements()
    except (OSError, ValidationError, ValueError, KeyError, TypeError) as error:
        logger.warning("The note of the last placements is damaged | error=%r", error)
        return StandingPlacements()


def write_standing_placements(settings: Settings, standing: StandingPlacements) -> None:
    """Write down what a service comes up with whose file is bad. Raises `OSError`."""
    config = standing.config and standing.config.model_dump(mode="json")
    write_json(settings.artifacts / _NOTE, {"config": config, "problem": standing.problem})
