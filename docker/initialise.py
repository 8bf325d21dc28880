"""Prepares Airflow before its components start: login, database, pools. Safe to repeat."""

import json
import os
import subprocess
import sys
from pathlib import Path

from recsys.orchestration.environment import write_pools
from recsys.publishing import atomic_path
from recsys.settings import load_settings

PRIVATE = 0o600


def main() -> None:
    """Write the login file, migrate Airflow's database, create the pools."""
    settings = load_settings()
    for folder in ("scheduler", "service"):
        (settings.logs / folder).mkdir(parents=True, exist_ok=True)
    passwords = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    login = {os.environ["RECSYS_AIRFLOW_USER"]: os.environ["RECSYS_AIRFLOW_PASSWORD"]}
    with atomic_path(passwords) as temporary:
        temporary.touch(mode=PRIVATE)
        temporary.write_text(json.dumps(login), encoding="utf-8")
    pools = passwords.with_name("pools.json")
    write_pools(settings, pools)
    for command in (("db", "migrate"), ("pools", "import", str(pools))):
        subprocess.run([sys.executable, "-m", "airflow", *command], check=True)  # noqa: S603


if __name__ == "__main__":
    main()
