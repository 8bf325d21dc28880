from datetime import UTC, datetime, timedelta, timezone

import pytest

from recsys.database import connect
from recsys.health.config import MetricsConfig
from recsys.health.service import judged, service_metrics

NOW = datetime(2025, 1, 15, 0, 20, tzinfo=UTC)
TABLE = """CREATE TABLE requests (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TIMESTAMP,
user_id INTEGER, topk INTEGER, latency_ms REAL, fallback BOOLEAN, error TEXT, model_id TEXT)"""


@pytest.fixture
def database(settings):
    database = connect(settings.service_db)
    database.execute(TABLE)
    yield database
    database.close()


def add(database, minutes_ago=1.0, latency=10.0, fallback=False, error=None, user=1, text=None):
    moment = NOW - timedelta(minutes=minutes_ago)
    database.execute(
        "INSERT INTO requests (timestamp, user_id, topk, latency_ms, fallback, error)"
        " VALUES (?, ?, 10, ?, ?, ?)",
        (text or moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3], user, latency, fallback, error),
    )


def test_the_last_hour_is_summed_up(settings, database):
    for latency in range(1, 101):
        add(database, latency=latency, fallback=latency <= 25, error="x" if latency > 90 else None)
    assert service_metrics(settings, MetricsConfig(), NOW) == {
        "window_minutes": 60,
        "requests": 100,
        "requests_per_minute": 1.667,
        "avg_latency_ms": 50.5,
        "p95_latency_ms": 95,
        "error_rate": 0.1,
        "fallback_rate": 0.25,
        "known_fallback_rate": 0.25,
        "known_requests": 100,
    }


def test_only_the_window_counts_also_across_midnight(settings, database):
    for minutes in (-1, 1, 30, 59, 61, 600):
        add(database, minutes_ago=minutes)
    assert service_metrics(settings, MetricsConfig(), NOW)["requests"] == 3


def test_other_spellings_of_the_time_are_understood(settings, database):
    moment = NOW - timedelta(minutes=5)
    add(database, text=moment.replace(tzinfo=None).isoformat())
    add(database, text=moment.isoformat())
    add(database, text=moment.astimezone(timezone(timedelta(hours=7))).isoformat())
    assert service_metrics(settings, MetricsConfig(), NOW)["requests"] == 3


def test_requests_of_the_health_check_itself_do_not_count(settings, database):
    add(database, user="health-check", fallback=True)
    add(database, user=None)
    assert service_metrics(settings, MetricsConfig(), NOW)["requests"] == 1


def test_no_traffic_has_no_rates(settings, database):
    metrics = service_metrics(settings, MetricsConfig(), NOW)
    assert (metrics["requests"], metrics["requests_per_minute"]) == (0, 0)
    for name in ("avg_latency_ms", "p95_latency_ms", "error_rate", "fallback_rate"):
        assert metrics[name] is None


def test_a_service_that_never_ran_has_unknown_traffic(settings):
    assert service_metrics(settings, MetricsConfig(), NOW)["requests"] is None
    connect(settings.service_db).close()
    assert service_metrics(settings, MetricsConfig(), NOW)["requests"] is None


def test_requests_that_can_have_no_fallback_do_not_dilute_its_rate(settings, database):
    add(database, fallback=True)
    add(database, fallback=None)
    assert service_metrics(settings, MetricsConfig(), NOW)["fallback_rate"] == 1


def test_rates_of_a_handful_of_requests_are_not_judged(settings, database):
    for _ in range(4):
        add(database, fallback=True, latency=900)
    metrics = service_metrics(settings, MetricsConfig(), NOW)
    assert metrics["fallback_rate"] == 1
    assert judged(metrics, min_requests=5)["fallback_rate"] is None
    assert judged(metrics, min_requests=5)["requests"] == 4
    assert judged(metrics, min_requests=4)["fallback_rate"] == 1


def test_visitors_whom_nobody_knows_are_no_failure(settings, database):
    database.execute("ALTER TABLE requests ADD COLUMN known BOOLEAN")
    for number in range(100):
        add(database, user=number, fallback=number < 45)
    database.execute("UPDATE requests SET known = user_id >= 45")
    metrics = service_metrics(settings, MetricsConfig(), NOW)
    assert (metrics["fallback_rate"], metrics["known_fallback_rate"]) == (0.45, 0)
    assert judged(metrics, min_requests=5)["fallback_rate"] == 0
    database.execute("UPDATE requests SET fallback = 1")
    metrics = service_metrics(settings, MetricsConfig(), NOW)
    assert judged(metrics, min_requests=5)["fallback_rate"] == 1
    # Too few known customers say nothing, however many others came.
    assert judged(metrics, min_requests=56)["fallback_rate"] is None


def test_what_the_caller_did_wrong_is_no_error_of_the_service(settings, database):
    database.execute("ALTER TABLE requests ADD COLUMN status INTEGER")
    for error in ("written before there was a status", None, None, None):
        add(database, error=error)
    for status, error in ((200, None), (422, "bad"), (404, "unknown"), (503, "too long")):
        add(database, error=error)
        database.execute("UPDATE requests SET status = ? WHERE id = last_insert_rowid()", (status,))
    assert service_metrics(settings, MetricsConfig(), NOW)["error_rate"] == 0.25
