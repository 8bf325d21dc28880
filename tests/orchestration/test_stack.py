"""How a component of the stack becomes a process."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from recsys.settings import REPOSITORY
from tests.live_stack import wait_for

pytestmark = pytest.mark.boots


def test_the_service_does_not_get_airflows_secrets(tmp_path: Path, free_port: int) -> None:
    secrets = {
        "AIRFLOW__CORE__FERNET_KEY": "fernet",
        "AIRFLOW__API_AUTH__JWT_SECRET": "jwt",
        "RECSYS_AIRFLOW_PASSWORD": "password",
    }
    needed = {
        "RECSYS_HOME": str(tmp_path),
        "RECSYS_RUN": str(tmp_path),
        "RECSYS_ADMIN_TOKEN": "admin",
        "RECSYS_SERVICE_PORT": str(free_port),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "include"), str(REPOSITORY)]),
    }
    command = [sys.executable, "-m", "recsys.orchestration.stack", "service"]
    with subprocess.Popen(
        command, env={**os.environ, **secrets, **needed}, cwd=tmp_path, start_new_session=True
    ) as started:
        try:
            process = psutil.Process(started.pid)
            wait_for(lambda: "serving" in process.cmdline(), 30, "the service")
            environment = process.environ()
        finally:
            started.terminate()
    assert not secrets.keys() & environment.keys()
    assert needed.items() <= environment.items()
