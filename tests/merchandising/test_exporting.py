"""The lists of all customers in one file: those that the service would give, each once."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.ids import IdRules
from recsys.locks import PipelineLock
from recsys.merchandising import exporting
from recsys.merchandising.exporting import export_lists
from recsys.models.als import Als, AlsParameters
from recsys.models.base import Model
from recsys.outcomes.daily import figured_days, read_totals
from recsys.outcomes.job import compute_outcomes
from recsys.privacy import ask_to_forget
from recsys.schedule import DataInterval
from recsys.settings import REPOSITORY, Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.serving.shops import ITEMS, USERS, add_model, histories, product_id, products
from tests.test_served_lists import found

KINDS = ("rating", "purchase", "cart", "view", "dismiss")
RULES = """\
rules:
  - {name: tet, action: pin, position: 2, products: {ids: [p33]}, author: a, reason: b}
  - {name: one, action: limit, at_most: 1, products: {brands: [sach]}, author: a, reason: b}
  - {name: gone, action: hide, placements: [mail], products: {ids: [p1, p2]}, author: a, reason: b}
"""


@pytest.fixture
def shop(settings: Settings) -> Settings:
    """Sixty customers, one model; some products are not sold."""
    add_shop(settings)
    return settings


@cache
def trained() -> Model:
    return Als(AlsParameters(factors=2, iterations=10)).fit(histories(), ITEMS)


def add_shop(settings: Settings) -> None:
    sold = products(unavailable=(3, 25), families={4: "f5"})
    add_model(settings, "als_1", model=trained(), shop_products=sold)


def configure(settings: Settings, **files: str) -> None:
    (settings.home / "config").mkdir(exist_ok=True)
    for name, text in files.items():
        (settings.home / "config" / f"{name}.yaml").write_text(text, encoding="utf-8")


def event(number: int, user: str, item: int, kind: str) -> dict:
    sent = {"event_id": f"e{number}", "user_id": user, "product_id": product_id(item), "kind": kind}
    return sent | ({"rating": 5} if kind == "rating" else {})


def service(settings: Settings) -> TestClient:
    return TestClient(create_app(settings, ServiceEnvironment()))


def exported(settings: Settings, **options: object) -> list[dict]:
    file = settings.home / "lists.parquet"
    export_lists(settings, "mail", file, **options)  # type: ignore[arg-type]
    return pq.read_table(file).to_pylist()


events = st.lists(
    st.tuples(
        st.sampled_from(["3", "1", "17", "59", "new", "other"]),
        st.integers(0, 39),
        st.sampled_from(KINDS),
    ),
    max_size=12,
)


@given(
    events,
    st.sampled_from(["", RULES]),
    st.sampled_from(["true", "false", "until_due"]),
    st.sampled_from(["", "spread: {brand: 4}", "spread: {category: 3, diversity: 0.3}"]),
    st.sampled_from([3, 6, 30]),
)
@hypothesis_settings(max_examples=8)
def test_a_list_in_the_file_is_what_the_service_answers(
    tmp_path_factory: pytest.TempPathFactory,
    sent: list[tuple[str, int, str]],
    rules: str,
    exclude_seen: str,
    spread: str,
    length: int,
):
    settings = Settings(tmp_path_factory.mktemp("export"))
    add_shop(settings)
    wish = f"length: {length}, exclude_seen: {exclude_seen}"
    mail = f"{{{wish}, {spread}}}" if spread else f"{{{wish}}}"
    configure(settings, rules=rules, placements=f"placements:\n  mail: {mail}\n")
    with service(settings) as client:
        if sent:
            body = {"events": [event(number, *one) for number, one in enumerate(sent)]}
            assert client.post("/interactions", json=body).status_code == 200
        rows = exported(settings)
        known = [str(user) for user in sorted(range(USERS), key=str)]
        assert [row["user_id"] for row in rows[:USERS]] == known
        assert {row["user_id"] for row in rows[USERS:]} == {user for user, *_ in sent} - {*known}
        asked = {"user_ids": [row["user_id"] for row in rows], "placement": "mail"}
        answers = client.post("/batch_recommend", json=asked).json()["results"]
        for row, answer in zip(rows, answers, strict=True):
            shown = answer["recommendations"]
            assert row["product_ids"] == [one["product_id"] for one in shown]
            assert row["product_names"] == [one["product_name"] for one in shown]
            assert row["prices"] == [one["price"] for one in shown]
            assert row["fallback_method"] == answer["fallback_method"]


def test_every_list_is_recorded_once_under_its_id(shop: Settings):
    rows = exported(shop, length=4)
    lists, lost = found(shop)
    assert lost == 0
    by_id = {one.id.hex(): one for one in lists}
    assert len(by_id) == len(lists) == len(rows) == USERS
    for row in rows:
        served = by_id[row["recommendation_id"].replace("-", "")]
        assert served.user_id == row["user_id"]
        assert served.products == tuple(row["product_ids"])
        assert (served.placement, served.endpoint) == ("mail", "export_lists")
        assert (served.model_id, served.sources) == ("als_1", "mmmm")


def test_an_export_to_look_at_is_not_recorded(shop: Settings):
    rows = exported(shop, record=False)
    assert {row["recommendation_id"] for row in rows} == {None}
    assert found(shop) == ([], 0)


def test_the_holdout_gets_what_is_popular_and_is_on_its_side(shop: Settings):
    sides = {"0": ("holdout", "popularity"), "5": ("holdout", "popularity")}
    rows = exported(shop, holdout=sides.get)
    methods = {row["user_id"]: row["fallback_method"] for row in rows}
    assert {user for user, method in methods.items() if method == "popularity"} == set(sides)
    of_holdout = {one.user_id for one in found(shop)[0] if one.experiment == "holdout"}
    assert of_holdout == set(sides)


def test_each_product_has_its_reason_where_that_is_asked_for(shop: Settings):
    configure(shop, rules=RULES)
    for row in exported(shop, explain=True):
        assert len(row["reasons_vi"]) == len(row["reasons_en"]) == len(row["product_ids"])
        pinned = row["product_ids"].index("p33") if "p33" in row["product_ids"] else None
        for place, text in enumerate(row["reasons_en"]):
            assert (text == "Featured by the shop") == (place == pinned == 1 or text[0] == "F")
    assert "reasons_vi" not in exported(shop)[0]


KILLED = """
import os, signal, sys
from pathlib import Path
import pyarrow.parquet as pq
from recsys.merchandising import exporting
from recsys.settings import Settings

