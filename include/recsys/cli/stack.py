"""Commands that start, stop and describe the stack."""

from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.table import Table

from recsys.cli.output import console, print_json
from recsys.config import unknown_files
from recsys.orchestration.stack import Stack
from recsys.schedule import load_schedule, load_zone
from recsys.settings import Settings, load_settings

app = typer.Typer()
scheduler_app = typer.Typer(no_args_is_help=True, help="Start, stop and watch the stack.")
app.add_typer(scheduler_app, name="scheduler", rich_help_panel="Stack")


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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show each component's pid, uptime and heartbeat, and each DAG's next run.

    Exits with 1 when a component is not running, or a DAG cannot be loaded.
    """
    stack = Stack(load_settings())
    components, dags, problems = describe(stack)
    if as_json:
        print_json({"components": components, "dags": dags, "problems": problems})
    else:
        _print_tables(components, dags, load_zone(stack.settings))
        for problem in problems:
            console.print(problem, style="red", markup=False, soft_wrap=True)
    if problems or any(component["state"] != "RUNNING" for component in components):
        raise typer.Exit(1)


def settings_problems(settings: Settings) -> list[str]:
    """A sentence for each file of settings that cannot be used, or that nobody reads."""
    from recsys.health import pipelines
    from recsys.upkeep import MaintenanceConfig

    return unknown_files(settings) + pipelines.settings_problems(settings, MaintenanceConfig)


def describe(stack: Stack) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """The components, each with its last heartbeat, the DAGs, each with its next run, and a
    sentence for each job that cannot run and each file of settings that cannot be used."""
    from recsys.orchestration.client import AirflowError
    from recsys.orchestration.environment import connect

    components = stack.components()
    problems = list(load_schedule(stack.settings).problems.values())
    problems += settings_problems(stack.settings)
    if not stack.is_running():
        return components, [], problems
    client = connect(stack.settings)
    try:
        health = client.health()
        dags = [
            {"dag": dag_id, "paused": dag["is_paused"], "next_run": dag["next_dagrun_run_after"]}
            for dag_id, dag in sorted(client.dags().items())
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
        beat = [value for key, value in part.items() if key.endswith("_heartbeat")]
        component["heartbeat"] = beat[0] if beat else None
    return components, dags, problems


def _print_tables(
    components: list[dict[str, Any]], dags: list[dict[str, Any]], zone: ZoneInfo
) -> None:
    table = Table("component", "state", "pid", "uptime", "heartbeat", title="Components")
    for part in components:
        uptime = f"{part['uptime_seconds'] // 60} min {part['uptime_seconds'] % 60} s"
        table.add_row(
            part["name"],
            part["state"],
            str(part["pid"] or ""),
            uptime if part["pid"] else "",
            part.get("heartbeat") or "",
        )
    out = Console(highlight=False)
    out.print(table)
    if dags:
        runs = Table("DAG", "next run", "paused", title="DAGs")
        for dag in dags:
            moment = dag["next_run"] and datetime.fromisoformat(dag["next_run"]).astimezone(zone)
            text = f"{moment:%Y-%m-%d %H:%M %Z}" if moment else "none"
            runs.add_row(dag["dag"], text, "yes" if dag["paused"] else "no")
        out.print(runs)
