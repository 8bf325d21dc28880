"""The figures of days that outlive the log of requests."""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from recsys.errors import InputError
from recsys.health.days import note_days, read_days
from recsys.health.examination import evaluate
from recsys.health.service import TRIAL_USER
from recsys.request_log import Answered, RequestLog
from recsys.settings import Settings

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
NOW = datetime(2026, 3, 10, 9, 30, tzinfo=ZONE)


def log_requests(settings: Settings, *moments: datetime, user: str = "7") -> None:
    database, lines = settings.service_db, settings.logs / "service" / "recommender.log"
    log = RequestLog(database, lines, ZONE)
    for n, moment in enumerate(moments):
        fallback = n % 2 == 0
        answered = ("recommend", user, 10, 10.0 * (n + 1), fallback, None, None, "als_1", 200)
        log.add(Answered(moment.timestamp(), *answered))
    log.close()


def test_a_day_is_noted_when_it_is_over_and_once(settings: Settings) -> None:
    yesterday = NOW - timedelta(days=1)
    log_requests(settings, yesterday, yesterday, NOW)
    log_requests(settings, yesterday, user=TRIAL_USER)
    added = note_days(settings, NOW)
    assert added[-1] == "2026-03-09"
    days = read_days(settings)
    assert "2026-03-10" not in days
    noted = days["2026-03-09"]
    assert (noted["requests"], noted["avg_latency_ms"], noted["fallback_rate"]) == (2, 15, 0.5)
    log_requests(settings, yesterday)
    assert note_days(settings, NOW) == []
    assert read_days(settings) == days


def test_a_day_begins_at_midnight_in_the_shop(settings: Settings) -> None:
    midnight = NOW.replace(hour=0, minute=0)
    log_requests(settings, *(midnight + timedelta(minutes=n) for n in (-1, 1)))
    note_days(settings, NOW)
    assert read_days(settings)["2026-03-09"]["requests"] == 1
    note_days(settings, NOW + timedelta(days=1))
    assert read_days(settings)["2026-03-10"]["requests"] == 1


def test_the_data_of_a_day_is_as_it_was_last_seen_then(settings: Settings) -> None:
    newest = (NOW - timedelta(days=2)).isoformat()
    note_days(settings, NOW, {"interactions": 10, "newest_event": newest})
    note_days(settings, NOW, {"interactions": 12, "newest_event": newest, "users": 3})
    note_days(settings, NOW + timedelta(days=1), None)
    found = read_days(settings)["2026-03-10"]
    assert (found["interactions"], found["users"], found["newest_event"]) == (12, 3, newest)
    assert found["requests"] is None  # nobody ever asked the service


def test_days_go_after_thirteen_months(settings: Settings) -> None:
    path = settings.reports / "health" / "days.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"days": {"2024-01-01": {"requests": 1}, "2026-01-01": {}}}))
    note_days(settings, NOW)
    assert "2024-01-01" not in read_days(settings)
    assert "2026-01-01" in read_days(settings)


@pytest.mark.parametrize("content", ["{", "[]", '{"days": {"yesterday": {}}}', '{"days": 3}'])
def test_a_damaged_record_is_named_and_the_check_goes_on(settings: Settings, content: str) -> None:
    path = settings.reports / "health" / "days.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(InputError, match=r"days\.json: is no record of days"):
        note_days(settings, NOW)
    with pytest.raises(InputError, match=r"days\.json"):
        evaluate(settings, {})


def test_a_full_check_notes_the_days_and_one_of_a_part_does_not(settings: Settings) -> None:
    sound = {"healthy": True}
    newest = datetime.now(UTC).isoformat()
    data = sound | {"newest_event": newest, "interactions": 5}
    evaluate(settings, {"data": data}, "data")
    assert read_days(settings) == {}
    evaluate(settings, {"service": sound, "data": data, "model": sound, "pipeline": sound})
    assert list(read_days(settings).values())[-1]["interactions"] == 5
