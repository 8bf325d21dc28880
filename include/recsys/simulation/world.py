"""Customers with tastes: what each of them thinks of each product, and what they need again.

A taste is a liking of some brands and categories, a price that feels right, a fondness of what many
buy, and, as far as the shop's history tells, of what those bought who bought the same: what a model
can learn is what the customers want."""

import functools

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from recsys.arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    IntegerArray,
    ObjectArray,
    unit_rows,
)
from recsys.data.simulated import PREFIX
from recsys.simulation.routine import partners_of
from recsys.simulation.shop import Shop

DIRECTIONS = 24
"""Of the space in which products that the same customers bought lie near each other."""

# What makes a product attractive; only the proportions count.
TOGETHER, BRAND, CATEGORY, PRICE, FAME = 1.6, 0.5, 0.5, 0.3, 0.3
SCATTER = 1.0
"""Tastes move on: so far from what one had, at length 1, lies what one likes now. That much signals
tell and old reviews do not."""

HAD = 3.0
"""So much less attractive is what one has at home, where the catalogue spreads with deviation 1."""

SHORTEST_NEED, LONGEST_NEED = 20.0, 90.0
"""Days after which something of a category is used up; every customer has their own."""

_SAMPLED = 512  # customers by whom the scale of attraction is measured


class World:
    """All customers of a shop and `newcomers` whom it does not know yet. What they are like depends
    on the shop and the seed; what they have and need changes by `buy`.

    `had` ``(customers, products)`` tells what each has at home: a byte a pair."""

    def __init__(self, shop: Shop, newcomers: int = 0, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, 1])
        known = len(shop.customer_ids)
        self.shop, self.known, self._seed = shop, known, seed
        names = [f"{PREFIX}{number}" for number in range(1, newcomers + 1)]
        self.customer_ids: ObjectArray = np.array([*shop.customer_ids, *names], dtype=object)
        count = len(self.customer_ids)
        self.had: BoolArray = np.zeros((count, shop.products), dtype=np.bool_)
        self.had[shop.buyers, shop.items] = True
        sold = np.bincount(shop.items, minlength=shop.products)
        self.sales: Float64Array = sold.astype(np.float64) + 1

        # A few come often, most now and then.
        activity = rng.gamma(0.7, size=count) + 0.05
        self.activity: Float64Array = np.asarray(activity / activity.sum(), dtype=np.float64)
        self._tastes, self._features = _tastes(shop, self.sales, count, rng)

        kinds = int(shop.categories.max(initial=0)) + 1
        size = (count, kinds)
        self._period = rng.uniform(SHORTEST_NEED, LONGEST_NEED, size=size).astype(np.float32)
        # Days since something of the category was bought, at day 0.
        self._bought = (-rng.random(size) * self._period).astype(np.float32)

    @property
    def customers(self) -> int:
        return len(self.customer_ids)

    @functools.cached_property
    def partners(self) -> Int32Array:
        """``(products, n)`` what completes each product, -1 for none."""
        return partners_of(self.shop, self._seed)

    def attraction(self, customers: IntegerArray, guests: BoolArray) -> Float32Array:
        """``(n, products)`` how much each of `customers` ``(n,)`` is drawn to each product: 0 in
        the middle and 1 a standard deviation, over the catalogue; less for what they have. `guests`
        ``(n,)`` are strangers with the taste of such a customer, who have nothing."""
        drawn = self._tastes[customers] @ self._features
        drawn -= HAD * (self.had[customers] & ~guests[:, None])
        return np.asarray(drawn, dtype=np.float32)

    def need(self, customers: IntegerArray, products: IntegerArray, day: float) -> Float32Array:
        """How much of the last purchase in the product's category is used up by `day`, 0 to 1.
        `customers` and `products` have one shape, which is the result's."""
        category = self.shop.categories[products]
        gone = day - self._bought[customers, category]
        return np.clip(gone / self._period[customers, category], 0, 1).astype(np.float32)

    def buy(self, customers: IntegerArray, products: IntegerArray, day: float) -> None:
        """They have it from `day` on, and need nothing of its kind for a while."""
        self.had[customers, products] = True
        self._bought[customers, self.shop.categories[products]] = day


