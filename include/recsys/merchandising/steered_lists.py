"""Candidates of known users for steered lists, made in advance: a request walks through them.

What does not depend on the request is in them: what is hidden, had or not available, boosts and
buries, and of quotas and pins what a list may need beyond the best. Whatever they cannot tell for
certain is computed as for anybody else, so that both ways give the same lists."""

from collections.abc import Sequence
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
    pool_of,
    run_of,
    walk,
)
from recsys.merchandising.ranking import Ranked, scores_in_chunks
from recsys.merchandising.steering import Quota, Steering
from recsys.models.artifacts import Artifact
from recsys.models.newcomers import Newcomers

_KEPT: Final = 32
"""Candidates of a user: three lists of ten, for those that a limit or the spread passes over."""
_BEYOND_QUOTA: Final = 8
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
class SteeredLists:
    """The candidates under one steering: `best` of all and of each quota, ``(users, pins)`` the
    scores of pinned products, -inf where one may not stand, and the ``(users,)`` span that
    strengths are multiplied with."""

    steering: Steering
    row: Int32Array  # ``(users,)`` of each known user, -1 if there is none
    best: Rows
    quotas: tuple[Rows, ...]
    pins: Float32Array
    span: Float64Array

    def first(self, position: int, topk: int, vectors: Float32Array | None) -> Ranked | None:
        """The list of `topk` of the user at `position`; None if the candidates do not tell."""
        row = self.row.item(position)
        if row < 0:
            return None
        steering = self.steering
        run, known = self._run(self.best, row)
        pins = self._pins(row, known) if steering.pins else []

        def quotas() -> list[Run]:
            runs = []
            for rows in self.quotas:
                run_of_it, scores = self._run(rows, row)
                runs.append(run_of_it)
                known.update(scores)
            return runs

        def worth(item: int) -> float:
            strength = steering.strength
            return known[item] + (0.0 if strength is None else strength[item] * self.span[row])

        supply = Supply(run, quotas, pins, worth, _none)
        if steering.diversity and vectors is not None:
            if len(run.items) < POOL and not run.complete:
                return None
            worths = np.array([worth(item) for item in run.items])
            supply.pool = pool_of(steering, run, worths, vectors)
            supply.vector = vectors.__getitem__
        try:
            made = walk(steering, supply, topk)
        except TooFewError:
            return None
        if not made.items:
            return None  # who has had everything gets it again
        return Ranked(made.items, [known[item] for item in made.items], made.marks)

    def _run(self, rows: Rows, row: int) -> tuple[Run, dict[int, float]]:
        """The candidates of one user, and their scores by column."""
        length = rows.lengths.item(row)
        items = rows.items[row, :length]
        run = run_of(self.steering, items, rows.complete.item(row), self.steering.mixed)
        return run, dict(zip(run.items, rows.scores[row, :length].tolist(), strict=True))

    def _pins(self, row: int, known: dict[int, float]) -> list[tuple[int, int]]:
        """Those that may stand; their scores join the `known` ones."""
        pins = []
        for pin, score in zip(self.steering.pins, self.pins[row].tolist(), strict=True):
            if score > -np.inf:
                pins.append((pin.item, pin.place))
                known[pin.item] = score
        return pins


def _none(items: Int32Array) -> BoolArray:
    raise AssertionError("nothing is drawn for a list that was made in advance")


def make_steered_lists(
    artifact: Artifact,
    catalogue: Catalogue,
    newcomers: Newcomers | None,
    steerings: Sequence[Steering],
    seconds: float,
) -> dict[Steering, SteeredLists]:
    """Those of the users who came last, for each of the `steerings`, until `seconds` are over."""
    made: dict[Steering, list[_Part]] = {steering: [_nobody(steering)] for steering in steerings}
    row = np.full(artifact.histories.users, -1, dtype=np.int32)
    most = _MOST_BYTES // max(1, sum(map(_bytes_of_a_row, steerings)))
    count = 0
    for chosen, scores in scores_in_chunks(artifact, catalogue, newcomers, seconds):
        for steering, parts in made.items():
            parts.append(_part(steering, scores))
        row[chosen] = count + np.arange(len(chosen), dtype=np.int32)
        count += len(chosen)
        if count >= most:
            break
    return {steering: _joined(steering, row, parts) for steering, parts in made.items()}


