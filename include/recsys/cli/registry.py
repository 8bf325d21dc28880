"""Commands that look at the registered models and tidy them up."""

from typing import Annotated, Any

import typer

from recsys.cli.output import print_json, use_stack_variables
from recsys.config import load_config
from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceError, connect_service
from recsys.deployment.history import read_history
from recsys.errors import InputError
from recsys.evaluation import PERSONAL
from recsys.experiments.state import models_in_experiments
from recsys.registry import Registry
from recsys.settings import Settings, load_settings

app = typer.Typer()
registry_app = typer.Typer(no_args_is_help=True, help="Look at the models and tidy them up.")
app.add_typer(registry_app, name="registry", rich_help_panel="Models")

ModelId = Annotated[str, typer.Argument(help="For example als_20250115_100000.")]
_LISTED = ("recall_at_10", "recall_at_10_low", "ndcg_at_10")
_ACCURACY = ("recall_at_10", "ndcg_at_10", "mrr_at_10")
_COMPARED = (*_ACCURACY, "coverage_at_10", "novelty_at_10", *PERSONAL)


@registry_app.command("list")
def list_models() -> None:
    """Print all models as JSON, newest first."""
    registry = Registry(load_settings())
    best = registry.current_best()
    rows = [
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
    print_json(rows)


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
