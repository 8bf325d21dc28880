"""Commands that start, stop and describe the stack, and Airflow's own command line."""

import os
import sys
from typing import Any

import typer

from recsys.cli.output import AsJson, console, duration, local_time, print_json
from recsys.cli.settings import settings_problems
from recsys.cli.tables import print_table
from recsys.data.simulated import Simulated, read_note
from recsys.orchestration.client import AirflowError
from recsys.orchestration.environment import connect, stack_environment
from recsys.orchestration.stack import Stack
from recsys.schedule import load_zone
from recsys.settings import load_settings

app = typer.Typer()
scheduler_app = typer.Typer(no_args_is_help=True, help="Start, stop and watch the stack.")
app.add_typer(scheduler_app, name="scheduler", rich_help_panel="Stack")


@app.command(
    rich_help_panel="Stack",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def airflow(context: typer.Context) -> None:
    """Run any Airflow command in the stack's environment, such as `airflow dags list`."""
    env = stack_environment(load_settings())
    os.execve(sys.executable, [sys.executable, "-m", "airflow", *context.args], env)  # noqa: S606


@scheduler_app.command()
def start() -> None:
    """Start Airflow and the service, and wait until Airflow is healthy."""
    stack = Stack(load_settings())
    with stack.exclusive(), console.status("Starting Airflow and the service"):
        started = stack.start()
    console.print("The stack is up." if started else "The stack was up already.")


@scheduler_app.command()
def stop() -> None:
    """Stop Airflow and the service with all their children."""
    stack = Stack(load_settings())
    with stack.exclusive(), console.status("Stopping Airflow and the service"):
        stopped = stack.stop()
    console.print("The stack is down." if stopped else "Nothing was running.")


@scheduler_app.command()
def status(
    as_json: AsJson = False,
) -> None:
    """Show each component's pid, uptime and heartbeat, and each DAG's next run.

    Exits with 1 when a component is not running, or a DAG cannot be loaded."""
    stack = Stack(load_settings())
    found = _describe(stack)
    if as_json:
        print_json(found)
    else:
        _print_tables(found["components"], found["dags"])
        if note := found["simulated"]:
            console.print(f"Simulated traffic: {Simulated(**note)}, in the sample shop")
        for problem in found["problems"]:
            console.print(problem, style="red", markup=False, soft_wrap=True)
    if found["problems"] or any(one["state"] != "RUNNING" for one in found["components"]):
        raise typer.Exit(1)


def _describe(stack: Stack) -> dict[str, Any]:
    """The components, each with its last heartbeat, the DAGs, each with its next run, a sentence
    for each job that cannot run and each file of settings that cannot be used, and how much traffic
    was simulated, None if none."""
    components = stack.components()
    problems = settings_problems(stack.settings)
    note = read_note(stack.settings)
    found = {"problems": problems, "simulated": note and note._asdict()}
    if not stack.is_running():
        return {"components": components, "dags": [], **found}
    client, zone = connect(stack.settings), load_zone(stack.settings)
    try:
        health = client.health()
        dags = [
            {
                "dag": name,
                "paused": paused,
                "next_run": None if paused else local_time(moment, zone),
            }
            for name, dag in sorted(client.dags().items())
            for paused, moment in [(dag["is_paused"], dag["next_dagrun_run_after"])]
        ]
        # Airflow keeps the last good version of a DAG in its list; the errors tell of the file.
        for error in client.import_errors():
            reason = error["stack_trace"].strip().splitlines()[-1]
            if not any(reason.endswith(one) for one in problems):
                problems.append(f"{error['filename']}: {reason}")
    except AirflowError:
        health, dags = {}, []
    for component in components:
        part = health.get(component["name"].replace("-", "_")) or {}
        beats = (value for key, value in part.items() if key.endswith("_heartbeat"))
        component["heartbeat"] = local_time(next(beats, None), zone)
        if part.get("status") == "unhealthy" and component["pid"]:
            since = f"since {component['heartbeat']}" if component["heartbeat"] else "yet"
            problems.append(f"{component['name']}: it runs, and gave no sign of life {since}")
    return {"components": components, "dags": dags, **found}


def _print_tables(components: list[dict[str, Any]], dags: list[dict[str, Any]]) -> None:
    rows = []
    for one in components:
        running = (one["pid"], duration(one["uptime_seconds"])) if one["pid"] else (None, None)
        rows.append((one["name"], one["state"], *running, one.get("heartbeat")))
    columns = ("component", "state", "pid", "uptime", "heartbeat")
    print_table("Components", columns, rows, below={"heartbeat": "uptime"})
    if dags:
        found = [(d["dag"], "paused" if d["paused"] else d["next_run"] or "none") for d in dags]
        print_table("DAGs", ("DAG", "next run"), found)
