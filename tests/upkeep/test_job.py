"""What is old goes, what is not stays, and nothing outside of the state root is touched."""

import contextlib
import os
import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recsys.config import load_config
from recsys.data.versions import current_version, list_versions
from recsys.database import connect, transaction
from recsys.publishing import point_link, write_json
from recsys.request_log import prepare
from recsys.retention import BoundaryError
from recsys.tracking import PipelineTracker, RunRecord, RunStatus
from recsys.upkeep import MaintenanceConfig, job
from tests.data.shop import END, refresh, row, write_shop
from tests.upkeep.ageing import aged, write

ROWS = [row(f"u{number % 5}", number % 7, time=f"2025-01-{1 + number:02}") for number in range(20)]


def keep_versions(settings, number):
    (settings.home / "config").mkdir(exist_ok=True)
    text = f"source: viecomrec\nkeep_versions: {number}\n"
    (settings.home / "config" / "data.yaml").write_text(text)


def test_versions_go_by_the_retention_of_the_data_area(settings):
    write_shop(settings, ROWS)
    for day in range(4):
        refresh(settings, END + timedelta(days=day), force_full=True)
    before = list_versions(settings)
    keep_versions(settings, 2)
    plan = job.clean_data(settings, dry_run=True)["versions"]
    assert list_versions(settings) == before
    done = job.clean_data(settings, dry_run=False)["versions"]
    assert done == plan
    assert done["examples"] == before[:2]
    assert done["freed_bytes"] > 10_000
    assert list_versions(settings) == before[2:]
    current_version(settings).verify()


def test_old_quarantine_scratch_and_temporary_files_go(settings):
    hidden = f".registry.json.{uuid.uuid4().hex}.tmp"
    old = [
        write(settings.quarantine / "old.csv", days=91),
        write(settings.quarantine / "interactions" / "old.jsonl", days=91),
        write(settings.quarantine / "files" / "old.csv", days=91),
        write(settings.work / "data_refresh-x" / "part.parquet", days=3).parent,
        write(settings.artifacts / hidden, days=3),
        write(settings.home / "data" / "embeddings" / hidden / "vectors.npy", days=3).parent,
    ]
    for folder in (old[3], old[5]):
        aged(folder, 3)
    kept = [
        write(settings.quarantine / "new.csv", days=89),
        write(settings.work / "training-y" / "part.parquet"),
        write(settings.artifacts / f"new{hidden}", days=3),
        write(settings.artifacts / hidden.replace("registry", "other")),
    ]
    long_ago = old[0].stat().st_mtime
    os.utime(kept[1].parent, (long_ago, long_ago))
    summary = job.clean_data(settings, dry_run=False)
    assert not [path for path in old if path.exists()]
    assert not [path for path in kept if not path.exists()]
    assert {area: entry["count"] for area, entry in summary.items()} == {
        "quarantine": 3,
        "work folders": 1,
        "leftovers": 2,
    }
    assert sum(entry["freed_bytes"] for entry in summary.values()) == 6000


def test_what_killed_runs_of_the_outcomes_left_goes(settings):
    """As `recsys.publishing` and the writers of served lists name what they have begun."""
    hidden = f"{uuid.uuid4().hex}.tmp"
    left = [
        settings.outcomes / "events" / f".2026-03-10.parquet.{hidden}",
        settings.outcomes / f".ledger.json.{hidden}",
        settings.outcomes / f".day=2026-03-10.{hidden}" / "groups.parquet",
        settings.home
        / "data"
        / "served"
        / f"day={datetime.now(UTC):%Y-%m-%d}"
        / f".0-12.parquet.{hidden}",
        settings.home / "data" / "served" / "open" / f".0-00000001.lists.{hidden}",
        settings.reports / "outcomes" / f".outcomes_20260310.html.{hidden}",
        settings.reports / "experiments" / f".blend.json.{hidden}",
    ]
    for path in left:
        write(path, days=3)
    aged(left[2].parent, 3)
    at_work = write(settings.outcomes / "events" / f".2026-03-11.parquet.{hidden}")
    summary = job.clean_data(settings, dry_run=False)
    assert [path for path in left if path.exists()] == []
    assert summary["leftovers"]["count"] == len(left)
    assert at_work.exists()


def test_old_reports_go_and_the_newest_of_each_kind_stays(settings):
    drift, health = settings.reports / "drift", settings.reports / "health"
    for week in range(3):
        for kind in ("json", "html"):
            write(drift / f"drift_report_2023010{week + 1}.{kind}", days=500 - week)
    write(drift / "last_retrain.json", days=500)
    write(health / "health_20250101_0000.json", days=100)
    write(health / "health_20250201_0000.json", days=1)
    write(health / "latest.json", days=100)
    summary = job.clean_records(settings, dry_run=False)
    assert sorted(path.name for path in settings.reports.rglob("*.*")) == [
        "drift_report_20230103.html",
        "drift_report_20230103.json",
        "health_20250201_0000.json",
        "last_retrain.json",
        "latest.json",
    ]
    assert summary["reports"]["count"] == 5
    assert summary["reports"]["freed_bytes"] == 5000


