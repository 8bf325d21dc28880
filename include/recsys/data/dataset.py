"""Everything a version consists of, computed from its rows and the catalogue.

What concerns a user follows from the rows of that user alone: built of any number of parts, each
with all rows of some users, a version is the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from recsys import schema
from recsys.arrays import Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, UInt64Array
from recsys.data import keys
from recsys.data.families import SharedEvents, assign_families, shared_events
from recsys.data.keys import EVENT_KEY, USER_NUMBER, run_starts, text_series
from recsys.data.products import SAID_OF_SALE, for_sale, sale_statistics

SEGMENT = "segment"
SEGMENTS = ("trainable", "one_event", "no_positive")
TEXTS = [schema.PRODUCT_NAME, schema.BRAND, schema.CATEGORY, schema.DESCRIPTION]

INTERACTION_COLUMNS = [
    *(schema.USER, schema.PRODUCT, schema.RATING, schema.TIMESTAMP, schema.COMMENT),
    *(schema.COMMENT_QUALITY, schema.CONFIDENCE, schema.EVENT, schema.WEIGHT, schema.SPLIT),
]


@dataclass(frozen=True)
class Dataset:
    """The parts of a version, see `recsys.data.versions.PublishedVersion`."""

    interactions: pd.DataFrame | pa.Table
    products: pd.DataFrame
    user_metadata: pd.DataFrame | pa.Table
    user_ids: pa.LargeStringArray
    item_ids: list[str]
    matrix: sparse.csr_matrix
    popularity: Float64Array
    stats: dict[str, Any]


@dataclass(frozen=True)
class Split:
    """Of ``(rows,)`` the `side`, positions in `recsys.schema.SPLITS`; of ``(users,)`` the numbers
    of `events` and `positive_events` of each, and whether it is `trainable`."""

    side: Int8Array
    events: Int64Array
    positive_events: Int64Array
    trainable: NDArray[np.bool_]


def split_rows(
    user: Int32Array, time: Int64Array, event: UInt64Array, rating: Float32Array
) -> Split:
    """The event-aware leave-one-out split of rows ordered by `user`, `time` and `event`.

    `user` has numbers 0, 1, ... without gaps. A trainable user has at least two events and at least
    one positive one. The latest positive event is the test, the positive one before it the
    validation. What is later than the first held-out event is on no side, and all rows of an event
    are always on the same one.
    """
    row_starts = run_starts(user, event)
    copies = np.diff(row_starts, append=len(user))
    event_user, event_time = user[row_starts], time[row_starts]
    best = np.maximum.reduceat(rating, row_starts) if len(user) else rating
    positive = best >= schema.POSITIVE_RATING
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


def split_in_any_order(
    user: Int32Array, time: Int64Array, event: UInt64Array, rating: Float32Array
) -> Split:
    """`split_rows` of rows that are not ordered."""
    order = keys.ordered_by(user, time, event)
    split = split_rows(user[order], time[order], event[order], rating[order])
    side = np.empty_like(split.side)
    side[order] = split.side
    return replace(split, side=side)


@dataclass(frozen=True)
class Entries:
    """What the rows of some users add to what is made of all. `products` are the ids of those that
    they bought, each once; numbers of products are positions here. `user` (the number among these
    `users`), `product` and `confidence` are the ``(entries,)`` of the matrix; `trained` is the
    ``(products,)`` number of training rows."""

    products: pd.Series
    users: int
    user: Int32Array
    product: Int64Array
    confidence: Float32Array
    trained: Int64Array
    shared: SharedEvents


def build_part(
    rows: pd.DataFrame, purchases: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, Entries]:
    """Of `rows` as for `split_interactions` rows and users as published, and what they add."""
    interactions, split = split_interactions(rows, purchases)
    return interactions, *count_part(rows, interactions, split)


def split_interactions(
    rows: pd.DataFrame, purchases: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, Split]:
    """The rows of some users, or of all, as published. `rows`: what `recsys.data.keys.latest_rows`
    gives, in its order, with COMMENT_QUALITY; USER_NUMBER begins with 0. `purchases` (USER,
    TIMESTAMP, EVENT_KEY), of whatever users, are positive events beside the ratings."""
    user, event = rows[USER_NUMBER].to_numpy(), rows[EVENT_KEY].to_numpy()
    rating = rows[schema.RATING].to_numpy(np.float32)
    time = keys.microseconds(rows[schema.TIMESTAMP])
    if purchases is None:
        split = split_rows(user, time, event, rating)
    else:
        user_ids = pd.Index(rows[schema.USER].take(run_starts(user)))
        buyer = user_ids.get_indexer(pd.Index(purchases[schema.USER])).astype(np.int32)
        own, buyer = purchases[buyer >= 0], buyer[buyer >= 0]
        joint = split_in_any_order(
            np.append(user, buyer),
            np.append(time, keys.microseconds(own[schema.TIMESTAMP])),
            np.append(event, own[EVENT_KEY].to_numpy()),
            np.append(rating, np.full(len(own), schema.POSITIVE_RATING, np.float32)),
        )
        split = replace(joint, side=joint.side[: len(user)])
    interactions = rows.copy(deep=False)
    quality = rows[schema.COMMENT_QUALITY].to_numpy(np.float32)
    interactions[schema.CONFIDENCE] = rating + quality
    interactions[schema.EVENT] = keys.event_ids(event)
    interactions[schema.WEIGHT] = keys.event_weights(event)
    interactions[schema.SPLIT] = named_sides(split.side)
    return interactions[INTERACTION_COLUMNS], split


def count_part(
    rows: pd.DataFrame, interactions: pd.DataFrame, split: Split
) -> tuple[pd.DataFrame, Entries]:
    """The users of `rows`, and what these add to what is made of all."""
    user, event = rows[USER_NUMBER].to_numpy(), rows[EVENT_KEY].to_numpy()
    user_ids = rows[schema.USER].take(run_starts(user)).reset_index(drop=True)
    users = _user_metadata(rows, user, user_ids, split)
    encoded = keys.distinct_texts(rows[schema.PRODUCT])
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
    users: pd.DataFrame | pa.Table,
    parts: Iterable[Entries],
    catalogue: pd.DataFrame,
) -> Dataset:
    """A version of the `parts`, whose rows and users follow each other in the same order; they are
    gone through several times, and need not be in memory together.
    `catalogue`: one row a product, as of `recsys.data.products.clean_products`."""
    bought = pd.concat([part.products for part in parts]).unique()
    listed = catalogue[schema.PRODUCT].to_numpy(object)
    ids = pd.Index(np.unique(np.concatenate([listed, np.asarray(bought, object)])))
    positions = [ids.get_indexer(pd.Index(part.products)) for part in parts]
    products = _products(catalogue, ids, _add_shared(parts, positions, len(ids)))
    user_ids, row = _trainable(users)
    trained = np.zeros(len(ids))
    for at, part in zip(positions, parts, strict=True):
        trained[at] += part.trained
    matrix = _matrix(parts, positions, row, (len(user_ids), len(ids)))
    return Dataset(
        interactions=interactions,
        products=products,
        user_metadata=users,
        user_ids=user_ids,
        item_ids=ids.tolist(),
        matrix=matrix,
        popularity=trained,
        stats={
            **_statistics(interactions, len(bought), products, users, matrix),
            **sale_statistics(catalogue, len(ids)),
        },
    )


def _trainable(users: pd.DataFrame | pa.Table) -> tuple[pa.LargeStringArray, Int32Array]:
    """The ids of trainable users in order, and of each of all users its row among them, or -1."""
    table = users if isinstance(users, pa.Table) else pa.Table.from_pandas(users)
    chosen = pc.equal(table[SEGMENT], SEGMENTS[0])
    ids = table[schema.USER].filter(chosen).cast(pa.large_string()).combine_chunks()
    # Bytes of UTF-8 are in the order of the characters.
    order = pc.sort_indices(ids)
    trainable = np.flatnonzero(chosen.to_numpy())
    row = np.full(len(table), -1, dtype=np.int32)
    row[trainable[order.to_numpy()]] = np.arange(len(trainable), dtype=np.int32)
    return ids.take(order), row


def _matrix(
    parts: Iterable[Entries],
    positions: Sequence[NDArray[np.int64]],
    row: Int32Array,
    shape: tuple[int, int],
) -> sparse.csr_matrix:
    """``(trainable users, products)`` confidences. No user and product has two entries; those of a
    user are all in one part."""
    starts = np.zeros(shape[0] + 1, dtype=np.int64)
    for users, part in _with_rows(parts, row):
        np.add.at(starts, users[part.user] + 1, 1)
    np.cumsum(starts, out=starts)
    columns = np.empty(starts[-1], dtype=np.int32)
    confidence = np.empty(starts[-1], dtype=np.float32)
    for at, (users, part) in zip(positions, _with_rows(parts, row), strict=True):
        owner, column = users[part.user], at[part.product]
        order = np.lexsort((column, owner))
        owner = owner[order]
        first = keys.run_starts(owner)
        within = np.arange(len(owner)) - np.repeat(first, np.diff(first, append=len(owner)))
        place = starts[owner] + within
        columns[place], confidence[place] = column[order], part.confidence[order]
    return sparse.csr_matrix((confidence, columns, starts), shape=shape)


def _with_rows(parts: Iterable[Entries], row: Int32Array) -> Iterable[tuple[Int32Array, Entries]]:
    """Each part with the `row` of each of its users."""
    first = 0
    for part in parts:
        yield row[first : first + part.users], part
        first += part.users


def _add_shared(
    parts: Iterable[Entries], positions: Sequence[NDArray[np.int64]], products: int
) -> SharedEvents:
    counts = np.zeros(products, dtype=np.int64)
    pairs = sparse.csr_array((products, products))
    for at, part in zip(positions, parts, strict=True):
        counts[at] += part.shared.counts
        found = part.shared.pairs.tocoo()
        ends = np.sort(np.stack([at[found.row], at[found.col]]), axis=0)
        pairs += sparse.csr_array((found.data, (ends[0], ends[1])), shape=pairs.shape)
    return SharedEvents(counts, pairs)


def _products(catalogue: pd.DataFrame, ids: pd.Index, shared: SharedEvents) -> pd.DataFrame:
    """One row for each of `ids`, which stand at the `shared` review events. Products that only
    reviews know have empty texts."""
    products = catalogue.set_index(schema.PRODUCT).reindex(ids).rename_axis(schema.PRODUCT)
    products[TEXTS] = products[TEXTS].fillna("").astype("str")
    products[schema.AVAILABLE] = ids.isin(for_sale(catalogue)[schema.PRODUCT])
    for text in (schema.TAGS, schema.PICTURE):
        if text in products:
            products[text] = products[text].fillna("").astype("str")
    products = products.reset_index().astype({schema.PRODUCT: "str"})
    products[schema.FAMILY] = assign_families(products, shared).to_numpy()
    columns = [schema.PRODUCT, *TEXTS[:3], schema.PRICE, TEXTS[3], schema.FAMILY]
    said = [name for name in (*SAID_OF_SALE, schema.PICTURE) if name in products]
    return products[[*columns, schema.AVAILABLE, *said]]


def _user_metadata(
    rows: pd.DataFrame, user: Int32Array, user_ids: pd.Series, split: Split
) -> pd.DataFrame:
    starts = run_starts(user)
    ends = np.append(starts[1:], len(user)) - 1 if len(starts) else starts
    count = np.bincount(user, minlength=len(user_ids))
    rating = np.bincount(user, weights=rows[schema.RATING].to_numpy(), minlength=len(user_ids))
    time = rows[schema.TIMESTAMP]
    segment = np.where(split.trainable, 0, np.where(split.events < 2, 1, 2)).astype(np.int8)
    columns = {
        schema.USER: user_ids,
        "interactions": count,
        "events": split.events,
        "positive_events": split.positive_events,
        "mean_rating": rating / np.maximum(count, 1),
        "first_at": time.take(starts).reset_index(drop=True),
        "last_at": time.take(ends).reset_index(drop=True),
        SEGMENT: _named(segment, SEGMENTS),
    }
    return pd.DataFrame(columns, copy=False)


def _statistics(
    interactions: pd.DataFrame | pa.Table,
    bought: int,
    products: pd.DataFrame,
    users: pd.DataFrame | pa.Table,
    matrix: sparse.csr_matrix,
) -> dict[str, Any]:
    """The content of ``data_stats.json``."""
    rows = interactions
    if isinstance(rows, pd.DataFrame):
        rows = pa.Table.from_pandas(rows[INTERACTION_COLUMNS[2:]], preserve_index=False)
    if isinstance(users, pd.DataFrame):
        users = pa.Table.from_pandas(users[["events", SEGMENT]], preserve_index=False)
    segments = _counts(users[SEGMENT])
    stars, sides = _counts(pc.round(rows[schema.RATING])), _counts(rows[schema.SPLIT])
    times = pc.min_max(rows[schema.TIMESTAMP]).as_py()
    shape = dict(zip(("users", "items"), matrix.shape, strict=True))
    cells = max(matrix.shape[0] * matrix.shape[1], 1)
    return {
        "interactions": len(rows),
        "events": pc.sum(users["events"]).as_py() or 0,
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
        "without_comment": sum(
            _true(pc.equal(pc.binary_length(chunk), 0)) for chunk in rows[schema.COMMENT].chunks
        ),
        "rows_by_split": {name: sides.get(name, 0) for name in schema.SPLITS},
        "matrix": {**shape, "entries": int(matrix.nnz), "density": matrix.nnz / cells},
        "first_at": times["min"] and times["min"].isoformat(),
        "last_at": times["max"] and times["max"].isoformat(),
    }


def _counts(column: pa.ChunkedArray) -> dict[Any, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}


def _true(column: pa.Array | pa.ChunkedArray) -> int:
    return pc.sum(column).as_py() or 0


def _mean(column: pa.ChunkedArray) -> float | None:
    mean = pc.mean(column).as_py()
    return None if mean is None else round(mean, 6)


def named_sides(side: Int8Array) -> pd.Series:
    """The names of sides that `Split` has by number."""
    return _named(side, schema.SPLITS)


def _named(codes: Int8Array, names: tuple[str, ...]) -> pd.Series:
    return text_series(pa.array(names, pa.large_string()).take(pa.array(codes)))
