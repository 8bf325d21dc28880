"""Every list has an id and is recorded, whoever asks and whatever dies."""

import contextlib
import random
import subprocess
import threading
import time
import uuid
from typing import Self

import psutil
import pytest
import requests
from fastapi.testclient import TestClient

from recsys.content import ContentConfig
from recsys.content.job import embed_products
from recsys.served_lists import ServedList, id_text, seal_lists, sealed_lists
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.serving.service_process import running_service, start_service, wait_for
from tests.serving.shops import add_model, products
from tests.serving.test_parent import workers_of
from tests.test_served_lists import found

ROUTES = {
    "/recommend": {"user_id": 3},
    "/similar_items": {"product_id": "p3"},
    "/search": {"query": "dau goi"},
}


@pytest.fixture
def shop(settings: Settings) -> Settings:
    """One with a model and texts."""
    add_model(settings, "als_1")
    words = ContentConfig(text_fields=("product_name", "brand"))
    embed_products(settings, words, products(), "v1")
    return settings


def configure(settings: Settings, text: str) -> None:
    path = settings.home / "config" / "serving.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def asked(settings: Settings, *requests: tuple[str, dict]) -> tuple[list[dict], list[ServedList]]:
    """The answers of a service of its own, and what it has recorded."""
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        answers = [client.post(path, json=body) for path, body in requests]
    assert {answer.status_code for answer in answers} <= {200}, answers[-1].text
    lists, lost = found(settings)
    assert lost == 0
    return [answer.json() for answer in answers], lists


def assert_recorded(answer: dict, served: ServedList) -> None:
    assert id_text(served.id) == answer["recommendation_id"]
    assert served.products == tuple(one["product_id"] for one in answer["recommendations"])
    assert served.model_id == answer["model_id"]
    assert len(served.sources) == len(served.products)
    assert abs(served.time - time.time()) < 60
    assert uuid.UUID(answer["recommendation_id"]).version == 7


@pytest.mark.parametrize(
    ("path", "source"), [("/recommend", "m"), ("/similar_items", "m"), ("/search", "c")]
)
def test_every_route_gives_lists_an_id_and_records_them(shop: Settings, path: str, source: str):
    body = ROUTES[path] | {"user_id": 3, "placement": "home.top_1", "session_id": " s-1 "}
    [answer], [served] = asked(shop, (path, body))
    assert_recorded(answer, served)
    assert served.endpoint == path[1:]
    assert (served.user_id, served.session_id, served.placement) == ("3", "s-1", "home.top_1")
    assert (served.fallback_method, set(served.sources)) == (None, {source})
    assert (served.experiment, served.variant, served.propensities) == ("", "", None)


def test_each_list_of_a_batch_has_its_own_id(shop: Settings):
    body = {"user_ids": [1, "nobody", 2], "topk": 4, "placement": "mail"}
    [answer], lists = asked(shop, ("/batch_recommend", body))
    assert len({one["recommendation_id"] for one in answer["results"]}) == 3
    for one, served in zip(answer["results"], lists, strict=True):
        assert_recorded(one, served)
        assert (served.endpoint, served.placement) == ("batch_recommend", "mail")
        assert served.user_id == str(one["user_id"])
    assert [served.fallback_method for served in lists] == [None, "popularity", None]
    assert [served.sources for served in lists] == ["mmmm", "pppp", "mmmm"]


def test_who_is_nobody_in_particular_is_recorded_as_nobody(shop: Settings):
    bodies = [
        {"user_id": "guest", "session_id": "null"},
        {"user_id": "n***a", "session_id": 12.0},
        {"user_id": " 7.0 ", "session_id": "\x00"},
        {"user_id": "0443"},
        {"user_id": "guest", "session_id": "Khách lẻ"},
        {"user_id": 8, "session_id": 0},
    ]
    _, lists = asked(shop, *(("/recommend", body) for body in bodies))
    assert [one.user_id for one in lists] == [None, None, "7", "0443", None, "8"]
    assert [one.session_id for one in lists] == [None, "12", None, None, None, None]


def test_a_product_or_words_may_be_asked_for_by_nobody(shop: Settings):
    _, lists = asked(shop, *ROUTES.items())
    assert [one.user_id for one in lists] == ["3", None, None]


def test_a_list_without_products_is_recorded_as_well(shop: Settings):
    body = {"user_id": 3, "brands": ["nobody sells it"]}
    [answer], [served] = asked(shop, ("/recommend", body))
    assert answer["recommendations"] == []
    assert (served.products, served.sources) == ((), "")


def test_with_a_placement_lists_that_were_made_in_advance_still_serve(
    shop: Settings, monkeypatch: pytest.MonkeyPatch
):
    def computed(*_: object) -> None:
        raise AssertionError("the list was there")

    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        monkeypatch.setattr("serving.answering.recommend", computed)
        body = {"user_id": 3, "placement": "home", "session_id": "s-1"}
        assert client.post("/recommend", json=body).status_code == 200


@pytest.mark.parametrize("path", ROUTES)
def test_a_closed_list_of_placements_is_told(shop: Settings, path: str):
    configure(shop, "placements: [product, home]\n")
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        answer = client.post(path, json=ROUTES[path] | {"placement": "hom"})
        assert answer.status_code == 422
        said = "There is no placement hom: expected one of cart, demo, home, mail, product."
        assert answer.json()["detail"] == said
        assert answer.json()["errors"][0]["field"] == "body.placement"
        for placement in ("home", "demo", None):
            body = ROUTES[path] | {"placement": placement}
            assert client.post(path, json=body).status_code == 200
    lists, _ = found(shop)
    assert [one.placement for one in lists] == ["home", "demo", ""]


