"""Candidates of known users for steered lists, made in advance: a request walks through them.

What does not depend on the request is in them: what is hidden, had or not available, boosts and
buries, and of quotas and pins what a list may need beyond the best. Whatever they cannot tell for
certain is computed as for anybody else, so that both ways give the same lists."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from recsys.arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    first_in_row,
)
from recsys.merchandising.catalogue import Catalogue
from recsys.merchandising.composing import (
    POOL,
    SPAN_PLACE,
    Run,
    Supply,
    TooFewError,
    diversify,
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
_SURELY: Final = 1e-6  # of the numbers in question: more than single precision errs
_MOST_BYTES: Final = 64 << 20  # of all candidates of one model


@dataclass(frozen=True, eq=False)
class Rows:
    """Best first: ``(users, n)`` columns and scores, ``(users,)`` how many count, and whether there
    are no others."""

    items: Int32Array
    scores: Float32Array
    lengths: Int32Array
    complete: BoolArray

    @classmethod
    def joined(cls, parts: "Sequence[Rows]") -> "Rows":
        names = ("items", "scores", "lengths", "complete")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True, eq=False)
class Part:
    """Some users: the `best` of all candidates and of each quota, ``(users, pins)`` the scores of
    pinned products, -inf where one may not stand, and the ``(users,)`` span that strengths are
    multiplied with."""

    best: Rows
    quotas: tuple[Rows, ...]
    pins: Float32Array
    span: Float64Array


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

        def quotas() -> list[Run]:
            runs = []
            for rows in part.quotas:
                run_of_it, scores = self._run(rows, row, most)
                runs.append(run_of_it)
                known.update(scores)
            return runs

        def worth(item: int) -> float:
            strength = steering.strength
            return known[item] + (0.0 if strength is None else strength[item] * part.span[row])

        supply = Supply(run, quotas, pins, worth, _none)
        if steering.diversity and vectors is not None:
            items = part.best.items[row, : len(run.items)]
            diversify(supply, steering, items, np.array([worth(one) for one in run.items]), vectors)
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
    span = np.ones(len(scores)) if steering.strength is None else _spans(scores)
    everything = np.arange(scores.shape[1], dtype=np.int32)
    return Part(
        _rows(steering, scores, span, everything, _kept(steering)),
        tuple(_rows(steering, scores, span, one.items, _kept_of(one)) for one in steering.quotas),
        scores[:, [pin.item for pin in steering.pins]],
        span,
    )


def _nobody(steering: Steering) -> Part:
    return _part(steering, np.zeros((0, len(steering.groups)), dtype=np.float32))


def _joined(parts: Sequence[Part]) -> Part:
    return Part(
        Rows.joined([part.best for part in parts]),
        tuple(Rows.joined(rows) for rows in zip(*(part.quotas for part in parts), strict=True)),
        np.concatenate([part.pins for part in parts]),
        np.concatenate([part.span for part in parts]),
    )


def _kept(steering: Steering) -> int:
    return POOL if steering.diversity else _KEPT


def _kept_of(quota: Quota) -> int:
    return quota.at_least + _BEYOND_QUOTA


def _bytes_of_a_row(steering: Steering) -> int:
    candidates = _kept(steering) + sum(map(_kept_of, steering.quotas))
    return 8 * candidates + 4 * len(steering.pins) + 24


def _spans(scores: Float32Array) -> Float64Array:
    """``(users,)`` of `composing.span_of`."""
    place = max(0, scores.shape[1] - SPAN_PLACE)
    last = np.partition(scores, place, axis=1)[:, place]
    few = np.flatnonzero(np.isinf(last))
    standing = np.where(np.isinf(scores[few]), np.float32(np.inf), scores[few])
    last[few] = standing.min(axis=1, initial=np.inf)
    best = scores.max(axis=1, initial=-np.inf).astype(np.float64)
    spans = best - last.astype(np.float64)
    spans[(spans == 0) | ~np.isfinite(spans)] = 1.0
    return np.asarray(spans)


def _rows(
    steering: Steering, scores: Float32Array, span: Float64Array, columns: Int32Array, keep: int
) -> Rows:
    """The best `keep` of the `columns`, one of a family and kind, found in single precision and
    compared in double. What is not surely better than all that is not looked at does not count:
    equal ones, of which a list takes the first, may be among that."""
    scores = scores if len(columns) == scores.shape[1] else scores[:, columns]
    (users, count), strength = scores.shape, steering.strength
    rough, added = scores, np.float64(0)
    if strength is not None:
        strength = strength[columns]
        rough = scores + span[:, None].astype(np.float32) * strength.astype(np.float32)
        added = span * np.abs(strength).max(initial=0)
    take = min(2 * keep + 8, count)
    best = np.broadcast_to(np.arange(count), (users, count))
    if take < count:
        best = np.sort(np.argpartition(rough, count - take, axis=1)[:, count - take :], axis=1)
    own = np.take_along_axis(scores, best, axis=1)
    worth = own.astype(np.float64)
    if strength is not None:
        worth += strength[best] * span[:, None]
    bound = worth.min(axis=1, initial=np.inf)
    everything = (bound == -np.inf) | (take == count)
    magnitude = np.abs(np.where(np.isinf(own), 0, own)).max(axis=1, initial=0) + added
    order = np.argsort(-worth, axis=1, kind="stable")
    best, own = np.take_along_axis(best, order, 1), np.take_along_axis(own, order, 1)
    worth = np.take_along_axis(worth, order, 1)
    kinds, items = steering.kinds, columns[best]
    alike = kinds.families[items].astype(np.int64) * len(kinds.groups) + kinds.of_item[items]
    kept = first_in_row(alike) & (worth > -np.inf)
    kept &= everything[:, None] | (worth > (bound + _SURELY * magnitude)[:, None])
    complete = everything & (kept.sum(axis=1) <= keep)
    kept &= np.cumsum(kept, axis=1) <= keep
    # What is kept moves to the front, in its order.
    front = np.argsort(~kept, axis=1, kind="stable")[:, :keep]
    return Rows(
        np.take_along_axis(items, front, 1),
        np.take_along_axis(own, front, 1),
        kept.sum(axis=1).astype(np.int32),
        complete,
    )
