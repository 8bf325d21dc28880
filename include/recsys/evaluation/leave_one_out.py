"""The event-aware leave-one-out protocol on a published data version, and rolling time windows.

The refresh has marked each trainable user's latest positive event as test and the one before as
validation. Copies of one review are one event, so a held-out event has no copy in training. What a
user did with a product is one entry of a history, made from the rows of its side alone.

In a time window everything before a moment is known and what follows is asked, all at its start.
Unlike with leave-one-out nobody's future is in training: a shop that trains on Sunday lives so."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from recsys import schema
from recsys.arrays import BoolArray, Float32Array, Int8Array, Int32Array, Int64Array
from recsys.data.bursts import BURST_LEAST, YOUNG_DAYS, within_bounds
from recsys.data.keys import microseconds
from recsys.data.versions import PublishedVersion
from recsys.errors import InputError
from recsys.evaluation import MIN_USERS
from recsys.evaluation.ranking import HeldOut, take_questions
from recsys.models.base import Histories
from recsys.models.histories import (
    FIVE_STARS,
    histories_from_codes,
    keep_entries,
    latest_weak,
    liking,
    one_a_product,
    take_users,
    user_rows,
    weighed,
)
from recsys.models.kinds import CODE_OF, DISMISS, had, weak, weight_of_codes

COLUMNS = [
    *(schema.USER, schema.PRODUCT, schema.RATING, schema.TIMESTAMP),
    *(schema.CONFIDENCE, schema.WEIGHT, schema.SPLIT),
]
SIGNAL_COLUMNS = [schema.USER, schema.PRODUCT, schema.KIND, schema.TIMESTAMP, schema.SPLIT]
WINDOWS = 4
WINDOW_DAYS = 90
FOLDS = 5
MANY_QUESTIONS = 5_000
"""So many tell models apart well enough, and a fit for each fold takes long in such a shop."""
LOOKED_AT_KEPT = 100
"""Of what a user put into a cart, clicked or viewed, so many products are read, the latest. They
weigh what five ratings weigh if all are views; pairs within one history grow with its square."""

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND


@dataclass(frozen=True)
class Numbered:
    """All interactions and signals with users and products as numbers."""

    user_ids: list[str]  # all users with an interaction or signal, sorted
    item_ids: Sequence[str]  # all products
    histories: Histories  # everything that the users did with these products, an entry a row
    times: Int64Array  # (entries,) exact times of the entries, in microseconds since 1970
    rows: Int64Array  # (entries,) which row each entry is; those of signals follow interactions
    learnt: BoolArray  # (entries,) False for the surplus of a burst of new customers
    end: int  # the time of the latest interaction or signal

    def part(self, kept: BoolArray) -> Histories:
        """Histories, with one entry a product, made of nothing but the rows of the entries where
        `kept` ``(entries,)`` holds."""
        histories = self.histories if kept.all() else keep_entries(self.histories, kept)
        if not self.histories.kinds.any():
            return histories  # the refresh has left one review a product
        return latest_weak(one_a_product(histories), LOOKED_AT_KEPT)


def number_interactions(
    interactions: pd.DataFrame, item_ids: Sequence[str], signals: pd.DataFrame | None = None
) -> Numbered:
    """Needs the columns USER, PRODUCT, RATING, TIMESTAMP, CONFIDENCE and WEIGHT of `recsys.schema`,
    of `signals` USER, PRODUCT, KIND and TIMESTAMP. Rows of products that are not among `item_ids`
    are left out. Signals weigh what is usual; `recsys.models.histories.weighed` changes it."""
    ratings = interactions[schema.RATING].to_numpy(dtype=np.float32)
    confidence = liking(ratings, interactions[schema.CONFIDENCE].to_numpy(dtype=np.float32))
    weight = interactions[schema.WEIGHT].to_numpy(dtype=np.float32)
    kinds = np.zeros(len(interactions), dtype=np.int8)
    table = interactions[[schema.USER, schema.PRODUCT, schema.TIMESTAMP]]
    if signals is not None and len(signals):
        codes = _codes(signals[schema.KIND])
        table = pd.concat([table, signals[table.columns]], ignore_index=True)
        kinds = np.concatenate([kinds, codes])
        liked = np.where(codes == DISMISS, 0, FIVE_STARS).astype(np.float32)
        confidence = np.concatenate([confidence, liked])
        weight = np.concatenate([weight, weight_of_codes({})[codes]])
    users, user_ids = pd.factorize(table[schema.USER], sort=True)
    items = pd.Index(item_ids).get_indexer(pd.Index(table[schema.PRODUCT]))
    times = microseconds(table[schema.TIMESTAMP])
    rows = np.flatnonzero(items >= 0)
    # As histories have them, so that what is told of an entry lies beside it.
    rows = rows[np.lexsort((items[rows], times[rows] // _SECOND, users[rows]))]
    histories = histories_from_codes(
        users[rows],
        items[rows],
        times[rows] // _SECOND,
        count=len(user_ids),
        confidence=confidence[rows],
        weight=weight[rows],
        kinds=kinds[rows],
    )
    end = int(times.max(initial=0))
    learnt = _learnt(histories, times[rows], len(item_ids))
    return Numbered(user_ids.tolist(), item_ids, histories, times[rows], rows, learnt, end)


def _codes(kinds: "pd.Series[str]") -> Int8Array:
    """``(rows,)`` codes. Raises `InputError` for a kind that does not exist."""
    codes = pd.Index(list(CODE_OF)).get_indexer(pd.Index(kinds)).astype(np.int8)
    if (codes < 0).any():
        odd = kinds.iloc[int(np.argmin(codes))]
        raise InputError(f"signals: the kind {odd!r} does not exist; expected {list(CODE_OF)}")
    return codes


def _learnt(histories: Histories, times: Int64Array, items: int) -> BoolArray:
    """`without_bursts` of what was had and of what was looked at, each by itself, where a new
    customer counts once a product: a click costs an attacker nothing, and so do a hundred."""
    if not histories.kinds.any():
        return without_bursts(histories, times, items)
    learnt = np.ones(len(times), dtype=np.bool_)
    for group in (had(histories), weak(histories)):
        done, when = keep_entries(histories, group), times[group]
        pairs = user_rows(done) * items + done.items
        _, first, pair = np.unique(pairs, return_index=True, return_inverse=True)
        once = np.zeros(len(when), dtype=np.bool_)
        once[first] = True
        verdict = np.ones(len(when), dtype=np.bool_)
        verdict[once] = without_bursts(keep_entries(done, once), when[once], items)
        learnt[group] = verdict[first][pair] | ~_young(done, when)
    return learnt


def _young(histories: Histories, times: Int64Array) -> BoolArray:
    """``(entries,)`` whether the customer was new at `times`."""
    first = times[np.repeat(histories.indptr[:-1], np.diff(histories.indptr))]
    return np.asarray(times - first < YOUNG_DAYS * _DAY)


def without_bursts(histories: Histories, times: Int64Array, items: int) -> BoolArray:
    """``(entries,)`` which entries of `histories`, at `times` in microseconds, a model learns from.

    The surplus of new customers, latest first, is left out: see `recsys.data.bursts`."""
    return within_bounds(_young(histories, times), times, histories.items, items, BURST_LEAST)


@dataclass(frozen=True)
class Window:
    """What is known at the window's start (seconds since 1970), and what is asked of those who
    are known then."""

    start: int
    training: Histories
    questions: HeldOut


class Fold(NamedTuple):
    """Questions to some of the users, and what is known of all when they are asked."""

    training: Histories
    questions: HeldOut


@dataclass(frozen=True)
class LeaveOneOut:
    """What is fitted on, and the questions to the users who have a history before the event."""

    user_ids: list[str]  # all users with an accepted interaction, trainable or not
    item_ids: list[str]  # all products
    families: Int32Array  # (items,) number of each product's family, from 0 without gaps
    available: BoolArray  # (items,) whether the shop sells it
    as_of: int  # the end of the version, in seconds since 1970
    training: Histories  # of the training rows: for tuning on `validation`
    training_and_validation: Histories  # for the one evaluation on `test`
    learnt: Histories  # of all rows: what the served model is fitted on
    everything: Histories  # what serving knows of users: the surplus of bursts as well
    validation: HeldOut
    test: HeldOut
    windows: list[Window]  # the last ones, see `rolling_windows`
    numbered: Numbered  # what all of it is made from
    in_training: BoolArray  # (entries,) of `numbered`
    in_validation: BoolArray
    in_test: BoolArray

    @property
    def has_signals(self) -> bool:
        """Whether there is anything but ratings among the training rows."""
        return any(kind is not schema.Kind.RATING for kind in self.events)

    @property
    def events(self) -> dict[schema.Kind, int]:
        """How many events of each kind are among the training rows; kinds without any are not."""
        kinds = self.numbered.histories.kinds[self.in_training]
        counts = np.bincount(kinds, minlength=len(CODE_OF)).tolist()
        return {kind: counts[CODE_OF[kind]] for kind in schema.Kind if counts[CODE_OF[kind]]}

    def weighed(self, weights: Float32Array) -> "LeaveOneOut":
        """The same where signals weigh ``(kinds,)`` `weights` by their code."""
        if not self.numbered.histories.kinds.any():
            return self

        def of(questions: HeldOut) -> HeldOut:
            return replace(questions, histories=weighed(questions.histories, weights))

        return replace(
            self,
            training=weighed(self.training, weights),
            training_and_validation=weighed(self.training_and_validation, weights),
            learnt=weighed(self.learnt, weights),
            everything=weighed(self.everything, weights),
            validation=of(self.validation),
            test=of(self.test),
            windows=[
                Window(one.start, weighed(one.training, weights), of(one.questions))
                for one in self.windows
            ],
            numbered=replace(self.numbered, histories=weighed(self.numbered.histories, weights)),
        )

    def folds(self, seed: int) -> list[Fold]:
        """`validation` dealt to `FOLDS`. Each asks some of the users, and all that the others did
        up to their test is known there: as much, nearly, as when the test is asked. In `training`
        the latest but one event of everybody is missing, and with it who bought what together.

        Nothing where there are `MANY_QUESTIONS`."""
        if self.validation.users >= MANY_QUESTIONS:
            return []
        numbered = self.numbered
        owners = user_rows(numbered.histories)
        asked, _ = _asked(numbered.part(self.in_training), numbered.part(self.in_validation))
        dealt = np.random.default_rng(seed).permutation(len(asked)) % FOLDS
        folds = []
        for fold in range(min(FOLDS, len(asked))):
            chosen = np.flatnonzero(dealt == fold)
            held_out = self.in_validation & np.isin(owners, asked[chosen])
            known = (self.in_training | self.in_validation) & ~held_out & numbered.learnt
            folds.append(Fold(numbered.part(known), take_questions(self.validation, chosen)))
        return folds

    def without(self, kinds: Iterable[schema.Kind]) -> tuple[Histories, HeldOut]:
        """`training`, and the questions of `validation` to the same users for the same products, as
        if there were no events of `kinds`."""
        numbered, codes = self.numbered, [CODE_OF[kind] for kind in kinds]
        kept = self.in_training & ~np.isin(numbered.histories.kinds, codes)
        answers = numbered.part(self.in_validation)
        users, _ = _asked(numbered.part(self.in_training), answers)
        known = take_users(numbered.part(kept), users)
        return numbered.part(kept & numbered.learnt), replace(self.validation, histories=known)


def read_leave_one_out(version: PublishedVersion) -> LeaveOneOut:
    """The protocol on `version`. Raises `InputError` if there is nothing to learn from or too
    little to evaluate on."""
    interactions = version.interactions(COLUMNS)
    _, item_ids = version.mappings()
    signals = version.signals(SIGNAL_COLUMNS)
    _check(version, interactions, item_ids, len(signals))
    numbered = number_interactions(interactions, item_ids, signals)
    split = pd.concat([interactions[schema.SPLIT], signals[schema.SPLIT]], ignore_index=True)
    in_training, in_validation, in_test = (
        (split == name).to_numpy(dtype=bool)[numbered.rows]
        for name in (schema.TRAIN, schema.VALIDATION, schema.TEST)
    )
    known, learnt = in_training | in_validation, numbered.learnt
    rated = (interactions[schema.RATING] >= schema.POSITIVE_RATING).to_numpy(dtype=bool)
    bought = (signals[schema.KIND] == schema.Kind.PURCHASE).to_numpy(dtype=bool)
    positive = np.concatenate([rated, bought])
    return LeaveOneOut(
        user_ids=numbered.user_ids,
        item_ids=item_ids,
        families=_families(version, item_ids),
        available=_available(version, item_ids),
        as_of=int(version.as_of.timestamp()),
        training=numbered.part(in_training & learnt),
        training_and_validation=numbered.part(known & learnt),
        learnt=numbered.part(learnt),
        everything=numbered.part(np.ones(len(numbered.rows), dtype=np.bool_)),
        validation=_held_out(numbered, in_training, in_validation, "validation"),
        test=_held_out(numbered, known, in_test, "test"),
        windows=rolling_windows(numbered, positive[numbered.rows]),
        numbered=numbered,
        in_training=in_training,
        in_validation=in_validation,
        in_test=in_test,
    )


def rolling_windows(
    numbered: Numbered, positive: BoolArray, windows: int = WINDOWS
) -> list[Window]:
    """The last `windows` windows of 90 days up to the latest interaction, oldest first.

    Targets are the new products that a user with a history bought, or rated positively, in the
    window (`positive` ``(entries,)``); a window with fewer than 20 such users is left out."""
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
    """Questions to all users who have a history and an answer, which is a product that they did not
    have before. They are asked at `now`, or else when the first answer was given."""
    asked, chosen = _asked(known, answers)
    first = chosen.times[chosen.indptr[:-1]]
    when = first if now is None else np.full(len(asked), now, dtype=np.int64)
    return HeldOut(take_users(known, asked), when, chosen.indptr, chosen.items)


def _asked(known: Histories, answers: Histories) -> tuple[Int64Array, Histories]:
    """Numbers of the users who are asked, and what they answer."""
    if known.kinds.any() or answers.kinds.any():  # who bought, and rated it later, chose once
        items = 1 + max(known.items.max(initial=0), answers.items.max(initial=0))
        owned = keep_entries(known, had(known))
        pairs = user_rows(answers) * items + answers.items
        new = ~np.isin(pairs, user_rows(owned) * items + owned.items)
        answers = keep_entries(answers, new)
    asked = np.flatnonzero((np.diff(known.indptr) > 0) & (np.diff(answers.indptr) > 0))
    return asked, take_users(answers, asked)


def _check(
    version: PublishedVersion, interactions: pd.DataFrame, item_ids: Sequence[str], signals: int
) -> None:
    count = len(item_ids)
    if count < 2:
        raise InputError(f"{version.path}: {count} product; a recommender needs at least two")
    if interactions.empty and not signals:
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


def _available(version: PublishedVersion, item_ids: list[str]) -> BoolArray:
    """A product that the version says nothing of is not sold."""
    products = version.products().set_index(schema.PRODUCT)
    if schema.AVAILABLE not in products:
        return np.isin(item_ids, products.index)
    return products[schema.AVAILABLE].reindex(item_ids, fill_value=False).to_numpy(dtype=np.bool_)


def _held_out(numbered: Numbered, known: BoolArray, answers: BoolArray, split: str) -> HeldOut:
    questions = questions_to(numbered.part(known), numbered.part(answers))
    if questions.users < MIN_USERS:
        found = f"only {questions.users} users have a history and a {split} event"
        raise InputError(f"{found}; evaluation needs at least {MIN_USERS}")
    return questions
