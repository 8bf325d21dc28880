"""`explain: true`: each product says why it stands in the list."""

import json
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from recsys.content import ContentConfig
from recsys.content.job import embed_products
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from serving.schemas import (
    BatchResponse,
    RecommendResponse,
    SearchResponse,
    SimilarResponse,
    TogetherResponse,
)
from tests.serving.conftest import TOKEN
from tests.serving.shops import add_model, histories, product_id, products

ROUTES = {
    "/recommend": ({"user_id": 2, "topk": 5}, RecommendResponse),
    "/batch_recommend": ({"user_ids": [2, "nobody"], "topk": 5}, BatchResponse),
    "/similar_items": ({"product_id": "p3", "topk": 5}, SimilarResponse),
    "/bought_together": ({"product_ids": ["p3", "p5"], "topk": 5}, TogetherResponse),
    "/search": ({"query": "dau goi", "topk": 5}, SearchResponse),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(tmp_path_factory.mktemp("explained"))
    add_model(settings, "als_1")
    embed_products(settings, ContentConfig(text_fields=("product_name", "brand")), products(), "v1")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        yield client


def asked(client: TestClient, path: str, **more: object) -> dict:
    answer = client.post(path, json=ROUTES[path][0] | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def lists(answer: dict) -> list[list[dict]]:
    return [one["recommendations"] for one in answer.get("results", [answer])]


@pytest.mark.parametrize("path", ROUTES)
def test_only_who_asks_is_told_and_gets_the_same_list(shop: TestClient, path: str):
    plain, explained = asked(shop, path), asked(shop, path, explain=True)
    ROUTES[path][1].model_validate(explained, strict=True)
    assert '"reason"' not in json.dumps(plain)
    assert asked(shop, path, explain=False).keys() == plain.keys()
    for without, told in zip(lists(plain), lists(explained), strict=True):
        for one, other in zip(without, told, strict=True):
            reason = other.pop("reason")
            assert other == one
            assert reason["text"]["vi"] != reason["text"]["en"]
            assert (reason["product_id"] is None) == (reason["product_name"] is None)
            if reason["product_name"]:
                assert all(reason["product_name"] in text for text in reason["text"].values())


def test_a_known_customer_is_told_which_of_their_products_counted(shop: TestClient):
    had = {product_id(item) for item in histories().items[12:18]}
    [told] = lists(asked(shop, "/recommend", explain=True))
    assert {one["reason"]["kind"] for one in told} == {"history"}
    assert {one["reason"]["product_id"] for one in told} <= had


def test_a_stranger_and_a_searcher_are_told_the_truth(shop: TestClient):
    [known, stranger] = lists(asked(shop, "/batch_recommend", explain=True))
    assert {one["reason"]["kind"] for one in known} == {"history"}
    assert {one["reason"]["kind"] for one in stranger} == {"popular"}
    [found] = lists(asked(shop, "/search", explain=True))
    assert {(one["reason"]["kind"], one["reason"]["product_id"]) for one in found} == {
        ("text", None)
    }


def test_what_a_visitor_is_said_to_like_is_no_purchase(shop: TestClient):
    body = {"user_id": "visitor", "history": ["p1", "p2"], "explain": True}
    [told] = lists(shop.post("/recommend", json=body).json())
    assert {one["reason"]["text"]["en"] for one in told} <= {
        f"Because you are interested in “Son môi số {item}”" for item in (1, 2)
    }


def test_an_interaction_of_a_minute_ago_can_be_the_reason(client: TestClient):
    event = {"event_id": "e1", "user_id": "new", "product_id": "p25", "kind": "purchase"}
    assert client.post("/interactions", json=event).json()["accepted"] == 1
    body = {"user_id": "new", "topk": 3, "explain": True}
    [told] = lists(client.post("/recommend", json=body).json())
    assert {one["reason"]["text"]["vi"] for one in told} == {"Vì bạn đã mua “Dầu gội số 25”"}


def test_explain_is_yes_or_no(shop: TestClient):
    answer = shop.post("/recommend", json={"user_id": 1, "explain": "yes"})
    assert answer.status_code == 422
    assert "explain" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "request_", "previewed"),
    [
        ("/recommend", {"user_id": "2"}, {"user_id": "2"}),
        ("/recommend", {"user_id": "nobody"}, {}),
        ("/batch_recommend", {"user_ids": ["2"]}, {"user_id": "2"}),
        ("/similar_items", {"product_id": "p3"}, {"product_id": "p3"}),
        ("/bought_together", {"product_ids": ["p3"]}, {"product_id": "p3", "placement": "cart"}),
    ],
)
def test_a_rule_is_the_reason_of_what_it_brought_in_as_the_preview_says(
    settings: Settings, admin: dict, path: str, request_: dict, previewed: dict
):
    """Of all places that one boost fills, not only of those above better scores."""
    add_model(settings, "als_1")
    half = {"ids": [product_id(item) for item in range(0, 40, 2)]}
    boost = {"name": "even", "action": "boost", "strength": 1, "products": half}
    rules = {"rules": [boost | {"author": "lan", "reason": "a campaign"}]}
    (settings.home / "config").mkdir()
    (settings.home / "config" / "rules.yaml").write_text(json.dumps(rules))
    with TestClient(create_app(settings, ServiceEnvironment(admin_token=TOKEN))) as client:
        answer = client.post(path, json=request_ | {"topk": 7, "explain": True}).json()
        found = client.post("/rules/preview", json=previewed | {"topk": 7}, headers=admin).json()
    [told] = lists(answer)
    by_rule = [one["product_id"] for one in told if one["reason"]["rule"] == "even"]
    effects = {one["product_id"]: one["what"] for one in found["effects"]}
    assert [one["product_id"] for one in told] == [one["product_id"] for one in found["after"]]
    assert by_rule
    assert set(by_rule) == {one for one, what in effects.items() if what in ("brought_in", "up")}
    brought = list(effects.values()).count("brought_in")
    said = f"rule even: it brings in {brought} of 7 products: mean fewer, or less"
    assert found["warnings"] == ([said] if brought > 3 else [])
