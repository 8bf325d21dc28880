"""The run mirror's hooks, called as Airflow's processes call them, with a real metadata database.

Each test runs in a process of its own, because Airflow reads its configuration when imported.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recsys.orchestration.mirror import MARKED_BY_HAND
from recsys.settings import REPOSITORY, Settings
from recsys.tracking import PipelineTracker, tracker_database

pytestmark = pytest.mark.boots

PRELUDE = """
import json, logging, sys, time
from datetime import UTC, datetime
from types import SimpleNamespace
from recsys.orchestration.listener import RunMirrorListener, drain

listener = RunMirrorListener()

def run(state, dag_id="data_refresh", **changes):
    now = datetime(2025, 1, 15, 2, tzinfo=UTC)
    fields = dict(dag_id=dag_id, run_id="manual__1", run_type="manual", state=state,
        start_date=now, end_date=None if state == "running" else now, queued_at=now, run_after=now,
        triggering_user_name="lan", triggered_by="ui", data_interval_start=None,
        data_interval_end=None, logical_date=None, conf={"force_full": True})
    return SimpleNamespace(**{**fields, **changes})

def fail(task, error):
    listener.on_task_instance_failed(None, SimpleNamespace(
        dag_id="data_refresh", run_id="manual__1", task_id=task), error)
"""


@pytest.fixture(autouse=True)
def _database(settings: Settings, airflow_database: Path) -> None:
    settings.home.mkdir(parents=True)
    shutil.copy(airflow_database, settings.home)


def in_airflow(home: Path, program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "RECSYS_HOME": str(home),
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "PYTHONPATH": str(REPOSITORY / "include"),
        **variables,
    }
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def mirrored(settings: Settings) -> dict[str, Any]:
    run = PipelineTracker(settings.pipeline_db).get_run("data_refresh__manual__1")
    assert run is not None
    return run


def test_a_run_is_mirrored_from_start_to_end(settings):
    in_airflow(
        settings.home,
        """
listener.on_dag_run_running(run("running"), "started")
listener.on_dag_run_success(run("success"), "success")
""",
    )
    run = mirrored(settings)
    assert run["status"] == "success"
    assert run["metadata"]["triggered_by"] == "lan"
    assert run["metadata"]["conf"] == {"force_full": True}
    lines = (settings.logs / "scheduler" / "scheduler.log").read_text().splitlines()
    assert lines[0].endswith("| INFO | Starting job: data_refresh")
    assert lines[1].endswith("| INFO | Job completed: data_refresh | duration=0s | status=success")


def test_a_start_that_another_scheduler_tells_late_does_not_undo_the_end(settings):
    in_airflow(
        settings.home,
        """
listener.on_dag_run_success(run("success"), "success")
listener.on_dag_run_running(run("running"), "started")
""",
    )
    assert mirrored(settings)["status"] == "success"


def test_bad_input_is_mirrored_as_its_own_sentence_and_secrets_are_masked(settings):
    in_airflow(
        settings.home,
        """
from airflow.sdk.exceptions import AirflowFailException
from recsys.errors import InputError
listener.on_dag_run_running(run("running"), "started")
drain()
try:
    try:
        raise InputError("reviews.csv: no column 'rating'")
    except InputError as error:
        raise AirflowFailException(str(error)) from error
except AirflowFailException as error:
    fail("ingest", error)
fail("publish", RuntimeError("https://bot:hunter2hunter2@example.com refused"))
""",
    )
    errors = mirrored(settings)["metadata"]["task_errors"]
    assert errors["ingest"] == "reviews.csv: no column 'rating'"
    assert "hunter2" not in errors["publish"]


def test_a_run_that_a_person_failed_is_cancelled(settings):
    in_airflow(
        settings.home,
        """
listener.on_dag_run_running(run("running"), "started")
listener.on_dag_run_failed(run("failed"), "Dag Run's state was manually set to `failed`.")
""",
    )
    run = mirrored(settings)
    assert run["status"] == "cancelled"
    assert run["error_message"] == "marked as failed by hand"


def test_a_run_that_timed_out_says_so(settings):
    in_airflow(settings.home, 'listener.on_dag_run_failed(run("failed"), "timed_out")')
    assert mirrored(settings)["error_message"] == "timed out"


def test_a_cleared_run_that_times_out_again_is_told_again(settings):
    in_airflow(
        settings.home,
        """
from recsys.orchestration.callbacks import run_failed
for cleared in (0, 1):
    listener.on_dag_run_failed(run("failed", clear_number=cleared), "timed_out")
    drain()
    run_failed({"dag": SimpleNamespace(dag_id="data_refresh"), "run_id": "manual__1",
        "reason": "timed_out"})
""",
    )
    log = (settings.logs / "service" / "alerts.log").read_text()
    assert log.count("data_refresh_failed triggered: run timed out") == 2


def test_a_run_that_succeeded_before_it_was_cleared_and_timed_out_is_told_once(settings):
    in_airflow(
        settings.home,
        """
from recsys.orchestration.callbacks import run_failed
listener.on_dag_run_success(run("success"), "all tasks succeeded")
listener.on_dag_run_running(run("running", clear_number=1), "started")
listener.on_dag_run_failed(run("failed", clear_number=1), "timed_out")
drain()
run_failed({"dag": SimpleNamespace(dag_id="data_refresh"), "run_id": "manual__1",
    "reason": "timed_out"})
