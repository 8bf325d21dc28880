"""The places of the shop in which lists stand, and what each asks of its lists."""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from recsys.config import ConfigModel
from recsys.events import PLACEMENT

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


class PlacementsConfig(ConfigModel):
    """``config/placements.yaml``; every key is explained there."""

    FILE = "placements.yaml"
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
