"""Recommendations from a snapshot: pure functions, no network, no clock, no state.

A snapshot is everything that one answer is made from, as one value that never changes. A request
takes the engine's reference to it once: no answer mixes two models, and a swap is one assignment.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Float64Array, Int32Array
from recsys.merchandising.catalogue import Catalogue
from recsys.merchandising.composing import OWN, compose
from recsys.merchandising.exploring import Explorable
from recsys.merchandising.kept_lists import KeptLists
from recsys.merchandising.ranking import (
    NOTHING,
    NearestItems,
    PersonalLists,
    Ranked,
    Wanted,
    hidden,
    top_items,
)
from recsys.merchandising.steered_lists import NO_CANDIDATES, Candidates
from recsys.merchandising.steering import NO_STEERING, Steering, Steerings
from recsys.models.artifacts import Artifact
from recsys.models.base import Histories
from recsys.models.histories import (
    FIVE_STARS,
    histories_from_codes,
    liking,
    one_a_product,
    user_range,
)
from recsys.models.kinds import CODE_OF, DISMISS, RATING, dismissed, had
from recsys.models.newcomers import Newcomers
from recsys.models.popularity import DAY
from recsys.schema import Kind

MODEL: Final = None
CONTENT = "content"
POPULARITY = "popularity"
AGAIN = "again"  # everything was seen: the same products once more
SIMILAR = "similar"  # what completes the cart is not known: what is like the products in it
_SOURCE_OF = {MODEL: "m", CONTENT: "c", POPULARITY: "p", AGAIN: "a", SIMILAR: "m"}

NEUTRAL_QUALITY = 0.5
"""Comment quality of an interaction that no refresh has scored yet."""

_NOBODY = histories_from_codes(NOTHING, NOTHING, NOTHING.astype(np.int64), count=1)


class LiveEvent(NamedTuple):
    """One interaction; `time` in seconds since 1970, no stars (0) but of a rating."""

    product_id: str
    rating: float
    time: int
    kind: str = Kind.RATING.value


@dataclass(frozen=True)
class ContentIndex:
    """Text embeddings in the order of a catalogue: ``(items, d)`` `vectors` of length one,
    zeros where a product has none, ``(items,)`` `covered` where it has one; `encode` makes the
    ``(d,)`` vector of a query."""

    vectors: Float32Array
    covered: BoolArray
    encode: Callable[[str], Float32Array]


@dataclass(frozen=True)
class Snapshot:
    """A model with all that belongs to it."""

    model_id: str
    model_type: str
    artifact: Artifact
    position: Callable[[str], int | None]  # row of a known user in the artefact's histories
    catalogue: Catalogue
    content: ContentIndex | None
    loaded_at: float  # seconds since 1970
    nearest: NearestItems | None = None  # of a very large catalogue
    sources: tuple[str, str | None] = ("", None)
    """Names of the catalogue's version and of the embedding set, to notice newer ones."""
    lists: PersonalLists | None = None  # for users of whom nothing new is known
    inline: bool = True  # scoring one user is quick enough to be done on the event loop
    newcomers: Newcomers | None = None  # what the catalogue has and the model does not know
    placed_popularity: Float32Array | None = None
    steerings: Steerings = NO_STEERING
    """What the shop asks of the lists of each placement."""
    explorable: Explorable | None = None
    """Products that few have seen; None where nothing is explored."""
    candidates: Candidates = NO_CANDIDATES  # as `lists`, for some of those
    kept: KeptLists = field(default_factory=KeptLists)  # what was made from them under `steerings`

    @property
    def own(self) -> str | None:
        """What a list by the model's scores is called: `POPULARITY` where these are everybody's."""
        return MODEL if self.artifact.model.personal else POPULARITY

    @property
    def popularity(self) -> Float32Array:
        """``(items,)`` how popular each product of the catalogue is, newcomers as their like."""
        placed = self.placed_popularity
        return self.artifact.popularity if placed is None else placed

    @functools.cached_property
    def since(self) -> Float64Array:
        """``(items,)`` when each product began, in seconds since 1970: as the shop says, else with
        its first interaction. NaN where that is not known."""
        if self.catalogue.since is not None:
            return self.catalogue.since
        histories = self.artifact.histories
        first = np.full(len(self.catalogue.item_ids), np.inf)
        np.minimum.at(first, histories.items, histories.times)
        return np.where(np.isinf(first), np.nan, first)


@dataclass(frozen=True, slots=True)
class Recommended:
    """A list and where it comes from: ``fallback_method`` is None when a model made it for whom it
    is for; what is popular is called so, also where that is the model in service. Columns
    that are `filled` in only fill it up, with what is popular."""

    ranked: Ranked
    fallback_method: str | None
    filled: frozenset[int] = frozenset()