@pytest.mark.parametrize("placement", ["", "a b", "x" * 65, "đầu", 5, "home\n"])
@pytest.mark.parametrize("path", ROUTES)
def test_what_is_no_placement_is_refused(shared_client: TestClient, path: str, placement: object):
    body = ROUTES[path] | {"placement": placement}
    assert shared_client.post(path, json=body).status_code == 422


def test_the_side_of_the_customer_is_recorded(shop: Settings):
    configure(shop, "holdout_share: 0.5\n")
    users = [{"user_id": number} for number in range(20)]
    guests = [{"user_id": "guest", "session_id": f"s{number}"} for number in range(20)]
    batch = {"user_ids": list(range(20))}
    _, lists = asked(
        shop, *(("/recommend", one) for one in [*users, *guests]), ("/batch_recommend", batch)
    )
    sides = [(one.experiment, one.variant) for one in lists]
    assert set(sides) == {("", ""), ("holdout", "popularity")}
    assert sides[:20] == sides[40:]
    assert len(set(sides[20:40])) == 2
    held_out = [one for one in lists if one.experiment]
    assert {one.sources for one in held_out} == {"p" * 10}


def test_who_is_nobody_is_on_no_side(shop: Settings):
    configure(shop, "holdout_share: 0.5\n")
    _, lists = asked(shop, *[("/recommend", {"user_id": name}) for name in ("guest", "unknown", 0)])
    assert {one.experiment for one in lists} == {""}


def test_without_recording_lists_have_an_id(shop: Settings):
    configure(shop, "record_lists: false\n")
    [answer], lists = asked(shop, ("/recommend", {"user_id": 3}))
    assert uuid.UUID(answer["recommendation_id"]).version == 7
    assert lists == []
    assert not (shop.home / "data" / "served").exists()


def test_metrics_count_lists(shop: Settings):
    with TestClient(create_app(shop, ServiceEnvironment())) as client:
        for _ in range(3):
            client.post("/recommend", json={"user_id": 3})
        service = client.app.state.service
        assert service.served.log.flush()
        with service.served.log._writing:
            service.served.log._most = 0
            client.post("/recommend", json={"user_id": 3})
        figures = client.get("/metrics").text
    assert "recsys_lists_recorded_total 3.0" in figures
    assert "recsys_lists_dropped_total 1.0" in figures


class Customers:
    """They ask one after the other, and keep the ids of what they got."""

    def __init__(self, port: int, count: int) -> None:
        self.got: set[str] = set()
        self._port, self._stop = port, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, more: int) -> None:
        """Until so many more lists came."""
        before, until = len(self.got), time.monotonic() + 60
        while len(self.got) < before + more:
            assert time.monotonic() < until, "the service gives no lists"
            time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        session = requests.Session()
        url = f"http://127.0.0.1:{self._port}/recommend"
        while not self._stop.is_set():
            with contextlib.suppress(requests.RequestException):
                answer = session.post(url, json={"user_id": number}, timeout=5)
                self.got.add(answer.json()["recommendation_id"])


def recorded(settings: Settings) -> tuple[set[str], int]:
    lists, lost = found(settings)
    ids = {id_text(one.id) for one in lists}
    assert len(ids) == len(lists)
    return ids, lost


@pytest.mark.boots
def test_killed_under_load_it_loses_half_a_second_and_says_how_much(shop: Settings, free_port: int):
    """Two workers, killed five times; the parent starts them again."""
    customers_count, chance = 3, random.Random(2)
    with running_service(shop, free_port, workers=2, personal_lists_seconds=0) as output:
        killed: list[float] = []
        with Customers(free_port, customers_count) as customers:
            for _ in range(5):
                customers.wait_for(30)
                time.sleep(chance.uniform(0, 0.6))
                chance.choice(workers_of(free_port)).kill()
                killed.append(time.time())
            customers.wait_for(30)
    seal_lists(shop)
    ids, lost = recorded(shop)
    missing = customers.got - ids
    # What was made is recorded or lost; who was killed had at most one answer of each on its way.
    assert len(missing) <= lost <= len(missing) + 5 * customers_count, output.read_text()
    for one in missing:
        moment = (uuid.UUID(one).int >> 80) / 1000
        # A flush, and what a busy machine adds.
        assert any(0 <= at - moment < 3 for at in killed)
    assert lost > 0


@pytest.mark.boots
def test_the_whole_service_killed_leaves_what_the_next_one_seals(shop: Settings, free_port: int):
    process, _ = start_service(shop, free_port, workers=2)
    try:
        wait_for(free_port)
        with Customers(free_port, 2) as customers:
            customers.wait_for(60)
            parent = psutil.Process(process.pid)
            killed = [*parent.children(recursive=True), parent]
            for one in killed:
                one.kill()
            process.wait()
            # A worker that is still dying holds its segment.
            assert not psutil.wait_procs(killed, timeout=30)[1]
    finally:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            process.kill()
    assert list(sealed_lists(shop).glob("*")) == []
    seal_lists(shop)
    ids, lost = recorded(shop)
    missing = customers.got - ids
    assert len(missing) <= lost <= len(missing) + 2
    assert len(ids) + lost >= 60