def _tastes(
    shop: Shop, sales: Float64Array, count: int, rng: np.random.Generator
) -> tuple[Float32Array, Float32Array]:
    """Tastes ``(customers, d)`` and features ``(d, products)``, whose product is the attraction."""
    near = _neighbourhood(shop)
    centre = _centres(shop, near, count, rng)
    price = _standard(np.log(shop.prices))
    ideal = _means(shop, price, count) + rng.normal(0, 0.5, size=count)
    fame = _standard(np.log(sales))
    fond = FAME * rng.uniform(0.5, 1.5, size=count)
    brands, brand_liking = _one_hot(shop, shop.brands, count, rng)
    categories, category_liking = _one_hot(shop, shop.categories, count, rng)
    features = np.vstack([near.T, brands, categories, price, price**2, fame])
    tastes = np.hstack(
        [
            # On one scale with the others: a product's place has length 1 in DIRECTIONS directions.
            TOGETHER * 2 * centre,
            BRAND * brand_liking,
            CATEGORY * category_liking,
            np.column_stack([2 * PRICE * ideal, np.full(count, -PRICE), fond]),
        ]
    )
    asked = rng.integers(count, size=_SAMPLED)
    sampled = tastes[asked] @ features
    spread = float(sampled.std(axis=1).mean()) or 1.0
    # Everybody's middle is their own: it is one more feature, the same for all products.
    middle = (tastes @ features.mean(axis=1)) / spread
    tastes = np.column_stack([tastes / spread, -middle])
    features = np.vstack([features, np.ones(shop.products)])
    return tastes.astype(np.float32), features.astype(np.float32)


def _neighbourhood(shop: Shop) -> Float64Array:
    """``(products, d)`` unit rows: products that the same customers had point the same way. Those
    of which nothing is known have zeros."""
    cells = (np.ones(len(shop.items)), (shop.buyers, shop.items))
    table = sparse.csr_matrix(cells, shape=(len(shop.customer_ids), shop.products))
    table.data[:] = 1
    several = table[np.diff(table.indptr) > 1]
    rank = min(DIRECTIONS, *(size - 1 for size in several.shape))
    if rank < 1:
        return np.zeros((shop.products, 1))
    start = np.ones(min(several.shape))  # the same shop has the same directions
    _, lengths, directions = svds(several, k=rank, v0=start)
    return _unit(directions.T * np.sqrt(lengths))


def _centres(shop: Shop, near: Float64Array, count: int, rng: np.random.Generator) -> Float64Array:
    """``(customers, d)`` where each customer's purchases lie, with some scatter; those without any
    like what somebody else likes."""
    known = len(shop.customer_ids)
    total = np.zeros((known, near.shape[1]))
    np.add.at(total, shop.buyers, near[shop.items])
    model = rng.integers(max(known, 1), size=count - known)
    like = total[model] if known else rng.normal(size=(count, near.shape[1]))
    centre = np.vstack([total, like]) if known else like
    scatter = rng.normal(0, SCATTER / np.sqrt(near.shape[1]), size=centre.shape)
    return _unit(_unit(centre) + scatter)


def _unit(rows: Float64Array) -> Float64Array:
    return np.asarray(unit_rows(rows.astype(np.float32)), dtype=np.float64)


def _one_hot(
    shop: Shop, codes: Int64Array, count: int, rng: np.random.Generator
) -> tuple[Float64Array, Float64Array]:
    """``(n, products)`` which of the `codes` each product has, and ``(customers, n)`` how each
    customer likes each: most little, some much, and more what they have had."""
    number = int(codes.max(initial=0)) + 1
    liking = rng.exponential(size=(count, number)) - 1
    np.add.at(liking, (shop.buyers, codes[shop.items]), 0.25)
    return (np.arange(number)[:, None] == codes).astype(np.float64), np.minimum(liking, 4.0)


def _means(shop: Shop, values: Float64Array, count: int) -> Float64Array:
    """``(customers,)`` mean of the products that each had, 0 without any."""
    total = np.bincount(shop.buyers, weights=values[shop.items], minlength=count)
    return np.asarray(total / np.maximum(np.bincount(shop.buyers, minlength=count), 1))


def _standard(values: Float64Array) -> Float64Array:
    """Mean 0 and deviation 1; what is not known is in the middle."""
    known = np.isfinite(values)
    if not known.any():
        return np.zeros_like(values)
    spread = values[known].std() or 1.0
    return np.where(known, (values - values[known].mean()) / spread, 0.0)
