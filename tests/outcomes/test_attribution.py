"""Which list an event belongs to."""

import uuid
from datetime import timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys import schema
from recsys.outcomes.attribution import FATE, LIST, POSITION, WINDOWS, Fate, Search, attribute
from recsys.outcomes.config import OutcomesConfig
from tests.outcomes.shop import NOON, a_list, an_event, events_of, list_id, lists_of

CONFIG = OutcomesConfig()


def one(lists: list[dict[str, Any]], event: dict[str, Any]) -> tuple[str, bytes | None, int]:
    """Fate, list and position of a single event."""
    result = attribute([lists_of(lists)], events_of([event]), CONFIG)
    return tuple(result[[FATE, LIST, POSITION]].iloc[0])


def test_an_event_belongs_to_the_list_that_it_names() -> None:
    lists = [a_list(1, ["a", "b"]), a_list(2, ["b", "a"], hours=0.5)]
    named = str(uuid.UUID(bytes=lists[0][schema.RECOMMENDATION]))
    for text in (named, named.upper()):
        event = an_event(1, "b", user="", recommendation_id=text)
        assert one(lists, event) == (Fate.ATTRIBUTED, lists[0][schema.RECOMMENDATION], 1)


@pytest.mark.parametrize(
    ("event", "fate"),
    [
        (an_event(1, "c", recommendation_id=str(list_id(NOON, 1))), Fate.NOT_IN_LIST),
        (an_event(1, "z", recommendation_id=str(list_id(NOON, 1))), Fate.NOT_IN_LIST),
        (an_event(1, "a", recommendation_id=str(list_id(NOON, 9))), Fate.UNKNOWN_LIST),
        (an_event(1, "a", recommendation_id="of-another-system"), Fate.UNKNOWN_LIST),
        (an_event(1, "a", hours=-1, recommendation_id=str(list_id(NOON, 1))), Fate.BEFORE_LIST),
    ],
)
def test_an_event_with_a_wrong_name_belongs_nowhere_though_a_list_would_fit(
    event: dict[str, Any], fate: Fate
) -> None:
    lists = [a_list(1, ["a"]), a_list(2, ["a", "c"], hours=-2)]
    assert one(lists, event) == (fate, None, -1)


def test_an_event_without_a_name_belongs_to_the_latest_list_that_held_the_product() -> None:
    lists = [
        a_list(1, ["a", "b"], hours=0.1),
        a_list(2, ["b", "a"], hours=0.5),
        a_list(3, ["c"], hours=0.7),  # holds something else
        a_list(4, ["a"], hours=0.8, user="v"),  # of somebody else
        a_list(5, ["a"], hours=1.2),  # later
    ]
    assert one(lists, an_event(1, "a")) == (Fate.ATTRIBUTED, lists[1][schema.RECOMMENDATION], 1)
    assert one(lists, an_event(1, "a", user="w"))[0] == Fate.NO_LIST


def test_the_lists_of_the_session_count_as_those_of_the_user() -> None:
    lists = [
        a_list(1, ["a"], user="u", hours=0.2),
        a_list(2, ["a"], user="", session_id="s", hours=0.4),
        a_list(3, ["a"], user="", session_id="", hours=0.6),  # shown to nobody that is known
    ]
    found = [one(lists, an_event(1, "a", user=user, session_id=s))[1] for user, s in _WHO]
    ids = [row[schema.RECOMMENDATION] for row in lists]
    assert found == [ids[0], ids[1], ids[1], ids[0], None]


_WHO = [("u", ""), ("", "s"), ("u", "s"), ("u", "t"), ("", "t")]


@pytest.mark.parametrize("kind", WINDOWS)
def test_the_window_of_a_kind_ends_with_its_last_moment(kind: str) -> None:
    hours = WINDOWS[kind] / timedelta(hours=1)
    lists = [a_list(1, ["a"])]
    assert one(lists, an_event(1, "a", kind, hours=hours))[0] == Fate.ATTRIBUTED
    assert one(lists, an_event(1, "a", kind, hours=hours + 1e-6))[0] == Fate.NO_LIST
    named = an_event(1, "a", kind, hours=hours + 99, recommendation_id=str(list_id(NOON, 1)))
    assert one(lists, named)[0] == Fate.ATTRIBUTED


def test_ratings_and_dismissals_are_no_outcomes() -> None:
    events = events_of([an_event(1, "a", "rating"), an_event(2, "a", "dismiss")])
    assert attribute([lists_of([a_list(1, ["a"])])], events, CONFIG).empty


def test_units_with_more_events_than_a_person_has_are_robots() -> None:
    config = OutcomesConfig(robot_events_per_day=3, robots=["staff"])
    rows = [an_event(n, "a", user=u) for n, u in enumerate("rrrrppp")]
    rows += [an_event("s", "a", user="staff"), an_event("t", "a", session_id="staff")]
    fates = attribute([lists_of([a_list(1, ["a"], user="p")])], events_of(rows), config)
    assert fates.groupby(FATE).size().to_dict() == {Fate.ROBOT: 6, Fate.ATTRIBUTED: 3}


