"""Histories made from interaction tables."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from recsys import schema
from recsys.arrays import Int64Array
from recsys.models.base import Histories
from recsys.models.histories import histories_from_codes


def histories_from_frame(
    interactions: pd.DataFrame, user_ids: Sequence[str], item_ids: Sequence[str]
) -> Histories:
    """Histories of `user_ids`, in their order, over the columns `item_ids`.

    Needs the columns USER, PRODUCT, TIMESTAMP, CONFIDENCE and WEIGHT of
    `recsys.schema`. Rows of other users or products are left out.
    """
    users = pd.Index(user_ids).get_indexer(pd.Index(interactions[schema.USER]))
    items = pd.Index(item_ids).get_indexer(pd.Index(interactions[schema.PRODUCT]))
    known = (users >= 0) & (items >= 0)
    rows = interactions.loc[known]
    return histories_from_codes(
        users[known],
        items[known],
        seconds(rows[schema.TIMESTAMP]),
        count=len(user_ids),
        confidence=rows[schema.CONFIDENCE].to_numpy(dtype=np.float32),
        weight=rows[schema.WEIGHT].to_numpy(dtype=np.float32),
    )


def seconds(timestamps: pd.Series) -> Int64Array:
    """Aware time stamps as whole seconds since 1970 UTC."""
    naive = timestamps.dt.tz_convert("UTC").dt.tz_localize(None)
    return naive.to_numpy().astype("datetime64[s]").astype(np.int64)
