"""Every DAG file keeps the house's rules."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recsys.schedule import MADE_BY, load_schedule
from recsys.settings import REPOSITORY, Settings

DAGS = sorted((REPOSITORY / "dags").glob("*.py"))
JOBS = tuple(json.loads((REPOSITORY / "config" / "scheduler_config.json").read_text())["jobs"])
HEAVY = (
    "pandas",
    "numpy",
    "scipy",
    "sklearn",
    "pyarrow",
    "implicit",
    "torch",
    "transformers",
    "sentence_transformers",
    "matplotlib",
    "optuna",
    "portalocker",  # with redis, which triples the time to parse a file
)
# Besides its own pool, a task may use these: the four checks run side by side, and maintenance
# takes turns with the jobs that write what it tidies up.
OTHER_POOLS = {"health_check": {"health_probes"}, "maintenance": {"model_training", "data_refresh"}}
OPTIONS = {
    "data_refresh": {"force_full", "dry_run"},
    "bert_embeddings": {"force"},
    "drift_detection": {"reference_days"},
    "model_training": {"model_types"},
    "model_deployment": {"model_id", "rollback", "dry_run"},
    "health_check": {"component"},
    "maintenance": {"dry_run"},
    "outcomes": {"from", "to"},
    "forget_customers": set(),
}


def inspect(folder: Path, home: Path, **variables: str) -> dict[str, Any]:
    """What Airflow makes of a DAG folder, in a process and an Airflow home of their own."""
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "PYTHONPATH": str(REPOSITORY / "include"),
        **variables,
    }
    script = Path(__file__).with_name("inspect_dags.py")
    result = subprocess.run(
        [sys.executable, str(script), str(folder), *HEAVY],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return inspect(REPOSITORY / "dags", tmp_path_factory.mktemp("airflow"))


def test_every_dag_file_loads_and_there_is_one_for_each_job(bag):
    assert bag["import_errors"] == {}
    assert set(JOBS) <= set(bag["dags"])
    assert {Path(dag["file"]).stem: dag_id for dag_id, dag in bag["dags"].items()} == {
        path.stem: path.stem for path in DAGS
    }


def test_no_dag_file_imports_a_heavy_package(bag):
    assert bag["heavy"] == []


def test_schedule_timeout_and_deadline_come_from_the_configuration(bag):
    schedule = load_schedule(Settings(REPOSITORY))
    for job, timing in schedule.jobs.items():
        dag = bag["dags"][job]
        assert dag["timetable"] == "CronDataIntervalTimetable"
        assert dag["cron"] == timing.cron
        assert "Asia/Ho_Chi_Minh" in dag["timezone"]
        assert dag["timeout_seconds"] == timing.timeout_minutes * 60
        assert dag["deadline_seconds"] == [timing.deadline_minutes * 60]


def test_runs_of_a_job_never_overlap_and_never_catch_up(bag):
    for dag in bag["dags"].values():
        assert dag["max_active_runs"] == 1
        assert dag["catchup"] is False


def test_every_task_runs_in_a_pool_that_exists_and_reports_its_failure(bag):
    pools = json.loads((REPOSITORY / "config" / "pools.json").read_text())
    for dag_id, dag in bag["dags"].items():
        assert dag["has_failure_callback"], dag_id
        for task_id, task in dag["tasks"].items():
            assert task["pool"] in {dag_id} | OTHER_POOLS.get(dag_id, set()), (dag_id, task_id)
            assert task["pool"] in pools
            assert task["has_failure_callback"], (dag_id, task_id)
    for job in JOBS:
        assert pools[job]["slots"] == 1


def test_every_dag_is_tagged_and_carries_its_runbook(bag):
    for dag_id, dag in bag["dags"].items():
        assert "recsys" in dag["tags"]
        assert "**When it fails**" in (dag["doc"] or ""), dag_id


def test_every_job_has_an_area_that_owns_it_and_a_description(bag):
    for dag in bag["dags"].values():
        assert dag["tags"] == sorted({"recsys", dag["owner"]})
        assert dag["owner"] in {"data", "models", "service", "upkeep"}
        assert len(dag["description"]) > 10


def test_every_field_of_a_form_has_a_title_and_says_what_it_does(bag):
    for job, dag in bag["dags"].items():
        for name, schema in dag["params"].items():
            assert schema.get("title"), (job, name)
            assert schema.get("description"), (job, name)


def test_the_forms_offer_families_components_and_the_models_that_there_are(tmp_path):
    from recsys.orchestration.choices import FAMILIES

    home = tmp_path / "state"
    registry = Settings(home).registry
    registry.parent.mkdir(parents=True)
    registry.write_text(json.dumps({"models": {"als_1": {"created_at": "2026-01-01"}}}))
    bag = inspect(REPOSITORY / "dags", tmp_path, RECSYS_HOME=str(home))
    assert bag["import_errors"] == {}
    assert bag["heavy"] == []
    forms = {job: dag["params"] for job, dag in bag["dags"].items()}
    assert forms["model_deployment"]["model_id"]["examples"] == ["als_1"]
    assert forms["model_training"]["model_types"]["examples"] == list(FAMILIES)
    components = [None, "service", "data", "model", "pipeline"]
    assert forms["health_check"]["component"]["enum"] == components
    registry.write_text("{")
    bag = inspect(REPOSITORY / "dags", tmp_path, RECSYS_HOME=str(home))
    assert bag["import_errors"] == {}
    assert bag["dags"]["model_deployment"]["params"]["model_id"]["examples"] == []


@pytest.mark.parametrize("job", OPTIONS)
def test_the_documented_options_are_params(bag, job):
    assert OPTIONS[job] <= set(bag["dags"][job]["params"])


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_nothing_imports_from_dags(path):
    sources = [*(REPOSITORY / "include").rglob("*.py"), *(REPOSITORY / "serving").rglob("*.py")]
    assert not [s for s in sources if f"dags.{path.stem}" in s.read_text(encoding="utf-8")]


def inspect_with(tmp_path: Path, job: str, **changes: Any) -> dict[str, Any]:
    """The DAG folder, with changes to the schedule of one job."""
    config = tmp_path / "home" / "config"
    config.mkdir(parents=True)
    schedule = json.loads((REPOSITORY / "config" / "scheduler_config.json").read_text())
    schedule["jobs"][job] |= changes
    (config / "scheduler_config.json").write_text(json.dumps(schedule))
    home = str(tmp_path / "home")
    return inspect(REPOSITORY / "dags", tmp_path / "airflow", RECSYS_HOME=home)


def test_a_bad_entry_is_an_import_error_of_its_own_dag_that_names_the_key(tmp_path):
    bag = inspect_with(tmp_path, "data_refresh", cron="at two o'clock")
    assert set(bag["dags"]) == set(JOBS) - {"data_refresh"}
    (error,) = bag["import_errors"].values()
    assert "jobs.data_refresh.cron: expected a cron expression" in error


def test_a_disabled_job_stays_visible_without_a_schedule(tmp_path):
    bag = inspect_with(tmp_path, "drift_detection", enabled=False)
    assert bag["import_errors"] == {}
    assert bag["dags"]["drift_detection"]["timetable"] == "NullTimetable"


def test_a_job_that_follows_something_new_keeps_its_clock(tmp_path):
    bag = inspect_with(tmp_path, "data_refresh", after=["raw_drop"])
    assert bag["import_errors"] == {}
    assert bag["heavy"] == []
    dag = bag["dags"]["data_refresh"]
    assert (dag["timetable"], dag["follows"]) == ("AssetOrTimeSchedule", ["raw_drop"])
    assert (dag["cron"], dag["timezone"]) == ("0 2 * * *", "Asia/Ho_Chi_Minh")
    assert dag["max_active_runs"] == 1
    assert [one for one in bag["dags"].values() if one["follows"]] == [dag]


def test_a_job_that_would_start_itself_is_an_import_error_of_its_own_dag(tmp_path):
    bag = inspect_with(tmp_path, "data_refresh", after=["data_version"])
    (error,) = bag["import_errors"].values()
    assert "jobs.data_refresh.after: data_refresh would start itself" in error
    assert set(bag["dags"]) == set(JOBS) - {"data_refresh"}


def test_every_asset_is_made_by_the_job_that_the_schedule_names_and_used_by_another_task(bag):
    made, used = {}, set()
    for dag_id, dag in bag["dags"].items():
        for task in dag["tasks"].values():
            made |= dict.fromkeys(task["outlets"], dag_id)
            used |= set(task["inlets"])
    assert made.pop("raw_drop") == "data_refresh"  # as long as no watcher tells of drops
    assert made == {asset: job for asset, job in MADE_BY.items() if job}
    assert used == set(MADE_BY) - {"outcomes"}


def test_all_tasks_of_a_job_with_a_queue_are_for_the_workers_that_listen_to_it(tmp_path):
    dags = inspect_with(tmp_path, "drift_detection", queue="records")["dags"]
    queues = {job: {task["queue"] for task in dag["tasks"].values()} for job, dag in dags.items()}
    assert queues.pop("drift_detection") == {"records"}
    assert set.union(*queues.values()) == {"default"}
