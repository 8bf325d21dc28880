"""Histories: made from arrays, cut, and read by recency. NumPy alone: services import this."""

import numpy as np

from recsys import schema
from recsys.arrays import BoolArray, Float32Array, Int32Array, Int64Array, IntegerArray, entries_of
from recsys.models.base import Histories

FIVE_STARS = 5.0
_FAINTEST = np.float32(1e-3)


def histories_from_codes(
    users: IntegerArray,
    items: IntegerArray,
    times: Int64Array,
    *,
    count: int,
    confidence: Float32Array | None = None,
    weight: Float32Array | None = None,
) -> Histories:
    """Histories of `count` users from parallel arrays with one entry an interaction.

    `users` holds user numbers below `count`, `times` seconds since 1970; confidence is five
    stars and the weight one where they are not given. Entries of one user and time are ordered
    by item, so that the result does not depend on the order of the rows."""
    order = np.lexsort((items, times, users))
    indptr = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(users, minlength=count), out=indptr[1:])
    if confidence is None:
        confidence = np.full(len(users), FIVE_STARS, dtype=np.float32)
    if weight is None:
        weight = np.ones(len(users), dtype=np.float32)
    return Histories(
        indptr=indptr,
        items=np.asarray(items[order], dtype=np.int32),
        confidence=np.asarray(confidence[order], dtype=np.float32),
        weight=np.asarray(weight[order], dtype=np.float32),
        times=np.asarray(times[order], dtype=np.int64),
    )


def liking(ratings: Float32Array, confidence: Float32Array) -> Float32Array:
    """`confidence`, but zero where a customer gave one or two stars: seen, and not liked."""
    return np.where(ratings > schema.NEGATIVE_RATING, confidence, 0).astype(np.float32)


def user_rows(histories: Histories) -> Int64Array:
    """``(entries,)`` number of the user that each entry belongs to."""
    return np.repeat(np.arange(histories.users), np.diff(histories.indptr))


def take_users(histories: Histories, users: IntegerArray) -> Histories:
    """The histories of `users`, in that order."""
    lengths = np.diff(histories.indptr)[users]
    return _take(histories, *entries_of(histories.indptr[:-1][users], lengths))


def user_range(histories: Histories, start: int, stop: int) -> Histories:
    """The histories of users ``start:stop``, without copying."""
    first, last = histories.indptr[start], histories.indptr[stop]
    return _take(histories, slice(first, last), histories.indptr[start : stop + 1] - first)


def keep_entries(histories: Histories, kept: BoolArray) -> Histories:
    """The same users with only the entries where `kept` holds."""
    indptr = np.zeros_like(histories.indptr)
    np.cumsum(np.bincount(user_rows(histories)[kept], minlength=histories.users), out=indptr[1:])
    return _take(histories, np.flatnonzero(kept), indptr)


def strength(histories: Histories) -> Float32Array:
    """``(entries,)`` how much each entry counts: a plain five-star review of its own is 1."""
    return np.asarray(histories.weight * histories.confidence / FIVE_STARS, dtype=np.float32)


def steps_from_end(histories: Histories) -> Int32Array:
    """``(entries,)`` how many distinct moments of the user lie after each entry; the last has 0.
    Copies of one review carry the same time and so are one moment."""
    steps, ends = _moments(histories)
    return np.asarray(np.repeat(ends, np.diff(histories.indptr)) - steps, dtype=np.int32)


def recent_part(histories: Histories, decay: float) -> tuple[Histories, Float32Array]:
    """The entries that count when a user is scored, and ``(entries,)`` how much each counts.

    That is the strength of an entry, times `decay` for each moment of the user after it. What is
    so far back that a thousandth is left changes nothing that anybody could see, but takes its
    time, and is left out."""
    left = np.float32(decay) ** steps_from_end(histories)
    near = left >= _FAINTEST
    weight = np.asarray((left * strength(histories))[near], dtype=np.float32)
    return keep_entries(histories, near), weight


def _moments(histories: Histories) -> tuple[Int64Array, Int64Array]:
    """Running number of distinct (user, time) pairs, and that of each user's last entry."""
    entries = len(histories.items)
    new = np.ones(entries, dtype=bool)
    new[1:] = histories.times[1:] != histories.times[:-1]
    starts = histories.indptr[:-1]
    new[starts[starts < entries]] = True
    running = np.cumsum(new)
    last = np.maximum(histories.indptr[1:] - 1, 0)
    return running, running[last] if entries else np.zeros(histories.users, dtype=np.int64)


def moments(histories: Histories) -> Int32Array:
    """``(entries,)`` number of the distinct moment of the user, from 0 for the oldest."""
    running, _ = _moments(histories)
    first = np.minimum(histories.indptr[:-1], max(len(running) - 1, 0))
    base = running[first] if len(running) else np.zeros(histories.users, dtype=np.int64)
    return np.asarray(running - np.repeat(base, np.diff(histories.indptr)), dtype=np.int32)


def _take(histories: Histories, entries: IntegerArray | slice, indptr: Int64Array) -> Histories:
    return Histories(
        indptr=indptr,
        items=histories.items[entries],
        confidence=histories.confidence[entries],
        weight=histories.weight[entries],
        times=histories.times[entries],
    )
