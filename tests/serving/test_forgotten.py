"""Who is forgotten is nobody in particular: on every path, in every worker and replica."""

import contextlib
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from fastapi.testclient import TestClient

from recsys.content import ContentConfig
from recsys.content.job import embed_products
from recsys.ids import IdRules
from recsys.privacy import Kind, Register, ask_to_forget, ids_to_forget, readmit
from recsys.pseudonyms import KEYS_KEY, REQUESTS_KEY, load_pseudonyms
from recsys.settings import Settings
from serving import forgotten
from serving.app import create_app
from serving.config import ServiceEnvironment
from serving.forgotten import FollowedForgotten
from tests.ports import find_free_port
from tests.serving.conftest import TOKEN
from tests.serving.service_process import running_service
from tests.serving.shops import add_model, products
from tests.serving.test_interactions import event, staged
from tests.serving.test_rules import alerts_of
from tests.test_served_lists import found

ADMIN = {"Authorization": "Bearer tok"}
RULES = IdRules()
GONE, STAYS, STRANGER = "2", "4", "nobody-knows"


@pytest.fixture
def shop(settings: Settings) -> Settings:
    """One with a model and texts, in which the customer that goes has dismissed and bought."""
    add_model(settings, "als_1", sample_users=(GONE, STAYS))
    words = ContentConfig(text_fields=("product_name", "brand"))
    embed_products(settings, words, products(), "v1")
    return settings


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, ServiceEnvironment(admin_token=TOKEN))) as client:
        yield client


def forget(settings: Settings, *users: str) -> None:
    ask_to_forget(settings, users, "lan", RULES)