def test_rotated_logs_and_task_logs_go_by_age(settings):
    write(settings.logs / "service" / "alerts.log", days=400)
    write(settings.logs / "service" / "alerts.log.1", days=89)
    write(settings.logs / "service" / "alerts.log.2", days=91)
    tasks = settings.home / ".airflow" / "logs" / "dag_id=health_check"
    write(tasks / "run_id=a" / "attempt=1.log", days=91)
    write(tasks / "run_id=b" / "attempt=1.log", days=1)
    aged(write(tasks / "run_id=c" / "x").parent / "x", 91).unlink()
    aged(tasks / "run_id=c", 91)
    summary = job.clean_records(settings, dry_run=False)
    assert sorted(path.name for path in (settings.logs / "service").iterdir()) == [
        "alerts.log",
        "alerts.log.1",
    ]
    assert (tasks / "run_id=b" / "attempt=1.log").exists()
    assert not (tasks / "run_id=a" / "attempt=1.log").exists()
    assert not (tasks / "run_id=c").exists()
    assert {area: entry["count"] for area, entry in summary.items()} == {
        "rotated logs": 1,
        "task logs": 1,
    }


@pytest.mark.parametrize("folder", ["data/quarantine", "data/work", "data"])
def test_a_linked_folder_is_refused_before_anything_goes(settings, tmp_path, folder):
    outside = write(tmp_path / "elsewhere" / "quarantine" / "old.csv", days=400)
    write(tmp_path / "elsewhere" / "old.csv", days=400)
    link = settings.home / folder
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BoundaryError, match="outside of the state root"):
        job.clean_data(settings, dry_run=False)
    assert outside.exists()
    assert (tmp_path / "elsewhere" / "old.csv").exists()


def test_a_linked_folder_of_reports_and_of_logs_is_refused(settings, tmp_path):
    outside = write(tmp_path / "elsewhere" / "drift_report_20200101.json", days=900)
    write(tmp_path / "elsewhere" / "drift_report_20210101.json", days=800)
    settings.reports.mkdir(parents=True)
    (settings.reports / "drift").symlink_to(outside.parent)
    with pytest.raises(BoundaryError):
        job.clean_records(settings, dry_run=False)
    assert outside.exists()


def test_a_link_among_the_doomed_goes_and_what_it_leads_to_stays(settings, tmp_path):
    outside = write(tmp_path / "elsewhere" / "precious", days=900)
    settings.work.mkdir(parents=True)
    (settings.work / "run").symlink_to(outside.parent)
    (settings.work / "other").mkdir()
    (settings.work / "other" / "link").symlink_to(outside.parent)
    aged(settings.work / "run", 3)
    aged(settings.work / "other", 3)
    job.clean_data(settings, dry_run=False)
    assert not any(settings.work.iterdir())
    assert outside.exists()


NOW = datetime.now(UTC)


@pytest.fixture
def requests_of_two_months(settings):
    with contextlib.closing(connect(settings.service_db)) as connection:
        prepare(connection)
        now = datetime.now(UTC)
        times = [now - timedelta(minutes=10 * number) for number in range(60 * 144)]
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


def test_the_summary_adds_up_all_steps():
    models = {"models": {"count": 1, "freed_bytes": 10, "examples": ["a"]}}
    logs = {"task logs": {"count": 3, "freed_bytes": 5, "examples": ["b"]}}
    assert job.summarise([models, {}, logs], dry_run=True) == {
        "dry_run": True,
        "freed_bytes": 15,
        "removed": models | logs,
    }


def test_the_file_states_every_default(settings):
    assert load_config(settings, MaintenanceConfig) == MaintenanceConfig()
    text = Path(settings.config_file("maintenance.yaml")).read_text()
    for name in MaintenanceConfig.model_fields:
        assert f"\n{name}:" in text


def test_old_embedding_sets_scorers_and_their_caches_go(settings):
    names = [f"emb_2025010{day}_000000_000000" for day in range(1, 7)]
    for name in names:
        write(settings.embeddings / name / "manifest.json")
    point_link(settings.embeddings / "current", settings.embeddings / names[0])
    comments = settings.home / "data" / "comments"
    scorers = [f"ngrams-2025010{day}-abc" for day in range(1, 9)]
    for name in scorers:
        write(comments / "scorers" / name / "manifest.json")
        write(comments / "cache" / name / "part.npz")
    in_use = {"as_of": "2025-01-01T00:00:00+00:00", "comment_scorer": scorers[0], "files": {}}
    write_json(settings.versions / "v1" / "manifest.json", in_use)
    plan = job.clean_data(settings, dry_run=True)
    summary = job.clean_data(settings, dry_run=False)
    assert plan["embedding sets"] == summary["embedding sets"]
    left = {path.name for path in settings.embeddings.iterdir()}
    assert left == {"current", names[0], *names[-3:]}
    for folder in ("scorers", "cache"):
        assert {path.name for path in (comments / folder).iterdir()} == {scorers[0], *scorers[-5:]}
