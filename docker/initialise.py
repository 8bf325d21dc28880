"""Prepares state and Airflow before its components start: folders, login, database, pools. Safe to
repeat."""

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
    """Make the folders, write the login file, migrate Airflow's database, create the pools."""
    settings = load_settings()
    # Raw files that are copied in must not make their folder root's: jobs archive events there.
    for folder in (settings.raw, settings.logs / "scheduler", settings.logs / "service"):
        folder.mkdir(parents=True, exist_ok=True)
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
