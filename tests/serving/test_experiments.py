"""Several models in one service: everybody stays on the own side, in every worker and always."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
import requests
from fastapi.testclient import TestClient

from recsys.content import ContentConfig
from recsys.content.job import embed_products
from recsys.experiments.definitions import Assignment, Definition, Side
from recsys.experiments.state import Experiments
from recsys.settings import Settings
from serving import engine as engine_module
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.serving.conftest import TOKEN
from tests.serving.service_process import running_service
from tests.serving.shops import USERS, add_model, products
from tests.serving.test_operations import publish
from tests.serving.test_parent import ADMIN, workers_of
from tests.test_served_lists import found

# "0" stands for many people, who are no unit.
USER_IDS = [str(user) for user in range(1, USERS)] + [f"stranger-{user}" for user in range(60)]


def definition(name: str = "blend", **changes) -> Definition:
    content = {
        "name": name,
        "question": "Is it better?",
        "variants": [
            {"name": "today", "share": 0.5},
            {"name": "new", "share": 0.5, "model_id": "als_2"},
        ],
        "primary_metric": "clicks_per_list",
    }
    return Definition.model_validate(content | changes)


@contextlib.contextmanager
def service(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, ServiceEnvironment(admin_token=TOKEN))) as client:
        yield client


@pytest.fixture
def models(settings: Settings) -> Experiments:
    add_model(settings, "als_1")
    add_model(settings, "als_2", seed=1, select=False)
    return Experiments(settings)


def follow(client: TestClient) -> None:
    """What the service does by itself every few seconds."""
    client.portal.call(client.app.state.service.coordinator.follow)


def served(client: TestClient, users: list[str] = USER_IDS, **asked) -> dict[str, str]:
    """Model by user."""
    return {
        user: client.post("/recommend", json={"user_id": user, **asked}).json()["model_id"]
        for user in users
    }


def expected(experiments: Experiments) -> dict[str, str]:
    """What `assign` says, which is all that decides."""
    sides = Assignment(experiments.running())
    new = Side("blend", "new")
    return {user: "als_2" if sides.assign(user) == new else "als_1" for user in USER_IDS}


def test_each_side_gets_its_model_everywhere(models, settings):
    models.start(definition(), by="lan")
    wanted = expected(models)
    assert set(wanted.values()) == {"als_1", "als_2"}
    with service(settings) as client:
        assert served(client) == wanted
        assert served(client, brands=["Đẹp"]) == wanted
        batch = client.post("/batch_recommend", json={"user_ids": USER_IDS[:100]}).json()
        assert {one["user_id"]: one["model_id"] for one in batch["results"]} == {
            user: wanted[user] for user in USER_IDS[:100]
        }
        # However the id is spelled.
        assert served(client, [" 17 "]) == {" 17 ": wanted["17"]}
    with service(settings) as client:
        assert served(client) == wanted


def test_the_service_follows_the_state(models, settings):
    with service(settings) as client:
        assert set(served(client).values()) == {"als_1"}
        models.start(definition(), by="lan")
        until = time.monotonic() + 20
        while served(client) != expected(models) and time.monotonic() < until:
            time.sleep(0.2)
        assert served(client) == expected(models)
        models.stop("blend", by="lan", because="done")
        follow(client)
        assert set(served(client).values()) == {"als_1"}


def test_nobody_changes_sides_when_another_model_is_deployed(models, settings, admin):
    add_model(settings, "als_3", seed=2, select=False)
    models.start(definition(), by="lan")
    before = expected(models)
    with service(settings) as client:
        for deployed in ("als_3", "als_2", "als_1"):
            answer = client.post("/reload_model", json={"model_id": deployed}, headers=admin)
            assert answer.status_code == 200, answer.text
            now = served(client)
            assert {user for user, model in before.items() if model == "als_2"} <= {
                user for user, model in now.items() if model == "als_2"
            }
            assert {now[user] for user, model in before.items() if model == "als_1"} == {deployed}


def test_a_damaged_model_falls_back_to_the_control_and_is_told(models, settings):
    models.start(definition(), by="lan")
    [array] = (settings.artifacts / "als" / "als_2" / "model").glob("item*.npy")
    sound = array.read_bytes()
    array.write_bytes(sound[:-1])
    with service(settings) as client:
        assert set(served(client).values()) == {"als_1"}
        engine = client.app.state.service.engine
        assert "als_2" in engine.in_trial.broken
        # Each stays where it was: only the model is another one.
        assert engine.answering("1")[1] is not None
        until, alerts = time.monotonic() + 20, settings.logs / "service" / "alerts.log"
        while not alerts.exists() and time.monotonic() < until:
            time.sleep(0.2)
        assert "experiment_model_failing" in alerts.read_text()
        array.write_bytes(sound)
        follow(client)
        assert served(client) == expected(models)


def test_a_damaged_state_leaves_everybody_where_they_are(models, settings):
    models.start(definition(), by="lan")
    wanted, artifacts = expected(models), settings.home / "artifacts"
    with service(settings) as client:
        for name in ("experiments.json", "experiments.last_good.json"):
            (artifacts / name).write_text("{")
        until, alerts = time.monotonic() + 20, settings.logs / "service" / "alerts.log"
        while not alerts.exists() and time.monotonic() < until:
            time.sleep(0.2)
        assert "experiments_damaged" in alerts.read_text()
        assert served(client) == wanted
    with service(settings) as client:  # and one that starts now knows them from its note
        assert served(client) == wanted


def test_the_holdout_gets_what_is_popular_whatever_runs(models, settings):
    folder = settings.home / "config"
    folder.mkdir()
    (folder / "serving.yaml").write_text("holdout_share: 0.3\n")
    models.start(definition(), by="lan")
    sides = Assignment(models.running(), 0.3)
    kept = [user for user in USER_IDS if sides.assign(user) == Side("holdout", "popularity")]
    assert 15 < len(kept) < 60
    with service(settings) as client:
        popularity = client.app.state.service.engine.snapshot.popularity
        for user in USER_IDS:
            answer = client.post("/recommend", json={"user_id": user}).json()
            if user in kept:
                assert answer["fallback_method"] == "popularity"
                scores = [row["score"] for row in answer["recommendations"]]
                assert scores == sorted(scores, reverse=True)
                assert set(scores) <= set(popularity.tolist())
            elif not user.startswith("stranger"):
                assert answer["fallback_method"] is None
        # They are no failure of the model: the rate that alerts go by does not count them.
        known = [user for user in kept if not user.startswith("stranger")]
        service_log = client.app.state.service.requests
        service_log.flush()
        stats = client.get("/stats").json()["traffic"][0]
        strangers = sum(user.startswith("stranger") and user not in kept for user in USER_IDS)
        assert stats["fallback_rate"] == pytest.approx(strangers / len(USER_IDS))
        assert known


def test_models_of_one_shop_share_all_but_their_arrays(models, settings, monkeypatch):
    add_model(settings, "als_3", seed=2, select=False)
    embed_products(settings, ContentConfig(text_fields=("product_name",)), products(), "v1")
    publish(settings, "v1", range(0))
    sides = [{"name": "today", "share": 0.4}] + [
        {"name": model, "share": 0.3, "model_id": model} for model in ("als_2", "als_3")
    ]
    models.start(definition(variants=sides), by="lan")
    with service(settings) as client:
        engine = client.app.state.service.engine
        served_ones = [engine.snapshot, *engine.in_trial.snapshots.values()]
        assert {one.model_id for one in served_ones} == {"als_1", "als_2", "als_3"}
        assert len({id(one.catalogue) for one in served_ones}) == 1
        assert len({id(one.content) for one in served_ones}) == 1
        assert len({id(one.artifact.item_ids) for one in served_ones[1:]}) == 1
        publish(settings, "v2", range(3))
        engine.follow_catalogue()  # the service may just have done so by itself
        fresh = [engine.snapshot, *engine.in_trial.snapshots.values()]
        assert len({id(one.catalogue) for one in fresh}) == 1
        assert fresh[0].catalogue is not served_ones[0].catalogue
        assert not any(np.shares_memory(fresh[0].popularity, one.popularity) for one in fresh[1:])
        publish(settings, "v3", range(2))
        before = fresh[0].sources
        looks = iter([before])  # the first model was looked at a moment too early
        published = engine_module.sources
        monkeypatch.setattr(
            engine_module, "sources", lambda *of: next(looks, None) or published(*of)
        )
        for _ in range(2):
            engine.follow_catalogue()
        fresh = [engine.snapshot, *engine.in_trial.snapshots.values()]
        assert {one.catalogue.source for one in fresh} == {"v3"}
        assert len({id(one.catalogue) for one in fresh}) == 1


def test_lists_beside_a_product_belong_to_the_side_too(models, settings):
    folder = settings.home / "config"
    folder.mkdir()
    (folder / "serving.yaml").write_text("holdout_share: 0.2\n")
    models.start(definition(placements=["product"]), by="lan")
    sides = Assignment(models.running(), 0.2)
    with service(settings) as client:
        for user in USER_IDS[:30]:
            asked = {"product_id": "p3", "user_id": user, "placement": "product"}
            answer = client.post("/similar_items", json=asked).json()
            side = sides.assign(user, "product")
            assert (answer["model_id"] == "als_2") == (side == Side("blend", "new"))
            held_out = side == Side("holdout", "popularity")
            assert (answer["fallback_method"] == "popularity") == held_out
            assert "p3" not in {row["product_id"] for row in answer["recommendations"]}
        # Of nobody, and elsewhere: what is deployed.
        for asked in ({"product_id": "p3"}, {"product_id": "p3", "user_id": "1"}):
            assert client.post("/similar_items", json=asked).json()["model_id"] == "als_1"


def test_a_search_is_recorded_for_the_side_of_its_customer(models, settings):
    """Else a customer of the holdout would count among those who get recommendations."""
    embed_products(settings, ContentConfig(text_fields=("product_name",)), products(), "v1")
    models.start(definition(), by="lan")
    sides = Assignment(models.running())
    with service(settings) as client:
        for user in USER_IDS[:6]:
            asked = {"query": "dầu gội", "user_id": user}
            assert client.post("/search", json=asked).json()["count"] > 0
    lists, _ = found(settings)
    assert {one.user_id: Side(one.experiment, one.variant) for one in lists} == {
        user: sides.assign(user) for user in USER_IDS[:6]
    }


def test_what_is_recorded_of_a_list_names_experiment_and_side(models, settings):
    models.start(definition(), by="lan")
    sides = Assignment(models.running())
    with service(settings) as client:
        for user in USER_IDS[:10]:
            client.post("/recommend", json={"user_id": user})
        client.post("/recommend", json={"user_id": "1", "placement": "deployment-check"})
    lists, _ = found(settings)
    assert {one.user_id: Side(one.experiment, one.variant) for one in lists} == {
        user: sides.assign(user) for user in USER_IDS[:10]
    }
    assert len(lists) == 10  # what a deployment asks for is seen by nobody


def test_a_canary_is_an_experiment_beneath_the_others(models, settings, admin):
    with service(settings) as client:
        asked = {"model_id": "als_2", "share": 0.5}
        assert client.post("/canary", json=asked, headers=admin).status_code == 200
        assert set(served(client).values()) == {"als_1", "als_2"}
        [canary] = models.running()
        assert (canary.name, canary.definition.primary_metric) == ("canary", None)
        report = client.get("/canary", headers=admin).json()
        assert (report["canary_model_id"], report["share"]) == ("als_2", 0.5)
    with service(settings) as client:  # a restart ends no trial
        assert set(served(client).values()) == {"als_1", "als_2"}
        assert client.delete("/canary", headers=admin).status_code == 204
        assert set(served(client).values()) == {"als_1"}
        client.post("/canary", json=asked, headers=admin)
        client.post("/reload_model", json={"model_id": "als_2"}, headers=admin)
        assert models.running() == []
        assert client.get("/canary", headers=admin).json()["canary_model_id"] is None


def test_a_canary_that_cannot_be_loaded_is_none(models, settings, admin):
    [array] = (settings.artifacts / "als" / "als_2" / "model").glob("item*.npy")
    array.write_bytes(b"x")
    with service(settings) as client:
        asked = {"model_id": "als_2", "share": 0.5}
        answer = client.post("/canary", json=asked, headers=admin)
        assert answer.status_code == 409
        assert "als_2" in answer.json()["detail"]
        assert models.running() == []
        asked["model_id"] = "als_9"
        assert client.post("/canary", json=asked, headers=admin).status_code == 409
        assert set(served(client).values()) == {"als_1"}


@pytest.mark.boots
def test_workers_that_die_and_start_again_keep_everybody_on_the_own_side(
    models, settings, free_port
):
    """Also if one of them cannot load a model that the others have: nobody serves it then."""
    address = f"http://127.0.0.1:{free_port}"

    def ask_all(session: requests.Session) -> dict[str, set[str]]:
        answers: dict[str, set[str]] = {user: set() for user in USER_IDS[::6]}
        for _ in range(4):
            for user, found in answers.items():
                body = {"user_id": user, "topk": 3}
                found.add(session.post(f"{address}/recommend", json=body).json()["model_id"])
        return answers

    def settled(wanted: dict[str, str], seconds: float = 40) -> None:
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(requests.ConnectionError), requests.Session() as session:
                # Connections stay with a worker: a new session a round, to meet all of them.
                found = ask_all(session)
                if all(models == {wanted[user]} for user, models in found.items()):
                    break
            assert time.monotonic() < until, found
            time.sleep(0.2)

    with running_service(settings, free_port, workers=2):
        models.start(definition(), by="lan")
        wanted = expected(models)
        settled(wanted)
        for _ in range(2):
            for worker in workers_of(free_port):
                os.kill(worker.pid, signal.SIGKILL)
                time.sleep(0.3)
            settled(wanted)
        [array] = (settings.artifacts / "als" / "als_2" / "model").glob("item*.npy")
        sound = array.read_bytes()
        _written(array.with_suffix(".new"), b"x").replace(array)
        os.kill(workers_of(free_port)[1].pid, signal.SIGKILL)
        settled(dict.fromkeys(USER_IDS, "als_1"))
        _written(array.with_suffix(".new"), sound).replace(array)
        answer = requests.post(
            f"{address}/canary", json={"model_id": "als_2", "share": 0.1}, headers=ADMIN, timeout=60
        )
        assert answer.status_code == 200, answer.text
        new = {user for user, model in wanted.items() if model == "als_2"}
        with requests.Session() as session:
            found = ask_all(session)
        assert all(found[user] == {"als_2"} for user in found.keys() & new)
    assert json.loads((settings.home / "artifacts/experiments.json").read_text())


def _written(path, content: bytes):
    path.write_bytes(content)
    return path
