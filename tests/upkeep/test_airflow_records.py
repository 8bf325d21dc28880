"""``airflow db clean`` against a real database of Airflow."""

import shutil
import subprocess
import sys

import pytest

from recsys.errors import InputError
from recsys.orchestration.environment import airflow_home, ensure_env, stack_environment
from recsys.upkeep import job
from recsys.upkeep.airflow_records import ADDRESS, BLOCKED, CLUSTER_ADDRESS

pytestmark = pytest.mark.boots

OLD_RUN = """
import datetime
from airflow.models import DagRun, Log
from airflow.utils.session import create_session
with create_session() as session:
    for days in (400, 1):
        moment = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=days)
        log = Log(event="test")
        log.dttm = moment
        session.add(log)
"""
COUNT = """
from airflow.models import Log
from airflow.utils.session import create_session
with create_session() as session:
    print("rows:", session.query(Log).filter(Log.event == "test").count())
"""


@pytest.fixture
def airflow(settings, airflow_database):
    """Runs Python in an Airflow with two log rows, one of them old."""
    settings.home.mkdir()
    ensure_env(settings)
    airflow_home(settings).mkdir()

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        env = stack_environment(settings)
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shutil.copy(airflow_database, airflow_home(settings))
    run("-c", OLD_RUN)
    return run


def test_old_records_go_from_inside_a_task_too(settings, airflow, monkeypatch):
    # Airflow does this to the environment of every task.
    monkeypatch.setenv(ADDRESS, f"{BLOCKED}///")
    plan = job.clean_airflow(settings, dry_run=True)
    assert plan["Airflow's records"]["count"] >= 1
    done = job.clean_airflow(settings, dry_run=False)
    assert done == plan
    monkeypatch.delenv(ADDRESS, raising=False)
    assert "rows: 1" in airflow("-c", COUNT)


def test_a_worker_of_a_cluster_is_told_the_address(settings, airflow, monkeypatch):
    moved = airflow_home(settings).rename(settings.home / "cluster")
    monkeypatch.setenv("AIRFLOW_HOME", str(moved))
    monkeypatch.setenv(ADDRESS, f"{BLOCKED}///")
    with pytest.raises(InputError, match=CLUSTER_ADDRESS):
        job.clean_airflow(settings, dry_run=True)
    monkeypatch.setenv(CLUSTER_ADDRESS, f"sqlite:///{moved}/airflow.db")
    monkeypatch.setenv(ADDRESS, f"{BLOCKED}///")
    assert job.clean_airflow(settings, dry_run=True)["Airflow's records"]["count"] >= 1


def test_a_worker_that_does_not_know_the_database_says_what_to_do(settings, monkeypatch):
    settings.home.mkdir()
    ensure_env(settings)
    monkeypatch.setenv(ADDRESS, f"{BLOCKED}///")
    with pytest.raises(InputError, match="clean_metadata"):
        job.clean_airflow(settings, dry_run=False)


def test_it_can_be_left_to_somebody_else(settings):
    (settings.home / "config").mkdir(parents=True)
    text = "airflow:\n  clean_metadata: false\n"
    (settings.home / "config" / "maintenance.yaml").write_text(text)
    assert job.clean_airflow(settings, dry_run=False) == {}
