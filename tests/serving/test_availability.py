"""What is not sold stands in no answer: sold out, gone, or not on sale yet, on every path."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
import requests
from fastapi.testclient import TestClient

from recsys.merchandising import snapshots
from recsys.models.artifacts import ArtifactFolder, write_without
from recsys.refresh.job import run_refresh
from recsys.registry import Registry
from recsys.schedule import DataInterval
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment, ServingConfig
from serving.engine import Engine
from tests.data.test_availability import describe
from tests.serving.service_process import running_service
from tests.serving.shops import ITEMS, add_model, product_id, products
from tests.serving.test_newcomers import configure, embed, listed, publish, service

PRODUCT = "p3"
WITH_INDEX = pytest.mark.parametrize("index", [False, True], ids=["lists", "index"])


def paths(client: TestClient) -> dict[str, list[str]]:
    """All products that each way to a list gives, to one who has had none of the lipsticks."""
    everything = {"topk": ITEMS + 1}
    batch = client.post("/batch_recommend", json={"user_ids": [1, "stranger"], **everything}).json()
    asked = {
        "known user": ("/recommend", {"user_id": 1}),
        "with a filter": ("/recommend", {"user_id": 1, "brands": ["Đẹp"]}),
        "stranger": ("/recommend", {"user_id": "stranger"}),
        "visitor": ("/recommend", {"user_id": "visitor", "history": ["p1", "p2"]}),
        "similar": ("/similar_items", {"product_id": "p1"}),
        "search": ("/search", {"query": "son môi số 3"}),
        "bought together": ("/bought_together", {"product_ids": ["p1"]}),
    }
    found = {
        name: listed(client, path, **body, **everything) for name, (path, body) in asked.items()
    }
    for number, answer in enumerate(batch["results"]):
        found[f"batch {number}"] = [row["product_id"] for row in answer["recommendations"]]
    return found


def launches_at(moment: float | None) -> pd.DataFrame:
    """The shop's catalogue, of which one product is sold from `moment` on."""
    shop = products()
    when = pd.Series([pd.NaT] * ITEMS, dtype="datetime64[us, UTC]")
    if moment is not None:
        when[3] = pd.Timestamp(moment, unit="s", tz="UTC").as_unit("us")
    return shop.assign(available_from=when)


@WITH_INDEX
def test_a_product_is_nowhere_before_its_launch_and_everywhere_from_then_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, index: bool
):
    if index:
        monkeypatch.setattr(snapshots, "INDEX_MIN_ITEMS", ITEMS)
    add_model(settings, "als_1")
    configure(settings, "catalogue_check_seconds: 0.1\n")
    publish(settings, "v1", launches_at(time.time() + 3600))
    embed(settings, products())
    with service(settings) as client:
        assert [name for name, found in paths(client).items() if PRODUCT in found] == []
        launch = time.time() + 1.5
        publish(settings, "v2", launches_at(launch))
        while time.time() < launch:
            assert PRODUCT not in listed(client, "/recommend", user_id=1, topk=ITEMS)
        while PRODUCT not in listed(client, "/recommend", user_id=1, topk=ITEMS):
            assert time.time() < launch + 20, "it is not launched"
        assert [name for name, found in paths(client).items() if PRODUCT not in found] == []


def test_the_own_catalogue_of_a_model_knows_launches_as_well(settings: Settings):
    add_model(settings, "als_1", shop_products=launches_at(time.time() + 3600))
    with service(settings) as client:
        assert PRODUCT not in listed(client, "/recommend", user_id=1, topk=ITEMS)


def write_export(settings: Settings, missing: str = "", sold_out: str = "") -> None:
    """The shop's product export, and reviews that are older."""
    words = [a + b + a * 3 for a in "bcdghklm" for b in "aeiou"]  # names alone would be one family
    rows = [
        f"{product_id(item)},Son {words[item]},Đẹp,{0 if product_id(item) == sold_out else 5}"
        for item in range(ITEMS)
        if product_id(item) != missing
    ]
    (settings.raw / "products.csv").write_text("\n".join(["ma,ten,hang,ton_kho", *rows]) + "\n")
    reviews = [f"u{item},{product_id(item)},5,2025-01-02 10:00:00" for item in range(5)]
    folder = settings.raw / "viecomrec"
    folder.mkdir(exist_ok=True)
    (folder / "data_reviews_purchase.csv").write_text(
        "\n".join(["user_id,product_id,rating,cmt_date", *reviews]) + "\n"
    )


