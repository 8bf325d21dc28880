"""What completes a cart, over HTTP: lipstick n (0 to 19) is bought with shampoo 20 + n."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys.experiments.definitions import Assignment, Side
from recsys.models.complements import Complements, learn_complements
from recsys.models.histories import histories_from_codes
from recsys.models.item_knn import ItemKnn
from recsys.request_log import recent_users
from recsys.served_lists import id_text
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from serving.schemas import TogetherResponse
from tests.serving.shops import ITEMS, LIPSTICKS, add_model, histories, product_id, products
from tests.serving.test_newcomers import GONE, SHADE, SHAMPOO, launched, publish
from tests.test_served_lists import found

EVENT = {"event_id": "e", "user_id": 2, "kind": "dismiss"}


def baskets(lines: int = 20) -> Complements:
    """Each lipstick with its shampoo, twenty times; and often with the one after that. With fewer
    `lines` the others are in no basket."""
    often = [(n, 20 + n) for n in range(lines)] * 20
    pairs = np.array(often + [(n, 20 + (n + 1) % lines) for n in range(lines)] * 9)
    users = np.repeat(np.arange(len(pairs)), 2)
    times = np.full(len(users), 1_700_000_000)
    bought = histories_from_codes(users, pairs.ravel(), times, count=len(pairs))
    categories = 1 + (np.arange(ITEMS) // 20).astype(np.int32)
    return learn_complements(bought, np.arange(ITEMS, dtype=np.int32), categories, None)


def add_shop(settings: Settings, **more: Any) -> None:
    add_model(settings, "item_knn_1", model=ItemKnn().fit(histories(), ITEMS), **more)


@pytest.fixture(scope="module")
def cart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(tmp_path_factory.mktemp("cart"))
    add_shop(settings, complements=baskets())
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        yield client


def ask(client: TestClient, *product_ids: object, **more: object) -> dict:
    answer = client.post("/bought_together", json={"product_ids": list(product_ids), **more})
    assert answer.status_code == 200, answer.text
    TogetherResponse.model_validate(answer.json(), strict=True)
    return answer.json()


def ids(answer: dict) -> list[str]:
    return [row["product_id"] for row in answer["recommendations"]]


def test_a_cart_gets_what_completes_it(cart: TestClient):
    answer = ask(cart, "p3", topk=2)
    assert ids(answer) == ["p23", "p24"]
    assert (answer["product_ids"], answer["unknown"]) == (["p3"], [])
    assert (answer["fallback"], answer["fallback_method"]) == (False, None)
    assert answer["count"] == 2
    assert [row["rank"] for row in answer["recommendations"]] == [1, 2]
    both = ask(cart, "p3", "p7", topk=4)
    assert set(ids(both)) == {"p23", "p24", "p27", "p28"}


def test_what_is_missing_is_filled_up_with_what_is_popular(cart: TestClient):
    answer = ask(cart, "p3", topk=39)
    assert answer["count"] == 39
    assert answer["fallback"] is False
    assert "p3" not in ids(answer)
    scores = [row["score"] for row in answer["recommendations"]]
    assert scores == sorted(scores, reverse=True)


def test_products_that_nobody_knows_are_ignored_and_named(cart: TestClient):
    answer = ask(cart, "nothing", "p3", "p3", 77, topk=1)
    assert ids(answer) == ["p23"]
    assert (answer["product_ids"], answer["unknown"]) == (["p3"], ["nothing", "77"])


def test_a_cart_of_nothing_known_gets_what_is_popular(cart: TestClient):
    answer = ask(cart, "nothing", topk=5)
    assert answer["count"] == 5
    assert (answer["fallback"], answer["fallback_method"]) == (True, "popularity")
    assert (answer["product_ids"], answer["unknown"]) == ([], ["nothing"])
    stranger = cart.post("/recommend", json={"user_id": "nobody", "topk": 5}).json()
    assert ids(answer) == ids(stranger)


def test_the_placement_says_how_many(cart: TestClient):
    assert ask(cart, "p3", placement="cart")["count"] == 5
    assert ask(cart, "p3")["count"] == 10


@pytest.mark.parametrize("product_ids", [[], "p3", None, [None], ["p3"] * 101, [True]])
def test_a_cart_that_is_none_is_refused(cart: TestClient, product_ids: object):
    answer = cart.post("/bought_together", json={"product_ids": product_ids})
    assert answer.status_code == 422


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.data())
def test_filters_and_exclusions_hold_and_the_list_is_filled_up(cart: TestClient, data):
    item = st.integers(0, ITEMS - 1)
    inside = data.draw(st.lists(item, min_size=1, max_size=4, unique=True))
    left_out = data.draw(st.lists(item, max_size=6))
    asked: dict = {"topk": data.draw(st.integers(1, ITEMS))}
    may = set(range(ITEMS)) - set(inside) - set(left_out)
    if data.draw(st.booleans()):
        asked["brands"] = ["dep"]
        may &= set(LIPSTICKS)
    if data.draw(st.booleans()):
        asked["min_price"], asked["max_price"] = 5000, 30000
        may &= set(range(5, 31))
    exclude = [product_id(item) for item in left_out]
    answer = ask(cart, *map(product_id, inside), exclude=exclude, **asked)
    assert set(ids(answer)) <= {product_id(item) for item in may}
    assert answer["count"] == min(asked["topk"], len(may))
    # What completes the cart stands before what only fills the list up.
    completing = {20 + step for one in inside if one < 20 for step in (one, (one + 1) % 20)}
    completing |= {step % 20 for one in inside if one >= 20 for step in (one, one - 1)}
    if completing & may:
        assert answer["fallback"] is False
        assert ids(answer)[0] in {product_id(item) for item in completing}


def test_other_sizes_of_the_cart_and_what_is_sold_out_are_left_out(settings: Settings):
    families = {3: "one", 23: "one"}
    shop = products(unavailable=(24,), families=families)
    add_shop(settings, complements=baskets(), shop_products=shop)
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        found = ids(ask(client, "p3", topk=40))
        assert not {"p3", "p23", "p24"} & set(found)
        assert len(found) == 37


def test_what_whoever_sees_the_list_has_dismissed_is_left_out(settings: Settings):
    add_shop(settings, complements=baskets())
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        client.post("/interactions", json=EVENT | {"product_id": "p23"}).raise_for_status()
        assert ids(ask(client, "p3", topk=1, user_id=2)) == ["p24"]
        assert ids(ask(client, "p3", topk=1, user_id=4)) == ["p23"]
        guest = EVENT | {"event_id": "f", "user_id": None, "session_id": "s", "product_id": "p24"}
        client.post("/interactions", json=guest).raise_for_status()
        assert "p24" not in ids(ask(client, "p3", topk=5, session_id="s"))


@pytest.mark.parametrize("learned", [None, "nothing"])
def test_without_anything_learned_it_is_what_is_like_the_cart(settings: Settings, learned):
    nobody = histories_from_codes(*np.zeros((2, 1), np.int32), np.zeros(1, np.int64), count=1)
    alone = np.arange(ITEMS, dtype=np.int32)
    nothing = learned and learn_complements(nobody, alone, alone * 0, None)
    add_shop(settings, complements=nothing)
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        answer = ask(client, "p3", "p5", topk=5)
        assert (answer["fallback"], answer["fallback_method"]) == (True, "similar")
        assert set(ids(answer)) <= {product_id(item) for item in LIPSTICKS} - {"p3", "p5"}


def test_it_is_recorded_logged_and_counted(settings: Settings):
    add_shop(settings, complements=baskets(lines=10))
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        answer = ask(client, "p3", topk=3, user_id=2, session_id="s-1", placement="cart")
        nothing = ask(client, "never", topk=3)
        whole = ask(client, "p3", topk=39)
        assert client.post("/bought_together", json={"product_ids": []}).status_code == 422
        metrics = client.get("/metrics").text
        client.app.state.service.requests.flush()
        assert client.get("/stats").json()["endpoints"]["bought_together"] == 4
        assert client.get("/stats").json()["fallback_methods"] == {"popularity": 1}
    assert 'recsys_requests_total{endpoint="/bought_together",status="2xx"} 3' in metrics
    assert 'recsys_requests_total{endpoint="/bought_together",status="4xx"} 1' in metrics
    assert recent_users(settings.service_db, 10) == []
    (served, popular, filled), lost = found(settings)
    assert lost == 0
    assert id_text(served.id) == answer["recommendation_id"]
    assert list(served.products) == ids(answer)
    assert (served.endpoint, served.placement, served.sources) == ("bought_together", "cart", "mmm")
    assert (served.user_id, served.session_id) == ("2", "s-1")
    # What is in no basket only fills the list up.
    assert list(filled.products) == ids(whole)
    in_baskets = {product_id(item) for item in range(ITEMS) if item % 20 < 10}
    assert filled.sources == "".join("m" if one in in_baskets else "p" for one in ids(whole))
    assert filled.sources == 19 * "m" + 20 * "p"
    assert list(popular.products) == ids(nothing)
    assert (popular.fallback_method, popular.sources) == ("popularity", "ppp")


def test_who_is_held_out_gets_what_is_popular(settings: Settings):
    add_shop(settings, complements=baskets())
    (settings.home / "config").mkdir()
    (settings.home / "config" / "serving.yaml").write_text("holdout_share: 0.3\n")
    sides = Assignment((), 0.3)
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        methods = {}
        for user in range(30):
            answer = ask(client, "p3", user_id=user)
            methods[user] = answer["fallback_method"]
            assert "p3" not in ids(answer)
    held = {
        user for user in methods if sides.assign(str(user), "") == Side("holdout", "popularity")
    }
    assert held
    assert {user for user, method in methods.items() if method == "popularity"} == held


def test_a_launched_product_is_completed_and_completes_as_its_like_do(settings: Settings):
    """A shade of lipstick 3 and a shampoo that the model does not know."""
    add_shop(settings, complements=baskets())
    publish(settings, "v1", launched())
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        answer = ask(client, SHADE, topk=2)
        assert ids(answer)[0] == "p23"
        assert (answer["product_ids"], answer["fallback"]) == ([SHADE], False)
        assert "p3" not in ids(ask(client, SHADE, topk=40))
        found = ids(ask(client, "p9", "p10", topk=40))
        assert GONE not in found
        lipsticks = [found.index(product_id(item)) for item in LIPSTICKS if item not in (9, 10)]
        assert found.index(SHAMPOO) < min(lipsticks)


def test_what_the_shop_asks_of_carts_holds(settings: Settings):
    add_shop(settings, complements=baskets())
    (settings.home / "config").mkdir(exist_ok=True)
    text = "placements: {cart: {spread: {brand: 3}}}\n"
    (settings.home / "config" / "placements.yaml").write_text(text)
    said = {"placements": ["cart"], "author": "lan", "reason": "x"}
    rules = [
        {"name": "no", "action": "hide", "products": {"ids": ["p23"]}, **said},
        {"name": "second", "action": "pin", "products": {"ids": ["p9"]}, "position": 2, **said},
    ]
    (settings.home / "config" / "rules.yaml").write_text(json.dumps({"rules": rules}))
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        steered = ids(ask(client, "p3", placement="cart", topk=6))
        plain = ids(ask(client, "p3", topk=6))
        unknown = ids(ask(client, "never", placement="cart", topk=6))
    assert steered[:2] == ["p24", "p9"]
    assert sum(int(one[1:]) >= 20 for one in steered) == 3
    assert "p23" not in [*steered, *unknown]
    assert unknown[1] == "p9"
    assert plain[:2] == ["p23", "p24"]


def test_each_product_says_which_of_the_cart_it_completes(cart: TestClient):
    answer = ask(cart, "p3", "p7", topk=39, explain=True)
    plain = ask(cart, "p3", "p7", topk=39)
    told = {row["product_id"]: row.pop("reason") for row in answer["recommendations"]}
    assert answer["recommendations"] == plain["recommendations"]
    named = {"p23": "p3", "p24": "p3", "p27": "p7", "p28": "p7"}
    for product, beside in named.items():
        assert (told[product]["kind"], told[product]["product_id"]) == ("history", beside)
        assert "bought together" in told[product]["text"]["en"]
    nothing = ask(cart, "never", topk=3, explain=True)
    assert {row["reason"]["kind"] for row in nothing["recommendations"]} == {"popular"}


def test_what_is_only_like_the_cart_says_so(settings: Settings):
    add_shop(settings)
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        answer = ask(client, "p3", "p25", topk=30, explain=True)
    assert answer["fallback_method"] == "similar"
    for row in answer["recommendations"]:
        if row["score"] > 0:
            own = "p3" if row["brand"] == "Đẹp" else "p25"
            assert row["reason"]["product_id"] == own
            assert "bought together" not in row["reason"]["text"]["en"]


def test_what_sells_completes_no_cart_by_that(settings: Settings):
    add_shop(settings, complements=baskets())
    publish(settings, "v1", launched(), {})
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        before = ask(client, "p1", topk=5)["recommendations"]
        publish(settings, "v2", launched(), {SHAMPOO: 25.0})
        assert client.app.state.service.engine.follow_catalogue() is True
        assert ask(client, "p1", topk=5)["recommendations"] == before
