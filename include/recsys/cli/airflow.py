"""Commands that hand over to Airflow: its own command line, and backfills."""

import os
import sys
import time
from collections import Counter
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from recsys.cli.jobs import JobFailedError
from recsys.cli.output import console, print_json
from recsys.errors import InputError
from recsys.orchestration.client import ENDED, AirflowClient
from recsys.orchestration.environment import connect, stack_environment
from recsys.schedule import load_zone
from recsys.settings import load_settings

app = typer.Typer()


@app.command(
    rich_help_panel="Stack",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def airflow(context: typer.Context) -> None:
    """Run any Airflow command in the stack's environment, such as `airflow dags list`."""
    env = stack_environment(load_settings())
    os.execve(sys.executable, [sys.executable, "-m", "airflow", *context.args], env)  # noqa: S606


@app.command(rich_help_panel="Jobs")
def backfill(
    job: Annotated[str, typer.Argument(help="The job, such as data_refresh.")],
    from_date: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First day.")],
    to_date: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Last day.")],
) -> None:
    """Run a job for every interval that begins on the days given, one after the other.

    Days are those of the schedule's time zone, the last one included; days that have a run already
    are left out. Prints the runs by state as JSON when Airflow has closed the backfill; exits with
    1 if one failed, with 2 while another backfill of the job is open.
    """
    if to_date < from_date:
        raise InputError(f"--to-date {to_date:%Y-%m-%d} is before --from-date {from_date:%Y-%m-%d}")
    settings = load_settings()
    client = connect(settings)
    if job not in (jobs := client.dags()):
        raise InputError(f"{job!r} is no job; there are {', '.join(sorted(jobs))}")
    zone = load_zone(settings)
    first = from_date.replace(tzinfo=zone)
    last = to_date.replace(tzinfo=zone) + timedelta(days=1, seconds=-1)
    states = _follow(client, _create(client, job, first, last))
    print_json({"job": job, "runs": dict(states)})
    if not states:
        console.print(
            f"Nothing was to be done: {job} has a run for every one of these days already; clear "
            f"those that shall run again, at {client.url}/dags/{job}"
        )
    if states["failed"]:
        raise JobFailedError(f"{states['failed']} runs failed; see {client.url}/dags/{job}")


def _create(client: AirflowClient, job: str, first: datetime, last: datetime) -> dict[str, Any]:
    """Create the backfill. Raises `InputError` while another one of the job is open."""
    for one in client.open_backfills(job):
        ended = sum(run["state"] in ENDED for run in client.backfill_runs(one))
        raise InputError(
            f"a backfill of {job} is open already ({one['from_date'][:10]} to "
            f"{one['to_date'][:10]}, {ended} runs have ended); wait until Airflow has closed "
            f"it, or cancel it at {client.url}/dags/{job}/backfills"
        )
    return client.create_backfill(job, first, last)


def _follow(client: AirflowClient, one: dict[str, Any]) -> Counter[str]:
    """Wait until Airflow has closed the backfill: until then it takes no other of the job.

    It does so within half a minute after the last run has ended.
    """
    job = one["dag_id"]
    with console.status(f"{job}: waiting for the first run") as status:
        while True:
            closed = client.is_closed(one)
            states = Counter(run["state"] for run in client.backfill_runs(one))
            if closed:
                return states
            ended = sum(states[state] for state in ENDED)
            status.update(f"{job}: {ended} of {states.total()} runs have ended")
            time.sleep(1)