def history_of(
    snapshot: Snapshot, user_id: str, live: tuple[LiveEvent, ...], viewed: list[str], now: int
) -> Histories:
    """What the user did, as far as the shop has the products: the model's record, what was sent
    since, and `viewed`, ids that the caller knows of a visitor; they count as liked, at `now`."""
    row = snapshot.position(user_id)
    known = _NOBODY if row is None else user_range(snapshot.artifact.histories, row, row + 1)
    if not live and not viewed:
        return known
    events = [*live, *(LiveEvent(item, 5.0, now) for item in dict.fromkeys(viewed))]
    index = snapshot.catalogue.index
    added = [event for event in events if event.product_id in index]
    weights = snapshot.artifact.kind_weights
    return _append(known, added, index, weights) if added else known


def due_again(
    snapshot: Snapshot, user_id: str, live: tuple[LiveEvent, ...], history: Histories, now: int
) -> Int32Array:
    """Columns of what the user of `history` had so long before `now` that people buy it again by
    then. Of a product the latest purchase counts, else the rating; of a family the latest of all
    sizes and shades. What is neither in the artefact nor among the `live` events is of now."""
    artifact, catalogue = snapshot.artifact, snapshot.catalogue
    entries = had(history)
    items = history.items[entries]
    days = np.full(len(items), np.nan, dtype=np.float32)
    known = items < len(artifact.due_days)
    days[known] = artifact.due_days[items[known]]
    if np.isnan(days).all():
        return NOTHING
    got = dict(zip(items.tolist(), history.times[entries].tolist(), strict=True))
    got |= _recorded(snapshot, user_id)
    for event in live:
        item = catalogue.index.get(event.product_id)
        if item is not None and event.kind == Kind.PURCHASE:
            got[item] = event.time if item not in got else max(got[item], event.time)
    last = np.array([got[item] for item in items.tolist()])
    _, family = np.unique(catalogue.families[items], return_inverse=True)
    newest = np.zeros(len(items), dtype=np.int64)
    np.maximum.at(newest, family, last)
    return items[now - newest[family] >= days * DAY]


def _recorded(snapshot: Snapshot, user_id: str) -> dict[int, int]:
    """When the user last got each product, as far as the artefact has it."""
    row, artifact = snapshot.position(user_id), snapshot.artifact
    if row is None:
        return {}
    of = slice(artifact.histories.indptr[row], artifact.histories.indptr[row + 1])
    mine = user_range(artifact.histories, row, row + 1)
    return {
        item: time
        for item, time, own in zip(
            mine.items.tolist(), artifact.got[of].tolist(), had(mine).tolist(), strict=True
        )
        if own
    }


def recommend(snapshot: Snapshot, history: Histories, wanted: Wanted, now: int) -> Recommended:
    """The best products for one history: by the model, unless that tells it nothing, else by
    content, else by popularity. Who has had everything that may stand in the list gets what may be
    bought again."""
    made = _recommend(snapshot, history, wanted, now)
    if made.ranked.items or not wanted.exclude_seen or not len(history.items):
        return made
    again = _recommend(snapshot, history, dataclasses.replace(wanted, exclude_seen=False), now)
    return Recommended(again.ranked, AGAIN) if again.ranked.items else made


def _recommend(snapshot: Snapshot, history: Histories, wanted: Wanted, now: int) -> Recommended:
    excluded, scores = wanted.excluded, None
    if len(history.items):
        if snapshot.nearest is not None and wanted.steering is None:
            quick = snapshot.nearest.recommend(snapshot.catalogue, history, wanted, now)
            if quick is not None:
                return Recommended(quick, MODEL)
        barred = hidden(snapshot.catalogue, history, wanted.exclude_seen, wanted.due)
        excluded = np.concatenate([excluded, barred])
        scores = scores_for(snapshot, history, now)
    not_dismissed = history.items[~dismissed(history)]
    return _best(snapshot, scores, not_dismissed, wanted, excluded)


def made_in_advance(
    snapshot: Snapshot, position: int, topk: int, steering: Steering | None, excluded: Int32Array
) -> Ranked | None:
    """The list of the known user at `position`, of whom nothing new is known and who asks for
    nothing but `topk` products without those in columns `excluded`. None if it has to be made."""
    if steering is None:
        return None if snapshot.lists is None else snapshot.lists.first(position, topk, excluded)
    if len(excluded):
        return None
    kept = snapshot.kept.get(steering, topk, position)
    lists = snapshot.candidates.of.get(steering)
    if kept is not None or lists is None:
        return kept
    vectors = None if snapshot.content is None else snapshot.content.vectors
    made = lists.first(position, topk, vectors)
    if made is not None:
        snapshot.kept.keep(steering, topk, position, made)
    return made