def refresh(settings: Settings) -> str:
    end = datetime(2025, 3, 1, tzinfo=UTC)
    return str(run_refresh(settings, DataInterval(end - timedelta(days=1), end))["version_id"])


def test_what_sells_out_or_goes_leaves_every_list_and_returns_with_the_next_refresh(
    settings: Settings,
):
    settings.raw.mkdir(parents=True)
    describe(settings, ("stock",))
    write_export(settings)
    refresh(settings)
    embed(settings, products())
    add_model(settings, "als_1")
    app = create_app(settings, ServiceEnvironment())
    with TestClient(app) as client:
        assert [name for name, found in paths(client).items() if PRODUCT not in found] == []
        for change in ({"sold_out": PRODUCT}, {"missing": PRODUCT}):
            write_export(settings, **change)
            refresh(settings)
            assert app.state.service.engine.follow_catalogue()
            assert [name for name, found in paths(client).items() if PRODUCT in found] == []
            assert PRODUCT not in listed(client, "/similar_items", product_id="p2", topk=ITEMS)
            write_export(settings)
            refresh(settings)
            assert app.state.service.engine.follow_catalogue()
            assert [name for name, found in paths(client).items() if PRODUCT not in found] == []


def test_no_worker_serves_again_what_it_knew_to_be_sold_out(settings: Settings, free_port: int):
    """The small form of `benchmarks.loop.launch`."""
    add_model(settings, "als_1")
    publish(settings, "v1", products())
    until = time.monotonic() + 60

    def ask(number: int) -> list[bool]:
        """Whether the product was in each answer of one worker: a connection stays with it."""
        found = []
        with requests.Session() as session:
            while found.count(False) < 100 and time.monotonic() < until:
                turn = len(found)
                path, body = (
                    ("recommend", {"user_id": 2 * (number + turn) + 1, "brands": ["Đẹp"]}),
                    ("similar_items", {"product_id": "p1"}),
                )[turn % 2]
                answer = session.post(
                    f"http://127.0.0.1:{free_port}/{path}", json={**body, "topk": ITEMS}, timeout=20
                )
                found.append(f'"{PRODUCT}"' in answer.text)
                time.sleep(0.005)
        return found

    with (
        running_service(settings, free_port, workers=2, catalogue_check_seconds=0.3),
        ThreadPoolExecutor(6) as pool,
    ):
        asked = [pool.submit(ask, number) for number in range(6)]
        time.sleep(0.5)
        publish(settings, "v2", products(unavailable=(3,)))
        for one in asked:
            found = one.result()
            assert found[0], "it was there before"
            assert found == [True] * found.count(True) + [False] * 100


def test_what_is_sold_out_does_not_come_back_with_a_model_that_was_prepared_before(
    settings: Settings,
):
    add_model(settings, "als_1")
    add_model(settings, "als_2", seed=1, select=False)
    publish(settings, "v1", products())
    engine = Engine(settings, ServingConfig(personal_lists_seconds=1))
    engine.prepare("als_1")
    engine.commit("als_1")
    engine.prepare("als_2")
    publish(settings, "v2", products(unavailable=(3,)))
    assert engine.follow_catalogue()
    engine.commit("als_2")
    assert engine.snapshot is not None
    assert engine.snapshot.catalogue.source == "v2"
    assert not engine.snapshot.catalogue.available[3]


def test_a_model_that_was_written_anew_is_taken_over_with_whom_it_knows(settings: Settings):
    """Somebody's history was taken out; the service goes on with the same model."""
    add_model(settings, "als_1")
    publish(settings, "v1", products())
    engine = Engine(settings, ServingConfig(personal_lists_seconds=1))
    engine.prepare("als_1")
    engine.commit("als_1")
    before = engine.snapshot
    assert before is not None
    assert not engine.follow_catalogue()
    registry = Registry(settings)
    entry = registry.get("als_1")
    place = registry.next_place(entry)
    with ArtifactFolder(registry.folder(entry)) as artifact:
        assert write_without(artifact, ["1"], place) == 1
    registry.move("als_1", place)
    assert engine.follow_catalogue()
    after = engine.snapshot
    assert after is not None
    assert (after.model_id, after.artifact.path) == ("als_1", place)
    assert after.catalogue is before.catalogue
    assert before.position("1") is not None
    assert after.position("1") is None
    assert after.position("2") is not None
    assert not engine.follow_catalogue()
