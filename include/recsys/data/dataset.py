"""Everything a version consists of, computed in memory from its rows and the catalogue."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recsys.data import schema
from recsys.data.catalogue import AVAILABLE, build_products
from recsys.data.events import (
    EVENT_KEY,
    USER_NUMBER,
    distinct_texts,
    event_ids,
    event_weights,
    microseconds,
    run_starts,
    text_series,
)
from recsys.data.splits import Split, split_rows

SEGMENT = "segment"
TRAINABLE = "trainable"
ONE_EVENT = "one_event"
NO_POSITIVE = "no_positive"
SEGMENTS = (TRAINABLE, ONE_EVENT, NO_POSITIVE)

INTERACTION_COLUMNS = (
    schema.USER,
    schema.PRODUCT,
    schema.RATING,
    schema.TIMESTAMP,
    schema.COMMENT,
    schema.COMMENT_QUALITY,
    schema.CONFIDENCE,
    schema.EVENT,
    schema.WEIGHT,
    schema.SPLIT,
)


@dataclass(frozen=True)
class Dataset:
    """The parts of a version, see `recsys.data.versions.PublishedVersion`."""

    interactions: pd.DataFrame
    products: pd.DataFrame
    user_metadata: pd.DataFrame
    user_ids: list[str]
    item_ids: list[str]
    matrix: sparse.csr_matrix
    popularity: NDArray[np.float64]
    stats: dict[str, Any]


def build_dataset(rows: pd.DataFrame, catalogue: pd.DataFrame) -> Dataset:
    """Build a version's parts.

    Parameters
    ----------
    rows
        What `recsys.data.events.latest_rows` gives, in its order, with COMMENT_QUALITY.
    catalogue
        PRODUCT, PRODUCT_NAME, BRAND, CATEGORY, PRICE, DESCRIPTION; one row a product.
    """
    user = rows[USER_NUMBER].to_numpy()
    user_ids = rows[schema.USER].take(run_starts(user)).reset_index(drop=True)
    event = rows[EVENT_KEY].to_numpy()
    rating = rows[schema.RATING].to_numpy()
    split = split_rows(user, microseconds(rows[schema.TIMESTAMP]), event, rating)
    interactions = _interactions(rows, event, split)
    events = pd.DataFrame({schema.PRODUCT: rows[schema.PRODUCT], schema.EVENT: event})
    products = build_products(catalogue, events)
    item_index = pd.Index(products[schema.PRODUCT])
    item = _positions(rows[schema.PRODUCT], item_index)

    training = split.side == schema.SPLITS.index(schema.TRAIN)
    in_matrix = training & split.trainable[user] if len(user) else training
    trainable = np.flatnonzero(split.trainable)
    trainable = trainable[np.argsort(user_ids[trainable].to_numpy(dtype=object))]
    position = np.full(len(user_ids), -1, dtype=np.int64)
    position[trainable] = np.arange(len(trainable))
    matrix = sparse.csr_matrix(
        (
            interactions[schema.CONFIDENCE].to_numpy()[in_matrix],
            (position[user[in_matrix]], item[in_matrix]),
        ),
        shape=(len(trainable), len(item_index)),
        dtype=np.float32,
    )
    users = _user_metadata(rows, user, user_ids, split)
    return Dataset(
        interactions=interactions,
        products=products,
        user_metadata=users,
        user_ids=user_ids[trainable].tolist(),
        item_ids=item_index.tolist(),
        matrix=matrix,
        popularity=np.bincount(item[training], minlength=len(item_index)).astype(np.float64),
        stats=_statistics(interactions, products, users, matrix),
    )


def _interactions(rows: pd.DataFrame, event: NDArray[np.uint64], split: Split) -> pd.DataFrame:
    interactions = rows.copy(deep=False)
    quality = rows[schema.COMMENT_QUALITY].to_numpy(np.float32)
    interactions[schema.CONFIDENCE] = rows[schema.RATING].to_numpy(np.float32) + quality
    interactions[schema.EVENT] = event_ids(event)
    interactions[schema.WEIGHT] = event_weights(event)
    interactions[schema.SPLIT] = _named(split.side, schema.SPLITS)
    return interactions[list(INTERACTION_COLUMNS)]


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
        }
    )


def _statistics(
    interactions: pd.DataFrame,
    products: pd.DataFrame,
    users: pd.DataFrame,
    matrix: sparse.csr_matrix,
) -> dict[str, Any]:
    weight = interactions[schema.WEIGHT].to_numpy()
    stars = interactions[schema.RATING].round().astype("int64").value_counts()
    sides = interactions[schema.SPLIT].value_counts()
    segments = users[SEGMENT].value_counts()
    time = interactions[schema.TIMESTAMP]
    cells = max(matrix.shape[0] * matrix.shape[1], 1)
    return {
        "interactions": len(interactions),
        "events": int(users["events"].sum()),
        "rows_of_copied_events": int((weight < 1).sum()),
        "users": len(users),
        "users_by_segment": {name: int(segments.get(name, 0)) for name in SEGMENTS},
        "products": len(products),
        "products_available": int(products[AVAILABLE].sum()),
        "products_with_interactions": int(interactions[schema.PRODUCT].nunique()),
        "families": int(products[schema.FAMILY].nunique()),
        "ratings": {str(star): int(stars.get(star, 0)) for star in range(1, 6)},
        "mean_rating": _mean(interactions[schema.RATING]),
        "mean_comment_quality": _mean(interactions[schema.COMMENT_QUALITY]),
        "without_comment": int((interactions[schema.COMMENT] == "").sum()),
        "rows_by_split": {name: int(sides.get(name, 0)) for name in schema.SPLITS},
        "matrix": {
            "users": matrix.shape[0],
            "items": matrix.shape[1],
            "entries": int(matrix.nnz),
            "density": matrix.nnz / cells,
        },
        "first_at": time.min().isoformat() if len(time) else None,
        "last_at": time.max().isoformat() if len(time) else None,
    }


def _named(codes: NDArray[np.int8], names: tuple[str, ...]) -> pd.Series:
    """The name of each code."""
    return text_series(pa.array(names, pa.large_string()).take(pa.array(codes)))


def _positions(texts: pd.Series, index: pd.Index) -> NDArray[np.int64]:
    """The position in `index` of each text; all of them are there."""
    encoded = distinct_texts(texts)
    positions = index.get_indexer(encoded.dictionary.to_pandas())
    return positions[encoded.indices.to_numpy()]


def _mean(values: pd.Series) -> float | None:
    return round(float(values.mean()), 6) if len(values) else None
