"""Batches, similar products, search, interactions, statistics."""

import json
import sqlite3
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from recsys.config import ConfigError
from recsys.data.shown import ShownError, write_shown
from recsys.data.staging import open_segments, segment_lines
from recsys.settings import Settings
from serving import interactions, shared
from serving.app import create_app
from serving.config import ServiceEnvironment, read_environment
from serving.housekeeping import ImplausibleWatch
from serving.interactions import LiveEvents
from serving.schemas import BatchResponse
from serving.service import SLOW_THREADS
from tests.serving.shops import LIPSTICKS, add_model, product_id, products


def ids(answer: dict) -> list[str]:
    return [row["product_id"] for row in answer["recommendations"]]


def staged(settings: Settings) -> list[dict]:
    segments = sorted(open_segments(settings).glob("*.jsonl"))
    return [json.loads(line) for segment in segments for line in segment_lines(segment)]


def event(number: object, user: object = "2", product: str = "p1", **more: object) -> dict:
    return {"event_id": f"e{number}", "user_id": user, "product_id": product, "rating": 5, **more}


def test_a_batch_gives_what_single_requests_give(shared_client: TestClient):
    users = [0, 1, "2", "nobody"]
    answer = shared_client.post("/batch_recommend", json={"user_ids": users, "topk": 4}).json()
    BatchResponse.model_validate(answer, strict=True)
    assert [result["user_id"] for result in answer["results"]] == users
    for user, result in zip(users, answer["results"], strict=True):
        single = shared_client.post("/recommend", json={"user_id": user, "topk": 4}).json()
        assert ids(single) == ids(result)
        assert single["fallback"] == result["fallback"]


def test_a_batch_that_is_too_large_is_refused(shared_client: TestClient):
    answer = shared_client.post("/batch_recommend", json={"user_ids": list(range(1001))})
    assert answer.status_code == 422
    assert "1000" in answer.json()["detail"]
    assert shared_client.post("/batch_recommend", json={"user_ids": []}).status_code == 422


def test_lists_made_in_advance_are_those_computed_on_request(settings: Settings):
    families = {3: "x", 5: "x", 7: "x", 30: "y", 31: "y"}
    shop = products(unavailable=(1, 25), families=families)
    add_model(settings, "als_1", shop_products=shop)
    bodies = [
        {"user_id": user, "topk": topk, "exclude": exclude}
        for user in range(60)
        for topk, exclude in ((10, []), (3, ["p2", "p4", "p30"]), (30, []))
    ]
    answers = []
    for seconds in (20, 0):
        folder = settings.home / "config"
        folder.mkdir(exist_ok=True)
        (folder / "serving.yaml").write_text(f"personal_lists_seconds: {seconds}\n")
        with TestClient(create_app(settings, ServiceEnvironment())) as client:
            lists = client.app.state.service.engine.snapshot.lists
            assert lists.users == (60 if seconds else 0)
            answers.append([ids(client.post("/recommend", json=body).json()) for body in bodies])
    assert answers[0] == answers[1]


def test_similar_products_share_the_taste_and_leave_out_the_product_itself(
    shared_client: TestClient,
):
    answer = shared_client.post("/similar_items", json={"product_id": "p3", "topk": 5}).json()
    assert answer["count"] == 5
    assert "p3" not in ids(answer)
    assert set(ids(answer)) <= {product_id(item) for item in LIPSTICKS}


def test_similar_to_an_unknown_product_is_a_404(shared_client: TestClient):
    answer = shared_client.post("/similar_items", json={"product_id": "never"})
    assert answer.status_code == 404
    assert "no product" in answer.json()["detail"]


def test_search_without_embeddings_says_which_job_is_missing(shared_client: TestClient):
    answer = shared_client.post("/search", json={"query": "son môi"})
    assert answer.status_code == 503
    assert "bert_embeddings" in answer.json()["detail"]