exporting.CUSTOMERS_AT_ONCE = 7
dies_at, calls = sys.argv[3], []
if dies_at.isdigit():
    write = pq.write_table
    def counted(*given, **more):
        calls.append(1)
        if len(calls) == int(dies_at):
            os.kill(os.getpid(), signal.SIGKILL)
        write(*given, **more)
    pq.write_table = counted
else:
    place = exporting.shutil if dies_at == "rmtree" else exporting
    before = getattr(place, dies_at)
    def dies(*given, **more):
        if "ignore_errors" not in more:  # nor when it begins
            os.kill(os.getpid(), signal.SIGKILL)
        before(*given, **more)
    setattr(place, dies_at, dies)
exporting.export_lists(Settings(Path(sys.argv[1])), "mail", Path(sys.argv[2]))
"""


@pytest.mark.parametrize("dies_at", ["5", "_publish", "write_segment", "rmtree"])
def test_killed_anywhere_it_goes_on_and_each_list_counts_once(
    shop: Settings, monkeypatch: pytest.MonkeyPatch, dies_at: str
):
    file = shop.home / "lists.parquet"
    command = [sys.executable, "-c", KILLED, str(shop.home), str(file), dies_at]
    where = {"PYTHONPATH": f"{REPOSITORY / 'include'}:{REPOSITORY}"}
    died = subprocess.run(command, env=os.environ | where, check=False)
    assert died.returncode == -9
    before = {part.name: part.read_bytes() for part in parts_of(file)}
    assert len(before) == (4 if dies_at == "5" else 9)
    whole = file.read_bytes() if file.exists() else None
    monkeypatch.setattr(exporting, "CUSTOMERS_AT_ONCE", 7)
    told: list[str] = []
    done = export_lists(shop, "mail", file, tell=told.append)
    assert done["customers"] == USERS
    assert "Going on" in told[0]
    assert whole in (None, file.read_bytes())
    rows = pq.read_table(file).to_pylist()
    assert len({row["user_id"] for row in rows}) == len(rows) == USERS
    lists, lost = found(shop)
    assert lost == 0
    assert sorted(one.id.hex() for one in lists) == sorted(
        row["recommendation_id"].replace("-", "") for row in rows
    )
    assert not [path for path in shop.home.iterdir() if path.name.startswith(".lists")]


def test_the_outcomes_count_an_export_once_that_was_resumed_between_their_runs(
    shop: Settings, monkeypatch: pytest.MonkeyPatch
):
    """It is killed with some of its lists recorded, and the hourly job comes before it goes on."""
    file, written = shop.home / "lists.parquet", []
    record = exporting.write_segment

    def dies(*given: Any) -> None:
        written.append(given)
        if len(written) == 5:
            raise KeyboardInterrupt
        record(*given)

    def outcomes() -> float:
        until = datetime.now(UTC) + timedelta(hours=1)
        compute_outcomes(shop, DataInterval(until - timedelta(hours=2), until))
        return sum(read_totals(shop, day)["lists"] for day in figured_days(shop))

    monkeypatch.setattr(exporting, "CUSTOMERS_AT_ONCE", 7)
    with monkeypatch.context() as killed:
        killed.setattr(exporting, "write_segment", dies)
        with pytest.raises(KeyboardInterrupt):
            export_lists(shop, "mail", file)
    assert outcomes() == 4 * 7
    export_lists(shop, "mail", file)
    assert outcomes() == USERS
    assert outcomes() == USERS
    lists, lost = found(shop)
    rows = pq.read_table(file).to_pylist()
    assert {one.id.hex() for one in lists} <= {
        row["recommendation_id"].replace("-", "") for row in rows
    }
    assert lost == 0


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def parts_of(file: Path) -> list[Path]:
    return list(file.with_name(f".{file.name}.parts").glob("*.parquet"))


@pytest.mark.parametrize("changed", ["rules", "damage", "age", "length"])
def test_what_is_left_of_another_export_is_not_gone_on_with(
    shop: Settings, monkeypatch: pytest.MonkeyPatch, changed: str
):
    file = shop.home / "lists.parquet"
    plan = file.with_name(f".{file.name}.parts") / "plan.json"
    with monkeypatch.context() as ended:
        ended.setattr(exporting, "_publish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export_lists(shop, "mail", file)
    if changed == "rules":
        configure(shop, rules=RULES)
    elif changed == "damage":
        plan.write_text('{"now"')
    elif changed == "age":
        old = json.loads(plan.read_text())
        plan.write_text(json.dumps(old | {"now": old["now"] - 7 * 3600}))
    told: list[str] = []
    length = 3 if changed == "length" else None
    done = export_lists(shop, "mail", file, length=length, tell=told.append)
    assert "anew" in told[0]
    assert done["customers"] == USERS


@pytest.mark.parametrize(
    ("placement", "name", "length", "said"),
    [
        ("nowhere", "a.parquet", None, "placements.yaml: there is no placement nowhere"),
        ("product", "a.parquet", None, "its lists are of similar_items"),
        ("mail", "a.csv", None, "a.csv: expected the name of a .parquet file"),
        ("mail", "a.parquet", 0, "expected 1 to 100 products, got 0"),
    ],
)
def test_what_cannot_be_exported_is_told_in_a_sentence(
    shop: Settings, placement: str, name: str, length: int | None, said: str
):
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        export_lists(shop, placement, shop.home / name, length=length)


def test_without_a_model_and_beside_another_export_there_is_none(settings: Settings):
    settings.home.mkdir()
    with pytest.raises(InputError, match="no model yet"):
        export_lists(settings, "mail", settings.home / "a.parquet")
    with PipelineLock("export_lists", settings), pytest.raises(InputError, match="Another export"):
        export_lists(settings, "mail", settings.home / "a.parquet")


def test_who_is_forgotten_has_no_list_in_the_file_nor_in_the_records(shop: Settings):
    """Also where they asked for it while the export ran, and parts of it stood already."""
    file = shop.home / "lists.parquet"

    def ask(said: str) -> None:
        if "customers" in said:
            ask_to_forget(shop, ["17", "new"], "lan", IdRules())

    with service(shop) as client:
        client.post("/interactions", json=event(1, "new", 3, "rating"))
    done = export_lists(shop, "mail", file, tell=ask)
    users = set(pq.read_table(file)["user_id"].to_pylist())
    assert users == {str(user) for user in range(USERS)} - {"17"}
    assert done["customers"] == len(users)
    assert {one.user_id for one in found(shop)[0]} == users
