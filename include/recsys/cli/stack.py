"""Commands that start, stop and describe the stack, Airflow's own command line, and ``up``: from
nothing to recommendations."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import requests
import typer

from recsys.cli.jobs import follow_run, run_job
from recsys.cli.output import console, print_json, print_table
from recsys.config import unknown_files
from recsys.data.simulated import Simulated, drop_staged, read_note
from recsys.data.sources import SELECTION_NAME, select_source, selection_kept_on_failure
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.health import pipelines
from recsys.orchestration.client import AirflowClient, AirflowError
from recsys.orchestration.environment import (
    airflow_home,
    commands_environment,
    connect,
    is_run_by_others,
    stack_environment,
)
from recsys.orchestration.stack import Stack, StackError
from recsys.registry import Registry
from recsys.schedule import load_schedule, load_zone
from recsys.settings import REPOSITORY, Settings, load_settings
from recsys.upkeep import MaintenanceConfig

DAG_TIMEOUT_SECONDS = 90.0
FIRST_RUN_SECONDS = 20.0
UNKNOWN_CUSTOMER = "new-customer"
DEMO_DAYS, DEMO_LISTS_PER_DAY = 21, 300
"""Of simulated traffic in a sample shop that `up` writes: enough for curves, in three seconds."""

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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
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


def _settings_problems(settings: Settings) -> list[str]:
    """A sentence for each file of settings that cannot be used, or that nobody reads."""
    return unknown_files(settings) + pipelines.settings_problems(settings, MaintenanceConfig)


def _describe(stack: Stack) -> dict[str, Any]:
    """The components, each with its last heartbeat, the DAGs, each with its next run, a sentence
    for each job that cannot run and each file of settings that cannot be used, and how much traffic
    was simulated, None if none."""
    components = stack.components()
    problems = list(load_schedule(stack.settings).problems.values())
    problems += _settings_problems(stack.settings)
    note = read_note(stack.settings)
    found = {"problems": problems, "simulated": note and note._asdict()}
    if not stack.is_running():
        return {"components": components, "dags": [], **found}
    client, zone = connect(stack.settings), load_zone(stack.settings)
    try:
        health = client.health()
        dags = [
            {"dag": name, "paused": paused, "next_run": None if paused else _local(moment, zone)}
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
        component["heartbeat"] = _local(next(beats, None), zone)
        if part.get("status") == "unhealthy" and component["pid"]:
            since = f"since {component['heartbeat']}" if component["heartbeat"] else "yet"
            problems.append(f"{component['name']}: it runs, and gave no sign of life {since}")
    return {"components": components, "dags": dags, **found}


def _local(moment: str | None, zone: ZoneInfo) -> str | None:
    """A moment as Airflow writes it, in the schedule's time zone."""
    return moment and f"{datetime.fromisoformat(moment).astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


def _print_tables(components: list[dict[str, Any]], dags: list[dict[str, Any]]) -> None:
    rows = []
    for one in components:
        uptime = f"{one['uptime_seconds'] // 60} min {one['uptime_seconds'] % 60} s"
        running = (one["pid"], uptime) if one["pid"] else (None, None)
        rows.append((one["name"], one["state"], *running, one.get("heartbeat")))
    print_table("Components", ("component", "state", "pid", "uptime", "heartbeat"), rows)
    if dags:
        found = [(d["dag"], "paused" if d["paused"] else d["next_run"] or "none") for d in dags]
        print_table("DAGs", ("DAG", "next run"), found)


@app.command(rich_help_panel="Stack")
def up(
    source: Annotated[
        str | None, typer.Option(help="A source in config/sources/, such as hasaki.")
    ] = None,
    reviews: Annotated[Path | None, typer.Option(help="The source's reviews file.")] = None,
    products: Annotated[Path | None, typer.Option(help="The source's products file.")] = None,
) -> None:
    """Start the stack, refresh, embed, train, deploy, and show recommendations.

    A source is selected for good once its data is published: after a failure before that, the
    nightly refresh goes on with the one of before. In a container, where Airflow and the service
    run already, nothing is started."""
    settings = load_settings()
    if problems := _settings_problems(settings):
        raise InputError("; ".join(problems))
    stack = None if is_run_by_others() else Stack(settings)
    with stack.exclusive() if stack else contextlib.nullcontext():
        with selection_kept_on_failure(settings):
            prepare_data(settings, source, reviews, products)
            if stack:
                with console.status("Starting Airflow and the service"):
                    started = stack.start()
                console.print("Stack: up" if started else "Stack: was up already")
            client = connect(settings)
            _wait_for_dags(client)
            # The run that is due covers the days until last night; this one takes all there is.
            client.unpause("data_refresh")
            run_job(client, "data_refresh", {})
        _make_models(settings, client, other_shop=source is not None)
        _show(settings)
        if note := read_note(settings):
            # The job is due at once when it is unpaused; nobody has to wait for it here.
            console.print(
                f"Simulated traffic: {note}; the job outcomes shows soon what became of it"
            )


