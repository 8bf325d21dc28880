"""Events that several machines took are found by each of them, wherever they lie."""

from datetime import UTC, datetime, timedelta

import pytest

from recsys import schema
from recsys.data import staging
from recsys.data.event_log import events_received, read_events
from recsys.data.staging import append_events, hand_in_segments
from tests.data.shop import refresh, row, write_shop

pytestmark = pytest.mark.boots

DAY = datetime(2025, 1, 5, tzinfo=UTC)


def event(name: str) -> dict[str, object]:
    return {
        "event_id": name,
        "user_id": "u1",
        "product_id": "3",
        "kind": "click",
        "timestamp": DAY + timedelta(hours=1),
    }


def ids(settings) -> list[str]:
    found = read_events(settings, DAY, DAY + timedelta(days=1))
    return sorted(found[schema.EVENT])


def test_events_of_all_machines_are_found_on_their_way(join):
    front, jobs, other = join("front"), join("jobs"), join("other")
    write_shop(jobs, [row("u1", 1), row("u2", 2)])
    append_events(front, [event("f")])
    assert (ids(front), ids(other)) == (["f"], [])
    hand_in_segments(front)
    append_events(other, [event("o"), event("f")])
    assert (ids(front), ids(other), ids(jobs)) == (["f"], ["f", "o"], ["f"])
    staging.collect_staging(jobs)  # a refresh begins
    collected = list((jobs.staging / "collected" / "sealed").iterdir())
    assert ids(jobs) == ["f"]
    assert list((jobs.staging / "collected" / "sealed").iterdir()) == collected
    refresh(jobs)
    assert (ids(front), ids(other), ids(jobs)) == (["f"], ["f", "o"], ["f"])
    assert not list((front.staging / "seen").glob("*"))  # what is archived is not kept twice
    hand_in_segments(other)
    assert ids(front) == ["f", "o"]
    since = datetime.now(UTC) - timedelta(minutes=5)
    assert sorted(events_received(front, since)[schema.EVENT]) == ["f", "o"]
