"""A service that explores: where it does, what it records, and that it follows what was shown."""

from collections import Counter

import pytest
from fastapi.testclient import TestClient

from recsys.merchandising.exploring import IMPRESSIONS_KEY, Impressions, write_impressions
from recsys.served_lists import ServedList
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from serving.service import Service
from tests.serving.shops import ITEMS, add_model, product_id, products
from tests.serving.test_steering import rule, shown, steer, write
from tests.test_served_lists import found

NEW = {product_id(item) for item in (5, 6, 25, 26)}
"""What few have seen; 26 is sold out."""


def tell(settings: Settings, new: set[str] = NEW) -> None:
    many = {product_id(item): (900, 20) for item in range(ITEMS)}
    write_impressions(settings, Impressions("2026-03-10", many | dict.fromkeys(new, (20, 1))))


@pytest.fixture
def shop(settings: Settings) -> Settings:
    add_model(settings, "als_1", shop_products=products(unavailable=(26,)))
    write(settings, "placements.yaml", "placements: {home: {explore: 0.5}}\n")
    tell(settings)
    return settings


def recorded(settings: Settings) -> list[ServedList]:
    return found(settings)[0]


def drawn(lists: list[ServedList]) -> Counter[str]:
    return Counter(
        product
        for one in lists
        for product, source in zip(one.products, one.sources, strict=True)
        if source == "e"
    )


def test_half_of_the_places_are_explored_and_their_chances_recorded(shop: Settings):
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        for number in range(100):
            assert len(shown(client, "/recommend", user_id=number % 10, placement="home")) == 10
    lists = recorded(shop)
    counts = drawn(lists)
    # There are three of them, and each stands in a list once at most.
    assert counts.keys() == NEW - {"p26"}
    assert 120 < counts.total() <= 300
    for one in lists:
        assert one.propensities is not None
        assert len(one.propensities) == len(one.products) == len(set(one.products))
        first = one.propensities[0]
        assert first <= 0.5 if one.sources[0] == "e" else first >= 0.5


def test_nothing_is_explored_where_nobody_asked_for_it(shop: Settings):
    write(shop, "serving.yaml", "holdout_share: 0.5\n")
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        for number in range(20):
            shown(client, "/recommend", user_id=number)
            shown(client, "/recommend", user_id=number, placement="mail")
            shown(client, "/recommend", user_id=number, placement="home", min_price=1)
            shown(client, "/recommend", user_id=number, placement="home", brands=["sach"])
            shown(client, "/similar_items", placement="product")
        service: Service = client.app.state.service  # type: ignore[attr-defined]
        held = [user for user in map(str, range(40)) if service.engine.answering(user)[1]]
        for user in held:
            shown(client, "/recommend", user_id=user, placement="home")
    lists = recorded(shop)
    assert held
    assert not drawn(lists)
    assert not any(one.propensities for one in lists)


def test_batches_and_other_routes_of_the_placement_explore(shop: Settings):
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        asked = {"user_ids": [*range(30)], "placement": "home"}
        assert client.post("/batch_recommend", json=asked).status_code == 200
        for item in range(10, 20):
            shown(client, "/similar_items", product_id=product_id(item), placement="home")
    by_endpoint = Counter(one.endpoint for one in recorded(shop) if "e" in one.sources)
    assert set(by_endpoint) == {"batch_recommend", "similar_items"}


def test_what_is_hidden_is_not_explored_and_a_pin_stays(shop: Settings):
    steer(
        shop,
        rule("gone", "hide", {"ids": ["p5"]}),
        rule("first", "pin", {"ids": ["p30"]}, position=1),
    )
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        for number in range(40):
            listed = shown(client, "/recommend", user_id=f"new-{number}", placement="home")
            assert listed[0] == "p30"
    lists = recorded(shop)
    assert drawn(lists).keys() == {"p6", "p25"}
    assert {one.propensities[0] for one in lists if one.propensities} == {1.0}


def test_what_was_shown_is_followed_and_a_damaged_file_changes_nothing(shop: Settings):
    (shop.home / IMPRESSIONS_KEY).unlink()
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        service: Service = client.app.state.service  # type: ignore[attr-defined]

        def explored() -> set[str]:
            service.impressions.look()
            service.engine.follow_rules()
            snapshot = service.engine.snapshot
            assert snapshot is not None
            if snapshot.explorable is None:
                return set()
            ids = snapshot.catalogue.item_ids
            return {ids[item] for item in snapshot.explorable.items.tolist()}

        # Until somebody has counted, not everything is taken for unseen.
        assert explored() == set()
        tell(shop)
        assert explored() == NEW - {"p26"}
        tell(shop, {"p1"})
        assert explored() == {"p1"}
        (shop.home / IMPRESSIONS_KEY).write_text("[]")
        assert explored() == {"p1"}
        tell(shop, set())
        assert explored() == set()
        assert len(shown(client, "/recommend", placement="home")) == 10
