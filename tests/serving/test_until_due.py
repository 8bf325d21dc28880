"""What was had and is used up may return: `exclude_seen: "until_due"`, over HTTP.

Lipsticks are bought again after 30 days, shampoos after 60, and nothing else ever."""

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys.models.histories import histories_from_codes, take_users
from recsys.models.item_knn import ItemKnn
from recsys.models.kinds import CODE_OF
from recsys.models.popularity import DAY
from recsys.settings import Settings
from recsys.training.job import select_best, train_model
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.models.shop import publish_shop, taste_interactions
from tests.serving.shops import (
    BY_ID,
    ITEMS,
    USERS,
    add_model,
    product_id,
    products,
)

DUE = np.where(np.arange(ITEMS) < 20, 30, 60).astype(np.float32)
NEVER = 5
DUE[NEVER] = np.nan
AGES = (10, 35, 50, 70)
"""Days since user u has bought product ``u + 3 n``, n counting from 0, of those of their taste."""


def had_by(user: int) -> list[int]:
    start = 0 if user % 2 == 0 else 20
    return [start + (user + 3 * step) % 20 for step in range(len(AGES))]


def due_for(user: int) -> set[int]:
    ages = zip(had_by(user), AGES, strict=True)
    return {item for item, age in ages if age >= (30 if item < 20 else 60) and item != NEVER}


def add_shop(settings: Settings, families: dict[int, str] | None = None, **more: object) -> None:
    """The oldest of each customer's purchases was rated half a year ago, before it was bought."""
    now = int(time.time())
    users = np.repeat(np.arange(USERS), len(AGES))
    items = np.array([had_by(user) for user in range(USERS)], dtype=np.int32).ravel()
    got = now - np.tile(np.array(AGES), USERS) * DAY - 60
    rated = np.tile(np.array(AGES) == max(AGES), USERS)
    told = np.where(rated, now - 180 * DAY, got)
    kinds = np.where(rated, CODE_OF["rating"], CODE_OF["purchase"]).astype(np.int8)
    done = histories_from_codes(users, items, told, count=USERS, kinds=kinds)
    by_id = take_users(done, BY_ID)
    last = dict(zip(zip(users.tolist(), items.tolist(), strict=True), got.tolist(), strict=True))
    owner = np.repeat(BY_ID, len(AGES)).tolist()
    add_model(
        settings,
        "item_knn_1",
        model=ItemKnn().fit(done, ITEMS),
        done=done,
        due_days=DUE,
        got=np.array([last[key] for key in zip(owner, by_id.items.tolist(), strict=True)]),
        shop_products=products(families=families),
        **more,
    )


def service(settings: Settings, lists: float = 20) -> TestClient:
    (settings.home / "config").mkdir(parents=True, exist_ok=True)
    (settings.home / "config" / "serving.yaml").write_text(f"personal_lists_seconds: {lists}\n")
    return TestClient(create_app(settings, ServiceEnvironment()))