def test_an_interaction_is_staged_and_counts_at_once(settings: Settings, client: TestClient):
    before = client.post("/recommend", json={"user_id": "new", "topk": 5}).json()
    assert before["fallback_method"] == "popularity"
    events = [event(number, "new", f"p{number}") for number in (21, 22, 23)]
    answer = client.post("/interactions", json={"events": events})
    assert answer.json() == {"accepted": 3, "rejected": []}
    after = client.post("/recommend", json={"user_id": "new", "topk": 5}).json()
    assert after["fallback"] is False
    assert not set(ids(after)) & {"p21", "p22", "p23"}
    assert not set(ids(after)) & {product_id(item) for item in LIPSTICKS}
    assert [row["event_id"] for row in staged(settings)] == ["e21", "e22", "e23"]


def test_a_known_user_is_not_shown_again_what_was_bought_a_moment_ago(client: TestClient):
    first = ids(client.post("/recommend", json={"user_id": 2, "topk": 5}).json())
    answer = client.post("/interactions", json=event(1, 2, first[0]))
    assert answer.status_code == 200
    assert first[0] not in ids(client.post("/recommend", json={"user_id": 2, "topk": 5}).json())


def test_an_event_that_is_sent_twice_counts_once_for_the_user(client: TestClient):
    for _ in range(2):
        client.post("/interactions", json=event(1, "new", "p21"))
    live = client.app.state.service.live
    assert len(live.of("new")) == 1


