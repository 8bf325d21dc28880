"""Commands that look at the registered models and tidy them up."""

from typing import Annotated, Any

import typer

from recsys.cli.output import AsJson, local_time, print_json, use_stack_variables
from recsys.cli.tables import print_table
from recsys.config import load_config
from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceError, connect_service
from recsys.deployment.history import read_history
from recsys.errors import InputError
from recsys.evaluation import PERSONAL
from recsys.experiments.state import models_in_experiments
from recsys.registry import Registry
from recsys.schedule import load_zone
from recsys.settings import Settings, load_settings

app = typer.Typer()
registry_app = typer.Typer(no_args_is_help=True, help="Look at the models and tidy them up.")
app.add_typer(registry_app, name="registry", rich_help_panel="Models")

ModelId = Annotated[str, typer.Argument(help="For example als_20250115_100000.")]
_LISTED = ("recall_at_10", "recall_at_10_low", "ndcg_at_10")
_ACCURACY = ("recall_at_10", "ndcg_at_10", "mrr_at_10")
_COMPARED = (*_ACCURACY, "coverage_at_10", "novelty_at_10", *PERSONAL)


@registry_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """Show all models, newest first, and which of them is the best."""
    settings = load_settings()
    registry = Registry(settings)
    best = registry.current_best()
    rows: list[dict[str, Any]] = [
        {
            "model_id": entry.model_id,
            "status": entry.status,
            "current_best": best is not None and entry.model_id == best.model_id,
            "passes": entry.baseline_comparison.get("passes"),
            **{name: entry.metrics.get(name) for name in _LISTED},
            "data_version": entry.data_version,
            "created_at": entry.created_at,
        }
        for entry in registry.list()
    ]
    if as_json:
        print_json(rows)
        return
    zone = load_zone(settings)
    shown = [
        (
            row["model_id"],
            "best" if row["current_best"] else row["status"],
            {True: "yes", False: "no"}.get(row["passes"]),
            *map(_figure, (row["recall_at_10"], row["recall_at_10_low"])),
            _figure(row["ndcg_at_10"]),
            row["data_version"],
            local_time(row["created_at"], zone),
        )
        for row in rows
    ]
    figures = ("recall@10", "at least", "NDCG@10")
    columns = ("model", "status", "passes", *figures, "data version", "trained")
    below = {"trained": "model", "at least": "recall@10", "passes": "status"}
    below["data version"] = "model"
    print_table("Models, the newest first", columns, shown, below=below)


@app.command(rich_help_panel="Models")
def deployments(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what was deployed when, what it replaced and why, newest first."""
    settings = load_settings()
    entries = read_history(settings)[-limit:][::-1]
    if as_json:
        print_json(entries)
        return
    zone = load_zone(settings)
    rows = [
        (
            local_time(entry["timestamp"], zone),
            entry["model_id"],
            entry["status"],
            entry.get("previous_model_id"),
            entry.get("error") or entry.get("reason"),
        )
        for entry in entries
    ]
    columns = ("when", "model", "outcome", "in place of", "why")
    below = {"in place of": "model", "outcome": "when"}
    print_table("Deployments, the newest first", columns, rows, text=("why",), below=below)


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


@registry_app.command()
def compare(first: ModelId, second: ModelId) -> None:
    """Print the figures of two models side by side, and what tells them apart."""
    registry = Registry(load_settings())
    one, two = registry.get(first), registry.get(second)
    metrics: dict[str, Any] = {}
    for name in _COMPARED:
        before, after = one.metrics.get(name), two.metrics.get(name)
        change = None if before is None or after is None else round(after - before, 6)
        metrics[name] = {first: before, second: after, "difference": change}
    different: dict[str, Any] = {}
    for name in sorted({*one.hyperparameters, *two.hyperparameters}):
        mine, other = one.hyperparameters.get(name), two.hyperparameters.get(name)
        if mine != other:
            different[name] = {first: mine, second: other}
    shown = {
        "same_data": one.data_version == two.data_version,
        "metrics": metrics,
        "baseline_comparison": {
            entry.model_id: entry.baseline_comparison.get("reason") for entry in (one, two)
        },
        "different_hyperparameters": different,
    }
    print_json(shown)


@registry_app.command()
def archive(model_id: ModelId) -> None:
    """Take a model out of every later selection, unless an experiment needs it; its files stay."""
    settings = load_settings()
    _refuse_on_trial(settings, model_id)
    Registry(settings).archive(model_id)
    print_json({"archived": model_id})


@registry_app.command()
def release(model_id: ModelId) -> None:
    """Let a model that a rollback took out of service be selected and deployed again."""
    Registry(load_settings()).release(model_id)
    print_json({"released": model_id})


@registry_app.command()
def delete(model_id: ModelId) -> None:
    """Remove a model and its files, unless it is the current best or in service."""
    settings = load_settings()
    use_stack_variables(settings)
    try:
        # What any replica serves or has on trial; without an answer, what was deployed last.
        served = connect_service(load_config(settings, DeploymentConfig)).models_in_use()
    except ServiceError:
        history = [one for one in read_history(settings) if one.get("status") == "success"]
        served = {one["model_id"] for one in history[-1:]}
    _refuse_on_trial(settings, model_id)
    Registry(settings).delete(model_id, serving=model_id if model_id in served else None)
    print_json({"deleted": model_id})


def _refuse_on_trial(settings: Settings, model_id: str) -> None:
    if model_id in models_in_experiments(settings):
        raise InputError(f"{model_id}: an experiment that runs needs it; stop that first")