def test_of_equal_event_ids_the_first_received_counts() -> None:
    first = an_event(1, "a", hours=2, received_at=NOON + timedelta(hours=2))
    again = an_event(1, "b", hours=1, received_at=NOON + timedelta(hours=3))
    result = attribute([lists_of([a_list(1, ["a", "b"])])], events_of([again, first]), CONFIG)
    assert list(result[schema.PRODUCT]) == ["a"]


def test_nothing_is_found_in_nothing() -> None:
    nothing = lists_of([])
    assert attribute([nothing], events_of([]), CONFIG).empty
    assert attribute([], events_of([an_event(1, "a")]), CONFIG)[FATE].tolist() == [Fate.NO_LIST]
    named = an_event(1, "a", recommendation_id=str(list_id(NOON, 1)))
    assert attribute([nothing], events_of([named]), CONFIG)[FATE].tolist() == [Fate.UNKNOWN_LIST]


def test_a_search_looks_no_further_back_than_its_events_can_reach() -> None:
    named = an_event(1, "a", "purchase", recommendation_id=str(list_id(NOON, 1)))
    click, cart = an_event(2, "a"), an_event(3, "a", "cart")
    backs = [
        Search(events_of(rows), CONFIG).looks_back
        for rows in ([], [named], [named, click], [click, cart])
    ]
    assert backs == [None, None, timedelta(hours=24), timedelta(days=7)]


def test_the_day_of_a_named_list_is_in_its_id() -> None:
    rows = [an_event(1, "a", recommendation_id=str(list_id(NOON, 1)))]
    rows += [an_event(2, "a", recommendation_id=t) for t in ("x", str(uuid.UUID(int=2**128 - 1)))]
    assert Search(events_of(rows), CONFIG).named_at().tolist() == [pd.Timestamp(NOON)]


users, sessions = st.sampled_from(["", "u", "v"]), st.sampled_from(["", "s", "t"])
hours = st.integers(-30, 200).map(float)
some_lists = st.lists(
    st.tuples(st.lists(st.sampled_from("abc"), max_size=4), users, sessions, hours), max_size=8
).map(
    lambda rows: [
        a_list(n, products, user, hour, session_id=session)
        for n, (products, user, session, hour) in enumerate(rows)
    ]
)
some_events = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(list(WINDOWS)), users, sessions, hours),
    max_size=12,
)
names = st.one_of(st.none(), st.integers(0, 9))


def expected(lists: list[dict[str, Any]], event: dict[str, Any]) -> tuple[str, bytes | None, int]:
    """The rules, one event at a time."""

    def place(row: dict[str, Any]) -> tuple[str, bytes, int]:
        where = row["products"].index(event[schema.PRODUCT])
        return Fate.ATTRIBUTED, row[schema.RECOMMENDATION], where

    when, name = event[schema.TIMESTAMP], event[schema.RECOMMENDATION]
    if name:
        for row in lists:
            if str(uuid.UUID(bytes=row[schema.RECOMMENDATION])) == name:
                if row["time"] > when:
                    return Fate.BEFORE_LIST, None, -1
                held = event[schema.PRODUCT] in row["products"]
                return place(row) if held else (Fate.NOT_IN_LIST, None, -1)
        return Fate.UNKNOWN_LIST, None, -1
    fitting = [
        row
        for row in lists
        if timedelta(0) <= when - row["time"] <= WINDOWS[event[schema.KIND]]
        and event[schema.PRODUCT] in row["products"]
        and any(row[key] and row[key] == event[key] for key in (schema.USER, schema.SESSION))
    ]
    if not fitting:
        return Fate.NO_LIST, None, -1
    return place(max(fitting, key=lambda row: (row["time"], row[schema.RECOMMENDATION])))


@settings(max_examples=40)
@given(some_lists, some_events, st.data())
def test_every_event_finds_what_the_rules_say_in_any_order_and_division(
    lists: list[dict[str, Any]], drawn: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    events = []
    for number, (product, kind, user, session, hour) in enumerate(drawn):
        name, named = "", data.draw(names)
        if named is not None:
            known = named < len(lists)
            given_id = lists[named][schema.RECOMMENDATION] if known else uuid.uuid4().bytes
            name = str(uuid.UUID(bytes=given_id))
        events.append(
            an_event(number, product, kind, user, hour, session_id=session, recommendation_id=name)
        )
    told = data.draw(
        st.permutations(events + data.draw(st.lists(st.sampled_from(events))) if events else events)
    )
    shuffled = data.draw(st.permutations(lists))
    cut = data.draw(st.integers(0, len(lists)))
    tables: list[pa.Table] = [lists_of(shuffled[:cut]), lists_of(shuffled[cut:])]
    result = attribute(tables, events_of(told), CONFIG).set_index(schema.EVENT)
    assert len(result) == len(events)
    for event in events:
        row = result.loc[event[schema.EVENT]]
        assert tuple(row[[FATE, LIST, POSITION]]) == expected(lists, event)
