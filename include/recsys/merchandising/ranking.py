"""From scores to lists: what may stand in one, in which order, one product of a family.

The lists of known users are made when a model is loaded, many at a time, for a tenth of the cost:
a list changes with the model, the catalogue or a new interaction of the user only. To look at a
million products takes a core for 50 ms: where the score is an inner product, faiss holds a vector
in 4 bits for every two numbers, looks at all of these, and the best thousand are scored exactly."""

import copy
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from filelock import FileLock

from recsys.arrays import BoolArray, Float32Array, Int32Array, Int64Array
from recsys.merchandising.catalogue import Catalogue
from recsys.merchandising.placements import ExcludeSeen
from recsys.merchandising.steering import Explore, Steering
from recsys.models.artifacts import Artifact
from recsys.models.base import Histories, InnerProductModel, Model
from recsys.models.histories import take_users, user_rows
from recsys.models.kinds import dismissed, not_offered
from recsys.models.lists import best_lists
from recsys.models.newcomers import Newcomers
from recsys.models.storage import ArtifactError
from recsys.publishing import atomic_path

logger = logging.getLogger(__name__)

LENGTH = 50
NOTHING = np.zeros(0, dtype=np.int32)
# Small enough that requests beside it do not wait long for the interpreter.
_CHUNK_CELLS = 400_000
_BITS = 4  # what faiss can look up in the processor's registers
_TRAINING_VECTORS = 50_000  # also how many are added at a time
_SCORED_EXACTLY = 1_000
_LOCK_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Ranked:
    """Products in order, best first: their column numbers and scores, equally long. Of a list that
    was steered also why each stands there, as letters of `recsys.merchandising.composing`, and with
    exploring how probable that was."""

    items: list[int]
    scores: list[float]
    marks: str = ""
    propensities: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for: `topk` of the ``(items,)`` `allowed` products, without the columns
    `excluded`; with `exclude_seen` nothing that the user had, nor another size or shade of it. A
    `steering` is what the shop asks for, `explore` begins the drawing of places for a list."""

    topk: int
    exclude_seen: ExcludeSeen
    allowed: BoolArray
    excluded: Int32Array
    steering: Steering | None = None
    explore: Callable[[], Explore] | None = None
    due: Int32Array | None = None  # columns of what the user had and may be offered again


def hidden(
    catalogue: Catalogue,
    history: Histories,
    exclude_seen: ExcludeSeen,
    due: Int32Array | None = None,
) -> Int32Array:
    """Columns that must not stand in a list of the one user of `history`: what was dismissed, and
    with `exclude_seen` what was bought or rated and is not `due`, in all sizes and shades."""
    barred = not_offered(history) if exclude_seen else dismissed(history)
    if due is not None:
        barred &= dismissed(history) | ~np.isin(history.items, due)
    return catalogue.listings(history.items[barred])[0] if barred.any() else NOTHING


def top_items(
    scores: Float32Array, allowed: BoolArray, excluded: Int32Array, families: Int32Array, topk: int
) -> Ranked:
    """The `topk` best products that are `allowed` and not among the columns `excluded`, one of each
    family; `scores`, `allowed` and `families` are ``(items,)``. Looks at a few more candidates than
    needed, and at four times as many again whenever families and exclusions left the list short."""
    usable = np.where(allowed, scores, -np.inf)
    usable[excluded] = -np.inf
    take = 2 * topk + 8
    while True:
        candidates = _best(usable, take)
        best: dict[int, int] = {}
        for item, family in zip(candidates.tolist(), families[candidates].tolist(), strict=True):
            best.setdefault(family, item)
        items = list(best.values())[:topk]
        if len(items) == topk or take >= len(usable):
            return Ranked(items, usable[items].tolist())
        take *= 4


def _best(usable: Float32Array, take: int) -> Int64Array:
    """The `take` best that are usable, in order."""
    if take >= len(usable):
        best = np.arange(len(usable))
    else:
        best = np.argpartition(usable, len(usable) - take)[len(usable) - take :]
    best = best[np.argsort(-usable[best], kind="stable")]
    return best[usable[best] > -np.inf]


@dataclass(frozen=True)
class PersonalLists:
    """Lists of some known users: one available product of each family that they have not had."""

    row: Int32Array  # ``(users,)`` row of each known user below, -1 if the list is not made
    items: Int32Array  # ``(rows, LENGTH)`` best first, and below their scores
    scores: Float32Array
    lengths: Int32Array  # ``(rows,)`` how many of them count

    def first(self, position: int, topk: int, excluded: Int32Array) -> Ranked | None:
        """The best `topk` of the user at `position` that are not `excluded`. None if there is no
        list, or it is too short for that."""
        row = self.row[position]
        if row < 0 or topk > self.lengths[row]:
            return None
        if not len(excluded):
            return Ranked(self.items[row, :topk].tolist(), self.scores[row, :topk].tolist())
        kept = np.flatnonzero(~np.isin(self.items[row, : self.lengths[row]], excluded))[:topk]
        if len(kept) < topk:
            return None
        return Ranked(self.items[row, kept].tolist(), self.scores[row, kept].tolist())

    @property
    def users(self) -> int:
        """Users whose list is made."""
        return len(self.items)


def make_personal_lists(
    artifact: Artifact, catalogue: Catalogue, newcomers: Newcomers | None, seconds: float
) -> PersonalLists:
    """The lists of the known users, those who came last first, until `seconds` are over."""
    row = np.full(artifact.histories.users, -1, dtype=np.int32)
    width = min(LENGTH, len(catalogue.item_ids))
    made = [(np.zeros((0, width), np.int32), np.zeros((0, width), np.float32), NOTHING)]
    count, order = 0, last_first(artifact.histories)
    for chosen, scores in scores_in_chunks(artifact, catalogue, newcomers, order, seconds):
        good = np.flatnonzero(scores.max(axis=1) > -np.inf)
        made.append(best_lists(scores[good], catalogue.families, LENGTH))
        row[chosen[good]] = count + np.arange(len(good), dtype=np.int32)
        count += len(good)
    return PersonalLists(row, *(np.concatenate(part) for part in zip(*made, strict=True)))


def last_first(histories: Histories) -> Int64Array:
    """Positions of the users who have a history, those who came last first."""
    entries = np.diff(histories.indptr)
    last = np.full(histories.users, -1, dtype=np.int64)
    last[entries > 0] = histories.times[histories.indptr[1:][entries > 0] - 1]
    order = np.argsort(-last, kind="stable")
    return np.asarray(order[entries[order] > 0])


def scores_in_chunks(
    artifact: Artifact,
    catalogue: Catalogue,
    newcomers: Newcomers | None,
    order: Int64Array,
    seconds: float,
) -> Iterator[tuple[Int64Array, Float32Array]]:
    """The known users at the positions `order`, some at a time, until `seconds` are over, each time
    with what `scores_of` says of them."""
    chunk = max(1, _CHUNK_CELLS // len(catalogue.item_ids))
    until, now = time.monotonic() + seconds, int(time.time())
    for start in range(0, len(order), chunk):
        if time.monotonic() > until:
            return
        chosen = order[start : start + chunk]
        asked = take_users(artifact.histories, chosen)
        barred = not_offered(asked)
        yield chosen, scores_of(artifact.model, catalogue, newcomers, asked, barred, now)


def scores_of(
    model: Model,
    catalogue: Catalogue,
    newcomers: Newcomers | None,
    asked: Histories,
    barred: BoolArray,
    now: int,
) -> Float32Array:
    """``(users, items)`` scores, -inf where a product must not stand, and everywhere for a user
    whom the model has no opinion about. What the ``(entries,)`` `barred` entries of a history are
    of must not stand in any size or shade."""
    known = asked if newcomers is None else newcomers.as_known(asked)
    scores = np.array(model.score(known, now), dtype=np.float32)
    no_opinion = scores.max(axis=1) == scores.min(axis=1)
    if newcomers is not None:
        scores = newcomers.place(scores)
    scores[no_opinion] = -np.inf
    scores[:, ~catalogue.available] = -np.inf
    had, entry = catalogue.listings(asked.items[barred])
    scores[user_rows(asked)[barred][entry], had] = -np.inf
    return scores


class NearestItems:
    """The index of one model, kept in a file for all workers: 32 MB for a million products. What
    the model does not know is looked at beside it. Raises `ArtifactError` if the file cannot be
    read; it is built again at the next try."""

    def __init__(self, model: InnerProductModel, path: Path) -> None:
        import faiss

        self._model, self._vectors = model, model.item_vectors
        self._newcomers: Newcomers | None = None
        self._added = self._mean = self._vectors[:0]
        path.parent.mkdir(parents=True, exist_ok=True)
        # One worker builds, the others wait and read what it wrote.
        with FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
            if not path.exists():
                _build(self._vectors, path)
        try:
            self._index = faiss.read_index(str(path))
        except RuntimeError as error:
            path.unlink(missing_ok=True)
            raise ArtifactError(
                f"{path}: the index cannot be read; it was removed and is built at the next try"
            ) from error

    def beside(self, newcomers: Newcomers | None) -> Self:
        """The same index for a catalogue that has `newcomers`."""
        other = copy.copy(self)
        other._newcomers, other._added = newcomers, self._vectors[:0]
        if newcomers is not None:
            # A newcomer's score is a sum of its neighbours', and so is its vector.
            other._added = newcomers.lifted(self._vectors.T)[:, newcomers.known :].T.copy()
            other._mean = self._vectors.mean(axis=0)
        return other

    def recommend(
        self, catalogue: Catalogue, history: Histories, wanted: Wanted, now: int
    ) -> Ranked | None:
        """The list for one user; None when too little is left after filtering: then somebody has to
        look at all products."""
        asked = history if self._newcomers is None else self._newcomers.as_known(history)
        query = self._model.query_vectors(asked, now)[0]
        if not query.any():
            return None
        excluded = wanted.excluded
        barred = hidden(catalogue, history, wanted.exclude_seen, wanted.due)
        excluded = np.concatenate([excluded, barred])
        take = max(_SCORED_EXACTLY, 4 * wanted.topk + 2 * len(excluded))
        found = self._index.search(_even(query[None]), min(take, len(self._vectors)))[1][0]
        found = found[found >= 0]
        scores, added = self._vectors[found] @ query, self._added @ query
        if self._newcomers is not None:
            added += self._newcomers.gain(scores.max(keepdims=True) - self._mean @ query)
        scores, known = np.concatenate([scores, added]), len(self._vectors)
        found = np.concatenate([found, np.arange(known, known + len(self._added))])
        allowed = wanted.allowed[found] & ~np.isin(found, excluded)
        best = top_items(scores, allowed, NOTHING, catalogue.families[found], wanted.topk)
        if len(best.items) < wanted.topk:
            return None
        return Ranked(found[best.items].tolist(), best.scores)


def _build(vectors: Float32Array, path: Path) -> None:
    import faiss

    logger.info("Building an index | items=%d, file=%s", len(vectors), path)
    # Requests are answered meanwhile: more threads would take their core.
    faiss.omp_set_num_threads(1)
    dimensions = _even(vectors[:1]).shape[1]
    index = faiss.IndexPQFastScan(dimensions, dimensions // 2, _BITS, faiss.METRIC_INNER_PRODUCT)
    chosen = np.linspace(0, len(vectors) - 1, min(len(vectors), _TRAINING_VECTORS)).astype(int)
    index.train(_even(vectors[chosen]))
    for start in range(0, len(vectors), _TRAINING_VECTORS):
        index.add(_even(vectors[start : start + _TRAINING_VECTORS]))
    with atomic_path(path) as temporary:
        faiss.write_index(index, str(temporary))


def _even(vectors: Float32Array) -> Float32Array:
    """`vectors` with a column of zeros if the number of columns is odd."""
    return np.pad(vectors, ((0, 0), (0, vectors.shape[1] % 2)))
