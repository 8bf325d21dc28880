"""Events: one reading for the refresh, which has columns, and the service, which has one each."""

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from recsys import schema
from recsys.columns import read_events
from recsys.data.cleaning import parse_times
from recsys.data.sources import ISO
from recsys.events import KINDS, NO_KIND, NOBODY, Said, read_event
from recsys.ids import NOBODY_BUT_MANY, PLACEHOLDERS, STANDS_FOR_MANY, IdRules
from tests.test_ids import TEXTS

RULES = IdRules.of(PLACEHOLDERS, {"old": "new", "443": "7"})
UUID = "0197F0A2-7C3B-7d10-9a55-0242ac120002"
KNOWN_IDS = ["u1", 443, "old", 0, None, "Guest", "n**a", "Khách lẻ"]
IDS = st.one_of(TEXTS, st.integers(-(2**62), 2**62), st.sampled_from(KNOWN_IDS))
NUMBERS = st.one_of(
    st.none(),
    st.floats(allow_nan=False),
    st.floats(0, 2e4),
    st.sampled_from([0.0, -0.0, 5e-324, 0.001, 1e4, 10_000.5, 1e12, 1e11, 378000.125, 1e-7, 1e308]),
)
OWN_TEXTS = st.one_of(
    st.none(),
    TEXTS,
    st.sampled_from(
        [
            *(
                UUID,
                UUID.replace("-", ""),
                UUID + "0",
                "{" + UUID + "}",
                "r" * 64,
                "r" * 65,
                "é" * 64,
            ),
            *("home-page_1.a", "p" * 64, "p" * 65, "Trang chủ", "\u212a", "home\n", "a b", "NULL"),
        ]
    ),
)
EVENTS = st.fixed_dictionaries(
    {
        schema.KIND: st.one_of(
            st.sampled_from([*KINDS, None, "View", " cart ", "\u212aart"]), TEXTS
        ),
        schema.USER: IDS,
        schema.PRODUCT: IDS,
        schema.SESSION: IDS,
        schema.QUANTITY: NUMBERS,
        schema.VALUE: NUMBERS,
        schema.RECOMMENDATION: OWN_TEXTS,
        schema.PLACEMENT: OWN_TEXTS,
    }
)
MILLENNIUM = datetime(2000, 1, 1)  # noqa: DTZ001 - hypothesis adds the zone
GOOD = {"user_id": "u1", "product_id": "p1", "kind": "view"}


def written(event: dict[str, Any]) -> dict[str, str]:
    """As the staging area keeps it."""
    return {name: "" if value is None else str(value) for name, value in event.items()}


def column_of(rows: list[dict[str, str]]) -> pa.Table:
    names = list(rows[0])
    return pa.table(
        {name: pa.array([row[name] for row in rows], pa.large_string()) for name in names}
    )


def by_columns(table: pa.Table) -> list[tuple[Said, str | None]]:
    columns, faults = read_events(table, RULES)
    names = (schema.KIND, schema.USER, schema.PRODUCT, schema.SESSION)
    names += (schema.QUANTITY, schema.VALUE, schema.RECOMMENDATION, schema.PLACEMENT)
    lists = [
        columns[name].tolist() if hasattr(columns[name], "tolist") else columns[name].to_pylist()
        for name in names
    ]
    reasons = [next((why for bad, why in faults if bad[row]), None) for row in range(len(table))]
    return list(zip(map(Said, *lists), reasons, strict=True))


def known(said: Said) -> Said:
    return said._replace(value=None if math.isnan(said.value) else said.value)  # NaN is not itself


@examples(max_examples=120, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=6))
def test_a_column_of_events_is_judged_like_each_of_them(events: list[dict[str, Any]]):
    found = by_columns(column_of([written(event) for event in events]))
    for event, (said, reason) in zip(events, found, strict=True):
        single, faults = read_event(event, RULES)
        assert next(iter(faults.values()), None) == reason
        if not faults:
            assert known(said) == known(single)


@given(EVENTS)
def test_the_one_reading_is_its_own(event: dict[str, Any]):
    said, faults = read_event(event, IdRules())
    if not faults:
        names = (schema.KIND, schema.USER, schema.PRODUCT, schema.SESSION)
        names += (schema.QUANTITY, schema.VALUE, schema.RECOMMENDATION, schema.PLACEMENT)
        again, more = read_event(dict(zip(names, said, strict=True)), IdRules())
        assert (known(again), more) == (known(said), {})