def test_interactions_of_unknown_products_are_accepted(settings: Settings, client: TestClient):
    assert client.post("/interactions", json=event(1, "new", "brand-new")).status_code == 200
    assert client.post("/recommend", json={"user_id": "new"}).json()["fallback"] is True
    assert staged(settings)[0]["product_id"] == "brand-new"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"events": []}, "events"),
        (event(1, rating=0), "rating"),
        (event(1, rating=9), "rating"),
        (event(1, timestamp="2999-01-01T00:00:00Z"), "timestamp: expected a time in the past"),
        (event(1, timestamp="1995-01-01T00:00:00Z"), "timestamp: expected a time after 2000-01-01"),
        (event(1, timestamp="2020-01-01T00:00:00"), "timestamp"),
        (event(1, timestamp="9999-12-31T23:59:59-14:00"), "timestamp: Input should be a time in"),
        (event(1, timestamp="0001-01-01T00:00:00+14:00"), "timestamp: Input should be a time in"),
        (event(1, timestamp="1764000000"), "timestamp: Input should be a time as text"),
        (event(1, timestamp="yesterday"), "timestamp"),
        ({"event_id": "e", "user_id": 1, "product_id": "p"}, "rating"),
        ({"events": [event(1, rating=7), {"event_id": "e"}, 5]}, "events.0: rating"),
        (event(1, user=" \t"), "user_id"),
        (event(1, user="a\u0007b"), "user_id: the user is not an id"),
        (event(1, user="\u200b123"), "user_id: the user is not an id"),
        (event(1, product="\n"), "product_id: there is no product"),
        (event(1, user="null"), "user_id: there is no user"),
        (event(1, user="NA"), "user_id: there is no user"),
        (event(1, user="0"), "user_id: the user is a placeholder"),
        (event(1, user="n*****a"), "user_id: the user is a placeholder"),
        (event(1, product="1.2E+12"), "product_id: "),
    ],
)
def test_what_no_refresh_would_take_is_refused_with_its_field(
    settings: Settings, client: TestClient, body: dict, said: str
):
    answer = client.post("/interactions", json=body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert staged(settings) == []


def test_bad_events_of_a_batch_do_not_take_the_good_ones_along(
    settings: Settings, client: TestClient
):
    ahead = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
    events = [
        event(1),
        event(2, timestamp=ahead),
        {"event_id": 3},
        event(4, rating=9),
        "x",
        event(5),
    ]
    for _ in range(2):
        answer = client.post("/interactions", json={"events": events})
        assert answer.status_code == 200
        assert answer.json()["accepted"] == 2
        rejected = answer.json()["rejected"]
        assert [(one["index"], one["event_id"]) for one in rejected] == [
            (1, "e2"),
            (2, None),
            (3, "e4"),
            (4, None),
        ]
        assert rejected[0]["reason"] == "timestamp: expected a time in the past"
    assert [row["event_id"] for row in staged(settings)] == ["e1", "e5"]


def test_ids_have_one_spelling_for_the_service_and_the_refresh(
    settings: Settings, client: TestClient
):
    events = [event(1, "443.0"), event(2, " 443", "p2"), event(3, 443, "p3"), event(4, "0443")]
    assert client.post("/interactions", json={"events": events}).json()["accepted"] == 4
    assert [row["user_id"] for row in staged(settings)] == ["443", "443", "443", "0443"]
    for user in (443, "443", "443.0"):
        assert client.post("/recommend", json={"user_id": user}).json()["fallback"] is False
    assert len(client.app.state.service.live.of("443")) == 3


def test_another_event_under_a_known_id_is_an_error_and_the_first_one_stays(
    settings: Settings, client: TestClient
):
    assert client.post("/interactions", json=event(1)).status_code == 200
    assert client.post("/interactions", json=event(1)).status_code == 200
    for other in (event(1, rating=4), event(1, user="9"), event(1, product="p2")):
        answer = client.post("/interactions", json=other)
        assert answer.status_code == 422
        assert "another event was sent under this id" in answer.json()["detail"]
    both = client.post("/interactions", json={"events": [event(2), event(2, product="p9")]})
    assert (both.json()["accepted"], both.json()["rejected"][0]["index"]) == (1, 1)
    assert [row["product_id"] for row in staged(settings)] == ["p1", "p1"]


def test_an_event_that_is_sent_again_does_not_reach_the_disk(
    settings: Settings, client: TestClient
):
    for _ in range(50):
        assert client.post("/interactions", json=event(1)).status_code == 200
    assert len(staged(settings)) == 1


WEB, APP = {"Authorization": "Bearer web-token"}, {"Authorization": "Bearer app-token"}


def test_who_has_no_write_token_sends_nothing(settings: Settings):
    add_model(settings, "als_1")
    environment = read_environment({"RECSYS_WRITE_TOKEN": "web-token", "RECSYS_ADMIN_TOKEN": "adm"})
    with TestClient(create_app(settings, environment)) as client:
        for headers in (
            {},
            {"Authorization": "Bearer adm"},
            {"Authorization": "Bearer đỏ".encode()},
        ):
            answer = client.post("/interactions", json=event(1), headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.post("/interactions", json=event(1), headers=WEB).status_code == 200
    assert [row["event_id"] for row in staged(settings)] == ["e1"]


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("localhost", 200), ("::1", 200), ("0.0.0.0", 403), ("10.1.2.3", 403)],
)
def test_without_a_token_only_this_machine_may_send(settings: Settings, host: str, status: int):
    environment = read_environment({"RECSYS_SERVICE_HOST": host})
    with TestClient(create_app(settings, environment)) as client:
        assert client.post("/interactions", json=event(1)).status_code == status


def test_ids_that_another_sender_took_in_advance_take_nothing_away(settings: Settings):
    tokens = "web:web-token, app:app-token"
    environment = read_environment({"RECSYS_WRITE_TOKEN": tokens})
    with TestClient(create_app(settings, environment)) as client:
        taken = event(1, "thief", "p9")
        assert client.post("/interactions", json=taken, headers=APP).status_code == 200
        assert client.post("/interactions", json=event(1), headers=WEB).status_code == 200
        assert client.post("/interactions", json=event(1), headers=WEB).status_code == 200
    assert [row["event_id"] for row in staged(settings)] == ["app/e1", "web/e1"]


@pytest.mark.parametrize("tokens", ["a:x,b:x", "a:x,a:y", "a:", "x,y", "x,b:y"])
def test_tokens_that_do_not_tell_senders_apart_are_a_mistake(tokens: str):
    with pytest.raises(ConfigError, match="RECSYS_WRITE_TOKEN") as caught:
        read_environment({"RECSYS_WRITE_TOKEN": tokens})
    assert tokens not in str(caught.value)