@pytest.fixture(scope="module", params=[0, 20], ids=["no lists in advance", "lists in advance"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    settings = Settings(tmp_path_factory.mktemp("due"))
    add_shop(settings)
    with service(settings, request.param) as client:
        yield client


def listed(client: TestClient, user: object, exclude_seen: object, **more: object) -> set[int]:
    body = {"user_id": user, "topk": ITEMS, "exclude_seen": exclude_seen, **more}
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    batch = {key: value for key, value in body.items() if key not in ("user_id", "history")}
    if "history" not in more:
        answers = client.post("/batch_recommend", json=batch | {"user_ids": [user]}).json()
        assert ids(answers["results"][0]) == ids(answer.json())
    return {int(one[1:]) for one in ids(answer.json())}


def ids(answer: dict) -> list[str]:
    return [row["product_id"] for row in answer["recommendations"]]


def purchase(client: TestClient, user: int, item: int, **more: object) -> None:
    event = {"event_id": f"e{user}-{item}", "user_id": user, "product_id": product_id(item)}
    sent = client.post("/interactions", json=event | {"kind": "purchase"} | more)
    assert sent.status_code == 200, sent.text


@hypothesis_settings(max_examples=60, deadline=None)
@given(user=st.integers(0, USERS - 1))
def test_what_is_used_up_returns_and_nothing_else(client: TestClient, user: int):
    had = set(had_by(user))
    assert listed(client, user, True).isdisjoint(had)
    assert listed(client, user, False) == set(range(ITEMS))
    assert listed(client, user, "until_due") == set(range(ITEMS)) - had | due_for(user)


def test_filters_and_exclusions_hold_for_what_returns(client: TestClient):
    item = min(due_for(2))
    assert item in listed(client, 2, "until_due", min_price=1000.0 * item)
    assert item not in listed(client, 2, "until_due", min_price=1000.0 * item + 1)
    assert item not in listed(client, 2, "until_due", exclude=[product_id(item)])


def test_a_stranger_has_nothing_that_could_return(client: TestClient):
    assert listed(client, "nobody", "until_due") == set(range(ITEMS))
    # What the caller says of a visitor is of now.
    seen = [product_id(item) for item in (1, 2, 30)]
    found = listed(client, "nobody", "until_due", history=seen)
    assert found == set(range(ITEMS)) - {1, 2, 30}


def test_a_list_in_advance_is_as_good_where_nothing_is_due(settings: Settings):
    """With the longest wait nothing returns, and both are asked of the same list."""
    add_shop(settings)
    with service(settings) as client:
        snapshot = client.app.state.service.engine.snapshot
        snapshot.artifact.due_days[:] = 1_000
        for user in range(6):
            bodies = ({"user_id": user, "exclude_seen": seen} for seen in (True, "until_due"))
            first, second = (client.post("/recommend", json=body).json() for body in bodies)
            assert first["recommendations"] == second["recommendations"]


def test_a_purchase_counts_at_once(settings: Settings):
    add_shop(settings)
    with service(settings) as client:
        item = max(due_for(4))
        assert item in listed(client, 4, "until_due")
        purchase(client, 4, item)
        assert item not in listed(client, 4, "until_due")
        # A review of what was bought says nothing new of when.
        other = min(due_for(4) - {item})
        review = {"kind": "rating", "rating": 5}
        purchase(client, 4, other, **review)
        assert other in listed(client, 4, "until_due")


def test_what_was_dismissed_does_not_return(settings: Settings):
    add_shop(settings)
    with service(settings) as client:
        item = max(due_for(4))
        purchase(client, 4, item, kind="dismiss")
        assert item not in listed(client, 4, "until_due") | listed(client, 4, False)


def test_of_a_family_the_latest_purchase_counts(settings: Settings):
    """Product 4 is used up, another size of it was bought ten days ago."""
    user = 4
    young, old = had_by(user)[0], max(due_for(user))
    add_shop(settings, families={young: "one", old: "one"})
    with service(settings) as client:
        assert not {young, old} & listed(client, user, "until_due")
        assert due_for(user) - {old} <= listed(client, user, "until_due")


def test_who_had_everything_and_needs_nothing_gets_what_may_be_bought_again(settings: Settings):
    add_shop(settings)
    with service(settings) as client:
        for item in range(ITEMS):
            purchase(client, 2, item)
        body = {"user_id": 2, "exclude_seen": "until_due", "topk": 5}
        answer = client.post("/recommend", json=body).json()
        assert (answer["fallback_method"], answer["count"]) == ("again", 5)


def test_a_placement_may_ask_for_it(settings: Settings):
    add_shop(settings)
    (settings.home / "config").mkdir(parents=True, exist_ok=True)
    text = "placements:\n  again: {length: 40, exclude_seen: until_due}\n"
    (settings.home / "config" / "placements.yaml").write_text(text)
    with service(settings) as client:
        answer = client.post("/recommend", json={"user_id": 4, "placement": "again"}).json()
        assert {int(one[1:]) for one in ids(answer)} & set(had_by(4)) == due_for(4)


def test_an_artifact_of_before_knows_nothing_that_is_due(settings: Settings):
    add_model(settings, "als_1")
    with service(settings) as client:
        for user in range(4):
            assert listed(client, user, "until_due") == listed(client, user, True)


@pytest.mark.parametrize("value", ["until-due", "always", 1, None, []])
def test_other_words_are_refused(client: TestClient, value: object):
    body = {"user_id": 1, "exclude_seen": value}
    assert client.post("/recommend", json=body).status_code == 422


def test_the_whole_way_from_purchases_over_a_training_to_the_list(settings: Settings):
    """Customers u1000 to u1039 rated product 0 once, and buy it every thirty days or so: the even
    ones ten days ago, the odd ones forty. All have had something else, which nobody buys again."""
    random, now = np.random.default_rng(0), int(time.time())
    table = taste_interactions()
    table["time"] += now - 20 * DAY - table["time"].max()
    rows = []
    for user in range(1000, 1040):
        when = now - (10 if user % 2 == 0 else 40) * DAY
        for _ in range(6):
            rows.append((user, 0, when, "purchase", "train"))
            when -= int(DAY * 30 * np.exp(random.normal(0, 0.1)))
        table.loc[len(table)] = (user, 0, when)
        table.loc[len(table)] = (user, 1 + user % 50, when - 5 * DAY)
    columns = ["user", "item", "time", "kind", "split"]
    version = publish_shop(settings, table, signals=pd.DataFrame(rows, columns=columns))
    folder = settings.home / "config"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "training.yaml").write_text("tuning: {seconds: 30, trials: 1}\n")
    select_best(settings, [train_model(settings, "item_knn", version)])
    with service(settings) as client:
        days = client.app.state.service.engine.snapshot.artifact.due_days
        assert days[0] == pytest.approx(30, rel=0.1)
        assert np.isnan(days[1:]).all()
        for user in (1000, 1001, 1010, 1011):
            asked = {"user_id": f"u{user}", "topk": 60}
            never = ids(client.post("/recommend", json=asked).json())
            again = client.post("/recommend", json=asked | {"exclude_seen": "until_due"}).json()
            assert "p0" not in never
            assert set(ids(again)) - set(never) == ({"p0"} if user % 2 else set())
            assert f"p{1 + user % 50}" not in ids(again)
