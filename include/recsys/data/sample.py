"""A synthetic shop in the ViEcomRec layout, for demos, tests and load tests.

Customers have tastes: most of what one buys comes from a small group of related products, so
that a recommender has something to learn that overall popularity does not know.
"""

import functools
import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from recsys.arrays import Int64Array, ObjectArray
from recsys.data.simulated import mark_sample
from recsys.errors import InputError
from recsys.publishing import atomic_path
from recsys.settings import Settings

REVIEWS_NAME = "data_reviews_purchase.csv"
PRODUCTS_NAME = "data_product.csv"
FOLDER = "viecomrec"

DEFAULT_REVIEWS = 12_000
DEFAULT_USERS = 3_600
DEFAULT_PRODUCTS = 480

# As in the public data set: 369,099 reviews by 304,708 users, 8.6 % of whom wrote more than one.
REVIEWS_AFTER_THE_FIRST = 64_391 / (0.086 * 304_708)
STAR_SHARES = (0.011, 0.006, 0.011, 0.019, 0.953)
DAYS = 730
OWN_TASTE_SHARE = 0.85
COPY_SHARE = 0.04
WITHOUT_COMMENT_SHARE = 0.25
CAMPAIGN_SHARE = 0.003
PRODUCTS_IN_A_TASTE = 24

_ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
_DAY_SECONDS = 86_400


@functools.cache
def _words() -> dict[str, Any]:
    """What things are called and what customers say, as in ``sample_words.json``."""
    words: dict[str, Any] = json.loads(Path(__file__).with_name("sample_words.json").read_bytes())
    return words


class SampleShop(NamedTuple):
    """Where a sample shop was written and how large it is."""

    reviews_path: Path
    products_path: Path
    reviews: int
    users: int
    products: int


