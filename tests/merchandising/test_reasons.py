"""What is named as the reason is what counted."""

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest

from recsys.merchandising.catalogue import build_catalogue
from recsys.merchandising.placements import Placement
from recsys.merchandising.ranking import NOTHING, Ranked, Wanted
from recsys.merchandising.reasons import (
    POPULAR,
    SENTENCES,
    Reason,
    most_missed,
    parts_recommended,
    parts_similar,
    sentences,
    steered,
    why_recommended,
    why_similar,
    why_together,
)
from recsys.merchandising.recommending import (
    ContentIndex,
    LiveEvent,
    Recommended,
    Snapshot,
    history_of,
    recommend,
    similar,
    together,
)
from recsys.merchandising.rules import Rule, matching
from recsys.merchandising.snapshots import load_snapshot
from recsys.merchandising.steering import Steering, compile_steering, compile_steerings
from recsys.models.base import Histories, Model
from recsys.models.complements import Complements
from recsys.models.histories import keep_entries
from recsys.models.hybrid import Hybrid
from recsys.models.model_types import MODEL_TYPES
from recsys.models.newcomers import Newcomers
from recsys.settings import Settings
from tests.serving.shops import ITEMS, USERS, add_model, histories, product_id
from tests.serving.test_bought_together import baskets

NOW = 1_700_000_000 + 7 * 86_400
WEIGHTS = {"item_knn": 1.0, "als": 0.5, "recent_popularity": 0.2, "content": 0.5}


def snapshot_of(settings: Settings, model: Model, name: str = "m1") -> Snapshot:
    add_model(settings, name, model=model)
    return load_snapshot(settings, settings.artifacts / model.model_type / name, name, 0)


