"""Why a product stands in a list, in sentences for customers.

What is named is what counted: the model is asked again without each product of the history, and
named is the one without which the score falls most. That holds for every model type, whatever it
computes; one that tells its parts apart (`BlendedModel`) is also asked whether it was the text, or
rather what everybody buys at the moment. What a rule did is tried in the same way."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Int32Array, Int64Array
from recsys.merchandising.catalogue import Catalogue
from recsys.merchandising.composing import EXPLORED
from recsys.merchandising.ranking import Ranked
from recsys.merchandising.recommending import (
    AGAIN,
    CONTENT,
    MODEL,
    SIMILAR,
    ContentIndex,
    Recommended,
    Snapshot,
    scores_beside,
    scores_for,
    scores_with,
)
from recsys.merchandising.rules import Rule
from recsys.merchandising.steering import Steering
from recsys.models import hybrid
from recsys.models.base import BlendedModel, Histories, InnerProductModel
from recsys.models.histories import strength, user_range, without_each
from recsys.models.kinds import CODE_OF, dismissed, had
from recsys.models.newcomers import Newcomers
from recsys.models.popularity import RecentPopularity
from recsys.schema import Kind

Why = Literal["history", "text", "popular", "trend", "rule", "new", "explore"]
"""A product of the history, the cart, or that was asked for; a text alike; popular in the shop;
popular at the moment; a rule of the shop; new in the shop; tried out."""

Make = Callable[[Steering | None], list[int]]
"""The columns of the list under a steering, in order."""

MOST_ASKED = 50
"""Products of a history that are tried, the latest: an earlier one hardly counts."""

# What a score loses less than this share of the list's best for is rounding.
_LEAST = 1e-4
_CELLS_AT_ONCE = 1 << 20


class Reason(NamedTuple):
    """Why one product stands in a list: a key of `SENTENCES`, the column of the product that is
    named there, and the name of a rule of the shop."""

    kind: Why
    sentence: str
    item: int | None = None
    rule: str | None = None


SENTENCES: dict[str, tuple[str, str]] = {
    "rated": ("Vì bạn đã đánh giá “{name}”", "Because you reviewed “{name}”"),
    "bought": ("Vì bạn đã mua “{name}”", "Because you bought “{name}”"),
    "in_cart": ("Vì bạn đã thêm “{name}” vào giỏ hàng", "Because you put “{name}” into your cart"),
    "looked_at": ("Vì bạn đã xem “{name}”", "Because you looked at “{name}”"),
    "liked": ("Vì bạn quan tâm đến “{name}”", "Because you are interested in “{name}”"),
    "again": ("Bạn đã từng chọn “{name}”", "You have chosen “{name}” before"),
    "similar": (
        "Khách quan tâm đến “{name}” cũng chọn sản phẩm này",
        "Customers interested in “{name}” also choose this",
    ),
    "together": (
        "Thường được mua cùng “{name}”",
        "Often bought together with “{name}”",
    ),
    "text": ("Có mô tả giống với “{name}”", "Described like “{name}”"),
    "search": ("Có mô tả khớp với nội dung bạn tìm", "Its description fits your search"),
    "popular": ("Được nhiều khách hàng ưa chuộng", "Popular with our customers"),
    "trend": ("Đang được nhiều khách hàng chọn mua", "Many customers are choosing it now"),
    "rule": ("Được cửa hàng giới thiệu", "Featured by the shop"),
    "new": ("Sản phẩm mới, tương tự “{name}”", "New, and like “{name}”"),
    "only_new": ("Sản phẩm mới của cửa hàng", "New in the shop"),
    "explore": ("Gợi ý để bạn khám phá", "Something for you to discover"),
}
"""What customers read, Vietnamese and English."""

_DONE = {
    CODE_OF[Kind.RATING]: "rated",
    CODE_OF[Kind.PURCHASE]: "bought",
    CODE_OF[Kind.CART]: "in_cart",
    CODE_OF[Kind.CLICK]: "looked_at",
    CODE_OF[Kind.VIEW]: "looked_at",
}
_HAD = (CODE_OF[Kind.RATING], CODE_OF[Kind.PURCHASE])
POPULAR = Reason("popular", "popular")
TREND = Reason("trend", "trend")
SEARCH = Reason("text", "search")
ONLY_NEW = Reason("new", "only_new")


def sentences(reason: Reason, catalogue: Catalogue) -> tuple[str, str]:
    """The reason in Vietnamese and in English. A product without a name is called by its id."""
    vietnamese, english = SENTENCES[reason.sentence]
    name = "" if reason.item is None else _name(catalogue, reason.item)
    return vietnamese.format(name=name), english.format(name=name)


def why_recommended(
    snapshot: Snapshot,
    history: Histories,
    made: Recommended,
    now: int,
    liked: Collection[int] = (),
) -> list[Reason]:
    """Why each product of the list `made` for the one user of `history` stands in it. Columns that
    are `liked` are no events: somebody says that the user is interested in them."""
    items = np.array(made.ranked.items, dtype=np.int32)
    if not len(items):
        return []
    if made.fallback_method is AGAIN:
        return list(_chosen_before(snapshot.catalogue, history, items))
    asked = _asked(history)
    content = snapshot.content
    if made.fallback_method is CONTENT and content is not None:
        return _nearest(content, asked, items)
    if made.fallback_method != snapshot.own:
        return [POPULAR] * len(items)
    return _by_model(snapshot, history, asked, items, now, liked)


def why_similar(snapshot: Snapshot, item: int, made: Recommended) -> list[Reason]:
    """Why each product of the list `made` stands beside that in column `item`."""
    if made.fallback_method is CONTENT:
        return [Reason("text", "text", item)] * len(made.ranked.items)
    if made.fallback_method is not MODEL:
        return [POPULAR] * len(made.ranked.items)
    items, model = np.array(made.ranked.items, dtype=np.int32), snapshot.artifact.model
    if not isinstance(model, BlendedModel):
        parts = {model.model_type: np.array(made.ranked.scores)}
    else:
        parts = _parts_of_similar(snapshot, model, item, items)
    total, text = _sum(parts), parts.get(hybrid.CONTENT)
    by_text = np.zeros(len(items), bool) if text is None else text > total / 2
    new = items >= snapshot.catalogue.known
    return [
        POPULAR
        if score <= 0
        else Reason("new", "new", item)
        if unknown
        else Reason("text", "text", item)
        if alike
        else _beside(snapshot, item)
        for score, unknown, alike in zip(
            total.tolist(), new.tolist(), by_text.tolist(), strict=True
        )
    ]


def parts_recommended(
    snapshot: Snapshot, history: Histories, made: Recommended, now: int
) -> list[dict[str, float]]:
    """What each part of the model adds to the score of each product of the list `made` for the one
    user of `history`; nothing of a list that the model did not order."""
    items = np.array(made.ranked.items, dtype=np.int32)
    if made.fallback_method != snapshot.own or not len(items):
        return [{} for _ in items]
    parts = _parts(snapshot, history, now, items)
    return _by_product({name: part[0] for name, part in parts.items()})


def parts_similar(snapshot: Snapshot, item: int, made: Recommended) -> list[dict[str, float]]:
    """The same of the list `made` beside the product in column `item`."""
    items, model = np.array(made.ranked.items, dtype=np.int32), snapshot.artifact.model
    if made.fallback_method is not MODEL or not len(items):
        return [{} for _ in items]
    if not isinstance(model, BlendedModel):
        return _by_product({model.model_type: np.array(made.ranked.scores, dtype=np.float32)})
    return _by_product(_parts_of_similar(snapshot, model, item, items))


def why_together(snapshot: Snapshot, cart: Int32Array, made: Recommended) -> list[Reason]:
    """Why each product of the list `made` stands beside a `cart` of these columns. The scores of a
    cart are sums: the product without which one falls most is the one that adds most."""
    items, content = np.array(made.ranked.items, dtype=np.int32), snapshot.content
    if made.fallback_method is CONTENT and content is not None:
        return _nearest(content, cart, items)
    if made.fallback_method not in (MODEL, SIMILAR):
        return [POPULAR] * len(items)
    by_model = made.fallback_method is MODEL
    sentence, parts = "together" if by_model else "similar", np.zeros((len(cart), len(items)))
    for place, item in enumerate(cart.tolist()):
        if by_model:
            scores = scores_with(snapshot, cart[place : place + 1])
        else:
            scores = scores_beside(snapshot, item)
        if scores is not None:
            parts[place] = scores[items] / (1 if by_model else max(float(scores.max()), 1e-12))
    named = cart[parts.argmax(axis=0)].tolist()
    new = items >= snapshot.catalogue.known
    return [
        POPULAR
        if part <= 0
        else Reason("new", "new", item)
        if unknown
        else _by_others(snapshot, sentence, item)
        for item, unknown, part in zip(named, new.tolist(), parts.max(axis=0).tolist(), strict=True)
    ]


def _parts_of_similar(
    snapshot: Snapshot, model: BlendedModel, item: int, items: Int32Array
) -> dict[str, Float32Array]:
    """What each part of the model adds to how like the columns `items` are to that of `item`."""
    newcomers = snapshot.newcomers
    if newcomers is None:
        return {name: part[items] for name, part in model.parts_of_similar(item).items()}
    parts: dict[str, Float32Array] = {}
    for like, weight in newcomers.like(item):
        for name, part in model.parts_of_similar(like).items():
            added = weight * newcomers.lifted_some(part, items)
            parts[name] = parts.get(name, np.zeros_like(added)) + added
    return parts


def steered(
    steering: Steering | None, ranked: Ranked, found: Sequence[Reason], make: Make
) -> list[Reason]:
    """The reasons `found` for a list that the shop may have changed: what would not stand in it, or
    lower, without a rule of the shop is there by that rule, and what was drawn was tried out.
    `make` gives the list under another steering."""
    reasons = list(found)
    if steering is None:
        return reasons
    rules = {item: names for item in ranked.items if (names := steering.lifting(item))}
    tried = _Tried(steering, make)
    for place, item in enumerate(ranked.items):
        if ranked.marks[place : place + 1] == EXPLORED:
            reasons[place] = Reason("explore", "explore")
        elif item in rules and (by := tried.lifted_by(item, rules[item])) is not None:
            reasons[place] = Reason("rule", "rule", rule=by)
    return reasons


class _Tried:
    """Lists that are made without some of the rules, each once."""

    def __init__(self, steering: Steering, make: Make) -> None:
        self._steering, self._make = steering, make
        self._ranks: dict[frozenset[str], dict[int, int]] = {}

    def lifted_by(self, item: int, rules: Sequence[Rule]) -> str | None:
        """The one of `rules` without which the product in column `item` falls most; the first if it
        falls without all of them alone. None if it stands where it does by itself."""
        fall = {rule.name: self._fall(item, {rule.name}) for rule in rules}
        name = max(fall, key=fall.__getitem__)
        if fall[name] <= 0 and len(rules) > 1 and self._fall(item, set(fall)) > 0:
            return rules[0].name
        return name if fall[name] > 0 else None

    def _fall(self, item: int, names: set[str]) -> float:
        """By how many places it stands lower without the rules `names`, infinitely many where it
        does not stand in the list at all."""
        without, now = self._rank(item, names), self._rank(item, set())
        return 0.0 if now is None else np.inf if without is None else without - now

    def _rank(self, item: int, names: set[str]) -> int | None:
        key = frozenset(names)
        if key not in self._ranks:
            made = self._make(self._steering.without(names))
            self._ranks[key] = {one: rank for rank, one in enumerate(made)}
        return self._ranks[key].get(item)


def most_missed(asked: Float32Array, without: Float32Array) -> tuple[Int64Array, Float32Array]:
    """Which of the ``(sources, products)`` rows of scores `without` one source lies most below the
    ``(products,)`` scores as `asked`, and by how much; -1 where none lies clearly below."""
    if not len(without):
        return np.full(len(asked), -1), np.zeros(len(asked), dtype=np.float32)
    drops = asked - without
    source = drops.argmax(axis=0)
    drop = np.take_along_axis(drops, source[None], axis=0)[0]
    clear = drop > _LEAST * np.abs(asked).max()
    return np.where(clear, source, -1), np.where(clear, drop, np.float32(0))


def _by_model(
    snapshot: Snapshot,
    history: Histories,
    asked: Int32Array,
    items: Int32Array,
    now: int,
    liked: Collection[int],
) -> list[Reason]:
    parts = _parts(snapshot, without_each(history, asked), now, items)
    total = _sum(parts)
    source, drop = most_missed(total[0], total[1:])
    nothing = np.zeros_like(total)
    trend = parts.get(RecentPopularity.model_type, nothing)[0]
    sells = _sells(snapshot.newcomers, items)
    scores = scores_for(snapshot, history, now) if sells.any() else None
    if scores is not None:  # what their own sales add is no sum of what the model says
        trend = np.where(sells, scores[items] - total[0], trend)
    text = parts.get(hybrid.CONTENT, nothing)
    by_text = 2 * (text[0] - text[1 + source, np.arange(len(items))]) > drop
    did = dict(zip(history.items.tolist(), history.kinds.tolist(), strict=True))
    families = snapshot.catalogue.families
    reasons = []
    for place, item in enumerate(items.tolist()):
        named = int(asked[source[place]]) if source[place] >= 0 else None
        new = item >= snapshot.catalogue.known
        if trend[place] > drop[place] and (sells[place] or not new):
            reasons.append(TREND)
        elif new:
            reasons.append(ONLY_NEW if named is None else Reason("new", "new", named))
        elif named is None:
            reasons.append(POPULAR)
        elif families[named] == families[item] and did[named] in _HAD:
            reasons.append(Reason("history", "again", named))
        elif by_text[place]:
            reasons.append(Reason("text", "text", named))
        else:
            done = "liked" if named in liked else _DONE[did[named]]
            reasons.append(Reason("history", done, named))
    return reasons


def _sells(newcomers: Newcomers | None, items: Int32Array) -> BoolArray:
    """Which of the columns `items` are of newcomers whose score their own sales raise."""
    sells = np.zeros(len(items), dtype=np.bool_)
    if newcomers is not None:
        new = items >= newcomers.known
        sells[new] = newcomers.trend[items[new] - newcomers.known] > 0
    return sells


def _parts(
    snapshot: Snapshot, histories: Histories, now: int, items: Int32Array
) -> dict[str, Float32Array]:
    """``(users, items)`` what each part of the model adds to the scores of the columns `items`."""
    model, newcomers = snapshot.artifact.model, snapshot.newcomers
    if newcomers is not None:
        histories = newcomers.as_known(histories)

    def of_items(scores: Float32Array) -> Float32Array:
        return scores[:, items] if newcomers is None else newcomers.lifted_some(scores, items)

    if isinstance(model, InnerProductModel):
        scores = model.query_vectors(histories, now) @ of_items(model.item_vectors.T)
        return {model.model_type: scores}
    found: list[dict[str, Float32Array]] = []
    start, stop = 0, 1
    while start < histories.users:
        some = user_range(histories, start, stop)
        if isinstance(model, BlendedModel):
            parts = model.parts(some, now)
        else:
            parts = {model.model_type: model.score(some, now)}
        found.append({name: of_items(part) for name, part in parts.items()})
        columns = next(iter(parts.values())).shape[1]
        start, stop = stop, min(stop + max(1, _CELLS_AT_ONCE // columns), histories.users)
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _by_product(parts: dict[str, Float32Array]) -> list[dict[str, float]]:
    """``(products,)`` values by part, the other way round."""
    values = zip(*(part.tolist() for part in parts.values()), strict=True)
    return [dict(zip(parts, one, strict=True)) for one in values]


def _sum(parts: dict[str, Float32Array]) -> Float32Array:
    return np.asarray(np.sum(list(parts.values()), axis=0))


def _asked(history: Histories) -> Int32Array:
    """The products that may be named, without which the model is asked: the latest that count."""
    counts = (strength(history) > 0) & ~dismissed(history)
    latest = dict.fromkeys(history.items[counts][::-1].tolist())
    return np.array(list(latest)[:MOST_ASKED], dtype=np.int32)


def _nearest(content: ContentIndex, asked: Int32Array, items: Int32Array) -> list[Reason]:
    """By the one of the products `asked` whose text is nearest."""
    asked = asked[content.covered[asked]]
    if not len(asked):  # only of products that were not liked is there a text
        return [POPULAR] * len(items)
    nearest = asked[(content.vectors[items] @ content.vectors[asked].T).argmax(axis=1)]
    return [Reason("text", "text", one) for one in nearest.tolist()]


def _chosen_before(catalogue: Catalogue, history: Histories, items: Int32Array) -> Iterator[Reason]:
    """What was had and stands in the list again, in whatever size or shade."""
    done = history.items[had(history)]
    latest = dict(zip(catalogue.families[done].tolist(), done.tolist(), strict=True))
    for family in catalogue.families[items].tolist():
        yield Reason("history", "again", latest[family]) if family in latest else POPULAR


def _beside(snapshot: Snapshot, item: int) -> Reason:
    popular = snapshot.artifact.model.model_type in ("popularity", RecentPopularity.model_type)
    return POPULAR if popular else _by_others(snapshot, "similar", item)


def _by_others(snapshot: Snapshot, sentence: str, item: int) -> Reason:
    """Others chose it with the product in column `item`. With a newcomer nobody did, as far as the
    model knows: what counted is what is described like that."""
    if item >= snapshot.catalogue.known:
        return Reason("text", "text", item)
    return Reason("history", sentence, item)


def _name(catalogue: Catalogue, item: int) -> str:
    return catalogue.names[item] or catalogue.item_ids[item]
