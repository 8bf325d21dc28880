"""What the outcomes job reads: every event once, wherever it lies at the moment."""

import itertools
import threading
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from recsys import schema
from recsys.data.event_log import events_received, read_events
from recsys.data.events import EVENT_COLUMNS, archives
from recsys.data.staging import append_events, seal_segments
from recsys.errors import SourceError
from tests.data.shop import END, refresh, row, write_shop
from tests.data.test_event_files import write_exports

DAY = datetime(2025, 1, 5, tzinfo=UTC)
NEXT = DAY + timedelta(days=1)


def event(number: int, at: datetime = DAY, **changes):
    return {
        "event_id": f"e{number}",
        "user_id": "u1",
        "product_id": "3",
        "kind": "click",
        "timestamp": at + timedelta(seconds=number),
        **changes,
    }


@pytest.fixture
def shop(settings):
    write_shop(settings, [row("u1", 1), row("u2", 2)])
    return settings


def ids(found: pd.DataFrame) -> list[str]:
    return found[schema.EVENT].tolist()


def test_events_are_found_wherever_they_lie_in_the_order_of_time(shop):
    append_events(shop, [event(3), event(1, kind="rating", rating=4, comment="tốt")])
    refresh(shop)
    append_events(shop, [event(2, kind="purchase", quantity=2, value=378000.5, placement="home")])
    seal_segments(shop)
    append_events(shop, [event(4, user_id=None, session_id="s", recommendation_id="r"), event(3)])
    found = read_events(shop, DAY, NEXT)
    assert ids(found) == ["e1", "e2", "e3", "e4"]
    assert found.columns.tolist() == EVENT_COLUMNS
    assert found[schema.KIND].tolist() == ["rating", "purchase", "click", "click"]
    assert (found[schema.QUANTITY][1], found[schema.VALUE][1]) == (2, 378000.5)
    assert (found[schema.USER][3], found[schema.SESSION][3]) == ("", "s")
    assert (found[schema.PLACEMENT][1], found[schema.RECOMMENDATION][3]) == ("home", "r")
    assert str(found[schema.RECEIVED].dtype) == "datetime64[us, UTC]"
    assert (found[schema.RECEIVED] > found[schema.TIMESTAMP]).all()


def test_the_window_is_closed_at_its_beginning_and_open_at_its_end(shop):
    append_events(shop, [event(0), event(1), event(0, NEXT, event_id="n")])
    for _ in ("staged", "archived"):
        assert ids(read_events(shop, DAY, NEXT)) == ["e0", "e1"]
        assert ids(read_events(shop, DAY + timedelta(seconds=1), NEXT)) == ["e1"]
        assert ids(read_events(shop, NEXT, NEXT + timedelta(days=1))) == ["n"]
        refresh(shop)


def test_a_window_may_be_told_in_another_zone(shop):
    append_events(shop, [event(0), event(0, NEXT, event_id="n")])
    zone = ZoneInfo("Asia/Ho_Chi_Minh")
    assert ids(read_events(shop, DAY.astimezone(zone), NEXT.astimezone(zone))) == ["e0"]


def test_without_events_the_frame_has_its_types(shop):
    found = read_events(shop, DAY, NEXT)
    append_events(shop, [event(1)])
    filled = read_events(shop, DAY, NEXT)
    assert len(found) == 0
    assert found.dtypes.to_dict() == filled.dtypes.to_dict()


def test_an_id_sent_again_counts_at_its_first_time_though_that_is_archived(shop):
    append_events(shop, [event(1)])
    refresh(shop)
    append_events(shop, [event(1, NEXT)])
    assert ids(read_events(shop, NEXT, NEXT + timedelta(days=1))) == []
    assert ids(read_events(shop, DAY, NEXT)) == ["e1"]


def test_what_was_received_since_is_found_whatever_its_time(shop):
    append_events(shop, [event(1)])
    refresh(shop)
    since = datetime.now(UTC)
    append_events(shop, [event(2, DAY - timedelta(days=40)), event(1, NEXT), event(3)])
    assert ids(events_received(shop, since)) == ["e2", "e3"]
    refresh(shop)
    assert ids(events_received(shop, since)) == ["e2", "e3"]
    assert ids(events_received(shop, datetime.now(UTC))) == []


def test_an_event_that_is_none_is_left_out(shop):
    good = event(1)
    append_events(shop, [good, event(2, kind="buy"), event(3, quantity="two"), event(4, rating=9)])
    append_events(shop, [event(5, kind="rating", rating=9), event(6, user_id="guest")])
    assert ids(read_events(shop, DAY, NEXT)) == ["e1", "e4"]


def test_exports_are_read_and_what_the_service_took_counts_before_them(settings):
    write_exports(settings)
    told = event(1, event_id="1001-1", product_id="1", kind="purchase", recommendation_id="r")
    append_events(settings, [told])
    day = datetime(2025, 1, 1, tzinfo=UTC)
    found = read_events(settings, day, NEXT).set_index(schema.EVENT)
    assert found.loc["1001-1", schema.RECOMMENDATION] == "r"
    assert found.index.is_unique
    assert found[schema.KIND].value_counts().to_dict() == {"purchase": 3, "view": 1, "click": 1}
    assert found.loc["1002-1", schema.TIMESTAMP] == found.loc["1002-1", schema.RECEIVED]
    since = datetime.now(UTC) - timedelta(minutes=1)
    assert len(events_received(settings, since)) == 5
    assert ids(events_received(settings, datetime.now(UTC) + timedelta(minutes=1))) == []


def test_an_export_that_was_written_before_the_window_is_not_read(settings):
    write_exports(settings, clicks=[])
    path = settings.raw / "clicks" / "2025-01.jsonl"
    path.write_text('{"san_pham": 1}\n')
    later = datetime.now(UTC) + timedelta(days=1)
    with pytest.raises(SourceError, match=r"2025-01\.jsonl: there is no column"):
        read_events(settings, DAY, NEXT)
    assert ids(read_events(settings, later, later + timedelta(days=1))) == []


def test_archives_of_other_times_are_not_read(shop, caplog):
    append_events(shop, [event(1)])
    refresh(shop)
    (path,) = archives(shop, "viecomrec")
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 100 + content[104:])  # all but its end is damaged
    later, day = datetime.now(UTC) + timedelta(days=9), timedelta(days=1)
    assert ids(read_events(shop, later, later + day)) == []
    assert ids(events_received(shop, later)) == []
    assert caplog.messages == []
    assert ids(read_events(shop, DAY - day, DAY)) == []  # it may hold an id that was sent again
    assert "cannot be read" in caplog.messages[0]
    path.write_bytes(content)
    assert ids(read_events(shop, DAY, NEXT)) == ["e1"]


def test_nothing_is_missed_while_a_refresh_seals_and_archives(shop):
    append_events(shop, [event(number) for number in range(50)])
    found: list[list[str]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            found.append(ids(read_events(shop, DAY, NEXT)))

    looking = threading.Thread(target=look)
    looking.start()
    for day in range(1, 4):
        refresh(shop, END + timedelta(days=day))
        append_events(shop, [event(100 + day)])
    done.set()
    looking.join()
    assert len(found) > 3
    for before, after in itertools.pairwise(found):
        assert len(set(after)) == len(after)
        assert set(before) <= set(after)
    assert len(found[0]) == 50
