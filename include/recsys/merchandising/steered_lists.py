"""Candidates of known users for steered lists, made in advance: a request walks through them.

What does not depend on the request is in them: what is hidden, had or not available, boosts and
buries, and of quotas and pins what a list may need beyond the best. Whatever they cannot tell for
certain is computed as for anybody else, so that both ways give the same lists."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    first_in_row,
)
from recsys.merchandising.catalogue import Catalogue
from recsys.merchandising.composing import (
    POOL,
    Run,
    Supply,
    TooFewError,
    diversify,
    moved,
    nearness,
    run_of,
    walk,
)
from recsys.merchandising.ranking import Ranked, last_first, scores_in_chunks
from recsys.merchandising.steering import Quota, Steering
from recsys.models.artifacts import Artifact
from recsys.models.newcomers import Newcomers

_KEPT: Final = 32
"""Candidates of a user: three lists of ten, for those that a limit or the spread passes over."""
_FIRST_LOOK: Final = 8  # candidates beyond the length of the list
_BEYOND_QUOTA: Final = 8
_MOST_BYTES: Final = 64 << 20  # of all candidates of one model


Scores = NDArray[np.floating[Any]]  # in single precision, or double where products are moved


@dataclass(frozen=True, eq=False)
class Rows:
    """Best first: ``(users, n)`` columns and scores, what each is worth beside the others (n or 0,
    where nobody asks), ``(users,)`` how many count, and whether there are no others."""

    items: Int32Array | Int64Array
    scores: Float32Array
    worth: Scores
    lengths: Int32Array | Int64Array
    complete: BoolArray

    @classmethod
    def joined(cls, parts: "Sequence[Rows]") -> "Rows":
        names = ("items", "scores", "worth", "lengths", "complete")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True, eq=False)
class Part:
    """Some users: the `best` of all candidates and of each quota, and ``(users, pins)`` the scores
    of pinned products, -inf where one may not stand."""

    best: Rows
    quotas: tuple[Rows, ...]
    pins: Float32Array


@dataclass(frozen=True, eq=False)
class SteeredLists:
    """The candidates under one steering."""

    steering: Steering
    row: Int32Array  # ``(users,)`` of each known user in `part`, -1 if there is none
    part: Part

    def first(self, position: int, topk: int, vectors: Float32Array | None) -> Ranked | None:
        """The list of `topk` of the user at `position`; None if the candidates do not tell."""
        row = self.row.item(position)
        if row < 0:
            return None
        for most in (topk + _FIRST_LOOK, self.part.best.items.shape[1]):
            try:
                made = self._made(row, topk, vectors, most)
            except TooFewError:
                continue
            return made if made.items else None  # who has had everything gets it again
        return None

    def _made(self, row: int, topk: int, vectors: Float32Array | None, most: int) -> Ranked:
        """From so many candidates at `most`. Raises `TooFewError`."""
        steering, part = self.steering, self.part
        if steering.diversity:
            most = POOL
        run, known = self._run(part.best, row, most)
        pins = self._pins(row, known) if steering.pins else []
        ahead: dict[int, float] = {}

        def quotas() -> list[Run]:
            runs = []
            for rows in part.quotas:
                run_of_it, scores = self._run(rows, row, most)
                runs.append(run_of_it)
                known.update(scores)
                worth = rows.worth[row, : len(run_of_it.items)].tolist()
                ahead.update(zip(run_of_it.items, worth, strict=True))
            return runs

        supply = Supply(run, quotas, pins, ahead.__getitem__, _none)
        if steering.diversity and vectors is not None:
            items = part.best.items[row, : len(run.items)]
            worth = part.best.worth[row, : len(run.items)].astype(np.float64)
            diversify(supply, steering, items, worth, vectors)
        made = walk(steering, supply, topk)
        return Ranked(made.items, [known[item] for item in made.items], made.marks)

    def _run(self, rows: Rows, row: int, most: int) -> tuple[Run, dict[int, float]]:
        """The first candidates of one user, and their scores by column."""
        length = rows.lengths.item(row)
        looked = min(length, most)
        items = rows.items[row, :looked]
        run = run_of(self.steering, items, looked == length and rows.complete.item(row))
        return run, dict(zip(run.items, rows.scores[row, :looked].tolist(), strict=True))

    def _pins(self, row: int, known: dict[int, float]) -> list[tuple[int, int]]:
        """Those that may stand; their scores join the `known` ones."""
        pins = []
        for pin, score in zip(self.steering.pins, self.part.pins[row].tolist(), strict=True):
            if score > -np.inf:
                pins.append((pin.item, pin.place))
                known[pin.item] = score
        return pins


def _none(items: Int32Array) -> BoolArray:
    raise AssertionError("nothing is drawn for a list that was made in advance")


@dataclass(frozen=True, eq=False)
class Candidates:
    """The lists under each steering. `done`: so many of `last_first` were looked at, which took the
    processor so many `seconds`; `left`: others are still to be."""

    of: Mapping[Steering, SteeredLists]
    done: int = 0
    seconds: float = 0.0
    left: bool = True


NO_CANDIDATES: Final = Candidates({})


def more_candidates(
    artifact: Artifact,
    catalogue: Catalogue,
    newcomers: Newcomers | None,
    steerings: Sequence[Steering],
    before: Candidates,
    seconds: float,
) -> Candidates:
    """Those `before`, of the same `steerings`, and of further users what can be made in `seconds`,
    those who came last first."""
    began, order = time.thread_time(), last_first(artifact.histories)
    row = np.full(artifact.histories.users, -1, dtype=np.int32)
    made = {steering: [_nobody(steering)] for steering in steerings}
    if before.of:
        made = {steering: [lists.part] for steering, lists in before.of.items()}
        row = next(iter(before.of.values())).row.copy()
    done, count = before.done, int(row.max(initial=-1)) + 1
    most = _MOST_BYTES // max(1, sum(map(_bytes_of_a_row, steerings)))
    todo = order[done:]
    for chosen, scores in scores_in_chunks(artifact, catalogue, newcomers, todo, seconds):
        good = np.flatnonzero(scores.max(axis=1) > -np.inf)
        for steering, parts in made.items():
            parts.append(_part(steering, scores[good]))
        row[chosen[good]] = count + np.arange(len(good), dtype=np.int32)
        done, count = done + len(chosen), count + len(good)
        if count >= most:
            break
    return Candidates(
        {steering: SteeredLists(steering, row, _joined(parts)) for steering, parts in made.items()},
        done,
        before.seconds + time.thread_time() - began,
        left=done < len(order) and count < most,
    )


def steered_lists_of(steering: Steering, scores: Float32Array) -> SteeredLists:
    """Those of some users by their ``(users, items)`` `scores`, -inf where a product must not
    stand; a position is a row."""
    return SteeredLists(steering, np.arange(len(scores), dtype=np.int32), _part(steering, scores))


def _part(steering: Steering, scores: Float32Array) -> Part:
    """Of ``(users, items)`` `scores`, -inf where a product may not stand."""
    if steering.hidden is not None:
        scores = np.where(steering.hidden, np.float32(-np.inf), scores)
    strength, keep = steering.strength, _kept(steering)
    near: Scores = scores
    if strength is None:
        best = _rows(steering, scores, scores, keep)
    else:
        best = _moved_rows(steering, scores, strength, keep)
        near = nearness(scores, strength) if steering.quotas else scores
    if not steering.diversity:  # nobody else asks what they are worth
        best = replace(best, worth=best.worth[:, :0])
    return Part(
        best,
        tuple(_rows(steering, scores, near, _kept_of(one), one.items) for one in steering.quotas),
        scores[:, [pin.item for pin in steering.pins]],
    )


def _nobody(steering: Steering) -> Part:
    return _part(steering, np.zeros((0, len(steering.groups)), dtype=np.float32))


def _joined(parts: Sequence[Part]) -> Part:
    return Part(
        Rows.joined([part.best for part in parts]),
        tuple(Rows.joined(rows) for rows in zip(*(part.quotas for part in parts), strict=True)),
        np.concatenate([part.pins for part in parts]),
    )


def _kept(steering: Steering) -> int:
    return POOL if steering.diversity else _KEPT


def _kept_of(quota: Quota) -> int:
    return quota.at_least + _BEYOND_QUOTA


def _bytes_of_a_row(steering: Steering) -> int:
    best, of_quotas = _kept(steering), sum(map(_kept_of, steering.quotas))
    with_worth = of_quotas + (best if steering.diversity else 0)
    bytes_of_worth = 4 if steering.strength is None else 8
    return 8 * (best + of_quotas) + bytes_of_worth * with_worth + 4 * len(steering.pins) + 16


def _rows(
    steering: Steering,
    scores: Float32Array,
    worth: Scores,
    keep: int,
    columns: Int32Array | None = None,
) -> Rows:
    """The best `keep` of the `columns` by what they are `worth`, one of a family and kind. What is
    not better than all that is not looked at does not count: equal ones, of which a list takes the
    first, may be among that."""
    worth = worth if columns is None else worth[:, columns]
    users, count = worth.shape
    take = min(2 * keep + 8, count)
    best = np.broadcast_to(np.arange(count), (users, count))
    if take < count:
        best = np.sort(np.argpartition(worth, count - take, axis=1)[:, count - take :], axis=1)
    worth = np.take_along_axis(worth, best, axis=1)
    bound = worth.min(axis=1, initial=np.inf)
    everything = (bound == -np.inf) | (take == count)
    order = np.argsort(-worth, axis=1, kind="stable")
    best, worth = np.take_along_axis(best, order, 1), np.take_along_axis(worth, order, 1)
    counts = (worth > -np.inf) & (everything[:, None] | (worth > bound[:, None]))
    items = best if columns is None else columns[best]
    found = Rows(items, _of(scores, items), worth, counts.sum(axis=1), everything)
    return _first_of_kind(steering, found, keep)


def _moved_rows(
    steering: Steering, scores: Float32Array, strength: Float64Array, keep: int
) -> Rows:
    """The same of all candidates, where boosts and buries move products."""
    found = moved(scores, strength, 2 * keep + 8)
    own = _of(scores, found.items)
    rows = Rows(found.items, own, found.worth, found.certain, found.complete)
    return _first_of_kind(steering, rows, keep)


def _of(scores: Float32Array, items: Int64Array | Int32Array) -> Float32Array:
    return np.asarray(np.take_along_axis(scores, items, axis=1))


def _first_of_kind(steering: Steering, rows: Rows, keep: int) -> Rows:
    """The first `keep` of the `rows`, one of a family and kind."""
    kinds, items = steering.kinds, rows.items
    alike = kinds.families[items].astype(np.int64) * len(kinds.groups) + kinds.of_item[items]
    kept = first_in_row(alike) & (np.arange(items.shape[1]) < rows.lengths[:, None])
    complete = rows.complete & (kept.sum(axis=1) <= keep)
    kept &= np.cumsum(kept, axis=1) <= keep
    # What is kept moves to the front, in its order.
    front = np.argsort(~kept, axis=1, kind="stable")[:, :keep]
    return Rows(
        np.take_along_axis(items, front, 1).astype(np.int32),
        np.take_along_axis(rows.scores, front, 1),
        np.take_along_axis(rows.worth, front, 1),
        kept.sum(axis=1).astype(np.int32),
        complete,
    )
