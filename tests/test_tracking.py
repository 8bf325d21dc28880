"""The run tracker, on real SQLite files and several processes."""

import contextlib
import gc
import multiprocessing
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recsys.tracking import (
    PipelineTracker,
    RunRecord,
    RunStatus,
    TrackingError,
    note_database,
    tracker_database,
)


@pytest.fixture
def tracker(tmp_path: Path) -> PipelineTracker:
    return PipelineTracker(tmp_path / "pipeline_metrics.db")


def started(tracker: PipelineTracker, name: str, hours_ago: float, run_id: str) -> str:
    moment = datetime.now(UTC) - timedelta(hours=hours_ago)
    tracker.record_run(RunRecord(run_id, name, RunStatus.RUNNING, moment, None, None, {}))
    return run_id


def test_a_completed_run_keeps_what_it_was_started_and_completed_with(tracker):
    run_id = tracker.start_run("data_refresh", {"force": True, "step": 1})
    tracker.complete_run(run_id, {"records_processed": 1000, "step": 2})

    run = tracker.get_run(run_id)
    assert run["status"] == "success"
    assert run["pipeline_name"] == "data_refresh"
    assert run["metadata"] == {"force": True, "step": 2, "records_processed": 1000}
    assert run["finished_at"] >= run["started_at"]
    assert run["duration_seconds"] >= 0
    assert run["error_message"] is None


def test_a_failed_run_keeps_its_error(tracker):
    run_id = tracker.start_run("data_refresh")
    tracker.fail_run(run_id, "reviews.csv: no such column 'rating'")
    run = tracker.get_run(run_id)
    assert (run["status"], run["error_message"]) == (
        "failed",
        "reviews.csv: no such column 'rating'",
    )


def test_a_cancelled_run_is_neither_success_nor_failure(tracker):
    tracker.cancel_run(tracker.start_run("data_refresh"))
    assert tracker.get_stats()["stats_by_pipeline"]["data_refresh"] == {
        "success": 0,
        "failed": 0,
        "running": 0,
        "cancelled": 1,
        "avg_duration_seconds": None,
        "success_rate": None,
    }


@pytest.mark.parametrize("method", ["complete_run", "cancel_run"])
def test_ending_an_unknown_run_is_an_error(tracker, method):
    with pytest.raises(TrackingError, match="'nope' is unknown"):
        getattr(tracker, method)("nope")


def test_a_run_ends_once(tracker):
    run_id = tracker.start_run("data_refresh")
    tracker.complete_run(run_id)
    with pytest.raises(TrackingError, match="ended as success"):
        tracker.fail_run(run_id, "too late")
    assert tracker.get_run(run_id)["status"] == "success"


def test_an_unknown_run_is_none(tracker):
    assert tracker.get_run("nope") is None


def test_recent_runs_are_newest_first_and_can_be_filtered(tracker):
    for index in range(3):
        started(tracker, "data_refresh", 3 - index, f"r{index}")
    other = tracker.start_run("health_check")
    tracker.complete_run(other)

    assert [run["run_id"] for run in tracker.get_recent_runs("data_refresh")] == ["r2", "r1", "r0"]
    assert [run["run_id"] for run in tracker.get_recent_runs(limit=1)] == [other]
    assert [run["run_id"] for run in tracker.get_recent_runs(status="success")] == [other]


def test_stats_have_the_documented_shape(tracker):
    for index in range(6):
        run_id = tracker.start_run("data_refresh")
        if index == 0:
            tracker.fail_run(run_id, "boom")
        else:
            tracker.complete_run(run_id)
    tracker.start_run("model_training")
    started(tracker, "drift_detection", 24 * 8, "old")

    stats = tracker.get_stats(days=7)
    assert stats["period_days"] == 7
    assert set(stats["stats_by_pipeline"]) == {"data_refresh", "model_training"}
    refresh = stats["stats_by_pipeline"]["data_refresh"]
    assert (refresh["success"], refresh["failed"], refresh["running"]) == (5, 1, 0)
    assert refresh["success_rate"] == 0.833
    assert refresh["avg_duration_seconds"] >= 0
    assert stats["stats_by_pipeline"]["model_training"]["success_rate"] is None


def test_a_pipeline_is_running_between_start_and_end(tracker):
    assert not tracker.is_pipeline_running("data_refresh")
    run_id = tracker.start_run("data_refresh")
    assert tracker.is_pipeline_running("data_refresh")
    assert not tracker.is_pipeline_running("model_training")
    tracker.complete_run(run_id)
    assert not tracker.is_pipeline_running("data_refresh")


def test_stale_runs_are_cancelled_and_fresh_ones_left(tracker):
    started(tracker, "data_refresh", 25, "stale")
    started(tracker, "data_refresh", 23, "fresh")

    assert tracker.cleanup_stale_runs(max_running_hours=24) == 1
    stale = tracker.get_run("stale")
    assert stale["status"] == "cancelled"
    assert stale["duration_seconds"] == pytest.approx(25 * 3600, abs=60)
    assert "more than 24 h" in stale["error_message"]
    assert tracker.get_run("fresh")["status"] == "running"
    assert tracker.cleanup_stale_runs() == 0


