"""What the shop asks for holds on every route, for everybody, and is recorded."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from recsys.content import ContentConfig
from recsys.content.job import embed_products
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from serving.rules import RULES_SECONDS
from tests.serving.shops import LIPSTICKS, add_model, product_id, products
from tests.serving.test_newcomers import publish
from tests.test_served_lists import found

ASKED: dict[str, dict[str, Any]] = {
    "/recommend": {"user_id": 3},
    "/batch_recommend": {"user_ids": [3]},
    "/similar_items": {"product_id": "p3"},
    "/bought_together": {"product_ids": ["p3"]},
    "/search": {"query": "son moi"},
}


@pytest.fixture
def shop(settings: Settings) -> Settings:
    add_model(settings, "als_1")
    embed_products(settings, ContentConfig(text_fields=("product_name", "brand")), products(), "v1")
    return settings


def write(settings: Settings, name: str, text: str) -> None:
    path = settings.home / "config" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def rule(name: str, action: str, meant: dict[str, Any], **own: Any) -> dict[str, Any]:
    return {"name": name, "action": action, "products": meant, "author": "lan", "reason": "x"} | own


def steer(settings: Settings, *rules: dict[str, Any]) -> None:
    write(settings, "rules.yaml", json.dumps({"rules": rules}))


def shown(client: TestClient, path: str, **asked: Any) -> list[str]:
    answer = client.post(path, json=ASKED[path] | asked)
    assert answer.status_code == 200, answer.text
    one = answer.json()["results"][0] if path == "/batch_recommend" else answer.json()
    return [row["product_id"] for row in one["recommendations"]]


@pytest.mark.parametrize("config", ["", "holdout_share: 0.5\n", "personal_lists_seconds: 0\n"])
def test_what_a_rule_hides_stands_in_no_list(shop: Settings, config: str):
    write(shop, "serving.yaml", config)
    steer(shop, rule("no-lips", "hide", {"categories": ["trang diem"]}))
    lipsticks = {product_id(item) for item in LIPSTICKS}
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        for path in ASKED:
            for who in range(12):
                asked = {"user_ids": [who]} if path == "/batch_recommend" else {"user_id": who}
                for more in ({}, {"placement": "home"}, {"categories": ["trang diem"]}):
                    listed = shown(client, path, topk=40, **asked, **more)
                    assert not lipsticks & set(listed)
                    assert bool(listed) != ("categories" in more)


@pytest.mark.parametrize("path", ASKED)
def test_rules_and_spread_of_a_placement_hold_there_alone(shop: Settings, path: str):
    steer(
        shop,
        rule("first", "pin", {"ids": ["p30"]}, position=2, placements=["home"]),
        rule("few", "limit", {"max_price": 12_000}, at_most=1, placements=["home"]),
        rule("some", "quota", {"brands": ["sach"]}, at_least=4, placements=["home"]),
    )
    write(shop, "placements.yaml", "placements: {mail: {spread: {brand: 2}}}\n")
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        before, home = shown(client, path), shown(client, path, placement="home")
        mail = shown(client, path, placement="mail")
    numbers = [int(name[1:]) for name in home]
    assert home[1] == "p30"
    assert len(home) == 10
    assert sum(0 < number <= 12 for number in numbers) <= 1
    assert sum(number not in LIPSTICKS for number in numbers) >= 4
    assert before != home
    assert len(mail) == 4  # two of each of the two brands: no more are left
    assert sum(int(name[1:]) in LIPSTICKS for name in mail) == 2


def test_a_list_says_what_a_rule_put_there(shop: Settings):
    steer(shop, rule("first", "pin", {"ids": ["p30", "p31"]}, position=1, placements=["home"]))
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        shown(client, "/recommend", placement="home", topk=4, exclude_seen=False)
        shown(client, "/recommend", topk=4)
        shown(client, "/search", placement="home", topk=3)
    lists, _ = found(shop)
    assert sorted(one.sources for one in lists) == ["mmmm", "rrc", "rrmm"]


def test_a_score_stays_the_models_own(shop: Settings):
    steer(shop, rule("up", "boost", {"ids": ["p30"]}, strength=10, placements=["home"]))
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        asked = {"user_id": 0, "topk": 40, "exclude_seen": False}
        plain, home = (
            client.post("/recommend", json=asked | more).json()["recommendations"]
            for more in ({}, {"placement": "home"})
        )
    assert home[0]["product_id"] == "p30"
    assert plain[0]["product_id"] != "p30"
    scores = {row["product_id"]: row["score"] for row in plain}
    assert {row["product_id"]: row["score"] for row in home} == pytest.approx(scores)


def test_rules_are_taken_over_and_begin_and_end_while_the_service_runs(shop: Settings):
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        first, *_ = shown(client, "/recommend")
        until = datetime.now(UTC) + timedelta(seconds=2 * RULES_SECONDS + 1)
        steer(shop, rule("gone", "hide", {"ids": [first]}, end=until.isoformat()))
        limit = time.monotonic() + 25
        while first in shown(client, "/recommend") and time.monotonic() < limit:
            time.sleep(0.1)
        assert datetime.now(UTC) < until
        while first not in shown(client, "/recommend") and time.monotonic() < limit:
            time.sleep(0.1)
        assert time.monotonic() < limit
        assert datetime.now(UTC) >= until


def test_rules_follow_a_newer_catalogue(shop: Settings):
    """A product of another brand is another product to them."""
    steer(shop, rule("no-sach", "hide", {"brands": ["sach"]}))
    write(shop, "serving.yaml", "catalogue_check_seconds: 0.2\n")
    publish(shop, "v1", products())
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        assert not {"p30", "p31"} & set(shown(client, "/recommend", topk=40))
        renamed = products()
        renamed.loc[renamed["product_id"] == "p30", "brand"] = "Mới"
        publish(shop, "v2", renamed)
        limit = time.monotonic() + 20
        while "p30" not in shown(client, "/recommend", topk=40) and time.monotonic() < limit:
            time.sleep(0.1)
        listed = shown(client, "/recommend", topk=40, exclude_seen=False)
        assert "p30" in listed
        assert "p31" not in listed


def test_a_list_is_the_same_when_it_is_asked_for_again_until_something_new_is_known(shop: Settings):
    steer(shop, rule("first", "pin", {"ids": ["p30"]}, position=2))
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        bodies = [ASKED["/recommend"] | {"topk": topk} for topk in (5, 40)]
        answers = [[client.post("/recommend", json=body).json() for body in bodies] for _ in "123"]
        listed = [[one["recommendations"] for one in asked] for asked in answers]
        assert listed[0] == listed[1] == listed[2]
        assert len({one["recommendation_id"] for asked in answers for one in asked}) == 6
        before = shown(client, "/recommend", topk=5)
        gone = {"event_id": "e", "user_id": 3, "kind": "dismiss", "product_id": before[0]}
        assert client.post("/interactions", json=gone).json()["accepted"] == 1
        after = shown(client, "/recommend", topk=5)
        assert before[0] not in after
        assert after[1] == "p30"
    assert {one.sources for one in found(shop)[0] if len(one.products) == 5} == {"mrmmm"}
