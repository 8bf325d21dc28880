"""Recommendations from a snapshot: pure functions, no network, no clock, no state.

A snapshot is everything that one answer is made from, as one value that never changes. The engine
holds one reference to it and a request takes that reference once, so an answer can never mix two
models, and a swap is one assignment.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Int32Array
from recsys.models.artifacts import Artifact
from recsys.models.base import Histories
from recsys.models.histories import histories_from_codes, liking, user_range
from serving.catalogue import Catalogue
from serving.interactions import LiveEvent
from serving.ranking import NOTHING, NearestItems, PersonalLists, Ranked, Wanted, top_items

MODEL: Final = None
CONTENT = "content"
POPULARITY = "popularity"
AGAIN = "again"
"""Everything was seen: the same products once more."""

NEUTRAL_QUALITY = 0.5
"""Comment quality of an interaction that no refresh has scored yet."""

_NOBODY = histories_from_codes(NOTHING, NOTHING, NOTHING.astype(np.int64), count=1)


@dataclass(frozen=True)
class ContentIndex:
    """Text embeddings lined up with the columns of a model.

    `vectors` are ``(items, d)``, normalised, zeros where a product has none; ``(items,)`` `covered`
    says which have one; `encode` makes the ``(d,)`` vector of a query.
    """

    vectors: Float32Array
    covered: BoolArray
    encode: Callable[[str], Float32Array]


@dataclass(frozen=True)
class Snapshot:
    """A model with all that belongs to it."""

    model_id: str
    model_type: str
    artifact: Artifact
    position: Callable[[str], int | None]
    """Row of a known user in the artefact's histories, None for others."""
    catalogue: Catalogue
    content: ContentIndex | None
    loaded_at: float
    """Seconds since 1970."""
    nearest: NearestItems | None = None
    """Finds the best products of a very large catalogue without looking at all."""
    sources: tuple[str, str | None] = ("", None)
    """Names of the catalogue's version and of the embedding set, to notice newer ones."""
    lists: PersonalLists | None = None
    """What known users get as long as nothing new is known of them."""
    inline: bool = True
    """Scoring one user is quick enough to be done on the event loop."""

    @property
    def popularity(self) -> Float32Array:
        return self.artifact.popularity


@dataclass(frozen=True, slots=True)
class Recommended:
    """A list and where it comes from: ``fallback_method`` is None when the model made it."""

    ranked: Ranked
    fallback_method: str | None


def history_of(
    snapshot: Snapshot, user_id: str, live: tuple[LiveEvent, ...], viewed: list[str], now: int
) -> Histories:
    """What the user did, for one user: the model's record, what was sent since, and `viewed`.

    `viewed` are product ids that the caller knows of a visitor; they count as liked, at `now`.
    Products that the model does not know are left out.
    """
    row = snapshot.position(user_id)
    known = _NOBODY if row is None else user_range(snapshot.artifact.histories, row, row + 1)
    if not live and not viewed:
        return known
    events = [*live, *(LiveEvent(item, 5.0, now) for item in dict.fromkeys(viewed))]
    index = snapshot.catalogue.index
    added = [event for event in events if event.product_id in index]
    return _append(known, added, index) if added else known


def recommend(snapshot: Snapshot, history: Histories, wanted: Wanted, now: int) -> Recommended:
    """The best products for one history: by the model, else by content, else by popularity.

    The model is passed over when the history is empty or tells it nothing. Who has had everything
    that may stand in the list gets what may be bought again.
    """
    made = _recommend(snapshot, history, wanted, now)
    if made.ranked.items or not wanted.exclude_seen or not len(history.items):
        return made
    again = _recommend(snapshot, history, dataclasses.replace(wanted, exclude_seen=False), now)
    return Recommended(again.ranked, AGAIN) if again.ranked.items else made