def test_the_late_end_of_a_run_that_the_cleanup_closed_counts(tracker):
    for run_id in ("well", "badly", "stopped"):
        started(tracker, "data_refresh", 25, run_id)
    assert tracker.cleanup_stale_runs() == 3
    tracker.complete_run("well", {"rows": 7})
    tracker.fail_run("badly", "KeyError")
    well, badly = tracker.get_run("well"), tracker.get_run("badly")
    assert (well["status"], well["error_message"]) == ("success", None)
    assert well["metadata"] == {"rows": 7}
    assert (badly["status"], badly["error_message"]) == ("failed", "KeyError")
    with pytest.raises(TrackingError, match="ended as success"):
        tracker.fail_run("well", "again")
    # One that a person stopped stays stopped.
    started(tracker, "data_refresh", 1, "cancelled")
    tracker.cancel_run("cancelled")
    with pytest.raises(TrackingError, match="ended as cancelled"):
        tracker.complete_run("cancelled")


@pytest.mark.parametrize(
    "connection",
    ['{"conn_type": "recsys_tracker", "host": "/srv/Runs of us.db"}',
     "recsys-tracker://%2Fsrv%2FRuns%20of%20us.db",
     "recsys-tracker://user:secret@%2Fsrv%2FRuns%20of%20us.db:1/x"],
)  # fmt: skip
def test_the_connection_in_the_environment_names_the_database(settings, monkeypatch, connection):
    assert tracker_database(settings) == settings.pipeline_db
    monkeypatch.setenv("AIRFLOW_CONN_RECSYS_TRACKER", connection)
    assert tracker_database(settings) == Path("/srv/Runs of us.db")
    monkeypatch.setenv("AIRFLOW_CONN_RECSYS_TRACKER", "recsys-tracker://")
    assert tracker_database(settings) == settings.pipeline_db


def test_what_the_hook_noted_is_the_database_until_it_notes_another(settings, tmp_path):
    note_database(settings, settings.pipeline_db)
    assert not settings.logs.exists()
    note_database(settings, tmp_path / "elsewhere.db")
    assert tracker_database(settings) == tmp_path / "elsewhere.db"
    note_database(settings, settings.pipeline_db)
    assert tracker_database(settings) == settings.pipeline_db


def test_recording_a_run_again_updates_it_and_merges_metadata(tracker):
    start = datetime(2025, 1, 15, 2, tzinfo=UTC)
    tracker.record_run(RunRecord("a", "j", RunStatus.RUNNING, start, None, None, {"x": 1, "y": 1}))
    end = start + timedelta(seconds=90)
    tracker.record_run(
        RunRecord("a", "j", RunStatus.SUCCESS, start, end, None, {"y": None, "z": 3})
    )
    run = tracker.get_run("a")
    assert (run["status"], run["duration_seconds"]) == ("success", 90)
    assert run["metadata"] == {"x": 1, "z": 3}


def test_news_of_a_start_that_comes_late_leaves_the_end_alone(tracker):
    start = datetime(2025, 1, 15, 2, tzinfo=UTC)
    end = start + timedelta(seconds=90)
    started_now = RunRecord("a", "j", RunStatus.RUNNING, start, None, None, {})
    tracker.record_start(started_now)
    assert tracker.get_run("a")["status"] == "running"
    tracker.record_run(RunRecord("a", "j", RunStatus.FAILED, start, end, "boom", {}))
    tracker.record_start(started_now)
    assert tracker.get_run("a")["status"] == "failed"
    assert tracker.get_run("a")["error_message"] == "boom"

    again = end + timedelta(seconds=5)
    tracker.record_start(RunRecord("a", "j", RunStatus.RUNNING, again, None, None, {}))
    run = tracker.get_run("a")
    assert (run["status"], run["finished_at"], run["error_message"]) == ("running", None, None)


def test_the_table_is_the_documented_one(tracker):
    tracker.start_run("data_refresh")
    with sqlite3.connect(tracker.db_path) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(pipeline_runs)")]
    assert columns == [
        "run_id",
        "pipeline_name",
        "status",
        "started_at",
        "finished_at",
        "duration_seconds",
        "error_message",
        "metadata",
    ]


def _run_many(path: Path, count: int) -> None:
    tracker = PipelineTracker(path)
    for index in range(count):
        tracker.complete_run(tracker.start_run("load"), {"index": index})


def test_many_processes_lose_and_duplicate_nothing(tmp_path):
    path = tmp_path / "pipeline_metrics.db"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_run_many, args=(path, 50)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    load = PipelineTracker(path).get_stats()["stats_by_pipeline"]["load"]
    assert (load["success"], load["running"]) == (400, 0)


def test_a_forked_child_uses_a_connection_of_its_own(tracker):
    tracker.start_run("parent")
    child = multiprocessing.get_context("fork").Process(target=tracker.start_run, args=("child",))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert tracker.is_pipeline_running("child")


def junk(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever its name says" * 200)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.executescript("CREATE TABLE pipeline_runs (colour TEXT); PRAGMA user_version = 1")


@pytest.mark.parametrize("damage", [junk, folder, foreign])
def test_what_is_no_record_of_runs_is_set_aside_and_runs_are_recorded(tmp_path, damage):
    path = tmp_path / "pipeline_metrics.db"
    PipelineTracker(path).start_run("before")
    gc.collect()  # the connection
    damage(path)
    tracker = PipelineTracker(path)
    tracker.complete_run(tracker.start_run("after"))
    assert [run["pipeline_name"] for run in PipelineTracker(path).get_recent_runs()] == ["after"]
    assert len([p for p in tmp_path.glob("*.damaged-*") if p.suffix != ".lock"]) >= 1
