import time
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from serving.schemas import RecommendResponse
from tests.serving.shops import LIPSTICKS, add_model, histories, product_id, products


def ids(answer: dict) -> list[str]:
    return [row["product_id"] for row in answer["recommendations"]]


def test_a_known_user_gets_products_of_their_taste(shared_client: TestClient):
    answer = shared_client.post("/recommend", json={"user_id": 0, "topk": 5}).json()
    RecommendResponse.model_validate(answer, strict=True)
    lipsticks = {product_id(item) for item in LIPSTICKS}
    seen = {product_id(item) for item in histories().items[:6]}
    assert set(ids(answer)) <= lipsticks - seen
    assert answer["count"] == 5
    assert answer["fallback"] is False
    assert answer["fallback_method"] is None
    assert answer["model_id"] == "als_1"
    assert [row["rank"] for row in answer["recommendations"]] == [1, 2, 3, 4, 5]
    assert answer["user_id"] == 0


def test_ids_may_be_numbers_or_text(shared_client: TestClient):
    by_number = shared_client.post("/recommend", json={"user_id": 3}).json()
    by_text = shared_client.post("/recommend", json={"user_id": "3"}).json()
    assert ids(by_number) == ids(by_text)


def test_an_unknown_user_gets_what_is_popular_marked_as_fallback(shared_client: TestClient):
    answer = shared_client.post("/recommend", json={"user_id": "nobody", "topk": 7})
    assert answer.status_code == 200
    assert answer.json()["count"] == 7
    assert answer.json()["fallback"] is True
    assert answer.json()["fallback_method"] == "popularity"


def test_a_visitor_with_a_history_gets_their_taste_from_the_model(shared_client: TestClient):
    body = {"user_id": "visitor", "history": ["p1", "p2", "p3"], "topk": 5}
    answer = shared_client.post("/recommend", json=body).json()
    assert answer["fallback"] is False
    assert set(ids(answer)) <= {product_id(item) for item in LIPSTICKS} - {"p1", "p2", "p3"}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"brands": ["dep"]}, lambda row: row["brand"] == "Đẹp"),
        ({"brands": ["SẠCH"]}, lambda row: row["brand"] == "Sạch"),
        ({"categories": ["toc"]}, lambda row: row["brand"] == "Sạch"),
        ({"min_price": 5000, "max_price": 9000}, lambda row: 5000 <= row["price"] <= 9000),
        ({"exclude": ["p30", "p31"]}, lambda row: row["product_id"] not in ("p30", "p31")),
    ],
)
@pytest.mark.parametrize("user_id", [0, "nobody"])
def test_filters_hold_and_the_list_is_filled_up(
    shared_client: TestClient, user_id: object, filters: dict, expected
):
    answer = shared_client.post(
        "/recommend", json={"user_id": user_id, "topk": 5, **filters}
    ).json()
    rows = answer["recommendations"]
    assert all(expected(row) for row in rows)
    # Of five products in the price range the user may have had some.
    assert len(rows) == 5 or "min_price" in filters


def test_hidden_products_and_second_listings_never_appear(settings: Settings):
    families = dict.fromkeys(range(0, 20, 2), "one-family")
    shop = products(unavailable=tuple(range(1, 20, 4)), families=families)
    add_model(settings, "als_1", shop_products=shop)
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        for user in ["0", "1", "nobody"]:
            found = ids(client.post("/recommend", json={"user_id": user, "topk": 40}).json())
            numbers = [int(item[1:]) for item in found]
            assert not set(numbers) & set(range(1, 20, 4))
            assert sum(number in families for number in numbers) <= 1


@pytest.mark.parametrize("seconds_for_lists", [0, 20])
@pytest.mark.parametrize("body", [{"user_id": 0}, {"user_id": "nobody", "history": ["p3"]}])
def test_other_listings_of_what_a_user_had_are_left_out(
    settings: Settings, seconds_for_lists: float, body: dict
):
    had = [int(item) for item in histories().items[:6]] if body["user_id"] == 0 else [3]
    others = [item for item in LIPSTICKS if item not in had][:3]
    families = dict.fromkeys([had[0], *others], "bought")
    add_model(settings, "als_1", shop_products=products(families=families))
    (settings.home / "config").mkdir(exist_ok=True)
    (settings.home / "config" / "serving.yaml").write_text(
        f"personal_lists_seconds: {seconds_for_lists}\n"
    )
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        found = ids(client.post("/recommend", json={**body, "topk": 40}).json())
        repeated = ids(
            client.post("/recommend", json={**body, "topk": 40, "exclude_seen": False}).json()
        )
    family = {product_id(item) for item in families}
    assert not set(found) & family
    assert len(set(repeated) & family) == 1


