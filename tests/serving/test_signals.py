"""Events of all kinds: what is taken, what it does to lists at once, in every worker."""

import json
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from fastapi.testclient import TestClient

from recsys.content import ContentConfig
from recsys.content.job import embed_products
from recsys.merchandising.recommending import LiveEvent, history_of
from recsys.models.kinds import CODE_OF
from recsys.schema import Kind
from recsys.settings import Settings
from serving import interactions, shared
from serving.app import create_app
from serving.config import ServiceEnvironment
from serving.interactions import LOOKS_A_PURCHASE, LiveEvents, guest
from tests.documented import pages, table
from tests.serving.service_process import running_service
from tests.serving.shops import ITEMS, LIPSTICKS, add_model, product_id, products
from tests.serving.test_interactions import ids, staged

SIGNALS = [kind.value for kind in Kind if kind is not Kind.RATING]
LIST_ID = "0197f0a2-7c3b-7d10-9a55-0242ac120002"


def signal(number: object, kind: str = "view", product: str = "p1", **more: object) -> dict:
    return {"event_id": f"s{number}", "user_id": "2", "product_id": product, "kind": kind, **more}


def send(client: TestClient, *events: dict) -> dict:
    answer = client.post("/interactions", json={"events": list(events)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def listed(client: TestClient, user: object = 2, **more: object) -> list[str]:
    body = {"user_id": user, "topk": ITEMS, **more}
    return ids(client.post("/recommend", json=body).json())


@pytest.fixture
def quiet(settings: Settings) -> Iterator[TestClient]:
    """A service in which p3, p5 and p7 are sizes of one product."""
    families = {3: "sizes", 5: "sizes", 7: "sizes"}
    add_model(settings, "als_1", shop_products=products(families=families))
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        yield client


def test_every_kind_is_staged_with_all_it_says(settings: Settings, client: TestClient):
    about = {"recommendation_id": LIST_ID.upper(), "placement": "home", "session_id": 12.0}
    worth = {"quantity": 2, "value": 378000, "currency": "VND"}
    events = [signal(kind, kind, **about, **worth) for kind in SIGNALS]
    assert send(client, *events)["accepted"] == len(SIGNALS)
    said = {"rating": "", "comment": "", "quantity": "2.0", "value": "378000.0"}
    said |= {"recommendation_id": LIST_ID, "placement": "home", "session_id": "12"}
    for kind, line in zip(SIGNALS, staged(settings), strict=True):
        assert {**line, **said, "kind": kind} == line
        assert "currency" not in line


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (signal(1, "bought"), "kind: Input should be 'rating', 'purchase'"),
        (signal(1, "rating"), "rating: expected the stars of a rating, 1 to 5"),
        (signal(1, "view", rating=5), "rating: a view has no stars"),
        (signal(1, "cart", comment="đẹp"), "comment: a cart has no comment"),
        (signal(1, user_id=None), "user_id: there is neither a user nor a session"),
        (signal(1, user_id="guest"), "user_id: the user is a placeholder"),
        (signal(1, "rating", rating=5, user_id=None, session_id="s"), "user_id: there is no user"),
        (signal(1, session_id="a\u0007"), "session_id: the session is not an id"),
        (signal(1, "purchase", quantity=0), "quantity: Input should be greater than"),
        (signal(1, "purchase", quantity=10_001), "quantity: Input should be less than"),
        (signal(1, "purchase", value=-1), "value: Input should be greater than"),
        (signal(1, "purchase", value="5"), "value: Input should be a number"),
        (signal(1, "purchase", value=5, currency="USD"), "currency: expected VND"),
        (signal(1, placement="Trang chủ"), "placement: the placement is no name of 1 to 64"),
        (signal(1, value_vnd=5), "value_vnd: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_with_an_event_is_said(
    settings: Settings, shared_client: TestClient, body: dict, said: str
):
    answer = shared_client.post("/interactions", json={"events": [body]})
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_a_list_that_is_not_known_is_no_fault(settings: Settings, client: TestClient):
    send(client, signal(1, recommendation_id="mail-2025-01"), signal(2, recommendation_id="null"))
    assert [line.get("recommendation_id") for line in staged(settings)] == ["mail-2025-01", None]


def test_what_was_bought_is_not_shown_and_what_was_looked_at_is(quiet: TestClient):
    before = listed(quiet)
    bought, carted, clicked, viewed = before[:4]
    send(
        quiet,
        *(
            signal(n, kind, product)
            for n, (kind, product) in enumerate(
                [("purchase", bought), ("cart", carted), ("click", clicked), ("view", viewed)]
            )
        ),
    )
    after = listed(quiet)
    assert set(before) - set(after) == {bought}
    assert bought in listed(quiet, exclude_seen=False)
    history = quiet.app.state.service.live.of("2")
    assert [event.kind for event in history] == ["purchase", "cart", "click", "view"]


def test_looks_make_the_list_of_somebody_new(quiet: TestClient):
    views = [signal(number, "view", f"p{number}", user_id="new") for number in (21, 22, 23)]
    send(quiet, *views)
    answer = quiet.post("/recommend", json={"user_id": "new", "topk": 5}).json()
    assert answer["fallback"] is False
    assert not set(ids(answer)) & {product_id(item) for item in LIPSTICKS}
    assert {"p21", "p22", "p23"} & set(listed(quiet, "new"))


@pytest.mark.parametrize("known", [True, False])
def test_what_was_dismissed_is_hidden_at_once_on_every_path(quiet: TestClient, known: bool):
    user = 2 if known else "new"
    assert {"p3", "p5", "p7"} & set(listed(quiet, user, exclude_seen=False))
    send(quiet, signal(1, "dismiss", "p3", user_id=user), signal(2, "dismiss", "p21", user_id=user))
    gone = {"p3", "p5", "p7", "p21"}
    for more in ({}, {"exclude_seen": False}, {"min_price": 0}, {"history": ["p3", "p22"]}):
        assert not set(listed(quiet, user, **more)) & gone
    batch = quiet.post("/batch_recommend", json={"user_ids": [user, 4], "topk": ITEMS}).json()
    assert not set(ids(batch["results"][0])) & gone
    assert set(ids(batch["results"][1])) & gone, "nobody else's business"
    send(quiet, signal(3, "view", "p3", user_id=user), signal(4, "click", "p21", user_id=user))
    assert not set(listed(quiet, user, exclude_seen=False)) & gone
    time.sleep(1.1)  # times are whole seconds
    send(quiet, signal(5, "purchase", "p21", user_id=user))
    assert set(listed(quiet, user, exclude_seen=False)) & gone == {"p21"}


def test_a_dismissal_outlasts_any_number_of_looks(quiet: TestClient):
    send(quiet, signal("d", "dismiss", "p21"), signal("p", "purchase", "p22"))
    for batch in range(2):
        send(quiet, *(signal(f"{batch}-{n}", "view", f"p{n % 20}") for n in range(600)))
    assert not {"p21", "p22"} & set(listed(quiet))
    assert len(quiet.app.state.service.live.of("2")) == 202


def test_another_worker_hides_what_was_dismissed_here(quiet: TestClient):
    service = quiet.app.state.service
    path = service.settings.home / "data" / "live_events.db"
    other = LiveEvents(path, 30, shared.ChangeSign(shared.attach(None)))
    assert not other.has("2")
    send(quiet, signal(1, "dismiss", "p3"))
    time.sleep(0.11)  # without the shared sign: another service on the same state
    (event,) = other.of("2")
    assert event._replace(time=0) == LiveEvent("p3", 0.0, 0, "dismiss")
    other.close()


@pytest.mark.boots
def test_every_worker_hides_what_was_dismissed_in_one_of_them(settings: Settings, free_port: int):
    add_model(settings, "als_1")
    url = f"http://127.0.0.1:{free_port}"
    with running_service(settings, free_port, workers=2):
        for number in range(1, 7):
            user = {"user_id": number, "topk": 3}  # of these the lists are made in advance
            shown = ids(requests.post(f"{url}/recommend", json=user, timeout=20).json())
            event = signal(number, "dismiss", shown[0], user_id=number)
            assert requests.post(f"{url}/interactions", json=event, timeout=20).status_code == 200
            for _ in range(8):  # each on a connection of its own: any worker may answer
                for more in ({}, {"exclude_seen": False}):
                    answer = requests.post(f"{url}/recommend", json=user | more, timeout=20)
                    assert shown[0] not in ids(answer.json())


def test_a_rating_counts_before_whatever_else_was_done_with_a_product(quiet: TestClient):
    snapshot = quiet.app.state.service.engine.snapshot
    live = (
        LiveEvent("p1", 0.0, 100, "view"),
        LiveEvent("p1", 2.0, 200, "rating"),
        LiveEvent("p1", 0.0, 300, "purchase"),
        LiveEvent("p2", 0.0, 400, "cart"),
        LiveEvent("p2", 0.0, 500, "click"),
        LiveEvent("p4", 4.0, 600, "rating"),
        LiveEvent("p4", 0.0, 700, "dismiss"),
        LiveEvent("p6", 0.0, 800, "dismiss"),
        LiveEvent("p6", 0.0, 900, "purchase"),
    )
    history = history_of(snapshot, "new", live, [], 1000)
    rows = zip(
        history.items, history.kinds, history.times, history.confidence, history.weight, strict=True
    )
    found = {f"p{row[0]}": tuple(round(float(one), 3) for one in row[1:]) for row in rows}
    assert found == {
        "p1": (CODE_OF["rating"], 200, 0, 1),
        "p2": (CODE_OF["cart"], 400, 5, 0.5),
        "p4": (CODE_OF["dismiss"], 700, 0, 0),
        "p6": (CODE_OF["purchase"], 900, 5, 1),
    }


def test_guests_are_known_by_their_session_and_are_nobody_else(
    settings: Settings, client: TestClient
):
    events = [
        signal(n, "view", f"p{n}", user_id=who, session_id="s-1")
        for n, who in ((21, None), (22, "guest"), (23, "undefined"))
    ]
    send(client, *events)
    assert [line["user_id"] for line in staged(settings)] == ["", "", ""]
    live = client.app.state.service.live
    assert len(live.of(guest("s-1"))) == 3
    assert not live.has("s-1")
    assert not live.has("")


def test_the_visit_of_a_guest_counts_in_their_list_and_stays_with_who_logs_in(quiet: TestClient):
    visit = [signal(n, "cart", f"p{n}", user_id=None, session_id="s-1") for n in (21, 22, 23)]
    send(quiet, *visit, signal("d", "dismiss", "p3", user_id=None, session_id="s-1"))
    for user in ("guest", "new"):
        asked = {"user_id": user, "topk": 5}
        assert quiet.post("/recommend", json=asked).json()["fallback"] is True
        answer = quiet.post("/recommend", json=asked | {"session_id": "s-1"}).json()
        assert answer["fallback"] is False
        assert not set(ids(answer)) & {product_id(item) for item in LIPSTICKS}
        assert not {"p3", "p5", "p7"} & set(listed(quiet, user, session_id="s-1"))
    known = listed(quiet, 2, session_id="s-1", exclude_seen=False)
    assert not {"p3", "p5", "p7"} & set(known)
    assert {"p3", "p5", "p7"} & set(listed(quiet, 2, exclude_seen=False))


@pytest.mark.parametrize("whose", [{"user_id": 2}, {"session_id": "s"}])
def test_what_was_dismissed_is_no_similar_product(quiet: TestClient, whose: dict):
    body = {"product_id": "p1", "topk": ITEMS}
    before = ids(quiet.post("/similar_items", json=body | whose).json())
    assert "p3" in before or "p5" in before or "p7" in before
    send(quiet, signal(1, "dismiss", "p3", **({"user_id": None} | whose)))
    send(quiet, signal(2, "purchase", "p4", **({"user_id": None} | whose)))
    after = ids(quiet.post("/similar_items", json=body | whose).json())
    assert set(before) - set(after) <= {"p3", "p5", "p7"}
    assert not set(after) & {"p3", "p5", "p7"}
    assert set(ids(quiet.post("/similar_items", json=body).json())) & {"p3", "p5", "p7"}


def test_what_was_dismissed_is_not_found_by_words(settings: Settings):
    add_model(settings, "als_1")
    words = ContentConfig(text_fields=("product_name", "brand"))
    embed_products(settings, words, products(), "v1")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        body = {"query": "son môi số 3", "topk": 5}
        found = ids(client.post("/search", json=body).json())
        send(client, signal(1, "dismiss", found[0]))
        assert found[0] not in ids(client.post("/search", json=body | {"user_id": 2}).json())
        assert ids(client.post("/search", json=body | {"user_id": 4}).json()) == found


def test_the_examples_of_the_docs_are_taken_and_do_what_they_say(
    settings: Settings, client: TestClient
):
    page = pages()["docs/serving.md"]
    lines = page.partition("```json\n")[2].partition("```")[0].splitlines()
    events = [json.loads(line) for line in lines]
    assert {event.get("kind", "rating") for event in events} == set(Kind)
    for event in events:
        answer = client.post("/interactions", json=event)
        assert answer.json() == {"accepted": 1, "rejected": []}, event
    assert len(staged(settings)) == len(events)
    assert {row[0].strip("`") for row in table("docs/serving.md", "`kind`")} == set(Kind)


def test_looks_are_plausible_by_the_hundreds_and_not_without_end(settings: Settings):
    (settings.home / "config").mkdir(parents=True)
    (settings.home / "config" / "serving.yaml").write_text("max_events_of_user_per_day: 4\n")
    most = 4 * LOOKS_A_PURCHASE
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        send(client, *(signal(n, "view", f"p{n}") for n in range(most)))
        send(client, *(signal(f"b{n}", "purchase", f"p{n}") for n in range(4)))
        refused = send(client, signal("v", "view"), signal("w", "view", user_id="3"))["rejected"]
        bought = client.post("/interactions", json=signal("c", "purchase")).json()["detail"]
        guests = [signal(f"g{n}", "cart", user_id=None, session_id="s") for n in range(most + 1)]
        (beyond,) = send(client, *guests)["rejected"]
    assert [one["index"] for one in refused] == [0]
    assert f"user_id: more than {most} carts, clicks, views and dis" in refused[0]["reason"]
    assert "user_id: more than 4 events of one user" in bought
    assert beyond["reason"].startswith(f"session_id: more than {most} carts")
    assert len(staged(settings)) == 2 * most + 4 + 1
    (kept,) = (settings.quarantine / "interactions").iterdir()
    kinds = [json.loads(line)["kind"] for line in kept.read_text().splitlines()]
    assert kinds == ["view", "purchase", "cart"]


OLD_TABLES = """
CREATE TABLE events (
  number INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
  product_id TEXT NOT NULL, rating REAL NOT NULL, time INTEGER NOT NULL, received REAL NOT NULL,
  digest TEXT);
"""


def test_a_rating_sent_again_over_an_upgrade_is_known(settings: Settings):
    rating = {"event_id": "e1", "user_id": 2, "product_id": "p1", "rating": 5}
    timed = rating | {"event_id": "e2", "timestamp": "2025-01-01T07:00:00.5+07:00", "comment": "ổn"}
    # As the service of before there were kinds wrote them.
    digests = {"e1": "8e2d0636ef0aea8fd917bbf747ee415b", "e2": "b92bf9bebf0f3e98d0c7c4f76d00c2ce"}
    path = settings.home / "data" / "live_events.db"
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as database:
        database.executescript(OLD_TABLES)
        database.executemany(
            "INSERT INTO events (event_id, user_id, product_id, rating, time, received, digest) "
            "VALUES (?, '2', 'p1', 5, 1735689600, ?, ?)",
            [(name, time.time(), digest) for name, digest in digests.items()],
        )
    add_model(settings, "als_1")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        assert send(client, rating, timed)["accepted"] == 2
        assert staged(settings) == []
        answer = client.post("/interactions", json=rating | {"placement": "home"})
        assert "another event was sent under this id" in answer.json()["detail"]
        assert {event.kind for event in client.app.state.service.live.of("2")} == {"rating"}
        send(client, signal(1, "dismiss", "p3"))
        assert "p3" not in listed(client, exclude_seen=False)


def test_a_signal_that_is_sent_again_counts_once(settings: Settings, client: TestClient):
    for _ in range(3):
        send(client, signal(1, "purchase", quantity=2))
    answer = client.post("/interactions", json=signal(1, "purchase", quantity=3))
    assert "another event was sent under this id" in answer.json()["detail"]
    assert len(staged(settings)) == len(client.app.state.service.live.of("2")) == 1


def test_looks_are_forgotten_after_a_day_and_the_rest_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(interactions, "_PRUNED_AT_ONCE", 3)
    live = LiveEvents(tmp_path / "live.db", 30, shared.ChangeSign(shared.attach(None)))
    moment = datetime.now(UTC)
    for age, name in ((40, "old"), (2, "past"), (0, "new")):
        live.add(
            signal(
                f"{name}-{n}",
                kind,
                user_id=name,
                session_id="",
                rating=None,
                timestamp=moment - timedelta(days=age),
            )
            for n, kind in enumerate(SIGNALS)
        )
        with sqlite3.connect(tmp_path / "live.db") as database:
            received = time.time() - age * 86_400
            database.execute("UPDATE events SET received = ? WHERE user_id = ?", (received, name))
    live.prune()
    assert not live.has("old")
    assert [event.kind for event in live.of("past")] == ["purchase", "cart", "dismiss"]
    assert len(live.of("new")) == len(SIGNALS)
    live.close()
