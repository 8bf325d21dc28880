"""Batches, similar products, search, interactions, statistics."""

import json
import sqlite3
import time

import numpy as np
import pytest
from fastapi.testclient import TestClient

from recsys.data.shown import ShownError, write_shown
from recsys.data.staging import open_segments, segment_lines
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from serving.schemas import BatchResponse
from tests.serving.shops import LIPSTICKS, add_model, product_id, products


def ids(answer: dict) -> list[str]:
    return [row["product_id"] for row in answer["recommendations"]]


def staged(settings: Settings) -> list[dict]:
    segments = sorted(open_segments(settings).glob("*.jsonl"))
    return [json.loads(line) for segment in segments for line in segment_lines(segment)]


def event(number: int, user: object = "0", product: str = "p1", **more: object) -> dict:
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
    assert answer.json() == {"accepted": 3}
    after = client.post("/recommend", json={"user_id": "new", "topk": 5}).json()
    assert after["fallback"] is False
    assert not set(ids(after)) & {"p21", "p22", "p23"}
    assert not set(ids(after)) & {product_id(item) for item in LIPSTICKS}
    assert [row["event_id"] for row in staged(settings)] == ["e21", "e22", "e23"]


def test_a_known_user_is_not_shown_again_what_was_bought_a_moment_ago(client: TestClient):
    first = ids(client.post("/recommend", json={"user_id": 0, "topk": 5}).json())
    answer = client.post("/interactions", json=event(1, 0, first[0]))
    assert answer.status_code == 200
    assert first[0] not in ids(client.post("/recommend", json={"user_id": 0, "topk": 5}).json())


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
    "body",
    [
        {"events": []},
        event(1, rating=0),
        event(1, rating=6),
        event(1, timestamp="2999-01-01T00:00:00Z"),
        event(1, timestamp="2020-01-01T00:00:00"),
        event(1, timestamp="yesterday"),
        {"event_id": "e", "user_id": 1, "product_id": "p"},
        {"events": [event(1), {"event_id": "e"}]},
    ],
)
def test_bad_interactions_are_refused_as_a_whole(
    settings: Settings, client: TestClient, body: dict
):
    answer = client.post("/interactions", json=body)
    assert answer.status_code == 422
    assert staged(settings) == []


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
        assert service.live.of("0") == ()


def test_scores_are_finite_and_descend(shared_client: TestClient):
    rows = shared_client.post("/recommend", json={"user_id": 4, "topk": 20}).json()[
        "recommendations"
    ]
    scores = [row["score"] for row in rows]
    assert np.isfinite(scores).all()
    assert scores == sorted(scores, reverse=True)
