"""The shop's rules: what ``config/rules.yaml`` may say, and which products and moments it means.

Pure but for `read_rules`: the service, the commands and the page read the file in one way."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from recsys.arrays import BoolArray, Float32Array, Float64Array
from recsys.config import ConfigError, ConfigModel, load_config, whole_as_text
from recsys.events import PLACEMENT
from recsys.ids import normalise_id
from recsys.merchandising.catalogue import Catalogue
from recsys.settings import Settings
from recsys.text import fold

Action = Literal["hide", "pin", "boost", "bury", "limit", "quota"]

MOST_RULES: Final = 200
_MOST_PLACES: Final = 1000  # of a list, see `max_topk`
_DAY_SECONDS: Final = 86_400
# The keys that say how an action is meant; all but `strength` have to be given with it.
_KEY_OF: Final = {
    "pin": "position",
    "boost": "strength",
    "bury": "strength",
    "limit": "at_most",
    "quota": "at_least",
}


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("expected some text")
    return value


Text = Annotated[str, AfterValidator(_not_blank), Field(max_length=1000)]
Names = tuple[Annotated[Text, BeforeValidator(whole_as_text)], ...]


class Products(ConfigModel):
    """Which products are meant: all that is given has to hold, and something is. Names of brands,
    categories and tags match without regard to case and accents; a product of which a bound's
    figure is unknown is not within it. Prices in dong, ages in days since the product's first day
    in the shop (``available_from``, else its first purchase or review)."""

    ids: Names = ()
    brands: Names = ()
    categories: Names = ()
    tags: Names = ()
    min_price: float | None = Field(default=None, ge=0)
    max_price: float | None = Field(default=None, ge=0)
    min_stock: float | None = Field(default=None, ge=0)
    max_stock: float | None = Field(default=None, ge=0)
    min_age_days: float | None = Field(default=None, ge=0)
    max_age_days: float | None = Field(default=None, ge=0)

    @property
    def asks_for_age(self) -> bool:
        """Whether other products are meant as time goes by."""
        return self.min_age_days is not None or self.max_age_days is not None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not any(value not in (None, ()) for value in self.__dict__.values()):
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"expected at least one of {known}")
        for what in ("price", "stock", "age_days"):
            low, high = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{what} {low:g} is above max_{what} {high:g}")
        return self


class Rule(ConfigModel):
    """One wish of the shop, with who made it and why: docs/rules.md."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    action: Action
    products: Products
    placements: tuple[Annotated[str, Field(pattern=PLACEMENT)], ...] = ()
    position: int | None = Field(default=None, ge=1, le=_MOST_PLACES)
    strength: float = Field(default=1.0, gt=0, le=10)
    at_most: int | None = Field(default=None, ge=1, le=_MOST_PLACES)
    at_least: int | None = Field(default=None, ge=1, le=_MOST_PLACES)
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    author: Text
    reason: Text

    @field_validator("start", "end", mode="before")
    @classmethod
    def _is_a_moment(cls, value: Any) -> Any:
        """Numbers, and days without a time, are no moments; pydantic would take them."""
        zoned = isinstance(value, datetime) and value.tzinfo is not None
        if value is None or zoned or (isinstance(value, str) and ":" in value):
            return value
        raise ValueError("expected a time with its zone, such as 2026-12-01T00:00+07:00")

    @model_validator(mode="after")
    def _fits_its_action(self) -> Self:
        own = _KEY_OF.get(self.action)
        if own is not None and getattr(self, own) is None:
            raise ValueError(f"{own}: expected a value: the action is {self.action}")
        for key in dict.fromkeys(_KEY_OF.values()):
            if key != own and key in self.model_fields_set:
                raise ValueError(f"{key}: is of no use to the action {self.action}; leave it out")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError("end: expected a time after start")
        return self

    def holds(self, placement: str) -> bool:
        """Whether the rule is for lists of `placement`; "" is a list without one."""
        return not self.placements or placement in self.placements

    def state(self, now: datetime) -> str:
        """``waiting``, ``active`` or ``expired``."""
        return "expired" if self.expired(now) else "active" if self.active(now) else "waiting"

    def expired(self, now: datetime) -> bool:
        return self.end is not None and self.end <= now

    def active(self, now: datetime) -> bool:
        return (self.start is None or self.start <= now) and not self.expired(now)


