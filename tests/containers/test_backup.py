"""A backup of the containers, restored into others, as docs/production.md says."""

from pathlib import Path

import pytest

from tests.containers.stack import Containers, ask_within

OTHER = ("--project-name", "restored")


@pytest.fixture
def backup(serving: Containers, tmp_path: Path) -> Path:
    """The state and Airflow's database, in a folder."""
    serving.recsys("backup", "/state/backup.tar")
    serving.compose("cp", "worker:/state/backup.tar", str(tmp_path / "backup.tar"))
    serving.compose("exec", "-T", "worker", "rm", "/state/backup.tar")
    dump = ("exec", "-T", "postgres", "pg_dump", "-U", "airflow", "-Fc", "airflow")
    with (tmp_path / "airflow.dump").open("wb") as file:
        serving.compose(*dump, output=file)
    return tmp_path


def test_other_containers_go_on_from_a_backup(serving: Containers, backup: Path):
    compose = serving.compose
    worker = (*OTHER, "run", "--rm", "--no-deps", "-T", "worker")
    try:
        with (backup / "backup.tar").open("rb") as file:
            compose(*worker, "sh", "-c", "cat >/state/backup.tar", stdin=file)
        compose(*worker, "python", "-m", "recsys", "restore", "/state/backup.tar")
        compose(*OTHER, "up", "--detach", "--wait", "postgres")
        restore = (*OTHER, "exec", "-T", "postgres", "pg_restore", "-U", "airflow", "-d", "airflow")
        with (backup / "airflow.dump").open("rb") as file:
            compose(*restore, stdin=file)
        compose(*OTHER, "up", "--detach", "--no-deps", "--wait", "service-1")
        assert ask_within(serving, "service-1", *OTHER) == ask_within(serving, "service-1")
        count = ("psql", "-U", "airflow", "-d", "airflow", "-tAc", "SELECT count(*) FROM dag_run")
        runs = compose(*OTHER, "exec", "-T", "postgres", *count)
        assert int(runs) > 0
    finally:
        compose(*OTHER, "down", "--volumes", "--timeout", "5")
