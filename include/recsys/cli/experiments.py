"""Commands for experiments: plan, start, stop, look, promote."""

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.cli.jobs import run_job
from recsys.cli.output import console, print_json
from recsys.errors import InputError
from recsys.experiments.definitions import Definition, Experiment, read_definition
from recsys.experiments.state import MOMENT, Experiments, model_of, read_report
from recsys.orchestration.environment import connect
from recsys.registry import Registry
from recsys.schedule import load_zone
from recsys.settings import Settings, load_settings

app = typer.Typer()
experiment_app = typer.Typer(no_args_is_help=True, help="Try models against each other.")
app.add_typer(experiment_app, name="experiment", rich_help_panel="Models")

File = Annotated[Path, typer.Argument(help="The definition, a YAML file: docs/experiments.md.")]
Name = Annotated[str, typer.Argument(help="The experiment's name.")]


@experiment_app.command("plan")
def plan_from_file(file: File) -> None:
    """Print how long the experiment has to run, from what customers did in the last weeks."""
    definition = read_definition(file)
    planned = _plan(load_settings(), definition)
    _warn_of_a_long_plan(definition, planned.days)
    print_json(planned._asdict())


@experiment_app.command()
def start(file: File) -> None:
    """Begin the experiment: the service follows within seconds."""
    settings, definition = load_settings(), read_definition(file)
    experiments, planned = Experiments(settings), None
    experiments.check(definition)
    try:
        planned = _plan(settings, definition)
        _warn_of_a_long_plan(definition, planned.days)
    except InputError as error:
        console.print(f"It starts without a plan: {error}")
    started = experiments.start(definition, getpass.getuser(), planned)
    print_json(started.model_dump(mode="json"))


@experiment_app.command()
def stop(
    name: Name,
    because: Annotated[str, typer.Option(help="Why, for those who ask later.")] = "it was enough",
) -> None:
    """End the experiment: everybody gets what is deployed."""
    ran = Experiments(load_settings()).stop(name, getpass.getuser(), because)
    print_json({"experiment": name, "stopped": ran})


@experiment_app.command()
def status(name: Annotated[str | None, typer.Argument(help="Only this one.")] = None) -> None:
    """Print the experiments, the newest first, with the verdict of the last hour."""
    settings = load_settings()
    experiments = Experiments(settings)
    chosen = experiments.all()[::-1] if name is None else [experiments.get(name)]
    print_json([_row(settings, one) for one in chosen])


@experiment_app.command()
def promote(
    name: Name,
    variant: Annotated[
        str | None, typer.Option(help="This side, whatever the verdict; else the winner.")
    ] = None,
) -> None:
    """Deploy the model of the winner, through model_deployment, then end the experiment."""
    settings = load_settings()
    experiments, registry = Experiments(settings), Registry(settings)
    experiment, by = experiments.get(name), getpass.getuser()
    if experiment.ended_at is not None:
        ended = experiment.ended_at.astimezone(load_zone(settings))
        raise InputError(f"{name}: ended at {ended:{MOMENT}}; deploy the model by its id")
    side = variant or _winner(settings, experiment)
    sides = {one.name: one for one in experiment.definition.variants}
    if side not in sides:
        raise InputError(f"{name}: {side!r} is no side; expected one of {', '.join(sides)}")
    entry = model_of(registry, sides[side])
    deployed: dict[str, Any] | None = None
    if entry is not None:  # else what is deployed has won
        experiments.note("promote", name, by=by, variant=side, model_id=entry.model_id)
        conf = {"model_id": entry.model_id}
        deployed = run_job(connect(settings), "model_deployment", conf)
    experiments.stop(name, by, f"{side} was promoted")
    print_json({"experiment": name, "promoted": side, "deployment": deployed})


def _warn_of_a_long_plan(definition: Definition, days: int) -> None:
    if days > definition.longest_days:
        console.print(
            f"It needs {days} days to find {definition.smallest_effect:.0%}, and ends "
            f"after {definition.longest_days}: it will probably find nothing."
        )


def _plan(settings: Settings, definition: Definition) -> Any:
    from recsys.experiments.evaluation import plan_experiment

    today = datetime.now(UTC).astimezone(load_zone(settings)).date()
    return plan_experiment(settings, definition, today)


def _row(settings: Settings, experiment: Experiment) -> dict[str, Any]:
    report = _report(settings, experiment)
    definition = experiment.definition
    return {
        "name": experiment.name,
        "question": definition.question,
        "running": experiment.running,
        "started_at": experiment.started_at.isoformat(timespec="seconds"),
        "started_by": experiment.started_by,
        "days": round(experiment.days(datetime.now(UTC)), 2),
        "planned_days": experiment.planned_days,
        "sides": {one.name: one.model_id or one.model_type for one in definition.variants},
        "ended_by": experiment.ended_by,
        "ended_because": experiment.ended_because,
        "verdict": report.get("verdict"),
        "sentence": report.get("en"),
        "sentence_vi": report.get("vi"),
    }


def _winner(settings: Settings, experiment: Experiment) -> str:
    winner = _report(settings, experiment).get("winner")
    if winner is None:
        raise InputError(
            f"{experiment.name}: no side has won yet; name one with --variant if you decide so"
        )
    return str(winner)


def _report(settings: Settings, experiment: Experiment) -> dict[str, Any]:
    """What the outcomes job wrote of it last; empty before that."""
    report = read_report(settings, experiment.name)
    started = experiment.started_at.isoformat(timespec="seconds")
    return report if report.get("started_at") == started else {}