@pytest.mark.parametrize("kind", ["user", "product"])
def test_more_events_than_are_plausible_go_to_quarantine_and_an_alert_says_so(
    settings: Settings, kind: str
):
    (settings.home / "config").mkdir(parents=True)
    (settings.home / "config" / "serving.yaml").write_text(f"max_events_of_{kind}_per_day: 5\n")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        for number in range(0, 8, 2):
            events = [
                event(one, "u" if kind == "user" else one, one if kind == "user" else "p", rating=4)
                for one in (f"u{number}", f"u{number + 1}")
            ]
            answer = client.post("/interactions", json={"events": events})
        assert answer.status_code == 422
        assert f"more than 5 events of one {kind}" in answer.json()["detail"]
        service = client.app.state.service
        ImplausibleWatch(service).look()
    assert len(staged(settings)) == 5
    kept = list((settings.quarantine / "interactions").glob("*.jsonl"))
    assert len([line for path in kept for line in segment_lines(path)]) == 3
    alerts = (settings.logs / "service" / "alerts.log").read_text(encoding="utf-8")
    assert "implausible_interactions" in alerts


def test_interactions_do_not_pile_up_before_a_disk_that_hangs(
    settings: Settings, client: TestClient, monkeypatch: pytest.MonkeyPatch
):
    hangs, go_on = threading.Event(), threading.Event()
    write = interactions.append_events

    def hanging(*arguments: Any) -> None:
        hangs.set()
        go_on.wait(20)
        write(*arguments)

    monkeypatch.setattr(interactions, "append_events", hanging)
    monkeypatch.setattr(interactions, "MOST_WAITING", 2)
    with ThreadPoolExecutor(5) as threads:
        send = lambda number: threads.submit(client.post, "/interactions", json=event(number))  # noqa: E731
        sent = [send(0)]
        assert hangs.wait(10)
        sent += [send(number) for number in range(1, 5)]
        wait(sent[1:], timeout=10, return_when=FIRST_COMPLETED)  # refused: too many wait
        go_on.set()
        answers = [one.result(timeout=20).status_code for one in sent]
    assert answers[0] == 200
    assert sorted(answers) == [200, 200, 200, 200, 503]


def test_interactions_that_cannot_be_stored_are_not_acknowledged(
    settings: Settings, client: TestClient
):
    settings.staging.parent.mkdir(parents=True, exist_ok=True)
    settings.staging.write_text("a file where the folder should be")
    answer = client.post("/interactions", json=event(1))
    assert answer.status_code == 503
    assert "send them again" in answer.json()["detail"]


def test_stats_and_metrics_count_what_was_asked(client: TestClient):
    for user in (1, 2, "nobody"):
        client.post("/recommend", json={"user_id": user})
    client.post("/recommend", json={"user_id": 1, "topk": 0})
    client.app.state.service.requests.flush()
    stats = client.get("/stats").json()
    assert stats["traffic"][0]["requests"] == 4
    assert stats["traffic"][0]["error_rate"] == 0
    assert stats["traffic"][0]["fallback_rate"] == pytest.approx(1 / 3)
    assert stats["fallback_methods"] == {"popularity": 1}
    text = client.get("/metrics").text
    assert 'recsys_requests_total{endpoint="/recommend",status="2xx"} 3.0' in text
    assert 'recsys_requests_total{endpoint="/recommend",status="4xx"} 1.0' in text
    assert 'recsys_model{model_id="als_1"} 1.0' in text


def test_a_newer_catalogue_is_taken_over_while_the_model_stays(
    settings: Settings, client: TestClient
):
    engine = client.app.state.service.engine
    assert engine.follow_catalogue() is False
    gone = ids(client.post("/recommend", json={"user_id": 0, "topk": 3}).json())
    publish_products(settings, [int(item[1:]) for item in gone])
    assert engine.follow_catalogue() is True
    for user in (0, "nobody"):
        answer = client.post("/recommend", json={"user_id": user, "topk": 30}).json()
        assert not set(ids(answer)) & set(gone)
        assert answer["model_id"] == "als_1"
    assert client.get("/model_info").json()["catalogue_version"] == "v_newer"


