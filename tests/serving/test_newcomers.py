"""What the shop launched after the training stands in every list, beside what is like it."""

import json
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from recsys.content import ContentConfig
from recsys.content.job import embed_products
from recsys.data.shown import write_shown
from recsys.merchandising import snapshots
from recsys.merchandising.audience import audience
from recsys.merchandising.exporting import export_lists
from recsys.models.als import Als, AlsParameters
from recsys.publishing import sha256_of
from recsys.schema import SALES_FILE
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.serving.shops import (
    ITEMS,
    LIPSTICKS,
    SHAMPOOS,
    add_model,
    histories,
    product_id,
    products,
)
from tests.test_served_lists import found

LIPSTICK, SHAMPOO, GONE, SHADE = "n-lipstick", "n-shampoo", "n-gone", "n-shade"
NEW = {LIPSTICK, SHAMPOO, SHADE}
LIKE_LIPSTICKS = {product_id(item) for item in LIPSTICKS} | {LIPSTICK, SHADE}


def launched(unavailable: tuple[int, ...] = ()) -> pd.DataFrame:
    """The shop's catalogue with a lipstick, a shampoo, one that is not for sale, and a shade of
    lipstick 3."""
    rows = [
        (SHAMPOO, "Dầu gội mới", "Sạch", "Tóc", 30_000.0, "", "n1", True),
        (LIPSTICK, "Son môi mới", "Đẹp", "Trang điểm", 10_000.0, "", "n0", True),
        (GONE, "Son môi đã ngừng bán", "Đẹp", "Trang điểm", 10_000.0, "", "n2", False),
        (SHADE, "Son môi số 3 màu cam", "Đẹp", "Trang điểm", 3_000.0, "", "f3", True),
    ]
    shop = products(unavailable)
    return pd.concat([shop, pd.DataFrame(rows, columns=shop.columns)], ignore_index=True)


def publish(
    settings: Settings, version_id: str, shop: pd.DataFrame, sold: dict[str, float] | None = None
) -> None:
    """A data version of which only the manifest, the catalogue and what was `sold` matter here."""
    folder = settings.versions / version_id
    folder.mkdir(parents=True)
    write_shown(folder / "shown_products.jsonl", shop)
    files = {}
    if sold is not None:
        np.save(folder / SALES_FILE, shop["product_id"].map(sold).fillna(0).to_numpy())
        files[SALES_FILE] = {"sha256": sha256_of(folder / SALES_FILE)}
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, "files": files}))
    settings.processed.unlink(missing_ok=True)
    settings.processed.symlink_to(f"versions/{version_id}")


def embed(settings: Settings, shop: pd.DataFrame) -> None:
    embed_products(settings, ContentConfig(text_fields=("product_name", "brand")), shop, "v1")


def service(settings: Settings) -> TestClient:
    return TestClient(create_app(settings, ServiceEnvironment()))


def configure(settings: Settings, text: str) -> None:
    (settings.home / "config").mkdir(exist_ok=True)
    (settings.home / "config" / "serving.yaml").write_text(text)


def listed(client: TestClient, path: str, **body: object) -> list[str]:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return [row["product_id"] for row in answer.json()["recommendations"]]


@pytest.fixture(scope="module")
def model() -> Als:
    return Als(AlsParameters(factors=2, starts=1)).fit(histories(), ITEMS)


@pytest.fixture
def shop(settings: Settings, model: Als) -> Settings:
    """A model of yesterday's shop, and today's catalogue."""
    add_model(settings, "als_1", model=model)
    publish(settings, "v1", launched())
    return settings


