"""A small shop week by week, as frames of interactions, for the tests of the drift checks."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from recsys.drift.weeks import Events, Week, events_of

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
MONDAY = datetime(2024, 6, 3, tzinfo=ZONE)  # after the last of the weeks
WEEK = Week.last_full(MONDAY, ZONE)
SHARES = (0.01, 0.005, 0.01, 0.025, 0.95)
DEMAND = 1 / np.arange(1, 201)


def interactions(
    weekly: Sequence[int],
    *,
    seed: int = 0,
    shares: Sequence[Sequence[float]] | None = None,
    demands: Sequence[np.ndarray] | None = None,
    comments: Sequence[Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Consecutive weeks of so many reviews, the last one ending on `MONDAY`.

    `shares` and `demands` are by week, the usual ones where they are not given; `comments` are
    spread over the reviews of a week, else each has one of its own.
    """
    rng = np.random.default_rng(seed)
    frames = []
    first = MONDAY - timedelta(weeks=len(weekly))
    for number, size in enumerate(weekly):
        demand = DEMAND if demands is None else demands[number]
        start = pd.Timestamp(first + timedelta(weeks=number))
        if comments is None or not comments[number]:
            texts = [f"mình thấy ổn lắm {one}" for one in rng.integers(0, 10**9, size)]
        else:
            texts = [comments[number][place % len(comments[number])] for place in range(size)]
        new = rng.random(size) < 0.8
        users = np.where(new, number * 100_000 + np.arange(size), rng.integers(0, 500, size))
        frames.append(
            pd.DataFrame(
                {
                    "user_id": "u" + pd.Series(users).astype(str),
                    "product_id": "P"
                    + pd.Series(rng.choice(200, size, p=demand / demand.sum())).astype(str),
                    "rating": rng.choice(
                        np.arange(1.0, 6.0), size, p=SHARES if shares is None else shares[number]
                    ),
                    "timestamp": (
                        start + pd.to_timedelta(np.sort(rng.integers(0, 7 * 86_400, size)), "s")
                    ).tz_convert("UTC"),
                    "comment": texts,
                    "comment_quality": np.clip(rng.normal(0.6, 0.1, size), 0, 1),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def events(weekly: Sequence[int], **options: object) -> Events:
    return events_of(interactions(weekly, **options), ZONE)
