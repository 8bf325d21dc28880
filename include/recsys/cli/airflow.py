"""Commands that hand over to Airflow's own command line."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console

from recsys.cli.jobs import JobFailedError
from recsys.orchestration.client import ENDED, AirflowClient, AirflowError
from recsys.orchestration.environment import connect, stack_environment
from recsys.schedule import load_zone
from recsys.settings import load_settings

ATTEMPTS = 5
PAUSE_SECONDS = 3.0
LOCKED = "database is locked"

console = Console(stderr=True, highlight=False)


def airflow(context: typer.Context) -> None:
    """Run any Airflow command in the stack's environment, such as `airflow dags list`."""
    env = stack_environment(load_settings())
    os.execve(sys.executable, [sys.executable, "-m", "airflow", *context.args], env)  # noqa: S606


def backfill(
    job: Annotated[str, typer.Argument(help="The job, such as data_refresh.")],
    from_date: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First day.")],
    to_date: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Last day.")],
) -> None:
    """Run a job for every interval that begins on the days given, and follow the runs.

    Days are those of the schedule's time zone, the last one included.
    Prints the runs by state as JSON; exits with 1 if one failed.
    """
    settings = load_settings()
    client = connect(settings)
    asked = datetime.now(UTC)
    zone = load_zone(settings)
    first = from_date.replace(tzinfo=zone)
    last = to_date.replace(tzinfo=zone) + timedelta(days=1, seconds=-1)
    _create(job, first, last, stack_environment(settings))
    states = _follow(client, job, asked)
    typer.echo(json.dumps({"job": job, "runs": dict(states)}, indent=2))
    if states["failed"]:
        raise JobFailedError(f"{states['failed']} runs failed; see {client.url}/dags/{job}")


def _create(job: str, start: datetime, end: datetime, env: dict[str, str]) -> None:
    """Create the backfill.

    Airflow's command gives up at once when another process writes to its SQLite database in the
    same moment, and takes back what it had created: asking again is safe.
    """
    command = ["backfill", "create", "--dag-id", job]
    command += ["--from-date", start.isoformat(), "--to-date", end.isoformat()]
    for attempt in range(1, ATTEMPTS + 1):
        result = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "airflow", *command],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode == 0:
            return
        if LOCKED not in result.stderr or attempt == ATTEMPTS:
            last = (result.stderr.strip().splitlines() or ["no error text"])[-1]
            raise AirflowError(f"airflow backfill create failed: {last}")
        console.print(f"Airflow's database is busy, trying again ({attempt} of {ATTEMPTS})")
        time.sleep(PAUSE_SECONDS)


def _follow(client: AirflowClient, job: str, asked: datetime) -> Counter[str]:
    with console.status(f"{job}: waiting for the first run") as status:
        while True:
            runs = client.backfill_runs(job, asked)
            states = Counter(run["state"] for run in runs)
            ended = sum(states[state] for state in ENDED)
            status.update(f"{job}: {ended} of {len(runs)} runs have ended")
            if runs and ended == len(runs):
                return states
            time.sleep(1)


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(rich_help_panel="Jobs")(backfill)
    app.command(
        rich_help_panel="Stack",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        add_help_option=False,
    )(airflow)