@pytest.fixture(scope="module", params=["texts", "no texts yet"])
def client(
    model: Als, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """One service for all tests that leave it as it is."""
    settings = Settings(tmp_path_factory.mktemp("launch"))
    add_model(settings, "als_1", model=model)
    publish(settings, "v1", launched())
    if request.param == "texts":
        embed(settings, launched())
    with service(settings) as client:
        yield client


@pytest.mark.parametrize("lists", [0, 20])
@pytest.mark.parametrize("index", [False, True])
def test_a_launched_product_stands_in_lists_of_its_taste(
    shop: Settings, monkeypatch: pytest.MonkeyPatch, lists: int, index: bool
):
    configure(shop, f"personal_lists_seconds: {lists}\n")
    if index:
        monkeypatch.setattr(snapshots, "INDEX_MIN_ITEMS", ITEMS)
    with service(shop) as client:
        for user, new in ((0, LIPSTICK), (1, SHAMPOO)):
            # Half of the list is of the taste; six of it are known to the user.
            assert new in listed(client, "/recommend", user_id=user, topk=ITEMS // 2 - 6)
            everything = listed(client, "/recommend", user_id=user, topk=ITEMS + 4)
            assert GONE not in everything
            assert {LIPSTICK, SHAMPOO} <= set(everything)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/recommend", {"user_id": 0, "brands": ["dep"]}),
        ("/recommend", {"user_id": "stranger"}),
        ("/recommend", {"user_id": "visitor", "history": ["p1", "p2"]}),
        ("/similar_items", {"product_id": "p3"}),
        ("/similar_items", {"product_id": SHAMPOO, "categories": ["Trang điểm"]}),
    ],
)
def test_every_way_to_a_list_has_the_launched_product(client: TestClient, path: str, body: dict):
    everything = listed(client, path, topk=ITEMS + 4, **body)
    assert LIPSTICK in everything
    assert GONE not in everything


def test_a_batch_has_it_and_the_holdout_too(shop: Settings):
    configure(shop, "holdout_share: 0.5\n")
    with service(shop) as client:
        body = {"user_ids": list(range(30)), "topk": ITEMS + 4}
        answers = client.post("/batch_recommend", json=body).json()["results"]
        methods = {answer["fallback_method"] for answer in answers}
        assert methods == {None, "popularity"}
        for answer in answers:
            ids = {row["product_id"] for row in answer["recommendations"]}
            assert {LIPSTICK, SHAMPOO} <= ids
            assert GONE not in ids


@pytest.mark.parametrize("asked", [LIPSTICK, SHADE])
def test_products_like_a_launched_one_are_its_like(client: TestClient, asked: str):
    answer = client.post("/similar_items", json={"product_id": asked, "topk": 10}).json()
    assert answer["fallback"] is False
    found = {row["product_id"] for row in answer["recommendations"]}
    assert len(found) == 10
    assert found <= LIKE_LIPSTICKS - {asked}
    assert asked != SHADE or "p3" not in found, "another shade of the same"


def test_one_listing_of_a_family_stands_in_a_list(client: TestClient):
    for user in range(6):
        found = listed(client, "/recommend", user_id=user, topk=ITEMS + 4, exclude_seen=False)
        assert len({"p3", SHADE} & set(found)) == 1


def test_a_shade_takes_the_place_of_one_that_is_gone(settings: Settings, model: Als):
    add_model(settings, "als_1", model=model)
    with service(settings) as client:
        before = listed(client, "/recommend", user_id=2, topk=40)
        publish(settings, "v1", launched(unavailable=(3,)))
        assert client.app.state.service.engine.follow_catalogue() is True
        after = listed(client, "/recommend", user_id=2, topk=40)
        assert "p3" in before
        assert "p3" not in after
        assert abs(after.index(SHADE) - before.index("p3")) <= 1