def write_sample_shop(
    folder: Settings | Path,
    *,
    reviews: int = DEFAULT_REVIEWS,
    users: int | None = None,
    products: int | None = None,
    seed: int = 0,
    until: date | None = None,
) -> SampleShop:
    """Write ``data_reviews_purchase.csv`` and ``data_product.csv``; same arguments, same bytes.
    What is beside them tells that traffic may be simulated.

    Settings for the `folder` stand for ``data/raw/viecomrec``, where the source ``viecomrec``
    looks. `users` and `products` are in the proportion of the embedded shop by default, and
    `until`, the day before which the last review was written, is today in Vietnam. Raises
    `InputError` for fewer reviews than users, or fewer than 24 products.
    """
    users = users if users is not None else max(1, reviews * DEFAULT_USERS // DEFAULT_REVIEWS)
    products = products if products is not None else DEFAULT_PRODUCTS
    if not 0 < users <= reviews:
        raise InputError(f"a sample shop of {reviews} reviews needs 1 to {reviews} users: {users}")
    if products < PRODUCTS_IN_A_TASTE:
        raise InputError(f"a sample shop needs at least {PRODUCTS_IN_A_TASTE} products: {products}")
    target = folder.raw / FOLDER if isinstance(folder, Settings) else folder
    rng = np.random.default_rng(seed)
    end = until or datetime.now(_ZONE).date()

    catalogue = _catalogue(products, rng)
    family = catalogue.pop("family").to_numpy()
    table = _reviews(reviews, users, family, end, rng)
    _write(table, target / REVIEWS_NAME)
    sold = np.bincount(table["product_id"].to_numpy(), minlength=products)
    catalogue["num_sold_time"] = sold * 7 + 3
    _write(catalogue, target / PRODUCTS_NAME)
    mark_sample(target, target / REVIEWS_NAME, target / PRODUCTS_NAME)
    return SampleShop(target / REVIEWS_NAME, target / PRODUCTS_NAME, len(table), users, products)


def _catalogue(products: int, rng: np.random.Generator) -> pd.DataFrame:
    """Families of one to three sizes each; siblings stand next to each other."""
    words = _words()

    def drawn(names: Sequence[str]) -> ObjectArray:
        """One of the names for each product; siblings share it."""
        chosen: ObjectArray = np.array(names, dtype=object)[rng.integers(len(names), size=families)]
        return chosen[family]

    family = np.repeat(np.arange(products), rng.choice([1, 1, 1, 2, 2, 3], size=products))
    family = family[:products]
    size = _rank_in_run(family)
    families = int(family[-1]) + 1
    category = rng.integers(len(words["products"]), size=families)
    promises = np.array(list(words["products"].values()), dtype=object)
    brand = drawn(words["brands"])
    promise = promises[category, rng.integers(promises.shape[1], size=families)][family]
    skin = drawn(words["skins"])
    sizes = words["sizes"]
    larger = rng.integers(len(sizes) - 2, size=families)[family] + size
    volume = np.array(sizes, dtype=object)[larger]
    price = rng.lognormal(12.2, 0.6, size=families)[family]
    kind = np.array(list(words["products"]), dtype=object)[category][family]
    called = kind + " " + brand + " " + promise + " " + skin
    columns = {
        "product_id": np.arange(products),
        "product_name": called + " " + volume,
        "brand": brand,
        "type": kind,
        "price": (price * (1 + 0.6 * size) // 1000 * 1000).astype(np.int64),
        "avg_star": np.round(rng.uniform(4.6, 5.0, size=products), 1),
        "processed_description": called + words["described"] + brand + ".",
        "family": family,
    }
    return pd.DataFrame(columns)


def _reviews(
    reviews: int, users: int, family: Int64Array, end: date, rng: np.random.Generator
) -> pd.DataFrame:
    user = _reviewers(reviews, users, rng)
    product, off_taste = _purchases(user, users, len(family), rng)
    for _ in range(3):  # replace most of what a user bought twice by something else
        again = pd.Series(user * len(family) + product).duplicated().to_numpy()
        product[again] = rng.integers(len(family), size=int(again.sum()))
    seconds = rng.integers(DAYS * _DAY_SECONDS, size=reviews)
    rating = rng.choice(np.arange(1, 6), size=reviews, p=STAR_SHARES)
    disliked = off_taste & (rng.random(reviews) < 0.05)
    rating = np.where(disliked, rng.integers(1, 4, size=reviews), rating)
    comment = _comments(rating, rng)

    # A shop shows some reviews on the pages of sibling products as well: same second, same text.
    before = np.arange(reviews) - 1
    smaller, larger = np.roll(family, 1) == family, np.roll(family, -1) == family
    sibling = np.where(larger, 1, np.where(smaller, -1, 0))
    copied = (_rank_in_run(user) % 2 == 1) & (sibling[product[before]] != 0)
    copied &= rng.random(reviews) < 2 * COPY_SHARE
    original = before[copied]
    product[copied] = product[original] + sibling[product[original]]
    for values in (seconds, rating, comment):
        values[copied] = values[original]

    start = np.datetime64(end - timedelta(DAYS), "s")
    order = np.lexsort((product, user, seconds))
    numbers = rng.permutation(users) + 1
    columns = {
        "user_id": numbers[user],
        "product_id": product,
        "cmt_date": start + seconds,
        "rating": rating,
        "comment": comment,
    }
    return pd.DataFrame({name: values[order] for name, values in columns.items()})


def _reviewers(reviews: int, users: int, rng: np.random.Generator) -> Int64Array:
    """Who wrote each review, ascending; every user at least one, a share of them several."""
    more = reviews - users
    repeat = min(users, max(1, round(more / REVIEWS_AFTER_THE_FIRST))) if more else 0
    count = np.ones(users, dtype=np.int64)
    if repeat:
        sure = min(more, repeat)
        count[:sure] += 1
        share = rng.gamma(1.2, size=repeat)
        drawn = rng.choice(repeat, size=more - sure, p=share / share.sum())
        count[:repeat] += np.bincount(drawn, minlength=repeat)
    return np.repeat(np.arange(users), count)


def _purchases(
    user: Int64Array, users: int, products: int, rng: np.random.Generator
) -> tuple[Int64Array, NDArray[np.bool_]]:
    """Products bought, and which of them lie outside the buyer's taste."""
    tastes = max(1, products // PRODUCTS_IN_A_TASTE)
    group = rng.permutation(products)  # position // PRODUCTS_IN_A_TASTE is the taste
    fame = 1.0 / (1 + np.arange(tastes)) ** 0.5
    taste = rng.choice(tastes, size=users, p=fame / fame.sum())[user]
    own = 1.0 / (1 + np.arange(PRODUCTS_IN_A_TASTE)) ** 0.7
    place = rng.choice(PRODUCTS_IN_A_TASTE, size=len(user), p=own / own.sum())
    anything = 1.0 / (1 + np.arange(products)) ** 0.8
    others = rng.permutation(products)
    elsewhere = others[rng.choice(products, size=len(user), p=anything / anything.sum())]
    off_taste = rng.random(len(user)) >= OWN_TASTE_SHARE
    product = np.where(off_taste, elsewhere, group[taste * PRODUCTS_IN_A_TASTE + place])
    return product, off_taste


def _comments(rating: Int64Array, rng: np.random.Generator) -> ObjectArray:
    count = len(rating)
    parts = {name: _words()[name].values() for name in ("good", "bad")}
    openings, details, closings = parts["good"]
    good = _sentences((openings, details, details, closings), count, rng)
    bad = _sentences(tuple(parts["bad"]), count, rng)
    comment = np.where(rating >= 4, good, bad).astype(object)
    comment[rng.random(count) < WITHOUT_COMMENT_SHARE] = ""
    comment[(rng.random(count) < CAMPAIGN_SHARE) & (rating == 5)] = _words()["campaign"]
    return comment


def _sentences(parts: Sequence[Sequence[str]], count: int, rng: np.random.Generator) -> ObjectArray:
    """One phrase of each part; ``{n}`` is a number that differs from sentence to sentence."""
    numbers = np.arange(2, 32).astype(str).astype(object)
    sentence: ObjectArray = np.full(count, "", dtype=object)
    for number, part in enumerate(parts):
        choices = [phrase.partition("{n}") for phrase in part]
        chosen = rng.integers(len(choices), size=count)
        head, mark, tail = (
            np.array(column, dtype=object)[chosen] for column in zip(*choices, strict=True)
        )
        filled = np.where(mark == "", "", numbers[rng.integers(len(numbers), size=count)])
        phrase = head + filled + tail
        separator = np.where(phrase == "", "", ", " if number else "")
        sentence = sentence + separator + phrase
    return sentence


def _rank_in_run(values: Int64Array) -> Int64Array:
    """0, 1, 2, ... within each run of equal neighbours."""
    starts = np.flatnonzero(np.diff(values, prepend=values[0] - 1))
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))


def _write(frame: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        pacsv.write_csv(pa.Table.from_pandas(frame, preserve_index=False), temporary)