def keep(snapshot: Snapshot, position: int, wanted: Wanted, made: Recommended) -> None:
    """Remember, for `made_in_advance`, a list that it would have been asked for: the model's, if
    nothing of it was drawn."""
    steering, plain = wanted.steering, wanted.explore is None and not len(wanted.excluded)
    if steering is not None and plain and made.fallback_method == snapshot.own:
        snapshot.kept.keep(steering, wanted.topk, position, made.ranked)


def only_hidden(wanted: Wanted) -> Wanted:
    """The same without what the shop asks for, but for what it hides: for the holdout."""
    steering = wanted.steering
    if steering is None:
        return wanted
    hidden = steering.hidden
    allowed = wanted.allowed if hidden is None else wanted.allowed & ~hidden
    return dataclasses.replace(wanted, allowed=allowed, steering=None, explore=None)


def popular(snapshot: Snapshot, history: Histories, wanted: Wanted) -> Recommended:
    """What is popular in the shop, but for what the user of `history` had or dismissed: what the
    holdout gets, which nothing but hiding steers."""
    wanted = only_hidden(wanted)
    barred = hidden(snapshot.catalogue, history, wanted.exclude_seen, wanted.due)
    excluded = np.concatenate([wanted.excluded, barred])
    return Recommended(_top(snapshot, snapshot.popularity, wanted, excluded), POPULARITY)


def popular_beside(snapshot: Snapshot, items: Int32Array, wanted: Wanted) -> Recommended:
    """What is popular in the shop, but for the products in columns `items` and their variants."""
    excluded = np.concatenate([wanted.excluded, snapshot.catalogue.listings(items)[0]])
    return Recommended(_top(snapshot, snapshot.popularity, wanted, excluded), POPULARITY)


def similar(snapshot: Snapshot, item: int, wanted: Wanted) -> Recommended:
    """Products like the product in column `item`: by the model, else content, else popularity."""
    items = np.array([item], dtype=np.int32)
    excluded = np.concatenate([wanted.excluded, snapshot.catalogue.listings(items)[0]])
    return _best(snapshot, scores_beside(snapshot, item), items, wanted, excluded)


def scores_for(snapshot: Snapshot, history: Histories, now: int) -> Float32Array | None:
    """``(items,)`` scores of the catalogue for the one user of `history`; None if the model has no
    opinion: all its scores are equal, or it knows nothing of what the user did."""
    newcomers = snapshot.newcomers
    asked = history if newcomers is None else newcomers.as_known(history)
    if not len(asked.items):
        return None
    scores = snapshot.artifact.model.score(asked, now)[0]
    if scores.max() == scores.min():
        return None
    return scores if newcomers is None else newcomers.place(scores)


def scores_beside(snapshot: Snapshot, item: int) -> Float32Array | None:
    """``(items,)`` how like each product of the catalogue is to that in column `item`, by the
    model; None if it has no opinion."""
    model, newcomers = snapshot.artifact.model, snapshot.newcomers
    if newcomers is None:
        scores = model.similar(item)
    else:
        scores = np.zeros(newcomers.known, dtype=np.float32)
        for like, weight in newcomers.like(item):
            similar = model.similar(like).copy()
            # Who is near to it is near to what is like it, too.
            similar[like] = similar.max()
            scores += weight * similar
    if scores.max() == scores.min():
        return None
    return scores if newcomers is None else newcomers.beside(scores)


def together(snapshot: Snapshot, items: Int32Array, wanted: Wanted) -> Recommended:
    """What completes a cart with the products in columns `items`, filled up with what is popular.
    Where nothing is known of that, what is like them; beside an empty cart what is popular."""
    if not len(items):
        return popular_beside(snapshot, items, wanted)
    excluded = np.concatenate([wanted.excluded, snapshot.catalogue.listings(items)[0]])
    scores = scores_with(snapshot, items)
    if scores is not None:
        known = scores > 0
        most = max(float(snapshot.popularity.max()), 1e-12)
        # The last of those that complete the cart stands before the most popular of the others.
        filled = np.where(known, scores, scores[known].min() / 2 * (snapshot.popularity / most))
        ranked = _top(snapshot, filled.astype(np.float32), wanted, excluded)
        rest = frozenset(item for item in ranked.items if not known[item])
        if len(rest) == len(ranked.items):
            return Recommended(ranked, POPULARITY)
        return Recommended(ranked, MODEL, rest)
    made = _best(snapshot, _beside_all(snapshot, items), items, wanted, excluded)
    return made if made.fallback_method else Recommended(made.ranked, SIMILAR)