def vectors() -> np.ndarray:
    """The texts of lipsticks and of shampoos, each a little different."""
    random = np.random.default_rng(5)
    taste = np.repeat(np.eye(2, 8), ITEMS // 2, axis=0)
    found = taste + 0.3 * random.normal(size=(ITEMS, 8))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module", params=sorted(MODEL_TYPES))
def snapshot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Of every family one with a model that was trained."""
    small = {"als": {"factors": 4, "starts": 1}, "bpr": {"factors": 4, "iterations": 20}}
    small["self_attention"] = {"dimensions": 8, "epochs": 3}
    small["hybrid"] = {"weights": WEIGHTS, "als": small["als"]}
    model = MODEL_TYPES[request.param].create(small.get(request.param, {}), seed=3)
    if isinstance(model, Hybrid):
        model.use_content(vectors())
    settings = Settings(tmp_path_factory.mktemp(request.param))
    return snapshot_of(settings, model.fit(histories(), ITEMS))


def asked(
    snapshot: Snapshot, user: str, live: tuple[LiveEvent, ...] = (), exclude_seen: bool = True
) -> tuple[Histories, Recommended]:
    history = history_of(snapshot, user, live, [], NOW)
    wanted = Wanted(10, exclude_seen, snapshot.catalogue.available, NOTHING)
    return history, recommend(snapshot, history, wanted, NOW)


def explained(snapshot: Snapshot) -> Iterator[tuple[Histories, int, Reason]]:
    for user in range(0, USERS, 3):
        history, made = asked(snapshot, str(user))
        found = why_recommended(snapshot, history, made, NOW)
        yield from ((history, *each) for each in zip(made.ranked.items, found, strict=True))


def test_without_the_named_product_the_score_is_lower(snapshot: Snapshot):
    model, named, lower = snapshot.artifact.model, 0, 0
    for history, item, reason in explained(snapshot):
        if reason.kind in ("history", "text"):
            assert reason.item in history.items
            without = keep_entries(history, history.items != reason.item)
            named += 1
            lower += model.score(without, NOW)[0, item] < model.score(history, NOW)[0, item]
    assert lower == named
    assert (named > 0) == ("popularity" not in snapshot.model_type)


def test_what_says_nothing_about_the_customer_is_called_popular(settings: Settings):
    for family, kind in (("popularity", "popular"), ("recent_popularity", "trend")):
        model = MODEL_TYPES[family].create({}).fit(histories(), ITEMS)
        found = Counter(one.kind for *_, one in explained(snapshot_of(settings, model, family)))
        assert set(found) == {kind}


def test_of_the_parts_of_a_blend_the_one_is_named_that_counted_most(settings: Settings):
    kinds = {}
    for part in ("item_knn", "recent_popularity", "content"):
        weights = dict.fromkeys(WEIGHTS, 0.0) | {"recent_popularity": 0.01} | {part: 1.0}
        model = Hybrid.create({"weights": weights}).use_content(vectors()).fit(histories(), ITEMS)
        found = Counter(one.kind for *_, one in explained(snapshot_of(settings, model, part)))
        kinds[part] = found.most_common(1)[0][0]
    assert kinds == {"item_knn": "history", "recent_popularity": "trend", "content": "text"}


def test_the_sentence_says_what_the_customer_did(settings: Settings):
    model = MODEL_TYPES["item_knn"].create({}).fit(histories(), ITEMS)
    snapshot = snapshot_of(settings, model)
    for kind, said in (
        ("rating", "Vì bạn đã đánh giá “Son môi số 3”"),
        ("purchase", "Vì bạn đã mua “Son môi số 3”"),
        ("cart", "Vì bạn đã thêm “Son môi số 3” vào giỏ hàng"),
        ("view", "Vì bạn đã xem “Son môi số 3”"),
    ):
        live = (LiveEvent("p3", 5.0 if kind == "rating" else 0.0, NOW - 60, kind),)
        history, made = asked(snapshot, "somebody", live)
        reason = why_recommended(snapshot, history, made, NOW)[0]
        assert (reason.kind, reason.item) == ("history", 3)
        assert sentences(reason, snapshot.catalogue)[0] == said
        [liked, *_] = why_recommended(snapshot, history, made, NOW, liked=[3])
        assert sentences(liked, snapshot.catalogue)[1] == (
            "Because you are interested in “Son môi số 3”"
        )


def test_what_was_disliked_or_dismissed_is_never_the_reason(snapshot: Snapshot):
    live = (
        LiveEvent("p3", 1.0, NOW - 60),
        LiveEvent("p4", 0.0, NOW - 50, "dismiss"),
        LiveEvent("p5", 5.0, NOW - 40),
    )
    history, made = asked(snapshot, "somebody", live)
    named = {one.item for one in why_recommended(snapshot, history, made, NOW)}
    assert named <= {5, None}


def test_who_has_had_everything_is_told_what_they_had(settings: Settings):
    model = MODEL_TYPES["item_knn"].create({}).fit(histories(), ITEMS)
    snapshot = snapshot_of(settings, model)
    live = tuple(LiveEvent(product_id(item), 5.0, NOW - 90) for item in range(ITEMS))
    history, made = asked(snapshot, "robot", live)
    assert made.fallback_method == "again"
    found = why_recommended(snapshot, history, made, NOW)
    assert [one.item for one in found] == made.ranked.items
    assert {one.sentence for one in found} == {"again"}


def test_without_the_model_s_opinion_it_is_the_nearest_text(settings: Settings):
    """A customer of one product that nobody bought with another."""
    lonely = keep_entries(histories(), histories().items != 7)
    model = MODEL_TYPES["item_knn"].create({}).fit(lonely, ITEMS)
    content = ContentIndex(vectors(), np.ones(ITEMS, bool), lambda _: vectors()[0])
    snapshot = dataclasses.replace(snapshot_of(settings, model), content=content)
    history, made = asked(snapshot, "new", (LiveEvent("p7", 5.0, NOW - 90),))
    assert made.fallback_method == "content"
    found = why_recommended(snapshot, history, made, NOW)
    assert {(one.kind, one.item) for one in found} == {("text", 7)}


def test_the_parts_of_a_score_are_those_of_the_model_and_add_up(settings: Settings):
    model = Hybrid.create({"weights": WEIGHTS}).use_content(vectors()).fit(histories(), ITEMS)
    blended = snapshot_of(settings, model)
    history, made = asked(blended, "3")
    found = parts_recommended(blended, history, made, NOW)
    assert set(found[0]) == set(WEIGHTS)
    assert [sum(one.values()) for one in found] == pytest.approx(made.ranked.scores, rel=1e-4)
    assert len({one["als"] for one in found}) > 1
    beside = similar(blended, 3, Wanted(5, False, blended.catalogue.available, NOTHING))
    near = parts_similar(blended, 3, beside)
    assert [sum(one.values()) for one in near] == pytest.approx(beside.ranked.scores, rel=1e-4)


def test_one_model_has_one_part_and_what_it_did_not_order_has_none(settings: Settings):
    single = snapshot_of(settings, MODEL_TYPES["item_knn"].create({}).fit(histories(), ITEMS))
    history, made = asked(single, "3")
    found = parts_recommended(single, history, made, NOW)
    assert [one["item_knn"] for one in found] == pytest.approx(made.ranked.scores, rel=1e-4)
    near = similar(single, 3, Wanted(5, False, single.catalogue.available, NOTHING))
    told = parts_similar(single, 3, near)
    assert [one["item_knn"] for one in told] == pytest.approx(near.ranked.scores, rel=1e-4)
    nobody, popular = asked(single, "nobody")
    assert popular.fallback_method == "popularity"
    assert parts_recommended(single, nobody, popular, NOW) == [{}] * len(popular.ranked.items)
    assert parts_similar(single, 3, popular) == [{}] * len(popular.ranked.items)


def test_beside_a_product_it_is_that_product(snapshot: Snapshot):
    wanted = Wanted(5, False, snapshot.catalogue.available, NOTHING)
    found = why_similar(snapshot, 3, similar(snapshot, 3, wanted))
    assert len(found) == 5
    if "popularity" in snapshot.model_type:
        assert {one.kind for one in found} == {"popular"}
    else:
        assert {one.item for one in found} == {3}
        assert {one.kind for one in found} <= {"history", "text"}


def test_a_long_history_is_asked_about_by_its_latest_products(settings: Settings):
    model = MODEL_TYPES["als"].create({"factors": 4}).fit(histories(), ITEMS)
    snapshot = snapshot_of(settings, model)
    live = tuple(LiveEvent(f"p{n % 30}", 5.0, NOW - 5000 + n) for n in range(500))
    history, made = asked(snapshot, "robot", live)
    started = time.perf_counter()
    why_recommended(snapshot, history, made, NOW)
    assert time.perf_counter() - started < 1


def test_nothing_is_named_where_no_score_falls():
    scores = np.array([1.0, 2.0, 0.0], dtype=np.float32)
    without = np.array([[1.0, 1.5, 0.0], [2.0, 1.9, 1e-6]], dtype=np.float32)
    source, drop = most_missed(scores, without)
    assert source.tolist() == [-1, 0, -1]
    assert drop.tolist() == [0, 0.5, 0]
    assert most_missed(scores, without[:0])[0].tolist() == [-1, -1, -1]


def test_every_sentence_is_there_in_both_languages():
    for vietnamese, english in SENTENCES.values():
        assert vietnamese.count("{name}") == english.count("{name}") <= 1
        assert vietnamese[0].isupper()
        assert english[0].isupper()


def rule(name: str, action: str, **more: object) -> Rule:
    said = {"author": "lan", "reason": "Tết", "name": name, "action": action}
    return Rule.model_validate(said | more)


def test_what_a_rule_put_there_is_there_by_that_rule(settings: Settings):
    model = MODEL_TYPES["item_knn"].create({}).fit(histories(), ITEMS)
    snapshot = snapshot_of(settings, model)
    catalogue = snapshot.catalogue
    rules = [
        rule("tet", "pin", position=3, products={"ids": ["p39"]}),
        rule("two", "quota", at_least=2, products={"ids": ["p35", "p36"]}),
        rule("up", "boost", strength=3, products={"ids": ["p4"]}),
        rule("much-up", "boost", strength=9, products={"ids": ["p4"]}),
        rule("down", "bury", products={"ids": ["p5"]}),
    ]
    now = datetime.fromtimestamp(NOW, UTC)
    steering = compile_steerings(catalogue, rules, {}, now).of(None)
    history = history_of(snapshot, "0", (), [], NOW)
    wanted = Wanted(10, True, catalogue.available, NOTHING, steering)
    made = recommend(snapshot, history, wanted, NOW)
    found = why_recommended(snapshot, history, made, NOW)

    def make(other: Steering | None) -> list[int]:
        asked = dataclasses.replace(wanted, steering=other)
        return recommend(snapshot, history, asked, NOW).ranked.items

    told = dict(zip(made.ranked.items, steered(steering, made.ranked, found, make), strict=True))
    assert made.ranked.items[2] == 39
    by_rule = {item: reason.rule for item, reason in told.items() if reason.kind == "rule"}
    # A product that the customer has had stands in no list, whatever lifts it.
    up = {4: "much-up"} if 4 not in history.items else {}
    assert by_rule == {39: "tet", 35: "two", 36: "two"} | up
    assert sentences(told[39], catalogue) == ("Được cửa hàng giới thiệu", "Featured by the shop")
    assert steered(None, made.ranked, found, make) == found


@pytest.mark.parametrize("seed", range(6))
def test_a_rule_is_the_reason_if_without_it_the_product_stands_lower_or_not_at_all(
    snapshot: Snapshot, seed: int
):
    """Tried by leaving rules out of the file, for boosts that fill a list too."""
    random, catalogue = np.random.default_rng(seed), snapshot.catalogue
    meant = [f"p{item}" for item in random.permutation(ITEMS)]
    rules = [
        rule("much", "boost", strength=0.2, products={"ids": meant[:20]}),
        rule("little", "boost", strength=0.1, products={"ids": meant[15:30]}),
        rule("first", "pin", position=1, products={"ids": meant[3:4]}),
        rule("one", "quota", at_least=1, products={"ids": meant[30:33]}),
        rule("less", "bury", strength=0.1, products={"ids": meant[33:]}),
    ][seed % 2 : 5 - seed % 3]
    now = datetime.fromtimestamp(NOW, UTC)
    history = history_of(snapshot, str(seed), (), [], NOW)

    def listed(steering: Steering | None) -> Recommended:
        wanted = Wanted(10, True, catalogue.available, NOTHING, steering)
        return recommend(snapshot, history, wanted, NOW)

    def rank(item: int, *left_out: str) -> float:
        kept = [one for one in rules if one.name not in left_out]
        pairs = [(one, matching(one.products, catalogue, now)) for one in kept]
        items = listed(compile_steering(catalogue, pairs, Placement())).ranked.items
        return items.index(item) if item in items else np.inf

    steering = compile_steerings(catalogue, rules, {}, now).of(None)
    made = listed(steering)
    found = why_recommended(snapshot, history, made, NOW)
    told = steered(steering, made.ranked, found, lambda other: listed(other).ranked.items)
    lifting = [one for one in rules if one.action != "bury"]
    for place, (item, reason) in enumerate(zip(made.ranked.items, told, strict=True)):
        its = [one.name for one in lifting if catalogue.item_ids[item] in one.products.ids]
        lower = {name for name in its if rank(item, name) > place}
        if lower:
            assert reason.rule in lower
            assert rank(item, str(reason.rule)) == max(rank(item, name) for name in lower)
        else:
            assert (reason.kind == "rule") == (rank(item, *its) > place)
    assert any(one.kind == "rule" for one in told)


def test_what_was_drawn_was_tried_out(settings: Settings):
    model = MODEL_TYPES["item_knn"].create({}).fit(histories(), ITEMS)
    catalogue = snapshot_of(settings, model).catalogue
    rules = [rule("tet", "pin", position=3, products={"ids": ["p39"]})]
    now = datetime.fromtimestamp(NOW, UTC)
    steering = compile_steerings(catalogue, rules, {}, now).of(None)
    ranked = Ranked([1, 2], [2.0, 1.0], " e", (0.9, 0.1))
    kinds = [one.kind for one in steered(steering, ranked, [POPULAR, POPULAR], lambda _: [1, 2])]
    assert kinds == ["popular", "explore"]


def with_a_newcomer(settings: Settings, family: str, sold: Complements | None = None) -> Snapshot:
    """A shop with one product, in column `ITEMS`, that its model does not know."""
    small = {"factors": 4, "starts": 1} if family == "als" else {}
    model = MODEL_TYPES[family].create(small).fit(histories(), ITEMS)
    add_model(settings, "m1", model=model, complements=sold)
    loaded = load_snapshot(settings, settings.artifacts / family / "m1", "m1", 0)
    shown = {"product_id": [*loaded.catalogue.item_ids, "n1"]}
    shown |= {"product_name": [*loaded.catalogue.names, "Son mới"]}
    catalogue = build_catalogue(list(loaded.catalogue.item_ids), shown, "v2")
    near = np.array([[3, 4, 5]], dtype=np.int32)
    weights, none = np.array([[0.5, 0.3, 0.2]], dtype=np.float32), np.zeros(1, dtype=np.float32)
    newcomers = Newcomers(ITEMS, near, weights, lift=none, trend=none)
    placed = newcomers.place(loaded.popularity)
    return dataclasses.replace(
        loaded, catalogue=catalogue, newcomers=newcomers, placed_popularity=placed
    )


@pytest.mark.parametrize("family", ["item_knn", "als"])
def test_a_product_that_the_model_does_not_know_is_new_and_like_what_was_had(
    settings: Settings, family: str
):
    snapshot = with_a_newcomer(settings, family)
    newcomers, catalogue = snapshot.newcomers, snapshot.catalogue
    assert newcomers is not None
    history = history_of(snapshot, "0", (), [], NOW)
    wanted = Wanted(40, True, catalogue.available, NOTHING)
    assert ITEMS in recommend(snapshot, history, wanted, NOW).ranked.items
    only = Recommended(Ranked([ITEMS], [1.0]), None)
    [reason] = why_recommended(snapshot, history, only, NOW)
    assert (reason.kind, reason.sentence) == ("new", "new")
    assert reason.item in history.items
    before = newcomers.place(snapshot.artifact.model.score(history, NOW))[0, ITEMS]
    without = keep_entries(history, history.items != reason.item)
    assert newcomers.place(snapshot.artifact.model.score(without, NOW))[0, ITEMS] < before
    [beside] = why_similar(snapshot, 3, only)
    assert (beside.kind, beside.item) == ("new", 3)


@pytest.mark.parametrize("sold", [baskets(), None], ids=["together", "apart"])
@pytest.mark.parametrize("family", ["item_knn", "als"])
def test_of_a_product_that_nobody_bought_none_is_told_that_customers_chose_it(
    settings: Settings, family: str, sold: Complements | None
):
    snapshot = with_a_newcomer(settings, family, sold)
    wanted = Wanted(ITEMS + 1, False, snapshot.catalogue.available, NOTHING)
    beside = why_similar(snapshot, ITEMS, similar(snapshot, ITEMS, wanted))
    assert {(one.kind, one.item) for one in beside} <= {("text", ITEMS), ("popular", None)}
    assert ("text", ITEMS) in {(one.kind, one.item) for one in beside}
    for cart in ([ITEMS], [3], [ITEMS, 3]):
        columns = np.array(cart, dtype=np.int32)
        made = together(snapshot, columns, wanted)
        found = why_together(snapshot, columns, made)
        told = {one.kind for one in found}
        assert told & {"text", "history"}
        for item, reason in zip(made.ranked.items, found, strict=True):
            if reason.item is not None:
                kinds = {ITEMS: "new"} | ({} if reason.item < ITEMS else {item: "text"})
                assert reason.kind == kinds.get(item, "history")
