"""Commands that look at the registered models and tidy them up."""

import json
from typing import Annotated, Any

import typer

from recsys.config import load_config
from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceClient, ServiceError, read_address
from recsys.deployment.history import read_history
from recsys.registry import Entry, Registry
from recsys.settings import Settings, load_settings

app = typer.Typer()
registry_app = typer.Typer(no_args_is_help=True, help="Look at the models and tidy them up.")
app.add_typer(registry_app, name="registry", rich_help_panel="Models")

ModelId = Annotated[str, typer.Argument(help="For example als_20250115_100000.")]
_COMPARED = ("recall_at_10", "ndcg_at_10", "mrr_at_10", "coverage_at_10", "novelty_at_10")


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
            "recall_at_10": entry.metrics.get("recall_at_10"),
            "recall_at_10_low": entry.metrics.get("recall_at_10_low"),
            "ndcg_at_10": entry.metrics.get("ndcg_at_10"),
            "data_version": entry.data_version,
            "created_at": entry.created_at,
        }
        for entry in registry.list()
    ]
    _print(rows)


@registry_app.command()
def compare(first: ModelId, second: ModelId) -> None:
    """Print the figures of two models side by side, and what tells them apart."""
    registry = Registry(load_settings())
    one, two = registry.get(first), registry.get(second)
    _print(
        {
            "same_data": one.data_version == two.data_version,
            "metrics": {name: _beside(one, two, name) for name in _COMPARED},
            "baseline_comparison": {
                first: one.baseline_comparison.get("reason"),
                second: two.baseline_comparison.get("reason"),
            },
            "different_hyperparameters": _differences(one, two),
        }
    )


@registry_app.command()
def archive(model_id: ModelId) -> None:
    """Take a model out of every later selection; its files stay."""
    Registry(load_settings()).archive(model_id)
    _print({"archived": model_id})


@registry_app.command()
def release(model_id: ModelId) -> None:
    """Let a model that a rollback took out of service be selected and deployed again."""
    Registry(load_settings()).release(model_id)
    _print({"released": model_id})


@registry_app.command()
def delete(model_id: ModelId) -> None:
    """Remove a model and its files, unless it is the current best or in service."""
    settings = load_settings()
    Registry(settings).delete(model_id, serving=_serving(settings))
    _print({"deleted": model_id})


def _serving(settings: Settings) -> str | None:
    """What the service serves; when it does not answer, what was deployed last."""
    try:
        return ServiceClient(
            read_address(), load_config(settings, DeploymentConfig)
        ).serving_model()
    except ServiceError:
        deployed = [one for one in read_history(settings) if one.get("status") == "success"]
        return deployed[-1]["model_id"] if deployed else None


def _beside(one: Entry, two: Entry, name: str) -> dict[str, Any]:
    values = {entry.model_id: entry.metrics.get(name) for entry in (one, two)}
    first, second = values[one.model_id], values[two.model_id]
    known = first is not None and second is not None
    return {**values, "difference": round(second - first, 6) if known else None}  # type: ignore[operator]


def _differences(one: Entry, two: Entry) -> dict[str, Any]:
    names = sorted({*one.hyperparameters, *two.hyperparameters})
    return {
        name: {entry.model_id: entry.hyperparameters.get(name) for entry in (one, two)}
        for name in names
        if one.hyperparameters.get(name) != two.hyperparameters.get(name)
    }


def _print(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
