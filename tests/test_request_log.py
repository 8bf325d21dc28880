"""The table of requests: written, read, and kept apart by whole ids."""

import contextlib
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from recsys.config import ConfigError
from recsys.database import connect
from recsys.request_log import (
    TABLE,
    Answered,
    RequestLog,
    load_retention,
    prepare,
    read_stats,
    read_traffic,
    read_traffic_by_model,
    recent_users,
    request_retention,
)
from recsys.settings import Settings

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
IDS = ["7", "00123", "123", "1e5", "1.0", "-1", "+5", " 12", "9" * 30, "guest-7", "0", "đỏ", " "]


def answered(user: str | None = "1", status: int = 200, moment: float | None = None) -> Answered:
    error = None if status == 200 else "said so"
    return Answered(
        moment or time.time(), "recommend", user, 10, 2.5, False, None, error, "als_1", status
    )


@pytest.fixture
def write(settings: Settings) -> Callable[..., None]:
    def write(*rows: Answered) -> None:
        log = RequestLog(settings.service_db, settings.logs / "recommender.log", ZONE)
        for row in rows:
            log.add(row)
        log.close()

    return write


def test_ids_that_look_like_numbers_keep_their_spelling(settings: Settings, write):
    write(*(answered(user) for user in IDS))
    assert recent_users(settings.service_db, 100) == IDS[::-1]
    lines = (settings.logs / "recommender.log").read_text(encoding="utf-8").splitlines()
    assert "user_id=00123, " in lines[1]


def test_the_documented_queries_find_plain_numbers(settings: Settings, write):
    write(answered("7"), answered("7"), answered("8"))
    with contextlib.closing(connect(settings.service_db)) as database:
        query = "SELECT count(*) FROM requests WHERE user_id = 7"
        assert database.execute(query).fetchone()[0] == 2


def test_a_table_of_an_earlier_version_is_read_and_gets_its_columns(settings: Settings, write):
    with contextlib.closing(connect(settings.service_db)) as old:
        old.execute(
            "CREATE TABLE requests (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TIMESTAMP, "
            "user_id INTEGER, topk INTEGER, latency_ms REAL, fallback BOOLEAN, error TEXT, "
            "model_id TEXT, endpoint TEXT, fallback_method TEXT)"
        )
        old.execute("INSERT INTO requests (timestamp, user_id) VALUES (datetime('now'), '5')")
    assert recent_users(settings.service_db, 10) == ["5"]
    write(answered("00123"))
    assert recent_users(settings.service_db, 10) == ["00123", "5"]


def test_who_reads_what_the_caller_did_wrong_finds_no_error(settings: Settings, write):
    write(answered(), answered(status=422), answered(status=503), answered(None))
    now = datetime.now(UTC)
    stats = read_stats(settings.service_db)
    assert stats["traffic"][0]["error_rate"] == 0.25
    assert stats["endpoints"] == {"recommend": 4}
    [model] = read_traffic_by_model(settings.service_db, 5)
    assert (model["model_id"], model["requests"], model["error_rate"]) == ("als_1", 4, 0.25)
    window = (now - timedelta(hours=1), now + timedelta(minutes=1))
    found = read_traffic(settings.service_db, *window, without_user="1")
    assert found == {
        "requests": 1,
        "avg_latency_ms": 2.5,
        "p95_latency_ms": 2.5,
        "known_requests": 0,
        "known_fallback_rate": None,
        "fallback_rate": 0,
        "error_rate": 0,
    }


def test_nothing_is_known_of_a_service_that_never_ran(settings: Settings):
    now = datetime.now(UTC)
    assert read_traffic(settings.service_db, now, now, "1") is None
    assert recent_users(settings.service_db, 5) == []
    assert not settings.service_db.exists()


def named(user: str) -> str:
    return f"~{user.encode().hex():0>32}"


