"""One command a job: run it through Airflow, follow it, print its summary; and backfills."""

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import requests
import typer
from rich.markup import escape
from rich.status import Status

from recsys.cli.output import console, duration, print_json, use_stack_variables
from recsys.config import load_config
from recsys.data.config import DataConfig
from recsys.errors import InputError, told
from recsys.health import examine
from recsys.health.examination import COMPONENTS
from recsys.models.model_types import model_class
from recsys.orchestration.client import ENDED, AirflowClient, AirflowError, RunProgress
from recsys.orchestration.environment import connect
from recsys.orchestration.mirror import tracker_id
from recsys.registry import Registry
from recsys.schedule import load_zone
from recsys.settings import load_settings
from recsys.tracking import PipelineTracker, tracker_database

RECORD_SECONDS = 10.0
RESULT = ("job", "run_id", "state", "duration_seconds", "url", "summary")
MARKS = {
    "success": "[green]done[/]",
    "failed": "[red]failed[/]",
    "skipped": "[dim]skipped[/]",
    "upstream_failed": "[red]not run[/]",
    "up_for_retry": "[yellow]failed, will be tried again[/]",
}

WAITS_FOR_A_PERSON = "awaiting_input"

app = typer.Typer()


class JobFailedError(RuntimeError):
    """A job's run ended as a failure; the text names tasks, reasons and page, `result` is what is
    known of the run, as for one that succeeded."""

    def __init__(self, text: str, result: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.result = result


def _shown(job: str, url: str, status: Status) -> Callable[[RunProgress], None]:
    """Prints the tasks of the run at `url` as they end, and shows in `status` what is under way
    meanwhile."""
    known: dict[str, str] = {}

    def show(progress: RunProgress) -> None:
        for task, state in progress.tasks.items():
            if state == WAITS_FOR_A_PERSON and known.get(task) != state:
                console.print(f"  {job}.{escape(task)}: [yellow]waits for a person[/]; answer at")
                console.print(f"  {url}", soft_wrap=True, markup=False)
            if state in MARKS and known.get(task) != state:
                took = duration(progress.seconds[task])
                console.print(f"  {job}.{escape(task)}: {MARKS[state]} ({took})")
        known.update(progress.tasks)
        under_way = [f"{escape(t)} {s}" for t, s in progress.tasks.items() if s not in MARKS]
        ended = len(progress.tasks) - len(under_way)
        words = [f"{progress.state}, {ended}/{len(progress.tasks)} tasks", *under_way[:3]]
        status.update(f"{job}: {', '.join(words)}")

    return show


def run_job(client: AirflowClient, job: str, conf: Mapping[str, Any]) -> dict[str, Any]:
    """Trigger `job`, follow it to its end, and return its summary. Raises `JobFailedError` when the
    run fails, `InputError` when the job does not take `conf`, or is paused and would never run."""
    if client.dags().get(job, {}).get("is_paused"):
        raise InputError(f"{job} is paused; switch it on in the UI, or run `make up`")
    try:
        run_id = client.trigger(job, conf)
    except AirflowError as error:
        if error.status in (requests.codes.bad_request, requests.codes.unprocessable):
            # What follows the first line is the schema that it was held against.
            raise InputError(str(error).splitlines()[0]) from error
        raise
    return follow_run(client, job, run_id)


def follow_run(client: AirflowClient, job: str, run_id: str) -> dict[str, Any]:
    """Follow a run to its end and return its summary. Raises `JobFailedError` when it fails."""
    url = client.run_url(job, run_id)
    _tell_who_goes_first(client, job, run_id)
    with console.status(f"{job}: waiting for the scheduler") as status:
        run = client.follow(job, run_id, _shown(job, url, status))
    summary = client.returned_values(job, run_id)
    result = _result(job, run_id, run["state"], run["duration"], url, summary)
    if run["state"] == "success":
        return result
    ended = client.task_instances(job, run_id)
    failed = list(dict.fromkeys(one["task_id"] for one in ended if one["state"] == "failed"))
    error = _recorded_error(job, run_id)
    text = f"{job} failed in {', '.join(failed) or 'no task'}: {error}; see {url}"
    raise JobFailedError(text, result | {"failed_tasks": failed, "error": error})


def _tell_who_goes_first(client: AirflowClient, job: str, run_id: str) -> None:
    """A job has one run at a time, and the one before can wait for a person for hours."""
    with contextlib.suppress(AirflowError):  # whoever follows the run has patience with Airflow
        for other in client.running(job):
            # A backfill's runs are counted for themselves.
            if other["dag_run_id"] == run_id or other["run_type"] == "backfill":
                continue
            states = (one["state"] for one in client.task_instances(job, other["dag_run_id"]))
            waits = WAITS_FOR_A_PERSON in states
            why = ", which waits for a person; approve or reject there" if waits else ""
            console.print(f"{job}: another run goes first{why}:")
            url = client.run_url(job, other["dag_run_id"])
            console.print(f"  {url}", soft_wrap=True, markup=False)


def _result(*values: Any) -> dict[str, Any]:
    """What is printed of a run, by job and by hand."""
    return dict(zip(RESULT, values, strict=True))


def _recorded_error(job: str, run_id: str) -> str:
    """What the record of runs says; the mirror writes it a moment after the run has ended."""
    tracker = PipelineTracker(tracker_database(load_settings()))
    deadline = time.monotonic() + RECORD_SECONDS
    while time.monotonic() < deadline:
        try:
            record = tracker.get_run(tracker_id(job, run_id))
        except sqlite3.Error as error:
            return f"not known, for the record of runs cannot be read: {told(error)}"
        if record and record["error_message"]:
            return str(record["error_message"])
        time.sleep(0.5)
    return "the record of runs does not say why"


def _run_and_print(job: str, **conf: Any) -> dict[str, Any]:
    given = {name: value for name, value in conf.items() if value not in (None, False)}
    try:
        result = run_job(connect(load_settings()), job, given)
    except JobFailedError as error:
        print_json(error.result)
        raise
    print_json(result)
    return result


@app.command(rich_help_panel="Jobs")
def data_refresh(
    force_full: Annotated[
        bool, typer.Option("--force-full", help="Rebuild from every raw row.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, change nothing.")
    ] = False,
) -> None:
    """Turn raw files and staged events into a new version of data/processed/."""
    _run_and_print("data_refresh", force_full=force_full, dry_run=dry_run)


@app.command(rich_help_panel="Jobs")
def bert_embeddings(
    force: Annotated[bool, typer.Option("--force", help="Encode every product again.")] = False,
) -> None:
    """Embed the products' texts."""
    _run_and_print("bert_embeddings", force=force)


@app.command(rich_help_panel="Jobs")
def drift_detection(
    reference_days: Annotated[
        int | None, typer.Option(min=1, help="Days before the week to compare it with.")
    ] = None,
) -> None:
    """Compare last week with its reference."""
    _run_and_print("drift_detection", reference_days=reference_days)


@app.command(rich_help_panel="Jobs")
def model_training(
    model_types: Annotated[
        list[str] | None, typer.Option(help="Families to train; repeat it, or name several.")
    ] = None,
    more_types: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="FAMILY")] = None,
) -> None:
    """Train, evaluate and register models, and select the best."""
    types = [*(model_types or []), *(more_types or [])]
    for name in types:
        model_class(name)  # raises InputError for a name that is none
    _run_and_print("model_training", model_types=types or None)


