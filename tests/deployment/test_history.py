"""What was live when, from the history of deployments."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recsys.deployment.history import Stint, append_history, live_at, read_history, stints_of
from recsys.publishing import write_json
from recsys.settings import Settings

START = datetime(2026, 3, 1, 5, tzinfo=UTC)


def day(n: float) -> datetime:
    return START + timedelta(days=n)


def entry(n: float, model_id: str, previous: str | None, status: str = "success") -> dict[str, Any]:
    about = {"model_id": model_id, "previous_model_id": previous, "status": status}
    return {"timestamp": day(n).isoformat(), **about}


HISTORY = [
    entry(0, "a", None),
    entry(1, "b", "a"),
    entry(2, "c", "b", "rolled_back"),
    entry(3, "d", "b", "failed"),
    entry(4, "b", "b"),
    entry(5, "a", "b"),  # a rollback that a person asked for
]


def test_a_model_serves_until_another_takes_its_place() -> None:
    assert stints_of(HISTORY) == [
        Stint(None, None, day(0)),
        Stint("a", day(0), day(1)),
        Stint("b", day(1), day(5)),
        Stint("a", day(5), None),
    ]


@pytest.mark.parametrize(
    ("at", "model_id"),
    [(-1, None), (0, "a"), (0.5, "a"), (1, "b"), (2, "b"), (3.5, "b"), (5, "a"), (900, "a")],
)
def test_every_moment_has_the_model_that_served_then(at: float, model_id: str | None) -> None:
    stint = live_at(HISTORY, day(at))
    assert stint is not None
    assert stint.model_id == model_id


def test_what_served_before_the_history_begins_is_what_the_first_replaced() -> None:
    stint = live_at([entry(0, "b", "a")], day(-30))
    assert stint == Stint("a", None, day(0))
    assert live_at([], day(0)) is None


def test_a_model_that_nobody_deployed_is_seen_by_what_was_replaced() -> None:
    """Somebody reloaded it past the job; a deployment that failed tells that it was there."""
    found = stints_of([entry(0, "a", None), entry(1, "c", "x", "failed")])
    assert [stint.model_id for stint in found] == [None, "a", "x"]


def test_an_error_that_names_a_file_of_any_bytes_is_on_record(settings: Settings) -> None:
    error = "/x/phấn\udce9.npy: the file is missing"
    append_history(settings, entry(0, "b", "a", "failed") | {"error": error})
    assert read_history(settings)[0]["error"] == "/x/phấn?.npy: the file is missing"
    report = settings.reports / "report.json"
    write_json(report, {"error": error})
    assert "phấn?.npy" in report.read_text("utf-8")