def until(said: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Wait until it is so: a busy machine fails no test."""
    end = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def known_to(client: TestClient, count: int) -> Callable[[], bool]:
    line = f"recsys_customers_forgotten {float(count)}"
    return lambda: line in client.get("/metrics").text


def told(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer but for what is another one every time, and whom it is for."""
    another = {"recommendation_id", "latency_ms", "user_id"}
    if "results" in answer:
        kept = {key: value for key, value in answer.items() if key not in another}
        return {**kept, "results": [told(one) for one in answer["results"]]}
    return {key: value for key, value in answer.items() if key not in another}


PATHS: list[tuple[str, Callable[[str], dict[str, Any]]]] = [
    ("/recommend", lambda who: {"user_id": who}),
    ("/recommend", lambda who: {"user_id": who, "explain": True, "placement": "home"}),
    ("/recommend", lambda who: {"user_id": who, "exclude_seen": "until_due", "session_id": "s-1"}),
    ("/recommend", lambda who: {"user_id": who, "exclude_seen": False, "history": ["p21", "p22"]}),
    ("/batch_recommend", lambda who: {"user_ids": [who, STAYS]}),
    ("/batch_recommend", lambda who: {"user_ids": [who], "explain": True}),
    ("/similar_items", lambda who: {"product_id": "p0", "user_id": who, "session_id": "s-1"}),
    ("/similar_items", lambda who: {"product_id": "p0", "user_id": who, "explain": True}),
    ("/bought_together", lambda who: {"product_ids": ["p0"], "user_id": who}),
    ("/search", lambda who: {"query": "son", "user_id": who, "session_id": "s-1"}),
    ("/rules/preview", lambda who: {"user_id": who, "placement": "home"}),
    ("/rules/preview", lambda who: {"product_id": "p0", "user_id": who}),
]


def test_on_every_path_they_get_what_a_stranger_gets(shop: Settings, admin: dict[str, str]):
    def ask_all(client: TestClient, who: str) -> list[dict[str, Any]]:
        answers = []
        for path, body in PATHS:
            answer = client.post(path, json=body(who) | {"topk": 8}, headers=admin)
            assert answer.status_code == 200, (path, answer.text)
            answers.append(told({key: v for key, v in answer.json().items() if key != "at"}))
        return answers

    with serving(shop) as client:
        dismissed = [
            event(n, GONE, f"p{n}", kind="dismiss", rating=None, session_id="s-1")
            for n in range(1, 15)
        ]
        assert client.post("/interactions", json={"events": dismissed}).json()["accepted"] == 14
        before, strange = ask_all(client, GONE), ask_all(client, STRANGER)
        changed = [one != other for one, other in zip(before, strange, strict=True)]
        assert all(changed), changed  # else the test would not notice anything
        forget(shop, GONE)
        until(known_to(client, 1), "the service knows")
        assert ask_all(client, GONE) == strange
        answer = client.post("/recommend", json={"user_id": GONE}).json()
        assert (answer["fallback"], answer["fallback_method"]) == (True, "popularity")
        assert answer["user_id"] == GONE
        assert client.post("/recommend", json={"user_id": f" {GONE}.0 "}).json()["fallback"]
        assert not client.post("/recommend", json={"user_id": STAYS}).json()["fallback"]
        shown = [one["id"] for one in client.get("/demo/examples").json()["user"]]
        assert not {GONE, STAYS} & set(shown)  # real customers' ids are offered to nobody
        readmit(shop, [GONE], "lan", RULES)
        until(known_to(client, 0), "the service knows that they came back")
        assert ask_all(client, GONE) == before


def test_nothing_that_the_service_writes_names_them(shop: Settings):
    """Neither request log nor its lines nor lists, nor what they did; the others' stay."""
    (shop.home / "config").mkdir(exist_ok=True)
    (shop.home / "config" / "privacy.yaml").write_text("pseudonymous_logs: false\n")
    forget(shop, "gone-1")
    with serving(shop) as client:
        for who in ("gone-1", "stays-1"):
            for path, body in PATHS[:-2]:
                asked = body(who) | {"topk": 3}
                if "session_id" in asked:
                    asked["session_id"] = f"s-{who}"
                assert client.post(path, json=asked).status_code == 200
            sent = event(1, who, "p1", session_id=f"s-{who}", event_id=f"e-{who}")
            answer = client.post("/interactions", json=sent).json()
            assert answer == (
                {"accepted": 0, "rejected": [], "left_out": 1}
                if who == "gone-1"
                else {"accepted": 1, "rejected": []}
            )
            # A request that is refused is a row of the log as well.
            assert client.post("/recommend", json={"user_id": who, "topk": 9999}).status_code == 422
    kept = {path: path.read_bytes() for path in shop.home.rglob("*") if path.is_file()}
    naming = {
        who: {
            str(path.relative_to(shop.home))
            for path, content in kept.items()
            if who.encode() in content
        }
        for who in ("gone-1", "stays-1")
    }
    assert naming["gone-1"] == {"data/privacy/forgetting.json"}
    assert {"logs/service_metrics.db", "logs/service/recommender.log"} <= naming["stays-1"]
    with sqlite3.connect(shop.service_db) as log:
        [nobody] = log.execute("SELECT count(*) FROM requests WHERE user_text IS NULL").fetchone()
    assert nobody > len(PATHS[:-2])
    users = {served.user_id for served in found(shop)[0]}
    assert users == {None, "stays-1", STAYS}


def test_their_events_are_left_out_and_said_to_be(shop: Settings):
    forget(shop, GONE)
    with serving(shop) as client:
        events = [
            event(1, GONE, "p1"),
            event(2, STAYS, "p1"),
            event(3, f"{GONE}.0", "p2", kind="purchase", rating=None),
            event(4, STAYS, "p2", rating=9),
        ]
        answer = client.post("/interactions", json={"events": events})
        assert answer.status_code == 200
        [rejected] = answer.json().pop("rejected")
        assert rejected["index"] == 3
        assert (answer.json()["accepted"], answer.json()["left_out"]) == (1, 2)
        assert [row["user_id"] for row in staged(shop)] == [STAYS]
        assert client.app.state.service.live.of(GONE) == ()
        # What is wrong is still said to be so.
        assert client.post("/interactions", json=event(5, GONE, "p1", rating=9)).status_code == 422


def test_they_take_part_in_no_experiment(shop: Settings):
    (shop.home / "config").mkdir(exist_ok=True)
    (shop.home / "config" / "serving.yaml").write_text("holdout_share: 0.5\n")
    users = [str(user) for user in range(10, 50)]
    forget(shop, *users[:20])
    with serving(shop) as client:
        for user in users:
            assert client.post("/recommend", json={"user_id": user}).status_code == 200
    experiments = [served.experiment for served in found(shop)[0]]
    assert len(experiments) == 40
    assert 1 <= sum(map(bool, experiments)) <= 20


def test_the_route_opens_a_request_once_and_works_at_once(shop: Settings, admin: dict[str, str]):
    with serving(shop) as client:
        assert client.delete(f"/users/{GONE}").status_code == 401
        answer = client.delete(f"/users/{GONE}?by=lan", headers=admin)
        assert answer.status_code == 202
        assert client.post("/recommend", json={"user_id": GONE}).json()["fallback"]
        again = client.delete(f"/users/%20{GONE}.0", headers=admin)
        assert again.json() == answer.json()
        [request] = Register(shop).requests(GONE)
        assert (request.number, request.kind, request.asked_by) == (
            answer.json()["number"],
            Kind.FORGET,
            "lan",
        )
        assert list(ids_to_forget(shop).read()) == [GONE]
        for wrong in ("guest", "null", "%00", "x" * 200, "", "~" + "0a" * 16):
            refused = client.delete(f"/users/{wrong}", headers=admin)
            assert refused.status_code in (404, 405, 422), (wrong, refused.text)
        for wrong in ("a%00b", "lan%20|%20customer=~1", "x" * 65):
            assert client.delete(f"/users/7?by={wrong}", headers=admin).status_code == 422
        assert len(Register(shop).requests()) == 1


def test_the_route_of_exports_answers_as_the_command(shop: Settings, admin: dict[str, str]):
    """Also where nothing else may take so long."""
    (shop.home / "config").mkdir(exist_ok=True)
    (shop.home / "config" / "serving.yaml").write_text("request_timeout_seconds: 0.5\n")
    with serving(shop) as client:
        assert client.get(f"/users/{GONE}/export").status_code == 401
        client.post("/interactions", json=event(1, GONE, "p1"))
        answer = client.get(f"/users/{GONE}/export?by=lan", headers=admin)
        assert answer.status_code == 200, answer.text
        assert answer.json()["customer"] == GONE
        what = {part["what"] for part in answer.json()["kept"]}
        assert "events of the last days in the service" in what
        by_head = client.head(f"/users/{GONE}/export", headers=admin)
        assert (by_head.status_code, by_head.headers["allow"]) == (405, "GET")
        [request] = Register(shop).requests(GONE)
        assert (request.kind, request.asked_by) == (Kind.EXPORT, "lan")
        assert client.get("/users/--help/export", headers=admin).json()["customer"] == "--help"
        for wrong in ("guest", "n***a", load_pseudonyms(shop).of(GONE)):
            assert client.get(f"/users/{wrong}/export", headers=admin).status_code == 422
        (shop.home / KEYS_KEY).write_text("nonsense")
        failed = client.get(f"/users/{GONE}/export", headers=admin)
        assert failed.status_code == 503
        assert "keys.json" in failed.json()["detail"]


def test_a_register_that_is_taken_away_changes_nothing_and_is_told(shop: Settings):
    forget(shop, GONE)
    folder = (shop.home / REQUESTS_KEY).parent
    away = folder.with_name("away")
    with serving(shop) as client:
        folder.rename(away)
        until(lambda: "recsys_register_readable 0.0" in client.get("/metrics").text, "it is seen")
        assert client.post("/recommend", json={"user_id": GONE}).json()["fallback"]
        assert not client.post("/recommend", json={"user_id": STAYS}).json()["fallback"]
        until(lambda: "register_unreadable triggered" in alerts_of(shop), "somebody is told")
        shutil.copytree(away, folder, dirs_exist_ok=True)  # there may be a new key
        until(lambda: "recsys_register_readable 1.0" in client.get("/metrics").text, "it is back")


def test_a_damaged_register_changes_nothing_and_is_told(shop: Settings):
    forget(shop, GONE)
    register = shop.home / REQUESTS_KEY
    good = register.with_name("requests.last_good.json")
    sound = register.read_bytes()
    with serving(shop) as client:
        for path in (register, good):
            path.write_text("nonsense")
        until(lambda: "recsys_register_readable 0.0" in client.get("/metrics").text, "it is seen")
        assert client.post("/recommend", json={"user_id": GONE}).json()["fallback"]
        assert not client.post("/recommend", json={"user_id": STAYS}).json()["fallback"]
        until(lambda: "register_unreadable triggered" in alerts_of(shop), "somebody is told")
        register.write_bytes(sound)  # as from a backup
        forget(shop, STAYS)
        until(lambda: "recsys_register_readable 1.0" in client.get("/metrics").text, "it is well")
        until(known_to(client, 2), "both are known")
        assert client.post("/recommend", json={"user_id": STAYS}).json()["fallback"]
        until(lambda: "register_unreadable resolved" in alerts_of(shop), "it is told to be well")


@pytest.mark.parametrize("lost", ["register", "keys"])
def test_a_service_that_cannot_tell_who_is_forgotten_uses_nobodys_history(
    shop: Settings, lost: str
):
    """Which comes up all the same; what customers do is kept by who sends it."""
    forget(shop, GONE)
    if lost == "keys":
        kept = shop.home / KEYS_KEY
        away = kept.rename(kept.with_name("elsewhere"))
    else:
        for path in (shop.home / "data" / "privacy").glob("requests*.json"):
            path.write_text("nonsense")
    with serving(shop) as client:
        for user in (GONE, STAYS):
            assert client.post("/recommend", json={"user_id": user}).json()["fallback"]
        answer = client.post("/interactions", json=event(1, STAYS, "p1"))
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers
        assert staged(shop) == []
        if lost == "keys":
            assert not kept.exists()  # another key would find nobody
            away.rename(kept)
            until(known_to(client, 1), "the key is back")
            assert client.post("/recommend", json={"user_id": GONE}).json()["fallback"]
            assert not client.post("/recommend", json={"user_id": STAYS}).json()["fallback"]


def test_a_register_that_is_new_or_gone_is_followed(settings: Settings):
    followed = FollowedForgotten(settings)
    assert not followed.hides(GONE)
    assert not (settings.home / KEYS_KEY).exists()
    forget(settings, GONE)
    followed.look()
    assert followed.hides(GONE)
    assert not followed.hides(None)
    (settings.home / REQUESTS_KEY).unlink()
    followed.look()
    assert followed.hides(GONE)  # by the last good copy
    assert followed.problem is not None


@pytest.mark.boots
def test_from_a_second_after_the_request_on_no_worker_of_any_replica_uses_the_history(
    shop: Settings,
):
    """Three workers here and two there answer all the while; connections stay with a worker."""
    ports = [find_free_port(), find_free_port()]
    users = [str(number) for number in range(20, 40)]
    asked_at: dict[str, float] = {}
    late: list[tuple[str, float]] = []
    failed: list[object] = []
    answers = [0]
    stop = threading.Event()

    def ask(port: int, number: int) -> None:
        with requests.Session() as session:
            at = number
            while not stop.is_set():
                user, began, at = users[at % len(users)], time.monotonic(), at + 1
                body = {"user_id": user, "topk": 5}
                answer = session.post(f"http://127.0.0.1:{port}/recommend", json=body, timeout=20)
                if answer.status_code != 200:
                    failed.append(answer.text)
                    continue
                answers[0] += 1
                since = began - asked_at.get(user, began)
                if since > 1 and not answer.json()["fallback"]:
                    late.append((user, since))

    with contextlib.ExitStack() as stack:
        for port, workers in zip(ports, (3, 2), strict=True):
            stack.enter_context(running_service(shop, port, workers=workers))
        threads = [
            threading.Thread(target=ask, args=(ports[number % 2], number)) for number in range(10)
        ]
        for thread in threads:
            thread.start()
        try:
            for user in users:
                answer = requests.delete(
                    f"http://127.0.0.1:{ports[0]}/users/{user}", headers=ADMIN, timeout=20
                )
                assert answer.status_code == 202, answer.text
                asked_at[user] = time.monotonic()
            time.sleep(2.5)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert failed == []
    assert late == []
    assert answers[0] > 100


def test_a_slow_look_beside_a_quick_one_finds_no_damage(settings: Settings, monkeypatch):
    forget(settings, GONE)
    followed, has_read = FollowedForgotten(settings), threading.Event()
    forget(settings, STAYS)
    read = forgotten.read_requests

    def read_slowly(*given: Any) -> Any:
        found = read(*given)
        if not has_read.is_set():
            has_read.set()
            time.sleep(0.5)
        return found

    monkeypatch.setattr(forgotten, "read_requests", read_slowly)
    slow = threading.Thread(target=followed.look)
    slow.start()
    assert has_read.wait(10)
    forget(settings, STRANGER)
    followed.look()
    slow.join()
    assert followed.problem is None
    assert all(map(followed.hides, (GONE, STAYS, STRANGER)))