def test_without_exclude_seen_what_a_user_had_may_appear(shared_client: TestClient):
    body = {"user_id": 0, "topk": 40, "exclude_seen": False}
    assert shared_client.post("/recommend", json=body).json()["count"] == 40


@pytest.mark.parametrize(
    "body",
    [
        {"user": 1},
        {"user_id": ""},
        {"user_id": True},
        {"user_id": 1.5},
        {"user_id": 2**70},
        {"user_id": "x" * 200},
        {"user_id": ["1"]},
        {"user_id": 1, "topk": 0},
        {"user_id": 1, "topk": 101},
        {"user_id": 1, "topk": "many"},
        {"user_id": 1, "tokp": 5},
        {"user_id": 1, "exclude": "p1"},
        {"user_id": 1, "min_price": -1},
        [],
        "text",
    ],
)
def test_a_bad_request_gets_a_problem_document_with_a_sentence(
    shared_client: TestClient, body: object
):
    answer = shared_client.post("/recommend", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 422
    assert len(answer.json()["detail"]) > 10


LISTS = {
    "/recommend": {"user_id": 1},
    "/batch_recommend": {"user_ids": [1]},
    "/similar_items": {"product_id": "p1"},
    "/bought_together": {"product_ids": ["p1"]},
    "/search": {"query": "son"},
}


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("topk", [101, 1001, 10**100])
def test_a_list_too_long_is_refused_in_one_sentence(
    shared_client: TestClient, path: str, topk: int
):
    answer = shared_client.post(path, json=LISTS[path] | {"topk": topk})
    said = "At most 100 products can be asked for (topk)"
    assert answer.status_code == 422
    assert answer.json()["detail"] == f"{said}."
    assert answer.json()["errors"] == [{"field": "body.topk", "message": said}]
    requests = shared_client.app.state.service.requests
    requests.flush()
    assert requests.problem is None


@pytest.mark.parametrize("depth", [300, 100_000])
def test_json_that_is_nested_too_deeply_is_called_so(shared_client: TestClient, depth: int):
    content = b'{"user_id": 1, "exclude": ' + b"[" * depth + b"]" * depth + b"}"
    headers = {"Content-Type": "application/json"}
    answer = shared_client.post("/recommend", content=content, headers=headers)
    assert answer.status_code in (400, 422)
    assert "UTF-8" not in answer.json()["detail"]
    assert depth == 300 or "nested too deeply" in answer.json()["detail"]


@pytest.mark.parametrize(
    "content",
    [
        b'{"user_id": 7}',
        b'{"user_id": "7", "topk": 3, "exclude": [1, "p2"]}',
        b'{"user_id": 7, "user_id": 8}',
        b'{"user_id": 7, "min_price": 1e3}',
        b'{"user_id": 7.0}',
        b'{"user_id": true}',
        b'{"user_id": 99999999999999999999}',
        b'{"user_id": 7, "topk": "5"}',
        b'{"user_id": 7, "exclude_seen": 1}',
        b'{"user_id": 7, "min_price": NaN}',
        b'{"user_id": 7, "min_price": "5"}',
        b'{"user_id": 7, "max_price": Infinity}',
        b'{"user_id": 7, "brand": "A"}',
        b'{"user_id": "\\ud800"}',
        b'{"user_id": 7,}',
        b'\xef\xbb\xbf{"user_id": 7}',
        b"[7]",
        b"null",
        b"",
    ],
)
def test_the_short_way_answers_like_the_usual_one(shared_client: TestClient, content: bytes):
    answers = []
    # A content type with a parameter is as good, but not taken for the short way.
    for content_type in ("application/json", "application/json; charset=utf-8"):
        answer = shared_client.post(
            "/recommend", content=content, headers={"Content-Type": content_type}
        )
        shown = answer.json()
        for own in ("latency_ms", "recommendation_id"):
            shown.pop(own, None)
        answers.append((answer.status_code, shown))
    assert answers[0] == answers[1]


def test_a_caller_who_hangs_up_within_the_body_has_asked_for_nothing(shared_client: TestClient):
    parts = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b'{"user_id": 7}', "more_body": True},
    ]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/recommend",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"20")],
    }
    statuses = []

    async def receive() -> dict[str, Any]:
        return parts.pop() if len(parts) > 1 else parts[0]

    async def send(message: dict[str, Any]) -> None:
        statuses.append(message.get("status"))

    assert shared_client.portal is not None
    shared_client.portal.call(shared_client.app, scope, receive, send)
    assert statuses[0] == 400