def test_a_damaged_catalogue_is_refused_with_its_name(
    settings: Settings, client: TestClient, admin: dict[str, str]
):
    publish_products(settings, [])
    (settings.processed / "shown_products.jsonl").write_text("not a table")
    with pytest.raises(ShownError):
        client.app.state.service.engine.follow_catalogue()
    answer = client.post("/reload_model", json={"model_id": "als_1"}, headers=admin)
    assert answer.status_code == 409
    assert "shown_products.jsonl: cannot be read" in answer.json()["detail"]
    assert ids(client.post("/recommend", json={"user_id": 1}).json())
    assert client.get("/model_info").json()["catalogue_version"] == "als_1"


def publish_products(settings: Settings, unavailable: list[int]) -> None:
    """A data version of which only the manifest and the catalogue matter here."""
    folder = settings.versions / "v_newer"
    folder.mkdir(parents=True)
    write_shown(folder / "shown_products.jsonl", products(unavailable=tuple(unavailable)))
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, "files": {}}))
    settings.processed.symlink_to("versions/v_newer")


def test_old_events_are_removed(settings: Settings):
    add_model(settings, "als_1")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        client.post("/recommend", json={"user_id": 1})
        client.post("/interactions", json=event(1))
    long_ago = time.time() - 400 * 86_400
    with sqlite3.connect(settings.home / "data" / "live_events.db") as database:
        database.execute("UPDATE events SET received = ?", (long_ago,))
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        service = client.app.state.service
        service.live.prune()
        assert service.live.of("2") == ()


def test_users_whose_events_are_all_pruned_are_forgotten_in_every_worker(tmp_path: Path):
    signs = shared.ChangeSign(shared.attach(None))
    pruning, other = (LiveEvents(tmp_path / "live.db", 30, signs) for _ in range(2))
    moment = datetime.now(UTC)
    for user in ("gone", "stays"):
        sent = {"event_id": user, "user_id": user, "product_id": "p1", "rating": 5}
        pruning.add([sent | {"timestamp": moment}])
    assert all(live.has(user) for live in (pruning, other) for user in ("gone", "stays"))
    with sqlite3.connect(tmp_path / "live.db") as database:
        database.execute("UPDATE events SET received = 0 WHERE user_id = 'gone'")
    pruning.prune()
    other.forget()
    for live in (pruning, other):
        assert live._users == {"stays"}
        assert not live.has("gone")
    pruning.add([sent | {"event_id": "again", "user_id": "gone", "timestamp": moment}])
    assert pruning.has("gone")
    assert other.has("gone")
    for live in (pruning, other):
        live.close()


def test_a_batch_keeps_no_single_list_waiting(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    begun, over = threading.Semaphore(0), threading.Event()

    def hanging(*_: Any) -> list[Any]:
        begun.release()
        over.wait(30)
        return []

    monkeypatch.setattr("serving.routes.lists._all_answers", hanging)
    client.post("/interactions", json=event(1))  # now the list is computed in a thread
    with ThreadPoolExecutor() as pool:
        asked = {"user_ids": [1]}
        batches = [pool.submit(client.post, "/batch_recommend", json=asked) for _ in range(4)]
        assert all(begun.acquire(timeout=10) for _ in range(SLOW_THREADS))
        single = pool.submit(client.post, "/recommend", json={"user_id": 2})
        try:
            assert single.result(timeout=5).status_code == 200
        finally:
            over.set()
        assert all(batch.result().status_code == 200 for batch in batches)


def test_scores_are_finite_and_descend(shared_client: TestClient):
    rows = shared_client.post("/recommend", json={"user_id": 4, "topk": 20}).json()[
        "recommendations"
    ]
    scores = [row["score"] for row in rows]
    assert np.isfinite(scores).all()
    assert scores == sorted(scores, reverse=True)
