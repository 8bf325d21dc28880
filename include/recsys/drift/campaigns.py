"""Reviews that were written to order: one sentence from many customers within a week."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.arrays import BoolArray, Float64Array, Int64Array
from recsys.drift.config import CampaignConfig
from recsys.drift.events import Events

_SPREAD = 5.0  # standard deviations above a sentence's usual number of users
_LISTED = 5


@dataclass(frozen=True)
class Campaigns:
    """What was found in a span of weeks.

    `copied` marks the events whose sentence is part of a campaign in their week. `sentences`
    lists those of the last week: text, users, events, rows.
    """

    copied: BoolArray
    sentences: list[dict[str, Any]]


def sentence_keys(comments: pd.Series, min_characters: int) -> Int64Array:
    """A number for each comment, the same for texts that differ only in accents, case and
    punctuation; -1 for texts shorter than `min_characters`."""
    texts = pa.array(comments.astype(object).fillna(""), type=pa.large_string(), from_pandas=True)
    plain = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKD"))
    plain = pc.replace_substring(pc.replace_substring_regex(plain, r"\p{Mn}+", ""), "đ", "d")
    plain = pc.utf8_trim(pc.replace_substring_regex(plain, r"[^\p{L}\p{N}]+", " "), " ")
    keys = plain.dictionary_encode().indices.to_numpy().astype(np.int64)
    long_enough = pc.greater_equal(pc.utf8_length(plain), min_characters)
    return np.where(long_enough.to_numpy(zero_copy_only=False), keys, -1)


def find_campaigns(events: Events, keys: Int64Array, config: CampaignConfig) -> Campaigns:
    """Sentences that at least ``min_users`` users wrote in one week, and far more than usual.

    `keys` are the `sentence_keys` of `events`. A phrase that customers use every week ("giao
    hàng nhanh") is measured against its own median rate over the weeks.
    """
    copied = np.zeros(len(events), dtype=bool)
    if len(events) == 0:
        return Campaigns(copied, [])
    pairs = pd.DataFrame({"week": events.weeks, "key": keys, "user": events.users})[keys >= 0]
    users = pairs.drop_duplicates().groupby(["week", "key"]).size()
    frequent = users[users >= config.min_users]
    if frequent.empty:
        return Campaigns(copied, [])
    names = frequent.index.get_level_values("key").unique()
    first, last = int(events.weeks[0]), int(events.weeks[-1])
    table = (
        users[users.index.get_level_values("key").isin(names)]
        .unstack("key", fill_value=0)
        .reindex(range(first, last + 1), fill_value=0)
    )
    sizes = np.bincount(events.weeks - first, minlength=last - first + 1)[:, None]
    counts = table.to_numpy(np.float64)
    usual = np.median(counts / np.maximum(sizes, 1), axis=0) * sizes
    flagged = (counts >= config.min_users) & (counts > usual + _SPREAD * np.sqrt(usual + 1))
    column = table.columns.get_indexer(pd.Index(keys))
    copied = (column >= 0) & flagged[events.weeks - first, column]
    return Campaigns(copied, _sentences(events, copied & (events.weeks == last), column, counts))


def _sentences(
    events: Events,
    chosen: BoolArray,
    column: Int64Array,
    counts: Float64Array,
) -> list[dict[str, Any]]:
    if not chosen.any() or events.comments is None:
        return []
    found = pd.DataFrame(
        {
            "column": column[chosen],
            "text": events.comments.to_numpy()[chosen],
            "rows": events.copies[chosen],
        }
    )
    groups = found.groupby("column").agg(
        text=("text", "first"), events=("rows", "size"), rows=("rows", "sum")
    )
    groups["users"] = counts[-1, groups.index]
    top = groups.sort_values(["users", "rows"], ascending=False).head(_LISTED)
    return [
        {
            "text": str(row["text"])[:200],
            "users": int(row["users"]),
            "events": int(row["events"]),
            "rows": int(row["rows"]),
        }
        for row in top.to_dict("records")
    ]
