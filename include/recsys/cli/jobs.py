"""One command a job: run it through Airflow, follow it, print its summary."""

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import requests
import typer
from rich.markup import escape
from rich.status import Status

from recsys.cli.output import console, print_json, use_stack_variables
from recsys.errors import InputError
from recsys.orchestration.client import AirflowClient, AirflowError, RunProgress
from recsys.orchestration.environment import connect
from recsys.orchestration.mirror import tracker_id
from recsys.settings import Settings, load_settings
from recsys.tracking import PipelineTracker, tracker_database

RECORD_SECONDS = 10.0
MARKS = {
    "success": "[green]done[/]",
    "failed": "[red]failed[/]",
    "skipped": "[dim]skipped[/]",
    "upstream_failed": "[red]not run[/]",
    "up_for_retry": "[yellow]failed, will be tried again[/]",
}

app = typer.Typer()


class JobFailedError(RuntimeError):
    """A job's run ended as a failure; the text names tasks, reasons and page.

    `result` is what is known of the run, as for one that succeeded.
    """

    def __init__(self, text: str, result: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.result = result


def _shown(job: str, status: Status) -> Callable[[RunProgress], None]:
    """Prints a run's tasks as they end, and shows in `status` what is under way meanwhile."""
    known: dict[str, str] = {}
    started = time.monotonic()

    def show(progress: RunProgress) -> None:
        seconds = time.monotonic() - started
        for task, state in progress.tasks.items():
            if state in MARKS and known.get(task) != state:
                console.print(f"  {job}.{escape(task)}: {MARKS[state]} ({seconds:.0f} s)")
            known[task] = state
        under_way = [f"{escape(t)} {s}" for t, s in progress.tasks.items() if s not in MARKS]
        ended = len(progress.tasks) - len(under_way)
        words = [f"{progress.state}, {ended}/{len(progress.tasks)} tasks", *under_way[:3]]
        status.update(f"{job}: {', '.join(words)}")

    return show


def run_job(client: AirflowClient, job: str, conf: Mapping[str, Any]) -> dict[str, Any]:
    """Trigger `job`, follow it to its end, and return its summary.

    Raises `JobFailedError` when the run fails, `InputError` when the job does not take `conf`, or
    is paused: its run would stay in the queue.
    """
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
    with console.status(f"{job}: waiting for the scheduler") as status:
        run = client.follow(job, run_id, _shown(job, status))
    result = {
        "job": job,
        "run_id": run_id,
        "state": run["state"],
        "duration_seconds": run["duration"],
        "url": client.run_url(job, run_id),
        "summary": client.returned_values(job, run_id),
    }
    if run["state"] == "success":
        return result
    tasks = client.task_instances(job, run_id)
    failed = list(dict.fromkeys(one["task_id"] for one in tasks if one["state"] == "failed"))
    error = _recorded_error(job, run_id)
    text = f"{job} failed in {', '.join(failed) or 'no task'}: {error}; see {result['url']}"
    raise JobFailedError(text, result | {"failed_tasks": failed, "error": error})


def _recorded_error(job: str, run_id: str) -> str:
    """What the record of runs says; the mirror writes it a moment after the run has ended."""
    tracker = PipelineTracker(tracker_database(load_settings()))
    deadline = time.monotonic() + RECORD_SECONDS
    while time.monotonic() < deadline:
        record = tracker.get_run(tracker_id(job, run_id)) or {}
        if error := record.get("error_message"):
            return str(error)
        time.sleep(0.5)
    return "the record of runs does not say why"


def _run_and_print(job: str, conf: Mapping[str, Any]) -> None:
    given = {name: value for name, value in conf.items() if value not in (None, False)}
    try:
        print_json(run_job(connect(load_settings()), job, given))
    except JobFailedError as error:
        print_json(error.result)
        raise


@app.command(rich_help_panel="Jobs")
def data_refresh(
    force_full: Annotated[bool, typer.Option(help="Rebuild from every raw row.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show the plan, change nothing.")] = False,
) -> None:
    """Turn raw files and staged events into a new version of data/processed/."""
    _run_and_print("data_refresh", {"force_full": force_full, "dry_run": dry_run})


@app.command(rich_help_panel="Jobs")
def bert_embeddings(
    force: Annotated[bool, typer.Option(help="Encode every product again.")] = False,
) -> None:
    """Embed the products' texts."""
    _run_and_print("bert_embeddings", {"force": force})


@app.command(rich_help_panel="Jobs")
def drift_detection(
    reference_days: Annotated[
        int | None, typer.Option(min=1, help="Days before the week to compare it with.")
    ] = None,
) -> None:
    """Compare last week with its reference."""
    _run_and_print("drift_detection", {"reference_days": reference_days})


@app.command(rich_help_panel="Jobs")
def model_training(
    model_types: Annotated[
        list[str] | None, typer.Option(help="Families to train; repeat it, or name several.")
    ] = None,
    more_types: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
) -> None:
    """Train, evaluate and register models, and select the best."""
    from recsys.models.model_types import model_class

    types = [*(model_types or []), *(more_types or [])]
    for name in types:
        model_class(name)  # raises InputError for a name that is none
    _run_and_print("model_training", {"model_types": types or None})


@app.command(rich_help_panel="Jobs")
def model_deployment(
    model_id: Annotated[str | None, typer.Option(help="Deploy this model.")] = None,
    rollback: Annotated[bool, typer.Option(help="Go back to the model before.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Check everything, change nothing.")] = False,
    force: Annotated[bool, typer.Option(help="Deploy even if the gate says no.")] = False,
) -> None:
    """Deploy the best model, or the one given, to the service."""
    from recsys.registry import Registry

    if model_id:
        Registry(load_settings()).get(model_id)  # raises RegistryError for one that is none
    conf = {"model_id": model_id, "rollback": rollback, "dry_run": dry_run, "force": force}
    _run_and_print("model_deployment", conf)


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
    used, 3 when it could not be checked.
    """
    from recsys.health.examination import COMPONENTS

    settings = load_settings()
    if component not in (None, *COMPONENTS):
        raise InputError(f"--component: {component!r} is none of {', '.join(COMPONENTS)}")
    try:
        if local or not _is_scheduled(settings):
            result = _check_here(settings, component)
        else:
            given = {"component": component} if component else {}
            result = run_job(connect(settings), "health_check", given)
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, JobFailedError):
            print_json(error.result)
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(3) from error
    print_json(result)
    if result["summary"]["evaluate"]["status"] != "healthy":
        raise typer.Exit(1)


def _is_scheduled(settings: Settings) -> bool:
    """Whether Airflow answers and has a scheduler: without one a run would wait for ever."""
    try:
        scheduler = connect(settings).health().get("scheduler") or {}
    except AirflowError as error:
        problem = str(error)
    else:
        if scheduler.get("status") == "healthy":
            return True
        problem = f"the scheduler is {scheduler.get('status') or 'not there'}"
    console.print(f"{escape(problem)}; checking without Airflow")
    return False


def _check_here(settings: Settings, component: str | None) -> dict[str, Any]:
    from recsys.health import examine

    use_stack_variables(settings)
    began = time.monotonic()
    evaluation = examine(settings, component)
    return {
        "job": "health_check",
        "run_id": None,
        "state": "success",
        "duration_seconds": round(time.monotonic() - began, 2),
        "url": None,
        "summary": {"evaluate": evaluation},
    }


@app.command(rich_help_panel="Jobs")
def maintenance(
    dry_run: Annotated[bool, typer.Option(help="Only say what would go.")] = False,
) -> None:
    """Remove what nobody needs any more: old models, versions, reports, logs, records."""
    _run_and_print("maintenance", {"dry_run": dry_run})
