"""Everything a version consists of, computed from its rows and the catalogue.

What concerns a user follows from the rows of that user alone. So a version can be built of parts,
each with all rows of some users, and is the same for any number of parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from recsys import schema
from recsys.arrays import UInt64Array
from recsys.data.catalogue import all_products, build_products
from recsys.data.families import SharedEvents, shared_events
from recsys.data.keys import (
    EVENT_KEY,
    USER_NUMBER,
    distinct_texts,
    event_ids,
    event_weights,
    microseconds,
    one_chunk,
    run_starts,
    text_series,
)

SEGMENT = "segment"
SEGMENTS = ("trainable", "one_event", "no_positive")

Ints = NDArray[np.int64]

INTERACTION_COLUMNS = [
    *(schema.USER, schema.PRODUCT, schema.RATING, schema.TIMESTAMP, schema.COMMENT),
    *(schema.COMMENT_QUALITY, schema.CONFIDENCE, schema.EVENT, schema.WEIGHT, schema.SPLIT),
]


@dataclass(frozen=True)
class Dataset:
    """The parts of a version, see `recsys.data.versions.PublishedVersion`."""

    interactions: pd.DataFrame | pa.Table
    products: pd.DataFrame
    user_metadata: pd.DataFrame
    user_ids: list[str]
    item_ids: list[str]
    matrix: sparse.csr_matrix
    popularity: NDArray[np.float64]
    stats: dict[str, Any]


@dataclass(frozen=True)
class Split:
    """The split of rows that are ordered by user, time and event.

    Has, of ``(rows,)``, the `side`: positions in `recsys.schema.SPLITS`; of ``(users,)`` the
    numbers of `events` and `positive_events` of each, and whether it is `trainable`.
    """

    side: NDArray[np.int8]
    events: Ints
    positive_events: Ints
    trainable: NDArray[np.bool_]


def split_rows(
    user: NDArray[np.int32], time: Ints, event: UInt64Array, rating: NDArray[np.float32]
) -> Split:
    """The event-aware leave-one-out split of rows ordered by `user`, `time` and `event`.

    `user` has numbers 0, 1, ... without gaps. A trainable user has at least two events and at least
    one positive one. The latest positive event is the test, the positive one before it the
    validation. What is later than the first held-out event is on no side, and all rows of an event
    are always on the same one.
    """
    row_starts = run_starts(user, event)
    copies = np.diff(row_starts, append=len(user))
    event_user = user[row_starts]
    event_time = time[row_starts]
    positive = (
        np.maximum.reduceat(rating, row_starts) >= schema.POSITIVE_RATING
        if len(row_starts)
        else np.zeros(0, dtype=bool)
    )
    users = int(user[-1]) + 1 if len(user) else 0
    events = np.bincount(event_user, minlength=users)
    positives = np.bincount(event_user[positive], minlength=users)
    trainable = (events >= 2) & (positives >= 1)

    candidates = np.flatnonzero(positive & trainable[event_user])
    owners = event_user[candidates]
    last = np.flatnonzero(np.diff(owners, append=-1) != 0)
    before = last[last > 0] - 1
    before = before[owners[before] == owners[before + 1]]

    side = np.full(len(row_starts), schema.SPLITS.index(schema.TRAIN), dtype=np.int8)
    held_out_from = np.full(users, np.iinfo(np.int64).max)
    for chosen in (candidates[last], candidates[before]):
        held_out_from[event_user[chosen]] = event_time[chosen]
    side[event_time > held_out_from[event_user]] = schema.SPLITS.index(schema.EXCLUDED)
    side[candidates[last]] = schema.SPLITS.index(schema.TEST)
    side[candidates[before]] = schema.SPLITS.index(schema.VALIDATION)
    return Split(np.repeat(side, copies), events, positives, trainable)


@dataclass(frozen=True)
class Entries:
    """What the rows of some users add to what is made of all.

    `products` are the ids of those that they bought, each once; numbers of products are positions
    here. `user` (the number among these `users`), `product` and `confidence` are the ``(entries,)``
    of the matrix; `trained` is the ``(products,)`` number of training rows.
    """

    products: pd.Series
    users: int
    user: NDArray[np.int32]
    product: NDArray[np.int64]
    confidence: NDArray[np.float32]
    trained: NDArray[np.int64]
    shared: SharedEvents


class Part(NamedTuple):
    """Rows and users as published, of some users or of all, and what they add to the rest."""

    interactions: pd.DataFrame
    users: pd.DataFrame
    entries: Entries


def build_part(rows: pd.DataFrame) -> Part:
    """What the `rows` that `split_interactions` takes make."""
    interactions, split = split_interactions(rows)
    return Part(interactions, *count_part(rows, interactions, split))


def split_interactions(rows: pd.DataFrame) -> tuple[pd.DataFrame, Split]:
    """The rows of some users, or of all, as published.

    `rows`: what `recsys.data.keys.latest_rows` gives, in its order, with COMMENT_QUALITY;
    USER_NUMBER begins with 0.
    """
    user, event = rows[USER_NUMBER].to_numpy(), rows[EVENT_KEY].to_numpy()
    rating = rows[schema.RATING].to_numpy()
    split = split_rows(user, microseconds(rows[schema.TIMESTAMP]), event, rating)
    return _interactions(rows, event, split), split


def count_part(
    rows: pd.DataFrame, interactions: pd.DataFrame, split: Split
) -> tuple[pd.DataFrame, Entries]:
    """The users of `rows`, and what these add to what is made of all."""
    user, event = rows[USER_NUMBER].to_numpy(), rows[EVENT_KEY].to_numpy()
    user_ids = rows[schema.USER].take(run_starts(user)).reset_index(drop=True)
    users = _user_metadata(rows, user, user_ids, split)
    encoded = distinct_texts(rows[schema.PRODUCT])
    products, product = text_series(encoded.dictionary), encoded.indices.to_numpy()
    training = split.side == schema.SPLITS.index(schema.TRAIN)
    in_matrix = training & split.trainable[user] if len(user) else training
    return users, Entries(
        products=products,
        users=len(user_ids),
        user=user[in_matrix],
        product=product[in_matrix].astype(np.int64),
        confidence=interactions[schema.CONFIDENCE].to_numpy()[in_matrix],
        trained=np.bincount(product[training], minlength=len(products)),
        shared=shared_events(event, product, len(products)),
    )


def join_parts(
    interactions: pd.DataFrame | pa.Table,
    users: pd.DataFrame,
    parts: Sequence[Entries],
    catalogue: pd.DataFrame,
) -> Dataset:
    """A version of the `parts`, whose rows and users follow each other in the same order.

    `catalogue`: PRODUCT, PRODUCT_NAME, BRAND, CATEGORY, PRICE, DESCRIPTION; one row a product.
    """
    bought = pd.concat([part.products for part in parts]).unique()
    ids = all_products(catalogue, bought)
    positions = [ids.get_indexer(pd.Index(part.products)) for part in parts]
    products = build_products(catalogue, ids, _add_shared(parts, positions, len(ids)))

    user_ids = users[schema.USER]
    trainable = np.flatnonzero((users[SEGMENT] == SEGMENTS[0]).to_numpy())
    # Bytes of UTF-8 are in the order of the characters.
    trainable = trainable[pc.sort_indices(one_chunk(user_ids.iloc[trainable])).to_numpy()]
    position = np.full(len(user_ids), -1, dtype=np.int64)
    position[trainable] = np.arange(len(trainable))
    first_user = np.cumsum([0, *(part.users for part in parts)])
    user = [first + part.user for first, part in zip(first_user, parts, strict=False)]
    item = [at[part.product] for at, part in zip(positions, parts, strict=True)]
    confidence = np.concatenate([part.confidence for part in parts])
    matrix = sparse.csr_matrix(
        (confidence, (position[np.concatenate(user)], np.concatenate(item))),
        shape=(len(trainable), len(ids)),
        dtype=np.float32,
    )
    trained = np.zeros(len(ids))
    for at, part in zip(positions, parts, strict=True):
        trained[at] += part.trained
    return Dataset(
        interactions=interactions,
        products=products,
        user_metadata=users,
        user_ids=user_ids.iloc[trainable].tolist(),
        item_ids=ids.tolist(),
        matrix=matrix,
        popularity=trained,
        stats=_statistics(interactions, len(bought), products, users, matrix),
    )


def _add_shared(
    parts: Sequence[Entries], positions: Sequence[NDArray[np.int64]], products: int
) -> SharedEvents:
    counts = np.zeros(products, dtype=np.int64)
    pairs = sparse.csr_array((products, products))
    for at, part in zip(positions, parts, strict=True):
        counts[at] += part.shared.counts
        found = part.shared.pairs.tocoo()
        ends = np.sort(np.stack([at[found.row], at[found.col]]), axis=0)
        pairs += sparse.csr_array((found.data, (ends[0], ends[1])), shape=pairs.shape)
    return SharedEvents(counts, pairs)


def _interactions(rows: pd.DataFrame, event: NDArray[np.uint64], split: Split) -> pd.DataFrame:
    interactions = rows.copy(deep=False)
    quality = rows[schema.COMMENT_QUALITY].to_numpy(np.float32)
    interactions[schema.CONFIDENCE] = rows[schema.RATING].to_numpy(np.float32) + quality
    interactions[schema.EVENT] = event_ids(event)
    interactions[schema.WEIGHT] = event_weights(event)
    interactions[schema.SPLIT] = _named(split.side, schema.SPLITS)
    return interactions[INTERACTION_COLUMNS]


def _user_metadata(
    rows: pd.DataFrame, user: NDArray[np.int32], user_ids: pd.Series, split: Split
) -> pd.DataFrame:
    starts = run_starts(user)
    ends = np.append(starts[1:], len(user)) - 1 if len(starts) else starts
    count = np.bincount(user, minlength=len(user_ids))
    rating = np.bincount(user, weights=rows[schema.RATING].to_numpy(), minlength=len(user_ids))
    time = rows[schema.TIMESTAMP]
    segment = np.where(split.trainable, 0, np.where(split.events < 2, 1, 2)).astype(np.int8)
    return pd.DataFrame(
        {
            schema.USER: user_ids,
            "interactions": count,
            "events": split.events,
            "positive_events": split.positive_events,
            "mean_rating": rating / np.maximum(count, 1),
            "first_at": time.take(starts).reset_index(drop=True),
            "last_at": time.take(ends).reset_index(drop=True),
            SEGMENT: _named(segment, SEGMENTS),
        },
        copy=False,
    )


def _statistics(
    interactions: pd.DataFrame | pa.Table,
    bought: int,
    products: pd.DataFrame,
    users: pd.DataFrame,
    matrix: sparse.csr_matrix,
) -> dict[str, Any]:
    """The content of ``data_stats.json``."""
    rows = interactions
    if isinstance(rows, pd.DataFrame):
        rows = pa.Table.from_pandas(rows[INTERACTION_COLUMNS[2:]], preserve_index=False)
    segments = users[SEGMENT].value_counts()
    stars, sides = _counts(pc.round(rows[schema.RATING])), _counts(rows[schema.SPLIT])
    times = pc.min_max(rows[schema.TIMESTAMP]).as_py()
    cells = max(matrix.shape[0] * matrix.shape[1], 1)
    return {
        "interactions": len(rows),
        "events": int(users["events"].sum()),
        "rows_of_copied_events": _true(pc.less(rows[schema.WEIGHT], 1)),
        "users": len(users),
        "users_by_segment": {name: int(segments.get(name, 0)) for name in SEGMENTS},
        "products": len(products),
        "products_available": int(products[schema.AVAILABLE].sum()),
        "products_with_interactions": bought,
        "families": int(products[schema.FAMILY].nunique()),
        "ratings": {str(star): stars.get(star, 0) for star in range(1, 6)},
        "mean_rating": _mean(rows[schema.RATING]),
        "mean_comment_quality": _mean(rows[schema.COMMENT_QUALITY]),
        "without_comment": _true(pc.equal(pc.binary_length(rows[schema.COMMENT]), 0)),
        "rows_by_split": {name: sides.get(name, 0) for name in schema.SPLITS},
        "matrix": {
            "users": matrix.shape[0],
            "items": matrix.shape[1],
            "entries": int(matrix.nnz),
            "density": matrix.nnz / cells,
        },
        "first_at": times["min"] and times["min"].isoformat(),
        "last_at": times["max"] and times["max"].isoformat(),
    }


def _counts(column: pa.ChunkedArray) -> dict[Any, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}


def _true(column: pa.ChunkedArray) -> int:
    return pc.sum(column).as_py() or 0


def _mean(column: pa.ChunkedArray) -> float | None:
    mean = pc.mean(column).as_py()
    return None if mean is None else round(mean, 6)


def _named(codes: NDArray[np.int8], names: tuple[str, ...]) -> pd.Series:
    """The name of each code."""
    return text_series(pa.array(names, pa.large_string()).take(pa.array(codes)))