@app.command(rich_help_panel="Jobs")
def model_deployment(
    model_id: Annotated[str | None, typer.Option(help="Deploy this model.")] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Go back to the model before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, change nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Deploy even if the gate says no.")
    ] = False,
) -> None:
    """Deploy the best model, or the one given, to the service."""
    if model_id is not None:
        if rollback:
            raise InputError("--rollback goes to the model before; leave --model-id out")
        Registry(load_settings()).get(model_id)  # raises RegistryError for one that is none
    options = {"rollback": rollback, "dry_run": dry_run, "force": force}
    _run_and_print("model_deployment", model_id=model_id, **options)


@app.command(rich_help_panel="Jobs")
def health_check(
    component: Annotated[
        str | None, typer.Option(help="Only this one: service, data, model or pipeline.")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Here, as when Airflow or its scheduler is dead.")
    ] = False,
) -> None:
    """Check service, data, model and pipelines.

    Exits with 0 when all is healthy, 1 when something is not, 2 when what was given cannot be
    used, 3 when it could not be checked."""
    settings = load_settings()
    if component not in (None, *COMPONENTS):
        raise InputError(f"--component: {component!r} is none of {', '.join(COMPONENTS)}")
    try:
        problem = None
        if not local:
            try:
                if (state := connect(settings).scheduler_state()) != "healthy":
                    raise AirflowError(f"the scheduler is {state}")
                result = _run_and_print("health_check", component=component)
            except AirflowError as error:
                problem = str(error)
                console.print(f"{escape(problem)}; checking without Airflow")
        if local or problem:
            use_stack_variables(settings)
            began = time.monotonic()
            summary = {"evaluate": examine(settings, component)}
            seconds = round(time.monotonic() - began, 2)
            result = _result("health_check", None, "success", seconds, None, summary)
            print_json(result)
    except InputError:
        raise
    except Exception as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(3) from error
    if result["summary"]["evaluate"]["status"] != "healthy":
        raise typer.Exit(1)


