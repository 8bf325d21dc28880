"""The event-aware leave-one-out protocol on a published data version, and rolling time windows.

The refresh has marked each trainable user's latest positive event as test and the one before as
validation. Copies of one review are one event, so a held-out event has no copy in training.

In a time window everything before a moment is known and what follows is asked, all at its start.
Unlike with leave-one-out nobody's future is in training: a shop that trains on Sunday lives so."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys import schema
from recsys.arrays import BoolArray, Int32Array, Int64Array
from recsys.data.keys import microseconds, run_starts
from recsys.data.versions import PublishedVersion
from recsys.errors import InputError
from recsys.evaluation.ranking import HeldOut
from recsys.models.base import Histories
from recsys.models.histories import histories_from_codes, keep_entries, liking, take_users

COLUMNS = [
    *(schema.USER, schema.PRODUCT, schema.RATING, schema.TIMESTAMP),
    *(schema.CONFIDENCE, schema.WEIGHT, schema.SPLIT),
]
MIN_USERS = 20
WINDOWS = 4
WINDOW_DAYS = 90
YOUNG_DAYS, BURST_DAYS, BURST_LEAST = 28, 7, 3
"""New customers give one product at most so many interactions in seven days as the third-strongest
product gets of such customers, or three. A customer is new for 28 days (decision 123)."""

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND


@dataclass(frozen=True)
class Numbered:
    """All interactions with users and products as numbers."""

    user_ids: list[str]  # all users with an interaction, sorted
    item_ids: Sequence[str]  # all products
    histories: Histories  # everything that the users did with these products
    times: Int64Array  # (entries,) exact times of the entries, in microseconds since 1970
    rows: Int64Array  # (entries,) which row of the table each entry is
    learnt: BoolArray  # (entries,) False for the surplus of a burst of new customers
    end: int  # the time of the latest interaction

    def part(self, kept: BoolArray) -> Histories:
        """The histories with only the entries where `kept` ``(entries,)`` holds."""
        return keep_entries(self.histories, kept)


def number_interactions(interactions: pd.DataFrame, item_ids: Sequence[str]) -> Numbered:
    """Needs the columns USER, PRODUCT, RATING, TIMESTAMP, CONFIDENCE and WEIGHT of `recsys.schema`.
    Rows of products that are not among `item_ids` are left out."""
    users, user_ids = pd.factorize(interactions[schema.USER], sort=True)
    items = pd.Index(item_ids).get_indexer(pd.Index(interactions[schema.PRODUCT]))
    times = microseconds(interactions[schema.TIMESTAMP])
    numbers = (schema.RATING, schema.CONFIDENCE, schema.WEIGHT)
    columns = {name: interactions[name].to_numpy(dtype=np.float32) for name in numbers}
    rows = np.flatnonzero(items >= 0)
    # As histories have them, so that what is told of an entry lies beside it.
    rows = rows[np.lexsort((items[rows], times[rows] // _SECOND, users[rows]))]
    histories = histories_from_codes(
        users[rows],
        items[rows],
        times[rows] // _SECOND,
        count=len(user_ids),
        confidence=liking(*(columns[name][rows] for name in (schema.RATING, schema.CONFIDENCE))),
        weight=columns[schema.WEIGHT][rows],
    )
    end = int(times.max(initial=0))
    learnt = without_bursts(histories, times[rows], len(item_ids))
    return Numbered(user_ids.tolist(), item_ids, histories, times[rows], rows, learnt, end)


def without_bursts(histories: Histories, times: Int64Array, items: int) -> BoolArray:
    """``(entries,)`` which entries of `histories`, at `times` in microseconds, a model learns from.

    The surplus of new customers, latest first, is left out: see `YOUNG_DAYS`."""
    learnt = np.ones(len(times), dtype=np.bool_)
    first = times[np.repeat(histories.indptr[:-1], np.diff(histories.indptr))]
    young = np.flatnonzero(times - first < YOUNG_DAYS * _DAY)
    young = young[np.argsort(times[young], kind="stable")]
    # What came and what stayed of each product on the last seven days, at the day's number mod 7.
    came, stayed = np.zeros((2, BURST_DAYS, items), dtype=np.int64)
    day_of = np.full(BURST_DAYS, -BURST_DAYS)
    for entries in np.split(young, run_starts(times[young] // _DAY)[1:]) if len(young) else []:
        day = int(times[entries[0]] // _DAY)
        old = day_of <= day - BURST_DAYS
        came[old], stayed[old], day_of[day % BURST_DAYS] = 0, 0, day
        products = histories.items[entries]
        came[day % BURST_DAYS] = np.bincount(products, minlength=items)
        third = np.partition(came.sum(axis=0), -min(3, items))[-min(3, items)]
        room = np.maximum(third, BURST_LEAST) - stayed.sum(axis=0)
        stays = pd.Series(products).groupby(products).cumcount().to_numpy() < room[products]
        stayed[day % BURST_DAYS] = np.bincount(products[stays], minlength=items)
        learnt[entries[~stays]] = False
    return learnt


@dataclass(frozen=True)
class Window:
    """What is known at the window's start (seconds since 1970), and what is asked of those who
    are known then."""

    start: int
    training: Histories
    questions: HeldOut


@dataclass(frozen=True)
class LeaveOneOut:
    """What is fitted on, and the questions to the users who have a history before the event."""

    user_ids: list[str]  # all users with an accepted interaction, trainable or not
    item_ids: list[str]  # all products
    families: Int32Array  # (items,) number of each product's family, from 0 without gaps
    training: Histories  # of the training rows: for tuning on `validation`
    training_and_validation: Histories  # for the one evaluation on `test`
    learnt: Histories  # of all rows: what the served model is fitted on
    everything: Histories  # what serving knows of users: the surplus of bursts as well
    validation: HeldOut
    test: HeldOut
    windows: list[Window]  # the last ones, see `rolling_windows`


def read_leave_one_out(version: PublishedVersion) -> LeaveOneOut:
    """The protocol on `version`. Raises `InputError` if there is nothing to learn from or too
    little to evaluate on."""
    interactions = version.interactions(COLUMNS)
    _, item_ids = version.mappings()
    _check(version, interactions, item_ids)
    numbered = number_interactions(interactions, item_ids)
    split = interactions[schema.SPLIT]
    in_training, in_validation, in_test = (
        (split == name).to_numpy(dtype=bool)[numbered.rows]
        for name in (schema.TRAIN, schema.VALIDATION, schema.TEST)
    )
    known, learnt = in_training | in_validation, numbered.learnt
    positive = (interactions[schema.RATING] >= schema.POSITIVE_RATING).to_numpy(dtype=bool)
    return LeaveOneOut(
        user_ids=numbered.user_ids,
        item_ids=item_ids,
        families=_families(version, item_ids),
        training=numbered.part(in_training & learnt),
        training_and_validation=numbered.part(known & learnt),
        learnt=numbered.part(learnt),
        everything=numbered.histories,
        validation=_held_out(numbered, in_training, in_validation, "validation"),
        test=_held_out(numbered, known, in_test, "test"),
        windows=rolling_windows(numbered, positive[numbered.rows]),
    )


def rolling_windows(
    numbered: Numbered, positive: BoolArray, windows: int = WINDOWS
) -> list[Window]:
    """The last `windows` windows of 90 days up to the latest interaction, oldest first.

    Targets are the new products that a user with a history rated positively (`positive`
    ``(entries,)``) in the window; a window with fewer than 20 such users is left out."""
    end = numbered.end + _SECOND
    result = []
    for back in range(windows, 0, -1):
        start = end - back * WINDOW_DAYS * _DAY
        inside = (numbered.times >= start) & (numbered.times < start + WINDOW_DAYS * _DAY)
        before, answers = numbered.times < start, numbered.part(inside & positive)
        questions = questions_to(numbered.part(before), answers, now=start // _SECOND)
        if questions.users >= MIN_USERS:
            training = numbered.part(before & numbered.learnt)
            result.append(Window(start // _SECOND, training, questions))
    return result


def questions_to(known: Histories, answers: Histories, now: int | None = None) -> HeldOut:
    """Questions to all users who have a history and an answer. They are asked at `now`, or else
    when the first answer was given."""
    asked = np.flatnonzero((np.diff(known.indptr) > 0) & (np.diff(answers.indptr) > 0))
    chosen = take_users(answers, asked)
    first = chosen.times[chosen.indptr[:-1]]
    when = first if now is None else np.full(len(asked), now, dtype=np.int64)
    return HeldOut(take_users(known, asked), when, chosen.indptr, chosen.items)


def _check(version: PublishedVersion, interactions: pd.DataFrame, item_ids: Sequence[str]) -> None:
    count = len(item_ids)
    if count < 2:
        raise InputError(f"{version.path}: {count} product; a recommender needs at least two")
    if interactions.empty:
        raise InputError(f"{version.path}: the version has no interactions")
    ratings = interactions[schema.RATING].unique()
    if len(ratings) == 1:
        raise InputError(
            f"{version.path}: all {len(interactions)} ratings are {ratings[0]:g}; a shop's stars "
            "differ, so this looks like a broken export, and nothing is learnt from it"
        )


def _families(version: PublishedVersion, item_ids: list[str]) -> Int32Array:
    """A product without a family is one of its own."""
    products = version.products().set_index(schema.PRODUCT)[schema.FAMILY].reindex(item_ids)
    own = pd.Series(item_ids, index=products.index)
    return pd.factorize(products.fillna(own))[0].astype(np.int32)


def _held_out(numbered: Numbered, known: BoolArray, answers: BoolArray, split: str) -> HeldOut:
    questions = questions_to(numbered.part(known), numbered.part(answers))
    if questions.users < MIN_USERS:
        found = f"only {questions.users} users have a history and a {split} event"
        raise InputError(f"{found}; evaluation needs at least {MIN_USERS}")
    return questions