@pytest.fixture
def write_named(settings: Settings) -> Callable[..., None]:
    """Writes with pseudonyms, as the configuration says or as the database began."""

    def write(*rows: Answered, pseudonymous: bool | None = None) -> None:
        file = settings.logs / "recommender.log"
        log = RequestLog(settings.service_db, file, ZONE, lambda: named, pseudonymous)
        for row in rows:
            log.add(row)
        log.close()

    return write


def test_a_new_log_names_customers_by_pseudonyms(settings: Settings, write_named):
    write_named(answered("7"), answered("đỏ"), answered(None))
    assert recent_users(settings.service_db, 10) == [named("đỏ"), named("7")]
    lines = (settings.logs / "recommender.log").read_text(encoding="utf-8")
    assert f"user_id={named('7')}, " in lines
    assert "user_id=7," not in lines
    assert "đỏ" not in lines
    now = datetime.now(UTC)
    window = (now - timedelta(hours=1), now + timedelta(minutes=1))
    found = read_traffic(settings.service_db, *window, "7", [named("7")])
    assert found is not None
    assert found["requests"] == 2


def test_a_log_of_before_goes_on_with_ids_until_it_is_told(settings: Settings, write_named):
    with contextlib.closing(connect(settings.service_db)) as old:
        old.execute("CREATE TABLE requests (id INTEGER PRIMARY KEY, timestamp TIMESTAMP)")
        for column in ("user_id INTEGER", "topk INTEGER", "latency_ms REAL", "fallback BOOLEAN"):
            old.execute(f"ALTER TABLE requests ADD COLUMN {column}")
        for column in ("error", "model_id", "endpoint", "fallback_method"):
            old.execute(f"ALTER TABLE requests ADD COLUMN {column} TEXT")
    write_named(answered("7"))
    write_named(answered("8"), pseudonymous=True)
    write_named(answered("9"))
    assert recent_users(settings.service_db, 10) == ["9", named("8"), "7"]


def test_a_new_log_has_ids_where_that_is_wanted(settings: Settings, write_named):
    write_named(answered("7"), pseudonymous=False)
    assert recent_users(settings.service_db, 10) == ["7"]


def test_rows_are_old_by_their_time(settings: Settings, write):
    moment = datetime(2025, 1, 15, tzinfo=UTC)
    write(
        answered("1", moment=moment.timestamp() - 0.001), answered("2", moment=moment.timestamp())
    )
    condition, values = request_retention(settings).older(moment)
    with contextlib.closing(connect(settings.service_db)) as database:
        old = database.execute(f"SELECT user_id FROM {TABLE} WHERE {condition}", values).fetchall()
    assert [row["user_id"] for row in old] == [1]


def test_rows_wait_while_the_database_is_locked_and_are_counted_when_too_many(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("recsys.request_log._MAX_PENDING_ROWS", 3)
    monkeypatch.setattr("recsys.request_log._WRITE_TIMEOUT_SECONDS", 0.05)
    log = RequestLog(settings.service_db, settings.logs / "recommender.log", ZONE)
    with contextlib.closing(sqlite3.connect(settings.service_db)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(5):
            log.add(answered())
        assert log.flush() is False
        assert (log.pending, log.dropped) == (3, 2)
        assert log.problem is not None
        other.rollback()
    assert log.flush() is True
    log.close()
    assert len(recent_users(settings.service_db, 10)) == 3


def test_the_retention_stands_in_the_configuration_of_the_service(settings: Settings):
    assert load_retention(settings).retention_days == 30
    path = settings.home / "config" / "serving.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("workers: 2\nrequest_log: {retention_days: 7}\n")
    assert load_retention(settings).retention_days == 7
    path.write_text("request_log: {retention_days: 0}\n")
    with pytest.raises(ConfigError, match="retention_days"):
        load_retention(settings)


def test_preparing_twice_changes_nothing(settings: Settings):
    with contextlib.closing(connect(settings.service_db)) as database:
        for _ in range(2):
            prepare(database)
