"""What every check sees of a week, and what it says about it.

A check says how large a change is, how surprising, and whether it matters;
`recsys.drift.examination` decides over all checks of two weeks. Reviews that were written to order,
one sentence from many customers within a week, are found first: the checks of taste leave them out.
"""

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.arrays import BoolArray, Float64Array, Int64Array
from recsys.drift.config import DriftConfig, Severity
from recsys.drift.weeks import Events, Week

TESTED = "tested"
INSUFFICIENT = "insufficient_data"
NEGLIGIBLE_P = 1e-12
"""Reported instead of p-values that no distribution is known well enough to claim."""

GAP_WEEKS = 1
"""Weeks between a moving reference and the examined week, so that the first of two drifted weeks
is not part of the second one's reference."""
HISTORY_WEEKS = 26
"""Weeks that the trend, the weekday profile and the band of the volume are taken from."""

CAMPAIGN_USERS = 8  # with the same sentence in one week
_MIN_CHARACTERS = 12  # shorter texts ("ok", "tốt") are nobody's campaign
_SPREAD = 5.0  # standard deviations above a sentence's usual number of users
_LISTED = 5


@dataclass(frozen=True)
class Check:
    """The outcome of one check for one week."""

    name: str
    p_value: float | None = None
    effect: float | None = None  # size of the change in the check's own ``details["unit"]``
    large: bool = False  # enough to matter; alone it is no evidence
    direction: int = 0  # sign of the change: two weeks in a row must agree on it
    severity: Severity = "low"  # of the alarm, if there is one
    immediate: bool = False  # one week is enough for an alarm
    advice: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return INSUFFICIENT if self.p_value is None else TESTED


@dataclass(frozen=True)
class Span:
    """An examined week, its reference and the longer history of its volume, campaign-free.

    Weeks are numbers of `recsys.drift.weeks.Week`; bounds are half-open. `sentences` are those of
    the week's campaigns: text, users, events, rows."""

    week: Week
    reference_bounds: tuple[int, int]
    history_bounds: tuple[int, int]
    all_window: Events
    window: Events
    reference: Events
    history: Events
    sentences: list[dict[str, Any]]


def span_of(
    events: Events,
    keys: Int64Array | None,
    week: Week,
    config: DriftConfig,
    reference_stop: int | None,
) -> Span:
    """Cut the weeks that the checks of `week` need out of `events`, whose sentence keys are `keys`
    (None without comments).

    The reference ends with week `reference_stop` (exclusive), without one `GAP_WEEKS` before the
    examined one. No later events are looked at, so a later report says the same about the week."""
    earliest = int(events.weeks[0]) if len(events) else week.number
    stop = recent = week.number - GAP_WEEKS
    if reference_stop is not None and reference_stop <= week.number:
        stop = reference_stop
    reference = (max(stop - config.reference_weeks, earliest), max(stop, earliest))
    history = (max(recent - HISTORY_WEEKS, earliest), max(recent, earliest))
    first = min(reference[0], history[0])
    low, high = np.searchsorted(events.weeks, [first, week.number + 1])
    part = events.between(first, week.number + 1)
    known = np.full(len(part), -1) if keys is None else keys[low:high]
    copied, sentences = find_campaigns(part, known)
    if len(part) and int(part.weeks[-1]) != week.number:
        sentences = []
    clean, examined = part.where(~copied), (week.number, week.number + 1)
    window, before, long_before = (clean.between(*b) for b in (examined, reference, history))
    everything = part.between(*examined)
    return Span(week, reference, history, everything, window, before, long_before, sentences)


def sentence_keys(comments: pd.Series) -> Int64Array:
    """A number for each comment, the same for texts that differ only in accents, case and
    punctuation; -1 for texts of a word or two."""
    texts = pa.array(comments.astype(object).fillna(""), type=pa.large_string(), from_pandas=True)
    plain = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKD"))
    plain = pc.replace_substring(pc.replace_substring_regex(plain, r"\p{Mn}+", ""), "đ", "d")
    plain = pc.utf8_trim(pc.replace_substring_regex(plain, r"[^\p{L}\p{N}]+", " "), " ")
    keys = plain.dictionary_encode().indices.to_numpy().astype(np.int64)
    long_enough = pc.greater_equal(pc.utf8_length(plain), _MIN_CHARACTERS)
    return np.where(long_enough.to_numpy(zero_copy_only=False), keys, -1)


def find_campaigns(events: Events, keys: Int64Array) -> tuple[BoolArray, list[dict[str, Any]]]:
    """Which events are copies of a sentence that at least `CAMPAIGN_USERS` users wrote in one week,
    far more than usual; and such sentences of the last week (text, users, events, rows).

    `keys` are the `sentence_keys` of `events`. A phrase that customers use every week ("giao
    hàng nhanh") is measured against its own median rate over the weeks."""
    copied = np.zeros(len(events), dtype=bool)
    if len(events) == 0:
        return copied, []
    pairs = pd.DataFrame({"week": events.weeks, "key": keys, "user": events.users})[keys >= 0]
    users = pairs.drop_duplicates().groupby(["week", "key"]).size()
    frequent = users[users >= CAMPAIGN_USERS]
    if frequent.empty:
        return copied, []
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
    flagged = (counts >= CAMPAIGN_USERS) & (counts > usual + _SPREAD * np.sqrt(usual + 1))
    column = table.columns.get_indexer(pd.Index(keys))
    copied = (column >= 0) & flagged[events.weeks - first, column]
    return copied, _sentences(events, copied & (events.weeks == last), column, counts[-1])


def _sentences(
    events: Events, chosen: BoolArray, column: Int64Array, users: Float64Array
) -> list[dict[str, Any]]:
    if not chosen.any() or events.comments is None:
        return []
    texts = events.comments.to_numpy()[chosen]
    groups = (
        pd.DataFrame({"text": texts, "rows": events.copies[chosen]})
        .groupby(column[chosen])
        .agg(text=("text", "first"), events=("rows", "size"), rows=("rows", "sum"))
    )
    groups.insert(1, "users", users[groups.index].astype(np.int64))
    groups["text"] = groups["text"].astype(str).str[:200]
    top = groups.sort_values(["users", "rows"], ascending=False).head(_LISTED)
    return cast("list[dict[str, Any]]", top.to_dict("records"))
