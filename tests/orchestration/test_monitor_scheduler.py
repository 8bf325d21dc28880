"""What the monitor reads from Airflow's own database, which is a real one."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from recsys.settings import REPOSITORY

NOW = "2026-01-05 02:00:00.000000"
ASK = """
import json
from recsys.orchestration.monitor.scheduler import ask_airflow
found = ask_airflow()
print(json.dumps([sorted(found.paused), [one[:5] for one in found.questions]]))
"""


def insert(connection: sqlite3.Connection, table: str, **values: Any) -> None:
    blanks = ", ".join(f":{name}" for name in values)
    connection.execute(
        f"INSERT INTO {table} ({', '.join(values)}) VALUES ({blanks})",
        values,
    )


def add_dag(connection: sqlite3.Connection, job: str, *, paused: bool) -> None:
    about = {"timetable_type": "x", "partition_mapper_info": "{}", "max_active_tasks": 16}
    about |= {"max_consecutive_failed_dag_runs": 0, "has_task_concurrency_limits": 0}
    insert(
        *(connection, "dag"),
        **{"dag_id": job, "is_paused": paused, "is_stale": 0, "bundle_name": "dags", **about},
    )
    run = {"dag_id": job, "run_id": "manual__1", "run_type": "manual", "run_after": NOW}
    insert(connection, "dag_run", **run, state="running")


def add_question(
    connection: sqlite3.Connection, number: int, job: str, state: str, answered: str | None = None
) -> None:
    key = f"{number:032x}"
    task = {"dag_id": job, "run_id": "manual__1", "task_id": f"approve_{number}", "map_index": -1}
    task |= {"pool": "default_pool", "pool_slots": 1, "try_number": 1, "state": state}
    insert(connection, "task_instance", id=key, **task)
    asked = {"options": '["Approve"]', "params": "{}", "params_input": "{}"}
    asked |= {"subject": f"Deploy als_{number}?", "responded_at": answered}
    insert(connection, "hitl_detail", ti_id=key, created_at=f"2026-01-0{9 - number}", **asked)


@pytest.fixture
def database(airflow_database: Path, tmp_path: Path) -> Path:
    """Two jobs, one of them paused; of five questions two still wait."""
    path = tmp_path / "airflow.db"
    shutil.copy(airflow_database, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        insert(connection, "dag_bundle", name="dags")
        for job in ("model_deployment", "drift_detection"):
            add_dag(connection, job, paused=job == "drift_detection")
        add_question(connection, 1, "model_deployment", "deferred")
        add_question(connection, 2, "model_deployment", "deferred", answered=NOW)
        add_question(connection, 3, "model_deployment", "failed")
        add_question(connection, 4, "model_deployment", "success", answered=NOW)
        add_question(connection, 5, "model_deployment", "running")
    return path


def test_paused_jobs_and_questions_nobody_has_answered_are_found_and_nothing_is_written(
    database: Path, tmp_path: Path
) -> None:
    before = database.read_bytes()
    own = {"AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": f"{REPOSITORY / 'include'}"}
    own["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{database}"
    done = subprocess.run(
        *([sys.executable, "-c", ASK],),
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    paused, questions = json.loads(done.stdout.splitlines()[-1])
    assert paused == ["drift_detection"]
    waiting = [
        ["model_deployment", "manual__1", f"approve_{n}", -1, f"Deploy als_{n}?"] for n in (5, 1)
    ]
    assert questions == waiting
    assert database.read_bytes() == before