@dataclass(frozen=True)
class _Part:
    best: Rows
    quotas: list[Rows]
    pins: Float32Array
    span: Float64Array


def _part(steering: Steering, scores: Float32Array) -> _Part:
    """Of ``(users, items)`` `scores`, -inf where a product may not stand."""
    if steering.hidden is not None:
        scores = np.where(steering.hidden, np.float32(-np.inf), scores)
    worth, span = scores.astype(np.float64), np.ones(len(scores))
    if steering.strength is not None:
        span = _spans(worth)
        worth += steering.strength * span[:, None]
    families = steering.kinds.families
    everything = np.arange(scores.shape[1], dtype=np.int32)
    return _Part(
        _rows(worth, scores, everything, families, _kept(steering)),
        [_rows(worth, scores, one.items, families, _kept_of(one)) for one in steering.quotas],
        scores[:, [pin.item for pin in steering.pins]],
        span,
    )


def _nobody(steering: Steering) -> _Part:
    return _part(steering, np.zeros((0, len(steering.mixed)), dtype=np.float32))


def _joined(steering: Steering, row: Int32Array, parts: Sequence[_Part]) -> SteeredLists:
    return SteeredLists(
        steering,
        row,
        Rows.joined([part.best for part in parts]),
        tuple(
            Rows.joined([part.quotas[number] for part in parts])
            for number in range(len(steering.quotas))
        ),
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


def _spans(worth: Float64Array) -> Float64Array:
    """``(users,)`` of `composing.span_of`."""
    place = max(0, worth.shape[1] - SPAN_PLACE)
    last = np.partition(worth, place, axis=1)[:, place]
    least = np.where(np.isinf(worth), np.inf, worth).min(axis=1, initial=np.inf)
    spans = worth.max(axis=1, initial=-np.inf) - np.where(np.isinf(last), least, last)
    spans[(spans == 0) | ~np.isfinite(spans)] = 1.0
    return np.asarray(spans)


def _rows(
    worth: Float64Array, scores: Float32Array, columns: Int32Array, families: Int32Array, keep: int
) -> Rows:
    """The best `keep` of the `columns`, one of a family. Where those that are looked at end among
    equal ones, they do not count: which of them come first is not known."""
    values = worth if len(columns) == worth.shape[1] else worth[:, columns]
    users, count = values.shape
    take = min(2 * keep + 8, count)
    if take < count:
        best = np.argpartition(values, count - take, axis=1)[:, count - take :]
        best.sort(axis=1)
    else:
        best = np.broadcast_to(np.arange(count), (users, count))
    found = np.take_along_axis(values, best, axis=1)
    bound = found.min(axis=1, initial=np.inf)
    everything = (bound == -np.inf) | (take == count)
    order = np.argsort(-found, axis=1, kind="stable")
    best, found = np.take_along_axis(best, order, 1), np.take_along_axis(found, order, 1)
    items = columns[best]
    kept = first_in_row(families[items]) & (found > -np.inf)
    kept &= everything[:, None] | (found > bound[:, None])
    complete = everything & (kept.sum(axis=1) <= keep)
    kept &= np.cumsum(kept, axis=1) <= keep
    front = np.argsort(~kept, axis=1, kind="stable")[:, :keep]
    items = np.take_along_axis(items, front, 1)
    return Rows(
        items.astype(np.int32),
        np.take_along_axis(scores, items.astype(np.int64), 1),
        kept.sum(axis=1).astype(np.int32),
        complete,
    )
