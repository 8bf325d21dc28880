"""One customer or one product: what is known, what the service would give, and why."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys import schema
from recsys.config import load_config
from recsys.data.versions import PublishedVersion, current_version
from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceClient, ServiceError, read_address
from recsys.errors import InputError
from recsys.ids import normalise_id
from recsys.merchandising.catalogue import build_catalogue
from recsys.merchandising.rule_adding import add_rule
from recsys.merchandising.rules import Products, Rule, matching, read_rules
from recsys.outcomes.attribution import FATE, POSITION
from recsys.outcomes.daily import figured_days, figures_of, read_day, read_happened
from recsys.privacy import PrivacyConfig
from recsys.pseudonyms import load_pseudonyms
from recsys.schedule import load_zone
from recsys.settings import Settings

LISTED: Final = 20
ROWS: Final = 50
"""Rows of a history that are shown, the newest ones."""
DAYS: Final = 28
SECONDS: Final = 20.0
_LAST_YEAR: Final = 9998  # there is a day after its last one

_REVIEWS: Final = [schema.PRODUCT, schema.RATING, schema.TIMESTAMP]
_SIGNALS: Final = [schema.PRODUCT, schema.KIND, schema.TIMESTAMP]
_HAPPENED: Final = [schema.USER, schema.PRODUCT, schema.KIND, schema.TIMESTAMP, FATE, POSITION]


class Event(NamedTuple):
    """Something that a customer did: the kind, with stars if it was a rating; of what a list led
    to, the `position` in it."""

    at: datetime
    kind: str
    product_id: str
    product_name: str
    rating: float | None = None
    position: int | None = None


class Customer(NamedTuple):
    """What is known of a customer, newest first, what came of lists in the last `DAYS`, event by
    event and as `figures` (lists, clicks, carts, purchases, value), and the service's answer
    (``/rules/preview``), or why there is none."""

    user_id: str
    history: list[Event]
    outcomes: list[Event]
    figures: Mapping[str, float]
    shown: Mapping[str, Any] | None
    refused: str | None


class Product(NamedTuple):
    """A product as the published version has it; `figures` of the last `DAYS`; the `rules` that
    mean it, each with its state; its neighbours as the service has them, or why there are none."""

    product_id: str
    about: Mapping[str, Any]
    available: bool
    reviews: int
    figures: Mapping[str, float]
    rules: list[tuple[Rule, str]]
    shown: Mapping[str, Any] | None
    refused: str | None

    @property
    def is_hidden(self) -> bool:
        """Whether a rule hides it everywhere, now."""
        hides = (rule.action == "hide" and not rule.placements for rule, _ in self.rules)
        states = (state == "active" for _, state in self.rules)
        return any(hidden and active for hidden, active in zip(hides, states, strict=True))


def may_see_customers(settings: Settings, name: str) -> bool:
    """Whether somebody may see what single customers did and got."""
    return name in load_config(settings, PrivacyConfig).see_customers


def pseudonym_of(settings: Settings, user_id: str) -> str:
    """How records name a customer."""
    return load_pseudonyms(settings).of(normalise_id(user_id))


def look_at_customer(settings: Settings, user_id: str) -> Customer:
    """Raises `InputError` if nothing is published."""
    user_id = normalise_id(user_id)
    version = current_version(settings)
    names = _names(version)
    reviews = _rows(version, schema.INTERACTIONS_FILE, schema.USER, user_id, _REVIEWS)
    signals = _rows(version, schema.SIGNALS_FILE, schema.USER, user_id, _SIGNALS)
    rated = reviews.assign(**{schema.KIND: "rating"})
    events = pd.concat([one for one in (rated, signals) if len(one)] or [rated])
    shown, refused = _ask(settings, {"user_id": user_id, "topk": LISTED})
    return Customer(
        user_id,
        _events(events, names),
        _events(_outcomes(settings, user_id), names),
        _figures_of_customer(settings, user_id),
        shown,
        refused,
    )


def look_at_product(settings: Settings, product_id: str, now: datetime) -> Product:
    """Raises `InputError` if nothing is published, or the shop has no such product."""
    product_id = normalise_id(product_id)
    version = current_version(settings)
    products = version.products().set_index(schema.PRODUCT)
    if product_id not in products.index:
        raise InputError(f"{product_id}: the shop has no product of this id")
    about = products.loc[product_id].to_dict()
    shown, refused = _ask(settings, {"product_id": product_id, "topk": LISTED})
    return Product(
        product_id,
        {str(name): None if pd.isna(value) else value for name, value in about.items()},
        bool(about[schema.AVAILABLE]),
        len(_rows(version, schema.INTERACTIONS_FILE, schema.PRODUCT, product_id, _REVIEWS)),
        _figures(settings, product_id),
        _rules(settings, version, product_id, now),
        shown,
        refused,
    )


def steer(
    settings: Settings, product_id: str, asked: Mapping[str, str], author: str, now: datetime
) -> Rule:
    """Hide or pin a product, as was `asked` by a form: ``action``, ``position``, ``until`` (a local
    day, which is the last), ``reason``. Raises `InputError` that says what is wrong."""
    action, until = asked.get("action", ""), asked.get("until", "")
    if action not in ("hide", "pin"):
        raise InputError(f"action: expected hide or pin, not {action!r}")
    try:
        last = date.fromisoformat(until)
    except ValueError:
        raise InputError(f"until: expected a day such as 2026-12-31, not {until!r}") from None
    if last.year > _LAST_YEAR:
        raise InputError(f"until: expected a day up to {_LAST_YEAR}-12-31, not {until!r}")
    product_id = normalise_id(product_id)
    if product_id not in set(current_version(settings).products()[schema.PRODUCT]):
        raise InputError(f"{product_id}: the shop has no product of this id")
    zone = load_zone(settings)
    end = datetime(last.year, last.month, last.day, tzinfo=zone) + timedelta(days=1)
    if end <= now:
        raise InputError(f"until: {until} is over")
    rule: dict[str, Any] = {
        "name": f"{action}-{now.astimezone(zone):%Y%m%d-%H%M%S}",
        "action": action,
        "products": {"ids": [product_id]},
        "end": end.isoformat(),
        "author": author,
        "reason": asked.get("reason", "").strip(),
    }
    if action == "pin":
        place = asked.get("position") or "1"
        if not place.isdecimal():
            raise InputError(f"position: expected a number, not {place!r}")
        rule["position"] = int(place)
    if (done := _done_already(settings, rule, end, now)) is not None:
        if done.end is None:
            raise InputError(f"{done.name} does so already, without an end")
        still = f"{done.end.astimezone(zone):%Y-%m-%d %H:%M}"
        raise InputError(f"{done.name} does so already until {still}")
    return add_rule(settings, rule)


def _done_already(
    settings: Settings, wanted: Mapping[str, Any], end: datetime, now: datetime
) -> Rule | None:
    """The rule that does what is `wanted` until its `end`, and is in force."""
    does = wanted["action"], Products(**wanted["products"]), (), wanted.get("position")
    for known in read_rules(settings).rules:
        about = known.action, known.products, known.placements, known.position
        lasts = known.active(now) and (known.end is None or known.end >= end)
        if about == does and lasts:
            return known
    return None


def _ask(settings: Settings, asked: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    """What the service would give: it notes nothing of it, and nobody was shown that."""
    try:
        client = ServiceClient(read_address(), load_config(settings, DeploymentConfig), SECONDS)
        return client.preview_rules(asked), None
    except (ServiceError, InputError) as error:
        return None, str(error)


def _rows(
    version: PublishedVersion, file: str, column: str, value: str, columns: list[str]
) -> pd.DataFrame:
    """The rows of one customer or product; no others leave the file."""
    path = version.path / file
    if not path.exists():
        return pd.DataFrame(columns=columns)
    return pq.read_table(path, columns=columns, filters=[(column, "=", value)]).to_pandas()


def _names(version: PublishedVersion) -> Mapping[str, str]:
    products = version.products()
    return dict(zip(products[schema.PRODUCT], products[schema.PRODUCT_NAME], strict=True))


def _events(rows: pd.DataFrame, names: Mapping[str, str]) -> list[Event]:
    """The newest `ROWS`, newest first."""
    found = []
    for row in rows.sort_values(schema.TIMESTAMP).tail(ROWS)[::-1].to_dict("records"):
        rating, position = row.get(schema.RATING), row.get(POSITION)
        product = str(row[schema.PRODUCT])
        found.append(
            Event(
                row[schema.TIMESTAMP].to_pydatetime(),
                str(row[schema.KIND]),
                product,
                names.get(product) or product,
                None if rating is None or pd.isna(rating) else float(rating),
                None if position is None or pd.isna(position) or position < 0 else int(position),
            )
        )
    return found


def _recent_days(settings: Settings) -> list[date]:
    first = datetime.now(load_zone(settings)).date() - timedelta(days=DAYS)
    return [day for day in figured_days(settings) if day > first]


def _outcomes(settings: Settings, user_id: str) -> pd.DataFrame:
    """What the customer did with lists."""
    frames = [pd.DataFrame(columns=_HAPPENED)]
    for day in _recent_days(settings):
        with suppress(InputError):  # the events of a day may be gone before its figures
            happened = read_happened(settings, day, _HAPPENED)
            own = happened[(happened[schema.USER] == user_id) & (happened[POSITION] >= 0)]
            frames += [own] if len(own) else []
    return pd.concat(frames[1:]) if len(frames) > 1 else frames[0]


def _figures_of_customer(settings: Settings, user_id: str) -> dict[str, float]:
    """How many lists the customer was shown, and what came of them."""
    names = ["lists", "clicks", "carts", "purchases", "value"]
    sums = dict.fromkeys(names, 0.0)
    for day in _recent_days(settings):
        path = figures_of(settings, day) / "units.parquet"
        with suppress(OSError, pa.ArrowException):  # a damaged day is made again by the next job
            found = pq.read_table(path, columns=names, filters=[("unit", "=", user_id)])
            sums = {name: sums[name] + (pc.sum(found[name]).as_py() or 0) for name in names}
    return sums


def _figures(settings: Settings, product_id: str) -> dict[str, float]:
    """How often the product was shown, clicked and bought from lists."""
    names = ["shown", "clicks", "carts", "purchases"]
    sums = dict.fromkeys(names, 0.0)
    for day in _recent_days(settings):
        with suppress(InputError):  # a damaged day is made again by the next hour's job
            rows = read_day(settings, day, "products", [schema.PRODUCT, *names])
            own = rows[rows[schema.PRODUCT] == product_id][names].sum()
            sums = {name: sums[name] + float(own[name]) for name in names}
    return sums


def _rules(
    settings: Settings, version: PublishedVersion, product_id: str, now: datetime
) -> list[tuple[Rule, str]]:
    rules = read_rules(settings).rules
    if not rules:
        return []
    products = version.shown_products()
    catalogue = build_catalogue(list(products[schema.PRODUCT]), products, version.version_id)
    column = catalogue.index.get(product_id)
    if column is None:
        return []
    meant = [rule for rule in rules if matching(rule.products, catalogue, now)[column]]
    return [(rule, rule.state(now.astimezone(UTC))) for rule in meant]