def test_a_body_in_pieces_is_answered_like_one_in_one_piece(shared_client: TestClient):
    headers = {"Content-Type": "application/json"}
    for pieces in ([b'{"user_id": 7}'], [b'{"user_', b'id": 7}'], [b'{"user_id"', b": 7}", b"  "]):
        answer = shared_client.post("/recommend", content=iter(pieces), headers=headers)
        assert len(ids(answer.json())) == 10


def test_a_body_that_is_not_said_to_be_json_is_refused(shared_client: TestClient):
    for headers in ({}, {"Content-Type": "text/plain"}):
        answer = shared_client.post("/recommend", content=b'{"user_id": 7}', headers=headers)
        assert answer.status_code == 422


@pytest.mark.parametrize("user", ["2", "new"])
def test_who_has_had_everything_gets_what_may_be_bought_again(client: TestClient, user: str):
    """A robot, a test account, or a customer for whom somebody sent everything."""
    events = [
        {"event_id": f"e{item}", "user_id": user, "product_id": product_id(item), "rating": 5}
        for item in range(40)
    ]
    assert client.post("/interactions", json={"events": events}).json()["accepted"] == 40
    answer = client.post("/recommend", json={"user_id": user, "topk": 5, "exclude": ["p1"]}).json()
    assert len(ids(answer)) == 5
    assert "p1" not in ids(answer)
    assert (answer["fallback"], answer["fallback_method"]) == (True, "again")
    [batch] = client.post("/batch_recommend", json={"user_ids": [user]}).json()["results"]
    assert batch["fallback_method"] == "again"
    nothing = client.post("/recommend", json={"user_id": user, "brands": ["No such"]}).json()
    assert ids(nothing) == []


def test_a_filter_that_nothing_passes_is_no_buying_again(client: TestClient):
    answer = client.post("/recommend", json={"user_id": 0, "brands": ["no such brand"]}).json()
    assert answer["recommendations"] == []
    assert answer["fallback_method"] != "again"


def test_one_user_with_very_many_interactions_keeps_nobody_waiting(client: TestClient):
    live = client.app.state.service.live
    for start in range(0, 300_000, 100_000):
        now = datetime.now(UTC)
        live.add(
            {
                "event_id": f"e{number}",
                "user_id": "robot",
                "product_id": f"p{number % 40}",
                "rating": 5.0,
                "timestamp": now,
            }
            for number in range(start, start + 100_000)
        )
    assert len(live.of("robot")) == 500
    assert live.of("robot")[-1].product_id == "p39"
    started = time.perf_counter()
    answer = client.post("/recommend", json={"user_id": "robot"})
    assert answer.status_code == 200
    # Reading them all took a second.
    assert time.perf_counter() - started < 0.3


@pytest.mark.parametrize("guest", [{"session_id": "v-9"}, {"history": ["p1"]}, {"user_id": None}])
def test_a_guest_needs_no_user(shared_client: TestClient, guest: dict):
    answer = shared_client.post("/recommend", json={**guest, "placement": "home"})
    assert answer.status_code == 200
    assert answer.json()["user_id"] is None
    assert answer.json()["recommendations"]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/recommend", {"user_id": 1}),
        ("/batch_recommend", {"user_ids": [1]}),
        ("/similar_items", {"product_id": "p1"}),
        ("/bought_together", {"product_ids": ["p1"]}),
        ("/search", {"query": "son"}),
    ],
)
def test_a_lowest_price_above_the_highest_is_a_mistake_and_no_empty_list(
    shared_client: TestClient, path: str, asked: dict[str, Any]
):
    prices = {"min_price": 9000, "max_price": 5000}
    answer = shared_client.post(path, json=asked | prices)
    assert answer.status_code == 422
    assert answer.json()["detail"] == "min_price 9000 is above max_price 5000."
    assert answer.json()["errors"][0]["field"] == "body.min_price"
    assert shared_client.post(path, json=asked | {"min_price": 5, "max_price": 5}).status_code < 504
