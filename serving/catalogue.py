"""The catalogue that answers show: built from the model's products, kept fresh from the shop's."""

from collections.abc import Hashable
from typing import Any, TypeVar

import numpy as np

from recsys.content.text import fold
from recsys.data import schema
from recsys.data.columns import Columns
from recsys.models.base import IntArray
from serving.ranking import BoolArray
from serving.snapshot import Catalogue

Value = TypeVar("Value", bound=Hashable)


def build_catalogue(item_ids: list[str], products: Columns, source: str) -> Catalogue:
    """The catalogue in the order of `item_ids`.

    `products` needs `product_id` and may have the others of `schema.SHOWN_OF_PRODUCTS`. A product
    that it lacks cannot be recommended; of one that it has twice the first row counts. `source`
    says which version it is from.
    """
    row_of: dict[str, int] = {}
    for row, product in enumerate(products[schema.PRODUCT]):
        row_of.setdefault(product, row)
    rows = [row_of.get(item) for item in item_ids]

    def column(name: str, default: Any) -> list[Any]:
        values = products.get(name)
        if values is None:
            return [default] * len(rows)
        found = (None if row is None else values[row] for row in rows)
        return [default if value is None else value for value in found]

    prices = np.array(column(schema.PRICE, np.nan), dtype=np.float64)
    # A product without a family is one of its own.
    named = zip(column(schema.FAMILY, ""), item_ids, strict=True)
    families = _numbers([family or item for family, item in named])
    brands = _shared(column(schema.BRAND, ""))
    categories = _shared(column(schema.CATEGORY, ""))
    listed = np.array([row is not None for row in rows])
    return Catalogue(
        item_ids=item_ids,
        index={item: number for number, item in enumerate(item_ids)},
        names=column(schema.PRODUCT_NAME, ""),
        brands=brands,
        categories=categories,
        prices=_shared([None if price != price else price for price in prices.tolist()]),
        price_array=prices,
        families=families,
        family_members=np.argsort(families, kind="stable").astype(np.int32),
        family_starts=np.append(0, np.cumsum(np.bincount(families))),
        available=listed & np.array(column(schema.AVAILABLE, True), dtype=bool),
        brand_items=_groups(brands),
        category_items=_groups(categories),
        source=source,
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
    if brands:
        allowed = allowed & _any_of(catalogue.brand_items, brands, len(allowed))
    if categories:
        allowed = allowed & _any_of(catalogue.category_items, categories, len(allowed))
    if min_price is not None:
        allowed = allowed & (catalogue.price_array >= min_price)
    if max_price is not None:
        allowed = allowed & (catalogue.price_array <= max_price)
    return allowed


def _numbers(keys: list[str]) -> IntArray:
    """0, 1, ... for each distinct key, in the order in which they come."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int32)


def _shared(values: list[Value]) -> list[Value]:
    """The same with one object for all that are equal: a million products have few brands."""
    first: dict[Value, Value] = {}
    return [first.setdefault(value, value) for value in values]


def _groups(names: list[str]) -> dict[str, IntArray]:
    folded = {name: fold(name) for name in set(names) if name}
    members: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        if name:
            members.setdefault(folded[name], []).append(number)
    return {key: np.array(numbers, dtype=np.int32) for key, numbers in members.items()}


def _any_of(groups: dict[str, IntArray], names: list[str], size: int) -> BoolArray:
    chosen = np.zeros(size, dtype=bool)
    for name in names:
        members = groups.get(fold(name))
        if members is not None:
            chosen[members] = True
    return chosen
