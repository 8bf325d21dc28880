"""Old rows go, and the files get smaller."""

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from recsys.database import connect, transaction
from recsys.request_log import prepare
from recsys.tracking import PipelineTracker, RunRecord, RunStatus
from recsys.upkeep import job

NOW = datetime.now(UTC)


@pytest.fixture
def requests_of_two_months(settings):
    with contextlib.closing(connect(settings.service_db)) as connection:
        prepare(connection)
        times = [NOW - timedelta(minutes=10 * number) for number in range(60 * 144)]
        rows = [(moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],) for moment in times]
        with transaction(connection):
            connection.executemany("INSERT INTO requests (timestamp) VALUES (?)", rows)
    return settings


def count(path, table):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_requests_beyond_the_retention_of_the_service_go(requests_of_two_months):
    settings = requests_of_two_months
    plan = job.clean_records(settings, dry_run=True)["request log"]
    assert count(settings.service_db, "requests") == 60 * 144
    size = settings.service_db.stat().st_size
    done = job.clean_records(settings, dry_run=False)["request log"]
    assert done["count"] == plan["count"]
    assert count(settings.service_db, "requests") == pytest.approx(30 * 144, abs=2)
    assert done["freed_bytes"] == size - settings.service_db.stat().st_size
    assert done["freed_bytes"] > size / 4


def test_a_database_in_use_is_cleaned_as_well(requests_of_two_months):
    settings = requests_of_two_months
    with contextlib.closing(connect(settings.service_db)) as service:
        service.execute("SELECT count(*) FROM requests").fetchone()
        job.clean_records(settings, dry_run=False)
        with transaction(service):
            service.execute("INSERT INTO requests (timestamp) VALUES ('2030-01-01')")


def test_run_records_of_more_than_a_year_go_but_not_running_ones(settings):
    tracker = PipelineTracker(settings.pipeline_db)
    for name, days, status in (
        ("old", 400, RunStatus.SUCCESS),
        ("stuck", 400, RunStatus.RUNNING),
        ("new", 300, RunStatus.FAILED),
    ):
        start = NOW - timedelta(days=days)
        end = None if status == RunStatus.RUNNING else start
        tracker.record_run(RunRecord(name, "data_refresh", status, start, end, None, {}))
    summary = job.clean_records(settings, dry_run=False)
    assert summary["run records"]["count"] == 1
    assert {run["run_id"] for run in tracker.get_recent_runs()} == {"stuck", "new"}


def test_without_databases_none_is_made(settings):
    assert job.clean_records(settings, dry_run=False) == {}
    assert not settings.service_db.exists()
