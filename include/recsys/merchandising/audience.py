"""Whom to tell about a product: the customers whom it suits best.

Scores of different customers are comparable by their order only. A customer counts by the place
that the product has among all that may stand in their list, and at the same place by how far its
score lies above their others."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from recsys.arrays import Float32Array
from recsys.errors import InputError
from recsys.ids import normalise_id
from recsys.merchandising.customers import blocks, live_events, load_served, scored
from recsys.models.kinds import not_offered
from recsys.privacy import load_forgotten
from recsys.publishing import atomic_path
from recsys.settings import Settings

_CUSTOMERS_AT_ONCE = 20_000


class Suited(NamedTuple):
    """A customer, and the place (from 1) that the product has in their list of all products."""

    user_id: str
    place: int


def audience(settings: Settings, product_id: str, size: int, now: int) -> dict[str, Any]:
    """The `size` customers whom the product suits best: not who had or dismissed it, in whatever
    size or shade, nor who is forgotten, and not of whom nothing is known that counts. Raises
    `InputError` for a product that the shop does not have or cannot sell, or without a model."""
    snapshot = load_served(settings)
    catalogue = snapshot.catalogue
    item = catalogue.index.get(product_id, catalogue.index.get(normalise_id(product_id)))
    if item is None:
        raise InputError(f"{product_id}: the shop has no product of this id")
    if not catalogue.available[item]:
        raise InputError(f"{product_id}: the product is not for sale, nobody can be told about it")
    steering = snapshot.steerings.of(None)
    if steering is not None and steering.hidden is not None and steering.hidden[item]:
        raise InputError(f"{product_id}: a rule of the shop hides the product everywhere")
    found: list[tuple[int, float, str]] = []
    asked, forgotten = 0, load_forgotten(settings)
    with live_events(settings) as database, threadpool_limits(limits=1, user_api="blas"):
        for make in blocks(snapshot, database, _CUSTOMERS_AT_ONCE, now):
            block = make()
            there = np.array([user not in forgotten for user in block.user_ids], dtype=np.bool_)
            asked += int(there.sum())
            for some, scores in scored(
                *(snapshot, block.histories, not_offered(block.histories), now)
            ):
                place, ahead = _standing(scores, item)
                suited = np.flatnonzero(place * there[some])
                best = suited[np.lexsort((-ahead[suited], place[suited]))[:size]] + some.start
                found += [
                    (
                        int(place[row - some.start]),
                        -float(ahead[row - some.start]),
                        block.user_ids[row],
                    )
                    for row in best.tolist()
                ]
            found = sorted(found)[:size]
    return {
        "product_id": catalogue.item_ids[item],
        "product_name": catalogue.names[item],
        "model_id": snapshot.model_id,
        "asked": asked,
        "customers": [Suited(user, place)._asdict() for place, _, user in found],
    }


def write_audience(customers: list[dict[str, Any]], to: Path) -> None:
    """Write the customers of `audience` to a CSV file, best first."""
    with atomic_path(to) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, Suited._fields)
        rows.writeheader()
        rows.writerows(customers)


def _standing(scores: Float32Array, item: int) -> tuple[Any, Any]:
    """``(users,)`` place of the product by `scores` ``(users, items)``, 0 where it may not stand or
    there is no opinion; and how many deviations its score lies above the mean of the others."""
    own = scores[:, [item]]
    stands = own[:, 0] > -np.inf
    place = np.where(stands, 1 + (scores > own).sum(axis=1), 0)
    usable = np.isfinite(scores)
    count = np.maximum(usable.sum(axis=1), 1)
    values = np.where(usable, scores, 0).astype(np.float64)
    mean = values.sum(axis=1) / count
    spread = np.sqrt(np.maximum((values**2).sum(axis=1) / count - mean**2, 1e-24))
    ahead = np.where(stands, (np.where(stands, own[:, 0], 0) - mean) / spread, 0)
    return place, ahead
