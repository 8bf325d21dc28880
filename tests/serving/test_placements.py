import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.config import ConfigError
from recsys.merchandising.customers import placement_of
from recsys.merchandising.placements import read_standing_placements
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from serving.rules import FollowedPlacements, PlacementsWatch
from tests.serving.shops import add_model, histories, product_id

PLACEMENTS = """
placements:
  home: {length: 7}
  new-in: {length: 300, exclude_seen: false}
"""


def configure(settings: Settings, name: str, text: str) -> Path:
    path = settings.home / "config" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(tmp_path_factory.mktemp("placements"))
    configure(settings, "placements.yaml", PLACEMENTS)
    configure(settings, "serving.yaml", "max_topk: 25\n")
    add_model(settings, "als_1")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        yield client


def lengths(client: TestClient, **asked: object) -> list[int]:
    """Of one user's list, the same in a batch, and of products like another."""
    batch = client.post("/batch_recommend", json={"user_ids": [0], **asked}).json()["results"]
    answers = [
        client.post("/recommend", json={"user_id": 0, **asked}).json(),
        *batch,
        client.post("/similar_items", json={"product_id": "p1", **asked}).json(),
    ]
    return [answer["count"] for answer in answers]


def test_a_placement_says_how_long_a_list_is_where_the_request_does_not(client: TestClient):
    assert lengths(client) == [10] * 3
    assert lengths(client, placement="home") == [7] * 3
    assert lengths(client, placement="home", topk=4) == [4] * 3
    assert lengths(client, placement="mail") == [6] * 3
    assert lengths(client, placement="a-page-of-its-own") == [10] * 3


def test_a_list_is_never_longer_than_one_may_ask_for(client: TestClient):
    assert lengths(client, placement="new-in") == [25] * 3


@pytest.mark.parametrize("path", ["/recommend", "/batch_recommend"])
def test_a_placement_says_whether_what_one_had_may_return(client: TestClient, path: str):
    had = {product_id(item) for item in histories().items[:6]}

    def shown(**asked: object) -> set[str]:
        who: dict = {"user_id": 0} if path == "/recommend" else {"user_ids": [0]}
        answer = client.post(path, json=who | {"topk": 20, **asked}).json()
        one = answer if path == "/recommend" else answer["results"][0]
        return {row["product_id"] for row in one["recommendations"]}

    assert had & shown(placement="new-in")
    assert not had & shown(placement="new-in", exclude_seen=True)
    assert not had & shown(placement="home")


def test_a_bad_file_keeps_the_service_from_starting(settings: Settings):
    path = configure(settings, "placements.yaml", "placements: {home: {lenght: 3}}\n")
    with pytest.raises(ConfigError, match=f"{path}: placements.home.lenght: there is no such key"):
        create_app(settings, ServiceEnvironment())


def test_placements_join_a_closed_list(settings: Settings):
    configure(settings, "serving.yaml", "placements: [checkout]\n")
    add_model(settings, "als_1")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        for placement, status in (("checkout", 200), ("home", 200), ("elsewhere", 422)):
            body = {"user_id": 0, "placement": placement}
            assert client.post("/recommend", json=body).status_code == status


def test_the_service_follows_the_file(settings: Settings):
    configure(settings, "serving.yaml", "placements: [checkout]\n")
    configure(settings, "placements.yaml", "placements: {home: {length: 4}}\n")
    add_model(settings, "als_1")

    def length(client: TestClient, placement: str) -> int | None:
        body = {"user_id": 0, "placement": placement}
        return client.post("/recommend", json=body).json().get("count")

    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        assert (length(client, "home"), length(client, "new-in")) == (4, None)
        text = "placements: {home: {length: 5, spread: {brand: 1}}, new-in: {length: 2}}\n"
        configure(settings, "placements.yaml", text)
        until = time.monotonic() + 30
        while length(client, "home") != 2 and time.monotonic() < until:
            time.sleep(0.2)
        # Of either brand one, and a name that no request could give before.
        assert (length(client, "home"), length(client, "new-in")) == (2, 2)
        assert placement_of(settings, "new-in").length == 2


@pytest.mark.parametrize(
    "bad", ["placements: {home: {lenght: 3}}\n", "", "# nothing\n", "placements:\n", "{"]
)
def test_a_bad_file_keeps_the_last_good_placements_over_a_restart(settings: Settings, bad: str):
    good = "placements: {home: {length: 3}}\n"
    path = configure(settings, "placements.yaml", good)
    followed = FollowedPlacements(settings)
    PlacementsWatch(settings, followed).look()
    configure(settings, "placements.yaml", bad)
    assert [followed.look(), followed.look()] == [False, False]
    again = FollowedPlacements(settings)
    for one in (followed, again):
        assert one.current.placements["home"].length == 3
        assert str(one.problem).startswith(f"{path}: ")
        PlacementsWatch(settings, one).look()
    assert placement_of(settings, "home").length == 3
    log = settings.logs / "service" / "alerts.log"
    assert log.read_text("utf-8").count("placements_refused triggered") == 1
    configure(settings, "placements.yaml", "placements: {}\n")
    assert [again.look(), again.look()] == [False, True]
    PlacementsWatch(settings, again).look()
    assert log.read_text("utf-8").count("placements_refused resolved") == 1
    assert again.current.placements["home"].length == 10


def test_on_a_full_disk_placements_are_followed_and_the_note_comes_later(
    settings: Settings, caplog: pytest.LogCaptureFixture
):
    configure(settings, "placements.yaml", "placements: {home: {length: 3}}\n")
    settings.artifacts.parent.mkdir(parents=True)
    settings.artifacts.write_text("no place for a folder")
    followed = FollowedPlacements(settings)
    watch = PlacementsWatch(settings, followed)
    for _ in range(3):
        watch.look()
    assert caplog.text.count("The placements in service cannot be written down") == 1
    settings.artifacts.unlink()
    watch.look()
    assert read_standing_placements(settings).config == followed.current