@given(
    st.datetimes(MILLENNIUM, MILLENNIUM + timedelta(days=36_524)),
    st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_a_time_that_the_service_writes_is_read_as_it_was(moment: datetime, zone: timezone):
    aware = moment.replace(tzinfo=zone)
    texts = pd.Series([aware.astimezone(UTC).isoformat()], dtype="str")
    assert parse_times(texts, (ISO,), ZoneInfo("Asia/Ho_Chi_Minh")).tolist() == [aware]


@pytest.mark.parametrize(
    ("event", "who"),
    [
        ({"user_id": "u1"}, ("u1", "")),
        ({"user_id": "u1", "session_id": "s"}, ("u1", "s")),
        ({"session_id": "s"}, ("", "s")),
        ({"user_id": "guest", "session_id": "s"}, ("", "s")),
        ({"user_id": 0, "session_id": 12.0}, ("", "12")),
        ({"user_id": "undefined", "session_id": "s"}, ("", "s")),
        ({"user_id": "u1", "session_id": "null"}, ("u1", "")),
        ({"user_id": "u1", "session_id": "Guest"}, ("u1", "")),
        ({"user_id": "u1", "session_id": 0.0}, ("u1", "")),
        ({"user_id": "u1", "session_id": "khách lẻ"}, ("u1", "")),
    ],
)
def test_a_guest_is_known_by_the_session(event: dict, who: tuple[str, str]):
    said, faults = read_event({"product_id": "p", "kind": "cart"} | event, RULES)
    assert ((said.user, said.session), faults) == (who, {})


@pytest.mark.parametrize(
    ("event", "field", "why"),
    [
        ({"kind": "bought"}, "kind", NO_KIND),
        ({"kind": "View"}, "kind", NO_KIND),
        ({"user_id": None}, "user_id", NOBODY),
        ({"user_id": "", "session_id": "undefined"}, "user_id", NOBODY),
        ({"user_id": None, "session_id": "0"}, "user_id", NOBODY_BUT_MANY),
        ({"user_id": "null", "session_id": "Khách vãng lai"}, "user_id", NOBODY_BUT_MANY),
        ({"user_id": "guest", "session_id": "-1"}, "user_id", STANDS_FOR_MANY),
        ({"user_id": None, "session_id": "n***a"}, "user_id", NOBODY_BUT_MANY),
        ({"user_id": "0"}, "user_id", STANDS_FOR_MANY),
        ({"kind": None, "user_id": None, "session_id": "s"}, "user_id", "there is no user"),
        ({"kind": "rating", "user_id": "0", "session_id": "s"}, "user_id", STANDS_FOR_MANY),
        ({"user_id": "a\x00b", "session_id": "s"}, "user_id", "the user is not an id"),
        ({"session_id": "a\nb"}, "session_id", "the session is not an id"),
        ({"product_id": "NULL"}, "product_id", "there is no product"),
        ({"quantity": 0}, "quantity", "the quantity is not above 0 and up to 10,000"),
        ({"quantity": math.inf}, "quantity", "the quantity is not above 0 and up to 10,000"),
        ({"value": -1}, "value", "the value is not 0 dong to a million million"),
        ({"value": 1e12}, "value", "the value is not 0 dong to a million million"),
        ({"placement": "Trang chủ"}, "placement", "the placement is no name of"),
    ],
)
def test_what_is_no_event_is_said(event: dict, field: str, why: str):
    _, faults = read_event(GOOD | event, RULES)
    assert list(faults) == [field]
    assert faults[field].startswith(why)


def test_the_id_of_a_list_has_one_spelling():
    for text in (UUID, UUID.lower(), UUID.replace("-", ""), f" {UUID}\n"):
        assert (
            read_event(GOOD | {"recommendation_id": text}, RULES)[0].recommendation == UUID.lower()
        )
        ((said, _),) = by_columns(column_of([GOOD | {"recommendation_id": text}]))
        assert said.recommendation == UUID.lower()
    for text in ("List 7", "é" * 64):
        assert read_event(GOOD | {"recommendation_id": text + " " * 9}, RULES)[0][-2] == text
    assert read_event(GOOD | {"recommendation_id": "é" * 80}, RULES)[0][-2] == "é" * 64


def test_numbers_of_files_are_read_as_they_are_written():
    rows = [
        {
            "product_id": "p",
            "user_id": "u",
            "kind": "purchase",
            "quantity": quantity,
            "value": value,
        }
        for quantity, value in (
            ("2", "378000"),
            ("1,5", ""),
            ("", "1e5"),
            ("two", "0"),
            ("1", "₫5"),
        )
    ]
    found = by_columns(column_of(rows))
    assert [said.quantity for said, _ in found][:3] == [2.0, 1.5, 1.0]
    assert [said.value for said, _ in found][::2][:2] == [378000.0, 100000.0]
    assert [reason and reason.split(" is ")[0] for _, reason in found] == [
        *(None, None, None, "the quantity", "the value")
    ]


def test_columns_that_a_file_lacks_say_nothing_and_prices_may_be_numbers_already():
    table = pa.table({"product_id": pa.array(["p", "q"], pa.large_string())})
    table = table.append_column("session_id", pa.array(["s", "t"], pa.large_string()))
    table = table.append_column("kind", pa.array(["cart", "cart"], pa.large_string()))
    table = table.append_column("value", pa.array([5.0, math.nan]))
    (first, _), (second, _) = by_columns(table)
    assert first == Said("cart", "", "p", "s", 1.0, 5.0, "", "")
    assert math.isnan(second.value)