def test_whoever_has_clicked_nothing_but_launched_products_gets_their_like(client: TestClient):
    body = {"user_id": "visitor", "history": [LIPSTICK], "topk": 10}
    answer = client.post("/recommend", json=body).json()
    assert answer["fallback"] is False
    found = [row["product_id"] for row in answer["recommendations"]]
    assert set(found) <= LIKE_LIPSTICKS - {LIPSTICK}
    event = {"event_id": "b", "user_id": "buyer", "product_id": SHAMPOO, "kind": "purchase"}
    sent = client.post("/interactions", json={"events": [event]})
    assert sent.status_code == 200, sent.text
    answer = client.post("/recommend", json={"user_id": "buyer", "topk": 10}).json()
    assert answer["fallback"] is False
    shampoos = {product_id(item) for item in SHAMPOOS}
    assert {row["product_id"] for row in answer["recommendations"]} <= shampoos


def test_a_launched_product_that_was_dismissed_is_hidden(client: TestClient):
    event = {"event_id": "e", "user_id": 4, "product_id": LIPSTICK}
    event["kind"] = "dismiss"
    assert client.post("/interactions", json={"events": [event]}).status_code == 200
    for exclude_seen in (True, False):
        body = {"user_id": 4, "topk": ITEMS + 4, "exclude_seen": exclude_seen}
        assert LIPSTICK not in listed(client, "/recommend", **body)
    assert LIPSTICK not in listed(client, "/similar_items", product_id="p1", user_id=4, topk=44)


def test_a_launched_product_is_found_by_its_words(settings: Settings, model: Als):
    add_model(settings, "als_1", model=model)
    publish(settings, "v1", launched())
    embed(settings, launched())
    with service(settings) as client:
        assert listed(client, "/search", query="son moi mau cam", topk=3)[0] == SHADE


def test_a_launch_is_followed_and_so_are_its_texts(settings: Settings, model: Als):
    add_model(settings, "als_1", model=model)
    embed(settings, products())
    with service(settings) as client:
        engine = client.app.state.service.engine
        assert not NEW & set(listed(client, "/recommend", user_id=0, topk=50))
        asked = client.post("/similar_items", json={"product_id": LIPSTICK})
        assert asked.status_code == 404
        publish(settings, "v1", launched())
        assert engine.follow_catalogue() is True
        assert LIPSTICK in listed(client, "/recommend", user_id=0, topk=50)
        assert LIPSTICK not in listed(client, "/search", query="son môi mới", topk=50)
        embed(settings, launched())
        assert engine.follow_catalogue() is True
        assert LIPSTICK in listed(client, "/search", query="son môi mới", topk=1)
        assert LIPSTICK in listed(client, "/recommend", user_id=0, topk=50)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/recommend", {"user_id": 0}),
        ("/recommend", {"user_id": "visitor", "history": [LIPSTICK]}),
        ("/similar_items", {"product_id": LIPSTICK}),
    ],
)
def test_a_launched_product_has_a_reason_and_may_be_one(client: TestClient, path: str, body: dict):
    answer = client.post(path, json={"topk": 30, "explain": True, **body}).json()
    assert all(row["reason"]["text"]["vi"] for row in answer["recommendations"])
    if body != {"user_id": 0}:
        assert LIPSTICK in {row["reason"].get("product_id") for row in answer["recommendations"]}


def test_a_list_says_which_products_the_model_did_not_know(shop: Settings):
    with service(shop) as client:
        client.post("/recommend", json={"user_id": 0, "topk": ITEMS})
    [recorded], _ = found(shop)
    letters = dict(zip(recorded.products, recorded.sources, strict=True))
    assert {item for item, letter in letters.items() if letter == "c"} == NEW & letters.keys()
    assert set(letters.values()) == {"m", "c"}