def _recommend(snapshot: Snapshot, history: Histories, wanted: Wanted, now: int) -> Recommended:
    excluded = wanted.excluded
    if len(history.items):
        if snapshot.nearest is not None:
            quick = snapshot.nearest.recommend(snapshot.catalogue, history, wanted, now)
            if quick is not None:
                return Recommended(quick, MODEL)
        if wanted.exclude_seen:
            excluded = np.concatenate([excluded, snapshot.catalogue.listings(history.items)[0]])
        scores = snapshot.artifact.model.score(history, now)[0]
        if _says_something(scores):
            return Recommended(_top(snapshot, scores, wanted, excluded), MODEL)
        content = snapshot.content
        if content is not None:
            usable = history.items[content.covered[history.items]]
            if len(usable):
                mean = content.vectors[usable].mean(axis=0)
                ranked = _near(snapshot, content, mean, wanted, excluded)
                if ranked.items:
                    return Recommended(ranked, CONTENT)
    return Recommended(_top(snapshot, snapshot.popularity, wanted, excluded), POPULARITY)


def similar(snapshot: Snapshot, item: int, wanted: Wanted) -> Recommended:
    """Products like the product in column `item`: by the model, else content, else popularity."""
    family, _ = snapshot.catalogue.listings(np.array([item], dtype=np.int32))
    excluded = np.concatenate([wanted.excluded, family])
    scores = snapshot.artifact.model.similar(item)
    if _says_something(scores):
        return Recommended(_top(snapshot, scores, wanted, excluded), MODEL)
    content = snapshot.content
    if content is not None and content.covered[item]:
        ranked = _near(snapshot, content, content.vectors[item], wanted, excluded)
        return Recommended(ranked, CONTENT)
    return Recommended(_top(snapshot, snapshot.popularity, wanted, excluded), POPULARITY)


def search(snapshot: Snapshot, content: ContentIndex, query: str, wanted: Wanted) -> Ranked:
    """Products whose text is near to `query`; none if no part of the query is known."""
    vector = content.encode(query)
    if not vector.any():
        return Ranked([], [])
    return _near(snapshot, content, vector, wanted, wanted.excluded)


def _near(
    snapshot: Snapshot,
    content: ContentIndex,
    vector: Float32Array,
    wanted: Wanted,
    excluded: Int32Array,
) -> Ranked:
    """The products whose text is nearest to the ``(d,)`` `vector`."""
    covered = dataclasses.replace(wanted, allowed=wanted.allowed & content.covered)
    return _top(snapshot, content.vectors @ vector, covered, excluded)


def _top(snapshot: Snapshot, scores: Float32Array, wanted: Wanted, excluded: Int32Array) -> Ranked:
    return top_items(scores, wanted.allowed, excluded, snapshot.catalogue.families, wanted.topk)


def _says_something(scores: Float32Array) -> bool:
    """Equal scores for everything are no opinion."""
    return bool(scores.max() > scores.min())


def _append(known: Histories, added: list[LiveEvent], index: dict[str, int]) -> Histories:
    """`known` with the events `added`; of a repeated product the latest counts."""
    columns = np.array([index[event.product_id] for event in added], dtype=np.int32)
    items = np.concatenate([known.items, columns])
    times = np.concatenate([known.times, np.array([e.time for e in added], dtype=np.int64)])
    ratings = np.array([event.rating for event in added], dtype=np.float32)
    liked = liking(ratings, ratings + np.float32(NEUTRAL_QUALITY))
    confidence = np.concatenate([known.confidence, liked])
    weight = np.concatenate([known.weight, np.ones(len(added), dtype=np.float32)])
    order = np.argsort(times, kind="stable")
    # The last place of each product in time order is the one to keep.
    _, back = np.unique(items[order][::-1], return_index=True)
    kept = order[np.sort(len(order) - 1 - back)]
    ends = np.array([0, len(kept)], dtype=np.int64)
    return Histories(ends, items[kept], confidence[kept], weight[kept], times[kept])
