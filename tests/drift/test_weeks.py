from datetime import datetime

import pandas as pd
import pytest

from recsys.drift.weeks import Week, events_of
from recsys.errors import InputError
from tests.drift.shop import ZONE


def frame(*rows: tuple[str, str, float, str, str]) -> pd.DataFrame:
    made = pd.DataFrame(rows, columns=["user_id", "product_id", "rating", "timestamp", "event_id"])
    return made.assign(timestamp=pd.to_datetime(made["timestamp"], utc=True))


def test_copies_of_one_review_count_once() -> None:
    events = events_of(
        frame(
            ("u", "A", 5, "2024-06-04 10:00", "e1"),
            ("u", "B", 5, "2024-06-04 10:00", "e1"),
            ("v", "B", 4, "2024-06-05 10:00", "e2"),
        ),
        ZONE,
    )
    assert len(events) == 2
    assert events.copies.tolist() == [2, 1]
    assert events.product_counts().tolist() == [1, 1]


def test_weeks_begin_on_monday_in_local_time() -> None:
    # Sunday 23:30 and Monday 00:30 in Vietnam are both Sunday in UTC.
    events = events_of(
        frame(("u", "A", 5, "2024-06-02 16:30", "e1"), ("u", "B", 5, "2024-06-02 17:30", "e2")),
        ZONE,
    )
    assert events.weeks[1] == events.weeks[0] + 1
    assert events.weekdays.tolist() == [6, 0]


def test_a_user_is_new_in_the_week_of_the_first_event() -> None:
    events = events_of(
        frame(("u", "A", 5, "2024-06-12 10:00", "e1"), ("u", "B", 5, "2024-06-04 10:00", "e2")),
        ZONE,
    )
    assert events.first_weeks[events.users].tolist() == [events.weeks.min()] * 2


def test_weeks_before_the_first_wanted_one_only_tell_who_is_new() -> None:
    rows = frame(
        ("u", "A", 5, "2024-05-01 10:00", "e1"),
        ("u", "B", 5, "2024-06-04 10:00", "e2"),
        ("v", "B", 5, "2024-06-04 10:00", "e3"),
    )
    week = int(events_of(rows, ZONE).weeks.max())
    events = events_of(rows, ZONE, first_week=week)
    assert len(events) == 2
    assert (events.first_weeks[events.users] < week).tolist() == [True, False]


def test_an_empty_frame_has_no_events() -> None:
    assert len(events_of(frame(), ZONE)) == 0


def test_missing_columns_are_named() -> None:
    with pytest.raises(InputError, match="product_id, rating"):
        events_of(frame().drop(columns=["product_id", "rating"]), ZONE)


def test_times_without_a_zone_are_an_error() -> None:
    naive = frame(("u", "A", 5, "2024-06-04", "e")).assign(timestamp=pd.Timestamp("2024-06-04"))
    with pytest.raises(InputError, match="time zone"):
        events_of(naive, ZONE)


@pytest.mark.parametrize("moment", ["2024-06-10 00:00", "2024-06-10 09:00", "2024-06-16 23:59"])
def test_the_last_full_week_is_the_one_that_is_over(moment: str) -> None:
    end = datetime.fromisoformat(moment).replace(tzinfo=ZONE)
    week = Week.last_full(end, ZONE)
    assert (week.start.isoformat(), week.end.isoformat()) == (
        "2024-06-03T00:00:00+07:00",
        "2024-06-10T00:00:00+07:00",
    )
