"""The event-aware leave-one-out split.

A trainable user has at least two events and at least one positive one. The latest positive event
is the test, the positive one before it the validation. What is later than the first held-out
event is on no side, and all rows of an event are always on the same one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys import schema
from recsys.arrays import UInt64Array
from recsys.data.keys import run_starts

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """The split of rows that are ordered by user, time and event.

    Attributes
    ----------
    side
        ``(rows,)`` positions in `recsys.schema.SPLITS`.
    events, positive_events
        ``(users,)`` numbers of events of each user.
    trainable
        ``(users,)`` bool.
    """

    side: NDArray[np.int8]
    events: Ints
    positive_events: Ints
    trainable: NDArray[np.bool_]


def split_rows(
    user: NDArray[np.int32], time: Ints, event: UInt64Array, rating: NDArray[np.float32]
) -> Split:
    """Split rows ordered by `user` (numbers 0, 1, ... without gaps), `time` and `event`."""
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
