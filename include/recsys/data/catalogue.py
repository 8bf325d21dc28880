"""The shop's products, as read and as published."""

import numpy as np
import pandas as pd

from recsys.data import schema
from recsys.data.cleaning import CleanRows, clean_products
from recsys.data.families import assign_families
from recsys.data.reading import read_rows
from recsys.data.sources import Source

AVAILABLE = "available"
"""bool: the product is in the shop's catalogue."""

TEXTS = (schema.PRODUCT_NAME, schema.BRAND, schema.CATEGORY, schema.DESCRIPTION)


def read_catalogue(source: Source) -> CleanRows:
    """All products of the source's files; of several rows of one product the last one counts.

    Raises `SourceError` as `read_rows` does.
    """
    files = source.config.products
    parts = [
        clean_products(read_rows(path, files.needed, files.optional, files.encoding))
        for path in source.product_files
    ]
    accepted = pd.concat([part.accepted for part in parts], ignore_index=True)
    rejected = pd.concat([part.rejected for part in parts], ignore_index=True)
    accepted = accepted.drop_duplicates(schema.PRODUCT, keep="last", ignore_index=True)
    columns = frozenset.intersection(*(part.columns for part in parts))
    return CleanRows(accepted, rejected, 0, columns=columns)


def build_products(catalogue: pd.DataFrame, interactions: pd.DataFrame) -> pd.DataFrame:
    """One row for every product of the catalogue or of `interactions`, ordered by id.

    `interactions` needs PRODUCT and EVENT (its text or its key). Products that only reviews know
    have empty texts.
    """
    bought = interactions[schema.PRODUCT].unique()
    known = catalogue.set_index(schema.PRODUCT)
    ids = pd.Index(
        np.unique(np.concatenate([known.index.to_numpy(object), np.asarray(bought, object)]))
    )
    products = known.reindex(ids)
    for name in TEXTS:
        products[name] = products[name].fillna("").astype("str")
    products[AVAILABLE] = products.index.isin(known.index)
    products = products.rename_axis(schema.PRODUCT).reset_index()
    products[schema.PRODUCT] = products[schema.PRODUCT].astype("str")
    products[schema.FAMILY] = assign_families(products, interactions).to_numpy()
    columns = [schema.PRODUCT, *TEXTS[:3], schema.PRICE, TEXTS[3], schema.FAMILY, AVAILABLE]
    return products[columns]


def fingerprint(products: pd.DataFrame) -> str:
    """Changes when a product of the catalogue does."""
    hashed = pd.util.hash_pandas_object(products, index=False).to_numpy()
    return f"{int(np.bitwise_xor.reduce(hashed, initial=np.uint64(len(products)))):016x}"
