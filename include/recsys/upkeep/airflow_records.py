"""Airflow's own records: ``airflow db clean`` in a process that may open Airflow's database.

Airflow takes its address away from task processes. The stack's environment has it; in a cluster a
variable of its own hands it to the workers."""

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from recsys.errors import InputError
from recsys.orchestration.environment import airflow_home, run_airflow, stack_environment
from recsys.retention import Removal
from recsys.settings import Settings
from recsys.upkeep import AirflowRetention

ADDRESS = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
CLUSTER_ADDRESS = "RECSYS_AIRFLOW_DATABASE"
BLOCKED = "airflow-db-not-allowed:"
COMMAND_SECONDS = 900.0
# Versions and callbacks of DAGs are few, and other tables point at them.
TABLES = (
    "dag_run,task_instance,task_instance_history,task_reschedule,xcom,log,job,trigger,"
    "import_error,deadline,asset_event,revoked_token"
)
_FOUND = re.compile(r"Found (\d+) rows meeting deletion criteria")


def clean_airflow_records(settings: Settings, config: AirflowRetention, removal: Removal) -> None:
    """Remove records of runs that ended long ago, with what belongs to them.

    Raises `StackError` if the command fails, such as while the database is locked: trying again
    helps; `InputError` if the address of Airflow's database is not known."""
    if not config.clean_metadata:
        return
    moment = datetime.now(UTC) - timedelta(days=config.keep_days)
    command = ["db", "clean", "--clean-before-timestamp", moment.isoformat(timespec="seconds")]
    command += ["--tables", TABLES, "--skip-archive", "--yes", "--error-on-cleanup-failure"]
    if removal.dry_run:
        command.append("--dry-run")
    said = run_airflow(unblocked_environment(settings), *command, timeout=COMMAND_SECONDS)
    if rows := sum(map(int, _FOUND.findall(said))):
        removal.count("Airflow's records", "rows", 0, rows)


def unblocked_environment(settings: Settings) -> Mapping[str, str]:
    """An environment with the address of Airflow's database. Raises `InputError` if that is neither
    in `CLUSTER_ADDRESS` nor the stack's own SQLite file."""
    for name in [name for name, value in os.environ.items() if value.startswith(BLOCKED)]:
        del os.environ[name]
    if address := os.environ.get(CLUSTER_ADDRESS):
        return {**os.environ, ADDRESS: address}
    env = stack_environment(settings)
    database = airflow_home(settings) / "airflow.db"
    if str(database) not in env[ADDRESS] or not database.is_file():
        raise InputError(
            f"{database}: is not what Airflow works with here; set {CLUSTER_ADDRESS} for the "
            "workers, or set airflow.clean_metadata in maintenance.yaml to false and run "
            "`airflow db clean` by hand, as docs/production.md shows"
        )
    return env
