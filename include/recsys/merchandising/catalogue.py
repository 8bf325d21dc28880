"""The catalogue that answers show: the model's products, and the shop's that it does not know."""

import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from recsys import schema
from recsys.arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    entries_of,
)
from recsys.data.shown import Columns
from recsys.models.newcomers import Traits
from recsys.text import fold

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True)
class Catalogue:
    """The products of a model, then the newcomers to the shop that it does not know, by column
    number: what is shown, and what may be shown. Texts are as the shop writes them, "" when
    unknown; prices dong, None (in the array NaN) when unknown."""

    item_ids: list[str]
    known: int  # so many columns are the model's
    index: dict[str, int]
    names: list[str]
    brands: list[str]
    categories: list[str]
    prices: list[float | None]
    price_array: Float64Array
    families: Int32Array  # ``(items,)`` number of the product family: 0, 1, ... without gaps
    family_members: Int32Array  # columns in the order of their families
    family_starts: Int64Array  # where each family begins there, and at the end their number
    available: BoolArray  # ``(items,)`` may be recommended: listed, for sale, in stock, launched
    brand_items: dict[str, Int32Array]  # columns of each, by folded name
    category_items: dict[str, Int32Array]
    source: str  # the data version that it is from, or the model's id
    tag_items: dict[str, Int32Array]  # columns of each, by folded name
    # What a shop does not say of its products is None, of one product NaN.
    stock: Float32Array | None  # ``(items,)`` pieces
    available_from: Float64Array | None  # ``(items,)`` seconds since 1970, as the next
    since: Float64Array | None  # the same, else the first interaction; see `Snapshot.since`
    recent_sales: Float64Array | None  # ``(items,)`` how well each sells at the moment
    pictures: list[str]  # https addresses, "" for none
    next_launch: float  # seconds since 1970: when one of these products comes on sale, or inf

    @property
    def is_usable(self) -> bool:
        """Whether a product that the model knows may be recommended."""
        return bool(self.available[: self.known].any())

    @property
    def traits(self) -> Traits:
        """What tells how near its products are, without texts."""
        brands, categories = map(self._numbers, (self.brand_items, self.category_items))
        return Traits(self.families, brands, categories, self.price_array)

    def _numbers(self, groups: dict[str, Int32Array]) -> Int32Array:
        numbers = np.full(len(self.item_ids), -1, dtype=np.int32)
        for number, items in enumerate(groups.values()):
            numbers[items] = number
        return numbers

    def listings(self, items: Int32Array) -> tuple[Int32Array, Int64Array]:
        """Columns of all listings of the families of `items`, these included, and the position in
        `items` that each of them is there for."""
        starts = self.family_starts[self.families[items]]
        counts = self.family_starts[self.families[items] + 1] - starts
        entries, _ = entries_of(starts, counts)
        return self.family_members[entries], np.repeat(np.arange(len(items)), counts)


def build_catalogue(
    known_ids: list[str], products: Columns, source: str, now: float | None = None
) -> Catalogue:
    """The catalogue of the model's `known_ids`, then of the other `products` in order of their ids,
    from the data version (or model) `source`. `products` needs `product_id` and may have the others
    of `schema.SHOWN_OF_PRODUCTS`. A product that it lacks cannot be recommended, nor one that is
    sold only after `now` (seconds since 1970, by default by the clock); of one that it has twice
    the first row counts."""
    row_of: dict[str, int] = {}
    for row, product in enumerate(products[schema.PRODUCT]):
        row_of.setdefault(product, row)
    newcomers = sorted(row_of.keys() - set(known_ids))
    item_ids = known_ids + newcomers if newcomers else known_ids
    rows = [row_of.get(item) for item in item_ids]

    def column(name: str, default: Any) -> list[Any]:
        values = products.get(name)
        if values is None:
            return [default] * len(rows)
        found = (None if row is None else values[row] for row in rows)
        return [default if value is None else value for value in found]

    def numbers_of(name: str) -> Float64Array | None:
        return np.array(column(name, np.nan), dtype=np.float64) if name in products else None

    prices = np.array(column(schema.PRICE, np.nan), dtype=np.float64)
    # A product without a family is one of its own.
    named = zip(column(schema.FAMILY, ""), item_ids, strict=True)
    numbers: dict[str, int] = {}
    families = np.array(
        [numbers.setdefault(family or item, len(numbers)) for family, item in named], dtype=np.int32
    )
    brands = _shared(column(schema.BRAND, ""))
    categories = _shared(column(schema.CATEGORY, ""))
    stock, available_from = numbers_of(schema.STOCK), numbers_of(schema.AVAILABLE_FROM)
    sales = numbers_of(schema.RECENT_SALES)
    available = np.array([row is not None for row in rows])
    available &= np.array(column(schema.AVAILABLE, True), dtype=bool)
    next_launch = np.inf
    if available_from is not None:
        later = available & (available_from > (time.time() if now is None else now))
        next_launch = float(available_from[later].min(initial=np.inf))
        available &= ~later
    return Catalogue(
        item_ids=item_ids,
        known=len(known_ids),
        index={item: number for number, item in enumerate(item_ids)},
        names=column(schema.PRODUCT_NAME, ""),
        brands=brands,
        categories=categories,
        prices=_shared(None if price != price else price for price in prices.tolist()),
        price_array=prices,
        families=families,
        family_members=np.argsort(families, kind="stable").astype(np.int32),
        family_starts=np.append(0, np.cumsum(np.bincount(families))),
        available=available,
        brand_items=_groups(brands),
        category_items=_groups(categories),
        source=source,
        tag_items=_groups(column(schema.TAGS, ""), str.splitlines),
        stock=None if stock is None else stock.astype(np.float32),
        available_from=available_from,
        since=numbers_of(schema.SINCE),
        recent_sales=None if sales is None else np.nan_to_num(sales),
        pictures=column(schema.PICTURE, ""),
        next_launch=next_launch,
    )


def filter_products(
    catalogue: Catalogue,
    brands: list[str] | None,
    categories: list[str] | None,
    min_price: float | None,
    max_price: float | None,
) -> BoolArray:
    """``(items,)`` available products of any of `brands` and any of `categories`, in the price
    range. Names match without regard to case and accents; products without a price match no
    price range."""
    allowed = catalogue.available
    for groups, names in ((catalogue.brand_items, brands), (catalogue.category_items, categories)):
        if names:
            chosen = np.zeros(len(allowed), dtype=bool)
            for name in names:
                chosen[groups.get(fold(name), [])] = True
            allowed = allowed & chosen
    if min_price is not None:
        allowed = allowed & (catalogue.price_array >= min_price)
    if max_price is not None:
        allowed = allowed & (catalogue.price_array <= max_price)
    return allowed


def _shared(values: Iterable[Value]) -> list[Value]:
    """The same with one object for all that are equal: a million products have few brands."""
    first: dict[Value, Value] = {}
    return [first.setdefault(value, value) for value in values]


def _groups(
    texts: list[str], names_in: Callable[[str], list[str]] = lambda text: [text]
) -> dict[str, Int32Array]:
    folded = {text: [fold(name) for name in names_in(text)] for text in set(texts) if text}
    members: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        for name in folded.get(text, ()):
            members.setdefault(name, []).append(number)
    return {key: np.array(numbers, dtype=np.int32) for key, numbers in members.items()}