class RulesConfig(ConfigModel):
    """``config/rules.yaml``."""

    FILE = "rules.yaml"
    NOTHING = "rules: []"

    rules: tuple[Rule, ...] = Field(default=(), max_length=MOST_RULES)

    @model_validator(mode="after")
    def _have_names_of_their_own(self) -> Self:
        seen = set()
        for rule in self.rules:
            if rule.name in seen:
                raise ValueError(f"the name {rule.name} stands there twice: expected each once")
            seen.add(rule.name)
        return self


@dataclass(frozen=True)
class RuleSet:
    """Rules in the order of their file, and the SHA-256 of that; "" before one was read."""

    rules: tuple[Rule, ...] = ()
    sha256: str = ""


def read_rules(settings: Settings) -> RuleSet:
    """What the file says. Raises `ConfigError` with a line for each mistake: file, rule, key."""
    rules = load_config(settings, RulesConfig).rules
    try:
        return RuleSet(rules, file_digest(settings))
    except OSError as error:
        if not rules and isinstance(error, FileNotFoundError):
            return RuleSet()  # the repository's own is the state root's, and is gone
        path = settings.config_file(RulesConfig.FILE)
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def file_digest(settings: Settings) -> str:
    """SHA-256 of the file of the rules. Raises `OSError`."""
    with settings.config_file(RulesConfig.FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def active(rules: Iterable[Rule], now: datetime, placement: str) -> tuple[Rule, ...]:
    """Those of `rules` that count at `now` in a list of `placement`; "" is a list without one."""
    return tuple(rule for rule in rules if rule.active(now) and rule.holds(placement))


def matching(
    products: Products, catalogue: Catalogue, now: datetime, since: Float64Array | None = None
) -> BoolArray:
    """``(items,)`` the products of the catalogue that are meant at `now`, available or not. `since`
    is when each began, ``(items,)`` seconds since 1970 (`Snapshot.since`), by default what the
    catalogue says."""
    chosen = np.ones(len(catalogue.item_ids), dtype=bool)
    if products.ids:
        chosen &= _columns(catalogue.index, map(normalise_id, products.ids), len(chosen))
    groups = (
        (products.brands, catalogue.brand_items),
        (products.categories, catalogue.category_items),
        (products.tags, catalogue.tag_items),
    )
    for names, members in groups:
        if names:
            chosen &= _columns(members, map(fold, names), len(chosen))
    since = catalogue.since if since is None else since
    age = None if since is None else (now.timestamp() - since) / _DAY_SECONDS
    bounds = (
        (catalogue.price_array, products.min_price, products.max_price),
        (catalogue.stock, products.min_stock, products.max_stock),
        (age, products.min_age_days, products.max_age_days),
    )
    for values, low, high in bounds:
        if low is not None or high is not None:
            chosen &= _within(values, low, high)
    return chosen


def _columns(members: Any, names: Iterable[str], items: int) -> BoolArray:
    found = np.zeros(items, dtype=bool)
    for name in names:
        found[members.get(name, [])] = True
    return found


def _within(
    values: Float32Array | Float64Array | None, low: float | None, high: float | None
) -> BoolArray:
    """What is NaN is within no bounds; neither is anything of a shop that does not say."""
    if values is None:
        return np.zeros((), dtype=bool)
    floor, ceiling = -np.inf if low is None else low, np.inf if high is None else high
    return np.asarray((values >= floor) & (values <= ceiling))
