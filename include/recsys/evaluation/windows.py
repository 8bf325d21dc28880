"""Rolling time windows: everything before a moment is known, what follows is asked.

Unlike leave-one-out, nobody's future is in training, and all questions of a window are asked at
its start: this is what a shop that trains on Sunday lives through.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys import schema
from recsys.evaluation.ranking import HeldOut
from recsys.models.base import Histories
from recsys.models.histories import take_users
from recsys.models.history_frames import histories_from_frame

WINDOWS = 4
LENGTH = pd.Timedelta(days=90)
MIN_USERS = 20


@dataclass(frozen=True)
class Window:
    """What is known at the window's start, and what is asked of those who are known then."""

    start: pd.Timestamp
    training: Histories
    questions: HeldOut


def rolling_windows(
    interactions: pd.DataFrame,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    windows: int = WINDOWS,
) -> list[Window]:
    """The last `windows` windows of 90 days up to the latest interaction, oldest first.

    Needs the columns USER, PRODUCT, RATING, TIMESTAMP, CONFIDENCE and WEIGHT of
    `recsys.schema`. Targets are the new products that a user with a history rated
    positively in the window; a window with fewer than 20 such users is left out.
    """
    times = interactions[schema.TIMESTAMP]
    end = times.max() + pd.Timedelta(seconds=1)
    result = []
    for back in range(windows, 0, -1):
        start = end - back * LENGTH
        positive = interactions[schema.RATING] >= schema.POSITIVE_RATING
        inside = (times >= start) & (times < start + LENGTH) & positive
        training = histories_from_frame(interactions[times < start], user_ids, item_ids)
        answers = histories_from_frame(interactions[inside], user_ids, item_ids)
        asked = np.flatnonzero((np.diff(training.indptr) > 0) & (np.diff(answers.indptr) > 0))
        if len(asked) < MIN_USERS:
            continue
        chosen = take_users(answers, asked)
        questions = HeldOut(
            histories=take_users(training, asked),
            now=np.full(len(asked), int(start.timestamp()), dtype=np.int64),
            indptr=chosen.indptr,
            targets=chosen.items,
        )
        result.append(Window(start, training, questions))
    return result
