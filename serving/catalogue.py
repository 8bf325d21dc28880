"""The catalogue that answers show: built from the model's products, kept fresh from the shop's."""

import numpy as np
import pandas as pd

from recsys.content.text import fold
from recsys.data import schema
from recsys.models.base import IntArray
from serving.ranking import BoolArray
from serving.snapshot import Catalogue

AVAILABLE = "available"


def build_catalogue(item_ids: list[str], products: pd.DataFrame, source: str) -> Catalogue:
    """The catalogue in the order of `item_ids`.

    `products` needs `product_id` and may have the other product columns of
    `recsys.data.schema` and ``available``. A product that it lacks cannot be recommended.
    `source` says which version it is from.
    """
    rows = products.drop_duplicates(schema.PRODUCT).set_index(schema.PRODUCT).reindex(item_ids)
    # As objects: of text in Arrow's arrays isin() makes a Python list first.
    own_ids = pd.Index(item_ids, dtype=object)
    listed = own_ids.isin(products[schema.PRODUCT].to_numpy(dtype=object))
    available = listed & _column(rows, AVAILABLE, True).to_numpy(dtype=bool)
    prices = pd.to_numeric(_column(rows, schema.PRICE, np.nan)).to_numpy(dtype=np.float64)
    family = _column(rows, schema.FAMILY, None)
    own = pd.Series(item_ids, index=rows.index)
    codes, _ = pd.factorize(family.where(family.notna() & (family != ""), own))
    brands = _column(rows, schema.BRAND, "").astype(str).tolist()
    categories = _column(rows, schema.CATEGORY, "").astype(str).tolist()
    return Catalogue(
        item_ids=item_ids,
        index={item: number for number, item in enumerate(item_ids)},
        names=_column(rows, schema.PRODUCT_NAME, "").astype(str).tolist(),
        brands=brands,
        categories=categories,
        prices=[None if price != price else price for price in prices.tolist()],
        price_array=prices,
        families=codes.astype(np.int32),
        family_members=np.argsort(codes, kind="stable").astype(np.int32),
        family_starts=np.append(0, np.cumsum(np.bincount(codes))),
        available=available,
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


def _column(rows: pd.DataFrame, name: str, default: object) -> pd.Series:
    if name not in rows.columns:
        return pd.Series([default] * len(rows), index=rows.index)
    column = rows[name].astype(object)
    return column if default is None else column.where(column.notna(), default)


def _groups(names: list[str]) -> dict[str, IntArray]:
    folded = {name: fold(name) for name in set(names) if name}
    numbers, keys = pd.factorize(pd.Series(names).map(folded))
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(len(keys) + 1))
    return {key: order[starts[i] : starts[i + 1]].astype(np.int32) for i, key in enumerate(keys)}


def _any_of(groups: dict[str, IntArray], names: list[str], size: int) -> BoolArray:
    chosen = np.zeros(size, dtype=bool)
    for name in names:
        members = groups.get(fold(name))
        if members is not None:
            chosen[members] = True
    return chosen