@pytest.mark.parametrize("lists", [0, 20])
@pytest.mark.parametrize("index", [False, True])
def test_a_launched_product_that_sells_rises_in_every_list(
    settings: Settings, model: Als, monkeypatch: pytest.MonkeyPatch, lists: int, index: bool
):
    """Shampoos sell; the launched one sells as well as the best of them, then."""
    if index:
        monkeypatch.setattr(snapshots, "INDEX_MIN_ITEMS", ITEMS)
    add_model(settings, "als_1", model=model)
    configure(settings, f"personal_lists_seconds: {lists}\n")
    sold = {product_id(item): 20.0 for item in SHAMPOOS}
    publish(settings, "v1", launched(), sold)
    with service(settings) as client:

        def places(user: object) -> int:
            return listed(client, "/recommend", user_id=user, topk=ITEMS + 4).index(SHAMPOO)

        users = [*range(4), "stranger"]
        before = [places(user) for user in users]
        publish(settings, "v2", launched(), {**sold, SHAMPOO: 25.0})
        assert client.app.state.service.engine.follow_catalogue() is True
        after = [places(user) for user in users]
        assert all(now <= then for now, then in zip(after, before, strict=True))
        assert max(after[1], after[3]) == 0, "the first of those whose taste it is"
        assert after[0] < before[0]
        answer = client.post("/recommend", json={"user_id": 0, "topk": 40, "explain": True}).json()
        kinds = {row["product_id"]: row["reason"]["kind"] for row in answer["recommendations"]}
        assert kinds[SHAMPOO] == "trend"
        assert kinds[LIPSTICK] == "new"


def test_a_shop_without_launched_products_serves_as_if_there_were_no_such_thing(
    settings: Settings, model: Als
):
    add_model(settings, "als_1")
    asked = [("/recommend", {"user_id": user, "topk": ITEMS}) for user in (0, 1, "stranger")]
    asked.append(("/similar_items", {"product_id": "p3", "topk": ITEMS}))

    def rows(client: TestClient) -> list[list[dict]]:
        return [client.post(path, json=body).json()["recommendations"] for path, body in asked]

    with service(settings) as client:
        own = rows(client)
        assert client.app.state.service.engine.snapshot.newcomers is None
        publish(settings, "v1", launched())
        client.app.state.service.engine.follow_catalogue()
        placed = rows(client)
    for before, after in zip(own, placed, strict=True):
        kept = [(row["product_id"], row["score"]) for row in after if row["product_id"] not in NEW]
        scores = [row["score"] for row in before]
        assert np.isin([score for _, score in kept], scores).all(), "what is known keeps its score"


def test_files_and_every_route_of_a_running_service_have_a_launched_product(
    settings: Settings, model: Als
):
    """Launched while the service runs, which takes it over by itself."""
    add_model(settings, "als_1", model=model)
    configure(settings, "catalogue_check_seconds: 0.3\n")
    publish(settings, "v1", products())
    embed(settings, products())
    with service(settings) as client:
        assert LIPSTICK not in listed(client, "/recommend", user_id=0, topk=ITEMS)
        publish(settings, "v2", launched())
        embed_products(
            settings, ContentConfig(text_fields=("product_name", "brand")), launched(), "v2"
        )
        until = time.monotonic() + 30
        while LIPSTICK not in listed(client, "/search", query="son môi mới", topk=5):
            assert time.monotonic() < until
            time.sleep(0.1)
        for path, asked in (
            ("/recommend", {"user_id": 0, "topk": ITEMS // 2 - 6}),
            ("/similar_items", {"product_id": "p3", "topk": ITEMS // 2}),
            ("/bought_together", {"product_ids": ["p5"], "topk": ITEMS // 2}),
        ):
            found = listed(client, path, **asked)
            assert LIPSTICK in found, path
            assert GONE not in found
        export_lists(settings, "mail", settings.home / "lists.parquet", length=ITEMS // 2 - 6)
        rows = pq.read_table(settings.home / "lists.parquet").to_pylist()
        [of_user] = [row["product_ids"] for row in rows if row["user_id"] == "0"]
        assert of_user == listed(client, "/recommend", user_id=0, topk=ITEMS // 2 - 6)
        assert LIPSTICK in of_user
    suited = audience(settings, LIPSTICK, 5, int(time.time()))["customers"]
    # Every other customer is of the taste of lipsticks.
    assert [int(one["user_id"]) % 2 for one in suited] == [0] * 5