""",
    )
    log = (settings.logs / "service" / "alerts.log").read_text()
    assert log.count("data_refresh_failed triggered: run timed out") == 1


@pytest.mark.parametrize(
    ("success", "told"),
    [
        ("run('success', run_id='manual__2', conf={}), 'success'", 1),
        ("run('success', run_id='manual__2', conf={'dry_run': True}), 'success'", 0),
        (f"run('success', conf=None), {'DagRun ' + MARKED_BY_HAND!r}", 0),
    ],
)
def test_only_a_run_that_did_the_work_says_that_the_job_works_again(settings, success, told):
    program = """
listener.on_dag_run_running(run("running"), "started")
listener.on_dag_run_failed(run("failed"), "timed_out")
"""
    in_airflow(settings.home, f"{program}listener.on_dag_run_success({success})\ndrain()")
    log = (settings.logs / "service" / "alerts.log").read_text("utf-8")
    assert log.count("data_refresh_failed triggered: run timed out") == 1
    assert log.count("data_refresh_failed resolved: succeeded again") == told


def test_other_dags_of_the_shop_are_left_alone(settings):
    in_airflow(
        settings.home, 'listener.on_dag_run_running(run("running", dag_id="price_feed"), "started")'
    )
    assert PipelineTracker(settings.pipeline_db).get_recent_runs() == []


@pytest.mark.parametrize("broken", ["a directory", "away"])
def test_a_broken_tracker_raises_nothing_and_holds_nothing_up(settings, broken):
    settings.logs.mkdir(parents=True)
    if broken == "a directory":
        settings.pipeline_db.mkdir()
    else:
        settings.pipeline_db.symlink_to(settings.home / "away" / "runs.db")
    result = in_airflow(
        settings.home,
        """
begun = time.perf_counter()
listener.on_dag_run_running(run("running"), "started")
listener.on_dag_run_success(run("success"), "success")
waited = time.perf_counter() - begun
drain()
fail("ingest", ValueError("boom"))
print("\\n" + json.dumps({"waited": waited}))
""",
    )
    assert json.loads(result.stdout.splitlines()[-1])["waited"] < 1
    told = "The run mirror could not write data_refresh manual__1" in result.stdout + result.stderr
    assert told == (broken == "away")
    if not told:
        assert len(PipelineTracker(settings.pipeline_db).get_recent_runs()) == 1


def test_the_tracker_can_be_elsewhere_through_a_connection(settings, tmp_path):
    elsewhere = tmp_path / "elsewhere.db"
    in_airflow(
        settings.home,
        'listener.on_dag_run_running(run("running"), "started")',
        AIRFLOW_CONN_RECSYS_TRACKER=json.dumps(
            {"conn_type": "recsys_tracker", "host": str(elsewhere)}
        ),
    )
    assert PipelineTracker(elsewhere).is_pipeline_running("data_refresh")
    assert not settings.pipeline_db.exists()
    # Health and statistics, which may run without Airflow, find it.
    assert tracker_database(settings) == elsewhere


def test_a_run_of_a_day_that_is_to_come_is_failed_at_once_and_told(settings):
    result = in_airflow(
        settings.home,
        """
from datetime import timedelta
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
day = datetime.now(UTC) + timedelta(days=1)
with create_session() as session:
    session.add(DagRun(dag_id="data_refresh", run_id="manual__1", run_type="manual",
        logical_date=day, run_after=day, state="running"))
listener.on_dag_run_running(run("running", logical_date=day), "started")
drain()
with create_session() as session:
    [row] = session.query(DagRun).all()
    print("\\n" + json.dumps({"state": row.state, "ended": row.end_date is not None}))
listener.on_dag_run_running(run("running", logical_date=day, clear_number=1), "started")
drain()
""",
    )
    assert json.loads(result.stdout.splitlines()[-1]) == {"state": "failed", "ended": True}
    run = mirrored(settings)
    assert run["status"] == "failed"
    assert "its logical date is in the future" in run["error_message"]
    log = (settings.logs / "service" / "alerts.log").read_text(encoding="utf-8")
    assert log.count("data_refresh_failed triggered") == 2  # once for each time it was asked for


NOTES = """
from airflow.models.dagrun import DagRun, DagRunNote
from airflow.utils.session import create_session
from sqlalchemy import select

def put(**note):
    with create_session() as session:
        session.add(DagRun(dag_id="data_refresh", run_id="manual__1", run_type="manual",
            run_after=datetime(2025, 1, 15, 2, tzinfo=UTC), state="running", conf={}))
        if note:
            session.flush()
            found = session.scalar(select(DagRun))
            found.dag_run_note = DagRunNote(**note)

def told():
    drain()
    with create_session() as session:
        print(session.scalar(select(DagRun)).dag_run_note.content)
"""


def test_a_failed_run_has_a_note_until_it_succeeds(settings: Settings) -> None:
    program = """
put()
fail("publish", OSError("the disk is full"))
listener.on_dag_run_running(run("running"), "")
listener.on_dag_run_failed(run("failed"), "publish failed")
told()
from recsys.orchestration.listener import _leave_note
_leave_note({"dag_id": "data_refresh", "dag_run_id": "manual__1"}, "3 rows")
told()
"""
    result = in_airflow(settings.home, NOTES + program)
    assert result.stdout.splitlines()[-2:] == ["Failed. publish failed", "3 rows"]


def test_a_persons_note_stays(settings: Settings) -> None:
    program = """
put(content="asked the shop", user_id="1")
listener.on_dag_run_failed(run("failed"), "publish failed")
told()
"""
    result = in_airflow(settings.home, NOTES + program)
    assert result.stdout.splitlines()[-1] == "asked the shop"
