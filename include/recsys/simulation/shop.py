"""What a simulated world is made of: the products of a shop, and what its customers have had."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys import schema
from recsys.arrays import Float64Array, Int64Array, ObjectArray
from recsys.data import sample
from recsys.data.versions import PublishedVersion
from recsys.settings import Settings


@dataclass(frozen=True)
class Shop:
    """Products and customers as numbers: row p of the first four arrays is product p."""

    product_ids: ObjectArray  # (products,)
    brands: Int64Array  # (products,) number of the brand, from 0 without gaps
    categories: Int64Array  # (products,) likewise
    prices: Float64Array  # (products,) dong, NaN where it is not known
    customer_ids: ObjectArray  # (customers,)
    buyers: Int64Array  # (rows,) who had something
    items: Int64Array  # (rows,) which product that was

    @property
    def products(self) -> int:
        return len(self.product_ids)


def shop_of(products: pd.DataFrame, interactions: pd.DataFrame) -> Shop:
    """The shop of two tables: PRODUCT, BRAND, CATEGORY and PRICE of `recsys.schema`, one row a
    product, and USER and PRODUCT. Rows of other products are left out."""
    ids = products[schema.PRODUCT].to_numpy(dtype=object)
    item = pd.Index(ids).get_indexer(pd.Index(interactions[schema.PRODUCT]))
    known = interactions[item >= 0]
    buyers, customer_ids = pd.factorize(known[schema.USER], sort=True)
    return Shop(
        product_ids=ids,
        brands=pd.factorize(products[schema.BRAND])[0],
        categories=pd.factorize(products[schema.CATEGORY])[0],
        prices=products[schema.PRICE].to_numpy(dtype=np.float64),
        customer_ids=np.asarray(customer_ids, dtype=object),
        buyers=buyers,
        items=item[item >= 0],
    )


def shop_of_version(version: PublishedVersion) -> Shop:
    """The shop of a data version: what can be bought, and what its customers rated."""
    products = version.products()
    on_sale = products[products[schema.AVAILABLE].to_numpy(dtype=bool)]
    return shop_of(on_sale, version.interactions([schema.USER, schema.PRODUCT]))


def shop_of_sample(settings: Settings) -> Shop:
    """The sample shop as `sample-data` wrote it, before a refresh has made a version of it."""
    folder, names = settings.raw / sample.FOLDER, {"type": schema.CATEGORY}
    products = pd.read_csv(folder / sample.PRODUCTS_NAME, dtype={schema.PRODUCT: str})
    columns = [schema.USER, schema.PRODUCT]
    reviews = pd.read_csv(folder / sample.REVIEWS_NAME, dtype=str, usecols=columns)
    return shop_of(products.rename(columns=names), reviews)


def invented_shop(products: int, customers: int, seed: int = 0) -> Shop:
    """A shop out of nothing, for tests and benchmarks: `products` of a dozen categories, and
    `customers` who have had four of them each, most of one category."""
    rng = np.random.default_rng(seed)
    categories = np.sort(rng.integers(min(12, products), size=products))
    buyers = np.repeat(np.arange(customers), 4)
    own = np.repeat(rng.integers(products, size=customers), 4)
    near = np.clip(own + rng.integers(-6, 7, size=len(own)), 0, products - 1)
    return Shop(
        product_ids=np.array([f"p{number}" for number in range(products)], dtype=object),
        brands=rng.integers(min(30, products), size=products),
        categories=np.unique(categories, return_inverse=True)[1],
        prices=np.round(rng.lognormal(12.2, 0.6, size=products), -3),
        customer_ids=np.array([f"u{number}" for number in range(customers)], dtype=object),
        buyers=buyers,
        items=np.where(rng.random(len(own)) < 0.85, near, rng.integers(products, size=len(own))),
    )
