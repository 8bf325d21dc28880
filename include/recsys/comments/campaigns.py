"""The same text from many users within a few weeks: a campaign, not that many opinions."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.comments.config import CampaignConfig

_DAY = pd.Timedelta(days=1)
_EPOCH = pd.Timestamp(0, tz="UTC")

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


def campaign_users(
    group: Int64, user: pd.Series, timestamp: pd.Series, config: CampaignConfig
) -> Int32:
    """For each row, how many users wrote its text in the span of time around it.

    Parameters
    ----------
    group
        Number of the row's text; texts that count as the same share it, rows whose text can be
        no campaign have -1.
    user
        Ids of the rows' users.
    timestamp
        Times of the rows, UTC.

    Returns
    -------
    Distinct users: the larger of the row's two overlapping spans; 0 where fewer than
    ``config.min_users`` users (or group -1). Spans are counted from 1970, so the answer for a
    row depends on which rows there are and never on their order.
    """
    users = np.zeros(len(group), dtype=np.int32)
    copies = np.bincount(group[group >= 0], minlength=1)
    repeated = np.flatnonzero((group >= 0) & (copies[group] >= config.min_users))
    if len(repeated) == 0:
        return users
    author, _ = pd.factorize(user.iloc[repeated])
    half_spans = (timestamp.iloc[repeated] - _EPOCH) // (_DAY * config.span_days / 2)
    halves = half_spans.to_numpy(dtype=np.int64)
    for shift in (0, 1):
        spans: Int64 = np.floor_divide(halves + shift, 2, dtype=np.int64)
        counted = _distinct_users(group[repeated], spans, author)
        users[repeated] = np.maximum(users[repeated], counted)
    users[users < config.min_users] = 0
    return users


def _distinct_users(group: Int64, span: Int64, user: Int64) -> Int32:
    """For each row, the number of distinct users of its (group, span)."""
    rows = pd.DataFrame({"group": group, "span": span, "user": user})
    cell = rows.groupby(["group", "span"], sort=False).ngroup().to_numpy()
    distinct = rows.assign(cell=cell).drop_duplicates(["cell", "user"])["cell"].to_numpy()
    return np.bincount(distinct, minlength=len(rows))[cell].astype(np.int32)