def scores_with(snapshot: Snapshot, items: Int32Array) -> Float32Array | None:
    """``(items,)`` how well each product of the catalogue completes a cart with those in columns
    `items`, 0 for those that do not; None where nothing is known of that."""
    complements, newcomers = snapshot.artifact.complements, snapshot.newcomers
    if complements is None:
        return None
    if newcomers is None:
        scores = complements.scores(items)
    else:
        like = [pair for item in items.tolist() for pair in newcomers.like(item)]
        columns = np.array([item for item, _ in like], dtype=np.int32)
        weights = np.array([weight for _, weight in like], dtype=np.float32)
        scores = complements.scores(columns, weights)
    if not scores.any():
        return None
    return scores if newcomers is None else newcomers.lifted(scores)


def _beside_all(snapshot: Snapshot, items: Int32Array) -> Float32Array | None:
    """`scores_beside` of several products, of which each counts as much as the others."""
    found = (scores_beside(snapshot, item) for item in np.unique(items).tolist())
    scores = [one / max(float(one.max()), 1e-12) for one in found if one is not None]
    return np.asarray(np.sum(scores, axis=0)) if scores else None


def _best(
    snapshot: Snapshot,
    scores: Float32Array | None,
    items: Int32Array,
    wanted: Wanted,
    excluded: Int32Array,
) -> Recommended:
    """By the model's `scores` if it has an opinion, else those whose text is near to that of
    `items`, else what is popular."""
    if scores is not None:
        return Recommended(_top(snapshot, scores, wanted, excluded), snapshot.own)
    content = snapshot.content
    if content is not None and content.covered[items].any():
        mean = content.vectors[items[content.covered[items]]].mean(axis=0)
        ranked = _near(snapshot, content, mean, wanted, excluded)
        if ranked.items:
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
    return _top(snapshot, content.vectors @ vector, wanted, excluded, content.covered)


def _top(
    snapshot: Snapshot,
    scores: Float32Array,
    wanted: Wanted,
    excluded: Int32Array,
    among: BoolArray | None = None,
) -> Ranked:
    allowed, content = wanted.allowed, snapshot.content
    if wanted.steering is None:
        allowed = allowed if among is None else allowed & among
        return top_items(scores, allowed, excluded, snapshot.catalogue.families, wanted.topk)
    allowed = allowed.copy()
    allowed[excluded] = False
    return compose(
        scores,
        allowed,
        wanted.steering,
        wanted.topk,
        among=among,
        vectors=None if content is None else content.vectors,
        explore=wanted.explore,
    )


def sources_of(catalogue: Catalogue, made: Recommended, ranking: str | None = None) -> str:
    """A letter of `recsys.served_lists.SOURCES` for each product: what put it there. `ranking` is
    what ordered the list, if that is no fallback."""
    items, marks = made.ranked.items, made.ranked.marks
    letter = _SOURCE_OF[ranking or made.fallback_method]
    letters = letter * len(items)
    newcomers = letter == _SOURCE_OF[MODEL] and max(items, default=0) >= catalogue.known
    if marks and not newcomers and not made.filled:
        return marks.replace(OWN, letter)
    if newcomers:
        # The model knows nothing of a newcomer: its text and what it is stand for it.
        by_text = _SOURCE_OF[CONTENT]
        letters = "".join(letter if item < catalogue.known else by_text for item in items)
    if made.filled:
        popular, each = _SOURCE_OF[POPULARITY], zip(items, letters, strict=True)
        letters = "".join(popular if item in made.filled else own for item, own in each)
    if marks:
        pairs = zip(marks, letters, strict=True)
        letters = "".join(own if mark == OWN else mark for mark, own in pairs)
    return letters


def _append(
    known: Histories, added: list[LiveEvent], index: dict[str, int], weights: Float32Array
) -> Histories:
    """`known` with the events `added`, which weigh ``(kinds,)`` `weights`; one entry a product."""
    columns = np.array([index[event.product_id] for event in added], dtype=np.int32)
    codes = np.array([CODE_OF[event.kind] for event in added], dtype=np.int8)
    times = np.concatenate([known.times, np.array([e.time for e in added], dtype=np.int64)])
    ratings = np.array([event.rating for event in added], dtype=np.float32)
    liked = liking(ratings, ratings + np.float32(NEUTRAL_QUALITY))
    liked[codes != RATING] = FIVE_STARS
    liked[codes == DISMISS] = 0
    order = np.argsort(times, kind="stable")
    both = Histories(
        np.array([0, len(order)], dtype=np.int64),
        np.concatenate([known.items, columns])[order],
        np.concatenate([known.confidence, liked])[order],
        np.concatenate([known.weight, weights[codes]])[order],
        times[order],
        np.concatenate([known.kinds, codes])[order],
    )
    return one_a_product(both)
