"""From scores to lists: what may stand in one, in which order, one product of a family.

The lists of known users are made when a model is loaded, and most requests only look one up: such
a list changes with the model, the catalogue or a new interaction of the user, and with nothing
else. So it is made once for each snapshot, many users at a time, which costs a tenth of making it
for each request.
"""

import time
from dataclasses import dataclass

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Int32Array, Int64Array
from recsys.models.artifacts import Artifact
from recsys.models.histories import take_users, user_rows
from serving.catalogue import Catalogue

LENGTH = 50
# Small enough that requests beside it do not wait long for the interpreter.
_CHUNK_CELLS = 400_000


@dataclass(frozen=True, slots=True)
class Ranked:
    """Products in order, best first: their column numbers and scores, equally long."""

    items: list[int]
    scores: list[float]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for.

    Attributes
    ----------
    allowed
        ``(items,)`` products that may stand in the list.
    exclude_seen
        Nothing that the user had, nor another listing (size, shade) of the same product.
    excluded
        Column numbers that must not stand in it either.
    """

    topk: int
    exclude_seen: bool
    allowed: BoolArray
    excluded: Int32Array


def top_items(
    scores: Float32Array,
    allowed: BoolArray,
    excluded: Int32Array,
    families: Int32Array,
    topk: int,
) -> Ranked:
    """The `topk` best products that are `allowed` and not `excluded`, one of each family.

    Parameters
    ----------
    scores, allowed, families
        ``(items,)``: score, may it be shown, number of its family. `scores` is not changed.
    excluded
        Column numbers that must not appear.

    Looks at a few more candidates than needed, and at four times as many again whenever
    families and exclusions left the list short.
    """
    usable = np.where(allowed, scores, -np.inf)
    usable[excluded] = -np.inf
    take = 2 * topk + 8
    while True:
        candidates = _best(usable, take)
        ranked = _one_of_each_family(candidates, usable, families, topk)
        if len(ranked.items) == topk or take >= len(usable):
            return ranked
        take *= 4


def _best(usable: Float32Array, take: int) -> Int64Array:
    if take >= len(usable):
        return np.argsort(-usable, kind="stable")
    best = np.argpartition(usable, len(usable) - take)[len(usable) - take :]
    return best[np.argsort(-usable[best], kind="stable")]


def _one_of_each_family(
    candidates: Int64Array,
    usable: Float32Array,
    families: Int32Array,
    topk: int,
) -> Ranked:
    items: list[int] = []
    values: list[float] = []
    taken: set[int] = set()
    for item, score, family in zip(
        candidates.tolist(), usable[candidates].tolist(), families[candidates].tolist(), strict=True
    ):
        if score == -np.inf:
            break
        if family not in taken:
            taken.add(family)
            items.append(item)
            values.append(score)
            if len(items) == topk:
                break
    return Ranked(items, values)


@dataclass(frozen=True)
class PersonalLists:
    """Lists of some known users: one available product of each family that they have not had.

    Attributes
    ----------
    row
        ``(users,)`` int32: row of each known user below, -1 for users whose list is not made.
    items, scores
        ``(rows, LENGTH)`` best first.
    lengths
        ``(rows,)`` how many of them count.
    """

    row: Int32Array
    items: Int32Array
    scores: Float32Array
    lengths: Int32Array

    def first(self, position: int, topk: int, excluded: Int32Array) -> Ranked | None:
        """The best `topk` of the user at `position` that are not `excluded`.

        None if there is no list, or it is too short for that.
        """
        row = self.row[position]
        if row < 0:
            return None
        if len(excluded):
            length = self.lengths[row]
            kept = np.flatnonzero(~np.isin(self.items[row, :length], excluded))[:topk]
            if len(kept) < topk:
                return None
            return Ranked(self.items[row, kept].tolist(), self.scores[row, kept].tolist())
        if topk > self.lengths[row]:
            return None
        return Ranked(self.items[row, :topk].tolist(), self.scores[row, :topk].tolist())

    @property
    def users(self) -> int:
        """Users whose list is made."""
        return len(self.items)


def make_personal_lists(artifact: Artifact, catalogue: Catalogue, seconds: float) -> PersonalLists:
    """The lists of the known users, those who came last first, until `seconds` are over."""
    histories = artifact.histories
    users = histories.users
    entries = np.diff(histories.indptr)
    last = np.full(users, -1, dtype=np.int64)
    last[entries > 0] = histories.times[histories.indptr[1:][entries > 0] - 1]
    order = np.argsort(-last, kind="stable")
    order = order[entries[order] > 0]
    items = len(catalogue.item_ids)
    chunk = max(1, _CHUNK_CELLS // items)
    until, now = time.monotonic() + seconds, int(time.time())
    row = np.full(users, -1, dtype=np.int32)
    made: list[tuple[Int32Array, Float32Array, Int32Array]] = []
    count = 0
    for start in range(0, len(order), chunk):
        if time.monotonic() > until:
            break
        chosen = order[start : start + chunk]
        scores = _scores(artifact, catalogue, chosen, now)
        good = np.flatnonzero(scores.max(axis=1) > -np.inf)
        made.append(_best_lists(scores[good], catalogue.families))
        row[chosen[good]] = count + np.arange(len(good), dtype=np.int32)
        count += len(good)
    if not made:
        empty = np.zeros((0, min(LENGTH, items)))
        return PersonalLists(
            row, empty.astype(np.int32), empty.astype(np.float32), np.zeros(0, dtype=np.int32)
        )
    found, values, lengths = (np.concatenate(part) for part in zip(*made, strict=True))
    return PersonalLists(row, found, values, lengths)


def _scores(artifact: Artifact, catalogue: Catalogue, users: Int64Array, now: int) -> Float32Array:
    """``(users, items)`` scores, -inf where a product must not stand, and everywhere for a user
    whom the model has no opinion about."""
    asked = take_users(artifact.histories, users)
    scores = np.array(artifact.model.score(asked, now), dtype=np.float32)
    scores[scores.max(axis=1) == scores.min(axis=1)] = -np.inf
    scores[:, ~catalogue.available] = -np.inf
    had, entry = catalogue.listings(asked.items)
    scores[user_rows(asked)[entry], had] = -np.inf
    return scores


def _best_lists(
    scores: Float32Array, families: Int32Array
) -> tuple[Int32Array, Float32Array, Int32Array]:
    """``(users, LENGTH)`` items and scores in order, and ``(users,)`` how many count."""
    items = scores.shape[1]
    take = min(2 * LENGTH + 8, items)
    best = np.argpartition(scores, items - take, axis=1)[:, items - take :]
    values = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best, values = np.take_along_axis(best, order, 1), np.take_along_axis(values, order, 1)
    kept = _first_of_family(families[best]) & (values > -np.inf)
    kept &= np.cumsum(kept, axis=1) <= LENGTH
    # What is kept moves to the front, in its order.
    front = np.argsort(~kept, axis=1, kind="stable")[:, :LENGTH]
    return (
        np.take_along_axis(best, front, 1).astype(np.int32),
        np.take_along_axis(values, front, 1).astype(np.float32),
        kept.sum(axis=1).astype(np.int32),
    )


def _first_of_family(families: Int32Array) -> BoolArray:
    """``(users, n)`` whether no product before it in the row is of the same family."""
    order = np.argsort(families, axis=1, kind="stable")
    inorder = np.take_along_axis(families, order, axis=1)
    first = np.ones(families.shape, dtype=bool)
    first[:, 1:] = inorder[:, 1:] != inorder[:, :-1]
    result = np.empty_like(first)
    np.put_along_axis(result, order, first, axis=1)
    return result
