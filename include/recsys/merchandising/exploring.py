"""Places for products that few customers have seen: which, with what chance, and how it is known.

Each place of an exploring placement that no pin has is given away with the probability `explore`.
Who gets it is drawn by what is known of the products that were seen little: each in proportion to
how often it would be the best of them by Thompson sampling (W. R. Thompson, *On the Likelihood that
One Unknown Probability Exceeds Another*, Biometrika 1933; O. Chapelle, L. Li, *An Empirical
Evaluation of Thompson Sampling*, NIPS 2011), from ``Beta(1 + clicks, 1 + impressions - clicks)``.
These chances are made once, and not in each request, so that they are known: a product's propensity
is the probability, given the places before, that it stands where it stands."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import msgspec
import numpy as np

from recsys.arrays import Float64Array, Int32Array, Int64Array
from recsys.errors import InputError
from recsys.merchandising.catalogue import Catalogue
from recsys.merchandising.steering import Explore, MayStand
from recsys.settings import Settings
from recsys.storage import open_store

IMPRESSIONS_KEY: Final = "data/outcomes/impressions.json"
IMPRESSION_DAYS: Final = 28
DRAWS: Final = 2048
UNIFORM: Final = 0.05
"""Part of the chances that all share alike: none is so small that nothing can be learned."""
MOST_EXPLORED: Final = 1000
"""Products that are explored at a time; others have their turn when the chances are made again."""
_DRAWS_AT_ONCE = 256
_FIRST_LOOK = 32


@dataclass(frozen=True)
class Impressions:
    """How often each product was shown in the last weeks, and clicked there; `products` by id."""

    last_day: str
    products: Mapping[str, tuple[int, int]]


class _File(msgspec.Struct):
    last_day: str
    impressions: int
    clicks: int
    products: dict[str, tuple[int, int]]


def write_impressions(settings: Settings, impressions: Impressions) -> None:
    """Let all machines know. Raises `OSError` if that is not possible."""
    counts = impressions.products.values()
    shown, clicks = (sum(one[part] for one in counts) for part in (0, 1))
    file = _File(impressions.last_day, shown, clicks, dict(impressions.products))
    content = msgspec.json.encode(file)
    open_store(settings).change(IMPRESSIONS_KEY, lambda _: content)


def read_impressions(settings: Settings) -> Impressions | None:
    """What `write_impressions` wrote last, None if nothing was. Raises `InputError` that names the
    file if it is none, `OSError` if it cannot be read."""
    content = open_store(settings).read(IMPRESSIONS_KEY)
    return None if content is None else parse_impressions(content)


def parse_impressions(content: bytes) -> Impressions:
    """What a file holds. Raises `InputError` like `read_impressions`."""
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(
            f"{IMPRESSIONS_KEY}: is no file of impressions; the next run of outcomes writes it "
            f"again: {error}"
        ) from error
    return Impressions(file.last_day, file.products)


@dataclass(frozen=True)
class Explorable:
    """Products that few have seen: their ``(n,)`` columns, in order, and the chance of each to be
    drawn; these sum to one."""

    items: Int32Array
    chances: Float64Array

    @cached_property
    def place(self) -> dict[int, int]:
        """Where each column is among `items`."""
        return {item: place for place, item in enumerate(self.items.tolist())}


class Seen(NamedTuple):
    """What was shown, and how often a product may have been to be one of the `few`."""

    impressions: Impressions
    few: int


def explorable(catalogue: Catalogue, seen: Seen, seed: int) -> Explorable | None:
    """The available products that few have seen, and their chances; of more than `MOST_EXPLORED`
    some that are drawn. None if there are none."""
    columns = np.flatnonzero(catalogue.available)
    ids, products = catalogue.item_ids, seen.impressions.products
    counts = [products.get(ids[column], (0, 0)) for column in columns.tolist()]
    table = np.array(counts, dtype=np.int64).reshape(-1, 2)
    chosen = np.flatnonzero(table[:, 0] < seen.few)
    if not len(chosen):
        return None
    rng = np.random.default_rng(seed)
    if len(chosen) > MOST_EXPLORED:
        chosen = np.sort(rng.choice(chosen, MOST_EXPLORED, replace=False))
    chances = thompson(table[chosen, 0], table[chosen, 1], rng)
    return Explorable(columns[chosen].astype(np.int32), chances)


def thompson(shown: Int64Array, clicks: Int64Array, rng: np.random.Generator) -> Float64Array:
    """``(n,)`` how often each of n products is the best of all by what `shown` and `clicks`, both
    ``(n,)``, leave open; mixed with equal chances. These sum to one."""
    liked, not_liked = 1.0 + clicks, 1.0 + np.maximum(shown - clicks, 0)
    wins = np.zeros(len(shown), dtype=np.int64)
    for _ in range(DRAWS // _DRAWS_AT_ONCE):
        drawn = rng.beta(liked, not_liked, size=(_DRAWS_AT_ONCE, len(shown)))
        wins += np.bincount(drawn.argmax(axis=1), minlength=len(shown))
    return (1 - UNIFORM) * wins / DRAWS + UNIFORM / len(shown)


def explorer(found: Explorable, share: float, seed: int) -> Explore:
    """Decides for the places of one list, one after the other: given is the product that would
    stand there, and which may. Returns the product that does, with what probability, and whether it
    is another. The same `seed`, asked the same, answers the same."""
    dice = random.Random(seed)  # noqa: S311

    def explore(_: int, item: int, may_stand: MayStand) -> tuple[int, float, bool]:
        drawing = dice.random() < share
        at = found.place.get(item)
        if not drawing and at is None:
            # Only whether there is anything to be drawn matters, and there nearly always is.
            first, rest = found.items[:_FIRST_LOOK], found.items[_FIRST_LOOK:]
            open_ = may_stand(first).any() or (len(rest) and may_stand(rest).any())
            return item, 1 - share if open_ else 1.0, False
        chances = np.where(may_stand(found.items), found.chances, 0.0)
        upto = np.cumsum(chances)
        total = float(upto[-1])
        if not total:
            return item, 1.0, False
        if not drawing:
            assert at is not None
            return item, 1 - share + share * float(chances[at]) / total, False
        drawn = int(np.searchsorted(upto, dice.random() * total, side="right"))
        product = int(found.items[drawn])
        kept = 1 - share if product == item else 0.0
        return product, kept + share * float(chances[drawn]) / total, product != item

    return explore
