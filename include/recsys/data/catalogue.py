"""The shop's products, as read and as published."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from recsys import schema
from recsys.data.cleaning import CleanRows, clean_products, concatenate
from recsys.data.families import SharedEvents, assign_families
from recsys.data.reading import read_rows
from recsys.data.sources import Source

TEXTS = (schema.PRODUCT_NAME, schema.BRAND, schema.CATEGORY, schema.DESCRIPTION)


def read_catalogue(source: Source) -> CleanRows:
    """All products of the source's files; of several rows of one product the last one counts.

    Raises `SourceError` as `read_rows` does.
    """
    files = source.config.products
    raws = (read_rows(path, files.needed, files.optional, files) for path in source.product_files)
    parts = [clean_products(raw, source.config.id_rules, files.price_format) for raw in raws]
    read = concatenate(parts)
    accepted = read.accepted.drop_duplicates(schema.PRODUCT, keep="last", ignore_index=True)
    return replace(read, accepted=accepted)


def all_products(catalogue: pd.DataFrame, bought: Iterable[str]) -> pd.Index:
    """Ids of the products of the catalogue or of `bought`, in order."""
    listed = catalogue[schema.PRODUCT].to_numpy(object)
    return pd.Index(np.unique(np.concatenate([listed, np.asarray(bought, object)])))


def build_products(catalogue: pd.DataFrame, ids: pd.Index, shared: SharedEvents) -> pd.DataFrame:
    """One row for each product of `ids`, as `all_products` gives them.

    `shared` says which of them stand at the same review events. Products that only reviews know
    have empty texts.
    """
    known = catalogue.set_index(schema.PRODUCT)
    products = known.reindex(ids)
    for name in TEXTS:
        products[name] = products[name].fillna("").astype("str")
    products[schema.AVAILABLE] = products.index.isin(known.index)
    products = products.rename_axis(schema.PRODUCT).reset_index().astype({schema.PRODUCT: "str"})
    products[schema.FAMILY] = assign_families(products, shared).to_numpy()
    columns = [schema.PRODUCT, *TEXTS[:3], schema.PRICE, TEXTS[3], schema.FAMILY]
    return products[[*columns, schema.AVAILABLE]]


def fingerprint(products: pd.DataFrame) -> str:
    """Changes when a product of the catalogue does."""
    hashed = pd.util.hash_pandas_object(products, index=False).to_numpy()
    return f"{int(np.bitwise_xor.reduce(hashed, initial=np.uint64(len(products)))):016x}"
