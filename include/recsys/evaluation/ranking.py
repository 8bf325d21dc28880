"""Where a model ranks what users really chose, counted in blocks of users."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Int32Array, Int64Array, IntegerArray, entries_of
from recsys.errors import InputError
from recsys.models.base import Histories
from recsys.models.histories import keep_entries, take_users, user_range, user_rows
from recsys.models.kinds import not_offered

BLOCK = 1024


class Scorer(Protocol):
    """The part of a model that evaluation needs."""

    def score(self, histories: Histories, now: int | Int64Array) -> Float32Array: ...


@dataclass(frozen=True)
class HeldOut:
    """Questions with known answers: what did each user choose at `now`?"""

    histories: Histories  # what each user had done before; what they had is no candidate
    now: Int64Array  # (users,) seconds since 1970: when each question is asked
    indptr: Int64Array
    targets: Int32Array  # items chosen by user u: targets[indptr[u]:indptr[u + 1]], at least one

    @property
    def users(self) -> int:
        return len(self.now)


def take_questions(held_out: HeldOut, users: IntegerArray) -> HeldOut:
    """The questions to `users`, in that order."""
    entries, indptr = entries_of(held_out.indptr[:-1][users], np.diff(held_out.indptr)[users])
    histories = take_users(held_out.histories, users)
    return HeldOut(histories, held_out.now[users], indptr, held_out.targets[entries])


@dataclass(frozen=True)
class Ranks:
    """``ranks[indptr[u]:indptr[u + 1]]`` are the ranks, from 1, of user ``u``'s targets."""

    indptr: Int64Array
    ranks: Int64Array


def rank_targets(model: Scorer, held_out: HeldOut, block: int = BLOCK) -> Ranks:
    """Rank every target among the items that its user has not had, and not dismissed.

    A tie counts against the target, so a model gains nothing by giving everything one score.

    Raises `InputError` if the model gives NaN scores."""
    ranks = np.zeros(len(held_out.targets), dtype=np.int64)
    for start in range(0, held_out.users, block):
        stop = min(start + block, held_out.users)
        scores = unseen_scores(model, held_out, start, stop)
        first, last = held_out.indptr[start], held_out.indptr[stop]
        rows = user_of_target(held_out)[first:last] - start
        ranks[first:last] = rank_among(scores, rows, held_out.targets[first:last])
    return Ranks(held_out.indptr, ranks)


def unseen_scores(model: Scorer, held_out: HeldOut, start: int, stop: int) -> Float32Array:
    """``(stop - start, items)`` scores of the users ``start:stop``; what they had is -inf."""
    histories, scores = finite_scores(model, held_out, start, stop)
    barred = not_offered(histories)
    scores[user_rows(histories)[barred], histories.items[barred]] = -np.inf
    return scores


def finite_scores(
    model: Scorer, held_out: HeldOut, start: int, stop: int
) -> tuple[Histories, Float32Array]:
    """Histories of the users ``start:stop`` and their ``(stop - start, items)`` scores. Raises
    `InputError` if the model gives NaN scores."""
    histories = user_range(held_out.histories, start, stop)
    scores = model.score(histories, held_out.now[start:stop])
    if np.isnan(scores.min()):  # NaN comes through, and unlike isnan this needs no second array
        raise InputError(f"{type(model).__name__} gives NaN scores; it cannot be evaluated")
    return histories, scores


def user_of_target(held_out: HeldOut) -> Int64Array:
    """``(targets,)`` the user that each target belongs to."""
    return np.repeat(np.arange(held_out.users), np.diff(held_out.indptr))


def rank_among(scores: Float32Array, rows: Int64Array, targets: Int32Array) -> Int64Array:
    """How many scores of a target's row reach the target's own, itself included: its rank. `scores`
    is ``(users, candidates)``; a target is the cell of a row and a column."""
    least = scores[rows, targets]
    if len(rows) == len(scores):
        return _count_true(scores >= least[:, None])
    counts = np.zeros(len(rows), dtype=np.int64)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        counts[part] = _count_true(scores[rows[part]] >= least[part, None])
    return counts


def _count_true(mask: BoolArray) -> Int64Array:
    """True cells of each row; by bits, because NumPy counts along an axis half as fast."""
    return np.bitwise_count(np.packbits(mask, axis=1)).sum(axis=1, dtype=np.int64)


class FamilyRanks(NamedTuple):
    """Ranks of families that were chosen, for those who chose a family they did not have."""

    users: Int64Array  # numbers of these users among the questions
    ranks: Ranks


def rank_families(model: Scorer, questions: HeldOut, families: Int32Array) -> FamilyRanks:
    """Rank the families of the answers by their best listing, among families that are new.

    Listings of one product (sizes, shades) share a family, see `recsys.data.families`. A customer
    who bought the 200 ml gains nothing from the 100 ml beside it, and a model gains nothing here by
    naming it: the families that a user had are no candidates and no answers.

    `families` is the ``(items,)`` number of each product's family, from 0 without gaps."""
    # Pairs of a user and a family that was chosen and not had, in order of users.
    count = int(families.max()) + 1
    chosen = user_of_target(questions) * count + families[questions.targets]
    owned = keep_entries(questions.histories, not_offered(questions.histories))
    had = user_rows(owned) * count + families[owned.items]
    owner, targets = np.divmod(np.setdiff1d(chosen, had), count)
    users, sizes = np.unique(owner, return_counts=True)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    asked = take_questions(questions, users)
    rows = np.repeat(np.arange(len(users)), sizes)
    by_family = np.argsort(families, kind="stable")
    firsts = np.flatnonzero(np.diff(families[by_family], prepend=-1))
    ranks = np.zeros(len(targets), dtype=np.int64)
    for start in range(0, len(users), BLOCK):
        stop = min(start + BLOCK, len(users))
        histories, scores = finite_scores(model, asked, start, stop)
        best = np.maximum.reduceat(scores[:, by_family], firsts, axis=1)
        barred = not_offered(histories)
        best[user_rows(histories)[barred], families[histories.items[barred]]] = -np.inf
        part = slice(indptr[start], indptr[stop])
        ranks[part] = rank_among(best, rows[part] - start, targets[part])
    return FamilyRanks(users, Ranks(indptr, ranks))
