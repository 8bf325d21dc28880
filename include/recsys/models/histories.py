"""Histories: made from arrays, cut, and read by recency. NumPy alone: services import this."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from recsys import schema
from recsys.arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int8Array,
    Int32Array,
    Int64Array,
    IntegerArray,
    entries_of,
)
from recsys.models.base import Histories
from recsys.models.kinds import CODE_OF, DISMISS, RATING, had, weak

FIVE_STARS = 5.0
LONGEST_OFFSET = 200
"""Entries that lie further apart in one history are no pair: their number grows with its square."""

_FAINTEST = np.float32(1e-3)
_PURCHASE = CODE_OF[schema.Kind.PURCHASE]


def histories_from_codes(
    users: IntegerArray,
    items: IntegerArray,
    times: Int64Array,
    *,
    count: int,
    confidence: Float32Array | None = None,
    weight: Float32Array | None = None,
    kinds: Int8Array | None = None,
) -> Histories:
    """Histories of `count` users from parallel arrays with one entry an interaction.

    `users` holds user numbers below `count`, `times` seconds since 1970; confidence is five
    stars, the weight one and all are ratings where they are not given. Entries of one user and time
    are ordered by item, so that the result does not depend on the order of the rows."""
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
        kinds=None if kinds is None else np.asarray(kinds[order], dtype=np.int8),  # type: ignore[arg-type]
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


def most_active(histories: Histories, count: int) -> Int64Array:
    """The `count` users who had most products, the one with most first."""
    owned = np.bincount(user_rows(histories)[had(histories)], minlength=histories.users)
    return np.argsort(-owned, kind="stable")[:count]


def user_range(histories: Histories, start: int, stop: int) -> Histories:
    """The histories of users ``start:stop``, without copying."""
    first, last = histories.indptr[start], histories.indptr[stop]
    return _take(histories, slice(first, last), histories.indptr[start : stop + 1] - first)


def joined(parts: Sequence[Histories]) -> Histories:
    """The users of all `parts`, one after another."""
    lengths = np.concatenate([np.diff(part.indptr) for part in parts])
    indptr = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=indptr[1:])
    return Histories(
        indptr=indptr,
        items=np.concatenate([part.items for part in parts]),
        confidence=np.concatenate([part.confidence for part in parts]),
        weight=np.concatenate([part.weight for part in parts]),
        times=np.concatenate([part.times for part in parts]),
        kinds=np.concatenate([part.kinds for part in parts]),
    )


def keep_entries(histories: Histories, kept: BoolArray) -> Histories:
    """The same users with only the entries where `kept` holds."""
    indptr = np.zeros_like(histories.indptr)
    np.cumsum(np.bincount(user_rows(histories)[kept], minlength=histories.users), out=indptr[1:])
    return _take(histories, np.flatnonzero(kept), indptr)


def without_each(history: Histories, items: Int32Array) -> Histories:
    """The history of one user as it is, and then, a user each, without each of `items`."""
    kept = np.ones((1 + len(items), len(history.items)), dtype=np.bool_)
    kept[1:] = history.items != items[:, None]
    indptr = np.zeros(len(kept) + 1, dtype=np.int64)
    np.cumsum(kept.sum(axis=1), out=indptr[1:])
    return _take(history, np.nonzero(kept)[1], indptr)


def one_a_product(histories: Histories) -> Histories:
    """The same users with one entry a product.

    That is their latest rating of it; without one what says most (purchase, cart, click, view),
    the latest time. A dismissal stands for all, unless the product was bought or rated later."""
    keys = user_rows(histories) * (int(histories.items.max(initial=0)) + 1) + histories.items
    # The codes are in the order of what counts.
    place = histories.kinds.astype(np.int64)
    place[_standing(histories, keys)] = -1
    order = np.lexsort((np.arange(len(keys)), -place, keys))
    kept = np.zeros(len(keys), dtype=np.bool_)
    kept[order[np.diff(keys[order], append=-1) != 0]] = True
    return keep_entries(histories, kept)


def weighed(histories: Histories, weights: Float32Array) -> Histories:
    """The same where signals weigh ``(kinds,)`` `weights` by their code; ratings keep theirs."""
    weight = np.where(histories.kinds == RATING, histories.weight, weights[histories.kinds])
    return replace(histories, weight=weight)


def latest_weak(histories: Histories, most: int) -> Histories:
    """The same with no more than the `most` latest entries a user of what was only looked at."""
    looked = weak(histories)
    after = np.append(np.cumsum(looked[::-1])[::-1], 0)  # of all users, from each entry on
    ends = np.repeat(after[histories.indptr[1:]], np.diff(histories.indptr))
    return keep_entries(histories, ~looked | (after[:-1] - ends <= most))


def acquired(histories: Histories, families: Int32Array) -> BoolArray:
    """``(entries,)`` where a product was got: each purchase, and a rating of what the user is not
    known to have bought by then, in whatever size or shade: a review of a purchase is no further
    one. `families` is the ``(items,)`` number of each product's family."""
    keys = user_rows(histories) * (int(families.max(initial=0)) + 1) + families[histories.items]
    pairs, pair = np.unique(keys, return_inverse=True)
    first = np.full(len(pairs), np.iinfo(np.int64).max)
    bought = histories.kinds == _PURCHASE
    np.minimum.at(first, pair[bought], histories.times[bought])
    return np.asarray(bought | ((histories.kinds == RATING) & (histories.times < first[pair])))