@app.command(rich_help_panel="Jobs")
def outcomes(
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day to redo.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day to redo.")
    ] = None,
) -> None:
    """Find out what became of the served lists; with days, of those again.

    Days are those of the schedule's time zone, the last one included; one alone is redone alone."""
    if first and last and last < first:
        raise InputError(f"--to {last:%Y-%m-%d} is before --from {first:%Y-%m-%d}")
    days = {"from": first, "to": last}
    _run_and_print("outcomes", **{key: f"{day:%Y-%m-%d}" for key, day in days.items() if day})


@app.command(rich_help_panel="Jobs")
def maintenance(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove what nobody needs any more: old models, versions, reports, logs, records."""
    _run_and_print("maintenance", dry_run=dry_run)


@app.command(rich_help_panel="Jobs")
def forget_customers(
    local: Annotated[
        bool, typer.Option("--local", help="Here, as on a machine without Airflow.")
    ] = False,
) -> None:
    """Remove what is kept of the customers who asked to be forgotten."""
    if not local:
        _run_and_print("forget_customers")
        return
    from recsys.upkeep import forgetting

    settings = load_settings()
    use_stack_variables(settings)
    began = time.monotonic()
    summary = {"forget": forgetting.forget_customers(settings)}
    seconds = round(time.monotonic() - began, 2)
    print_json(_result("forget_customers", None, "success", seconds, None, summary))


@app.command(rich_help_panel="Jobs")
def backfill(
    job: Annotated[str, typer.Argument(help="The job, such as data_refresh.")],
    from_date: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First day.")],
    to_date: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Last day.")],
) -> None:
    """Run a job for every interval that begins on the days given, one after the other.

    Days are those of the schedule's time zone, the last one included; days that have a run already
    are left out. Prints the runs by state as JSON when Airflow has closed the backfill; exits with
    1 if one failed, with 2 while another backfill of the job is open."""
    if to_date < from_date:
        raise InputError(f"--to-date {to_date:%Y-%m-%d} is before --from-date {from_date:%Y-%m-%d}")
    settings = load_settings()
    zone = load_zone(settings)
    today, earliest = datetime.now(zone).date(), load_config(settings, DataConfig).earliest
    for option, day in (("--from-date", from_date.date()), ("--to-date", to_date.date())):
        if not earliest <= day <= today:
            raise InputError(f"{option} {day}: expected a day from {earliest} to today, {today}")
    client = connect(settings)
    if job not in (jobs := client.dags()):
        raise InputError(f"{job!r} is no job; there are {', '.join(sorted(jobs))}")
    _refuse_a_second(client, job, zone)
    last = to_date.replace(tzinfo=zone) + timedelta(days=1, seconds=-1)
    try:
        created = client.create_backfill(job, from_date.replace(tzinfo=zone), last)
    except AirflowError as error:
        if error.status == requests.codes.conflict:  # somebody has opened one meanwhile
            _refuse_a_second(client, job, zone)
        raise
    states = _follow_backfill(client, created)
    print_json({"job": job, "runs": dict(states)})
    if not states:
        console.print(
            f"Nothing was to be done: {job} has a run for every one of these days already; clear "
            f"those that shall run again, at {client.url}/dags/{job}"
        )
    if states["failed"]:
        raise JobFailedError(f"{states['failed']} runs failed; see {client.url}/dags/{job}")


def _refuse_a_second(client: AirflowClient, job: str, zone: ZoneInfo) -> None:
    for one in client.open_backfills(job):
        ends = (datetime.fromisoformat(one[f"{end}_date"]) for end in ("from", "to"))
        days = " to ".join(f"{end.astimezone(zone):%Y-%m-%d}" for end in ends)
        ended = sum(run["state"] in ENDED for run in client.backfill_runs(one))
        raise InputError(
            f"a backfill of {job} is open already ({days}, {ended} runs have ended); wait until "
            f"Airflow has closed it, or cancel it at {client.url}/dags/{job}/backfills"
        )


def _follow_backfill(client: AirflowClient, one: dict[str, Any]) -> Counter[str]:
    """The runs by state, when Airflow has closed the backfill, half a minute after the last run has
    ended: until then it takes no other of the job."""
    with console.status(f"{one['dag_id']}: waiting for the first run") as status:
        while True:
            closed = client.is_closed(one)
            states = Counter(run["state"] for run in client.backfill_runs(one))
            if closed:
                return states
            ended = sum(states[state] for state in ENDED)
            status.update(f"{one['dag_id']}: {ended} of {states.total()} runs have ended")
            time.sleep(1)