def prepare_data(
    settings: Settings, source: str | None, reviews: Path | None, products: Path | None
) -> None:
    """Check and record the source that was asked for; write the sample shop, and some days of
    traffic in it, if there is none."""
    if source is not None:
        select_source(settings, source, reviews, products)
        if read_note(settings) and (dropped := drop_staged(settings)):
            console.print(
                f"Simulated traffic: {dropped} events that no refresh has read are dropped"
            )
    elif reviews or products:
        raise InputError("name the files' source as well, such as SOURCE=hasaki")
    chosen = (settings.home / "data" / SELECTION_NAME).exists()
    if not chosen and not any(settings.raw.rglob("*.*")):
        from recsys.data.sample import write_sample_shop  # takes pandas with it
        from recsys.simulation.job import BASKETS, simulate_days
        from recsys.simulation.shop import shop_of_sample

        console.print("No raw data: writing the sample shop")
        write_sample_shop(settings)
        shop = shop_of_sample(settings)
        # Before the refresh: the first model learns from it, and a second `up` finds nothing new.
        days, lists = DEMO_DAYS, DEMO_LISTS_PER_DAY
        simulate_days(settings, shop, days, lists, seed=0, ratings=False, baskets=BASKETS)
        console.print(f"Simulated traffic: {read_note(settings)}")


def _wait_for_dags(client: AirflowClient) -> None:
    expected = {path.stem for path in (REPOSITORY / "dags").glob("*.py")}
    deadline = time.monotonic() + DAG_TIMEOUT_SECONDS
    with console.status("Waiting for Airflow to read the DAGs"):
        while missing := expected - client.dags().keys():
            if errors := client.import_errors():
                raise StackError(f"{errors[0]['filename']}: {errors[0]['stack_trace'][-500:]}")
            if time.monotonic() > deadline:
                names = ", ".join(sorted(missing))
                raise StackError(f"Airflow has not read these DAGs: {names}")
            time.sleep(1)


def _make_models(settings: Settings, client: AirflowClient, *, other_shop: bool) -> None:
    """Embed, train and deploy, then let all other jobs run on schedule.

    Nothing is trained when the best model knows the current data. The embeddings come first: the
    hybrid learns from them."""
    best = Registry(settings).current_best()
    if best is None or best.data_version != current_version(settings).version_id:
        _run(client, "bert_embeddings", {})
        _run(client, "model_training", {})
    else:
        console.print(f"  model_training: {best.model_id} is trained on this data already")
    # The gate compares with the model that serves; that of another shop is no measure.
    _run(client, "model_deployment", {"force": True} if other_shop else {})
    for dag_id, dag in client.dags().items():
        if dag["is_paused"]:
            client.unpause(dag_id)


def _run(client: AirflowClient, job: str, conf: Mapping[str, Any]) -> None:
    """Run a job now. One that was paused until now is due at once, for its last interval: Airflow
    starts that run by itself, and it is the one to follow."""
    if client.dags()[job]["is_paused"]:
        asked = datetime.now(UTC)
        client.unpause(job)
        deadline = time.monotonic() + FIRST_RUN_SECONDS
        while time.monotonic() < deadline:
            if first := client.runs_queued_since(job, asked):
                follow_run(client, job, first[0]["dag_run_id"])
                return
            time.sleep(0.5)
    run_job(client, job, conf)


def _show(settings: Settings) -> None:
    """Recommendations for the first and the middle customer whom the model knows, and for one whom
    it does not; and where to look on."""
    env = commands_environment(settings)
    users, _ = current_version(settings).mappings()
    asked = (users[0], users[len(users) // 2], UNKNOWN_CUSTOMER)
    sections = [_recommendations(env["RECSYS_SERVICE_URL"], user) for user in asked]
    columns = ("customer", "kind", "#", "product", "brand", "price")
    print_table("Recommendations", columns, *sections)
    login = f"user {env['RECSYS_AIRFLOW_USER']}, password: RECSYS_AIRFLOW_PASSWORD in"
    if is_run_by_others():
        console.print(f"Airflow UI    {env['AIRFLOW__API__BASE_URL']}  ({login} its environment)")
        return
    console.print(
        f"Airflow UI    {env['RECSYS_AIRFLOW_URL']}  ({login} {settings.home / '.env'})\n"
        f"API docs      {env['RECSYS_SERVICE_URL']}/docs\n"
        f"Log files     {settings.logs}\n"
        f"Task logs     {airflow_home(settings) / 'logs'}"
    )


def _recommendations(url: str, user: str) -> Iterator[tuple[object, ...]]:
    """Rows of the table: what the service recommends to `user`."""
    response = requests.post(f"{url}/recommend", json={"user_id": user, "topk": 5}, timeout=10)
    if not response.ok:
        raise StackError(f"{url}/recommend: {response.status_code} {response.text[:300]}")
    answer = response.json()
    kind = f"fallback: {answer['fallback_method']}" if answer["fallback"] else "personal"
    for item in answer["recommendations"]:
        whose = (user, kind) if item["rank"] == 1 else (None, None)
        price = None if item["price"] is None else f"{item['price']:,.0f} ₫"
        yield *whose, item["rank"], item["product_name"], item["brand"], price