def _standing(histories: Histories, keys: Int64Array) -> BoolArray:
    """``(entries,)`` dismissals after which the same `keys` ``(entries,)`` have nothing had."""
    standing = histories.kinds == DISMISS
    if standing.any():
        pairs, pair = np.unique(keys, return_inverse=True)
        latest = np.full(len(pairs), np.iinfo(np.int64).min)
        was_had = had(histories)
        np.maximum.at(latest, pair[was_had], histories.times[was_had])
        standing &= histories.times >= latest[pair]
    return standing


def worth(histories: Histories) -> Float32Array:
    """``(entries,)`` how many interactions each entry is: a rating one, a signal its weight."""
    return np.where(histories.kinds == RATING, np.float32(1), histories.weight)


def strength(histories: Histories) -> Float32Array:
    """``(entries,)`` how much each entry counts: a plain five-star review of its own is 1."""
    return np.asarray(histories.weight * histories.confidence / FIVE_STARS, dtype=np.float32)


def steps_from_end(histories: Histories) -> Float64Array:
    """``(entries,)`` how many distinct moments of the user lie after each entry; the last has 0.
    Copies of one review carry the same time and so are one moment; twenty views are as one rating
    if a view weighs a twentieth, or else a look around would make a customer's past forgotten."""
    running, last = _moments(histories)
    return np.asarray(np.repeat(last, np.diff(histories.indptr)) - running, dtype=np.float64)


def recent_part(histories: Histories, decay: float) -> tuple[Histories, Float32Array]:
    """The entries that count when a user is scored, and ``(entries,)`` how much each counts.

    That is the strength of an entry, times `decay` for each moment of the user after it. What is
    so far back that a thousandth is left changes nothing that anybody could see, but takes its
    time, and is left out."""
    left = np.float32(decay) ** steps_from_end(histories)
    near = left >= _FAINTEST
    weight = np.asarray((left * strength(histories))[near], dtype=np.float32)
    return keep_entries(histories, near), weight


def _moments(histories: Histories) -> tuple[Float64Array, Float64Array]:
    """Running number of distinct (user, time) pairs, and that of each user's last entry. A pair of
    nothing but signals counts as much as the one that weighs most."""
    entries = len(histories.items)
    if not entries:
        return np.zeros(0), np.zeros(histories.users)
    new = np.ones(entries, dtype=bool)
    new[1:] = histories.times[1:] != histories.times[:-1]
    starts = histories.indptr[:-1]
    new[starts[starts < entries]] = True
    moment = np.cumsum(new)
    running: Float64Array = moment.astype(np.float64)
    if histories.kinds.any():
        counts = np.maximum.reduceat(worth(histories), np.flatnonzero(new))
        running = np.cumsum(counts, dtype=np.float64)[moment - 1]
    return running, running[np.maximum(histories.indptr[1:] - 1, 0)]


def moments(histories: Histories) -> Float64Array:
    """``(entries,)`` number of the distinct moment of the user, from 0 for the oldest; as in
    `steps_from_end`, a moment of signals counts what they weigh."""
    running, _ = _moments(histories)
    if not len(running):
        return running
    first = np.minimum(histories.indptr[:-1], len(running) - 1)
    return np.asarray(running - np.repeat(running[first], np.diff(histories.indptr)))


def pairs_within(
    histories: Histories, window: int
) -> Iterator[tuple[Int64Array, Int64Array, Float64Array]]:
    """Pairs of entries of one user that lie up to `window` moments, and `LONGEST_OFFSET` places,
    apart: the numbers of the earlier and the later ones, and how many moments lie between."""
    moment, user = moments(histories), user_rows(histories)
    longest = int(np.diff(histories.indptr).max(initial=0))
    for offset in range(1, min(longest, LONGEST_OFFSET + 1)):
        first = np.flatnonzero(user[offset:] == user[:-offset])
        gap = moment[first + offset] - moment[first]
        within = gap <= window
        if not within.any():
            return
        yield first[within], first[within] + offset, gap[within]


def _take(histories: Histories, entries: IntegerArray | slice, indptr: Int64Array) -> Histories:
    return Histories(
        indptr=indptr,
        items=histories.items[entries],
        confidence=histories.confidence[entries],
        weight=histories.weight[entries],
        times=histories.times[entries],
        kinds=histories.kinds[entries],
    )
