"""Which model is to be deployed, and whether it may be."""

import math
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceClient
from recsys.deployment.history import model_before
from recsys.errors import InputError
from recsys.models.artifacts import verify_artifact
from recsys.registry import Entry, Registry, RegistryError
from recsys.settings import Settings


class GateError(InputError):
    """The model must not be deployed; the text says why."""


@dataclass(frozen=True)
class Plan:
    """What a run is going to do.

    `serving` is what the service answers with now; None: no model, or nothing is known of it.
    """

    model_id: str
    serving: str | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan_deployment(
    settings: Settings,
    client: ServiceClient,
    config: DeploymentConfig,
    *,
    model_id: str | None = None,
    rollback: bool = False,
    force: bool = False,
) -> Plan:
    """Choose the model and check that it may be deployed.

    Without `model_id` it is the registry's current best; with `rollback` the model that was
    replaced by the serving one. `force` lets a model pass that is worse or cannot be compared,
    and nothing else.

    Raises `GateError` or `InputError` if there is no such model, it is archived or damaged, worse
    than the serving one, or not to be compared with it; `ServiceError` if the service does not
    answer.
    """
    if rollback and model_id:
        raise InputError("model_id and rollback exclude each other: give one of them")
    serving = client.wait_for_serving_model()
    if rollback:
        wanted, reason = model_before(settings, serving), "rollback was asked for"
    elif model_id:
        wanted, reason = model_id, "the model was named"
    else:
        wanted, reason = _current_best(settings), "it is the registry's current best"
    entry = check_sound(settings, wanted)
    if not (rollback or force or wanted == serving):
        _check_not_worse(settings, entry, serving, config)
    return Plan(wanted, serving, reason)


def check_sound(settings: Settings, model_id: str) -> Entry:
    """The entry of a model that is registered, active and undamaged; else raises `InputError`."""
    registry = Registry(settings)
    entry = registry.get(model_id)
    if entry.status != "active":
        raise GateError(f"{model_id}: is {entry.status}; only active models are deployed")
    verify_artifact(registry.folder(entry))
    return entry


def _current_best(settings: Settings) -> str:
    best = Registry(settings).current_best()
    if best is None:
        raise GateError(
            f"{settings.registry}: no model is selected; run model_training, or name a model"
        )
    return best.model_id


def _check_not_worse(
    settings: Settings, entry: Entry, serving: str | None, config: DeploymentConfig
) -> None:
    if serving is None:
        return
    try:
        current = Registry(settings).get(serving)
    except RegistryError:
        return  # what serves is not in the registry any more: there is nothing to compare with
    metric = config.gate.metric
    same_data = entry.data_version == current.data_version
    what = metric if same_data else f"{metric} against its baseline"
    value = _quality(entry, metric, same_data)
    reference = _quality(current, metric, same_data)
    if value is None or reference is None:
        lacking = entry.model_id if value is None else serving
        raise GateError(
            f"{entry.model_id}: cannot be compared with the serving model {serving}, because the "
            f"registry has no {what} of {lacking}: choose another gate.metric in deployment.yaml "
            "(recall_at_10 and ndcg_at_10 have baselines), or deploy with force"
        )
    if value < reference * (1 - config.gate.max_worsening):
        raise GateError(
            f"{entry.model_id}: {what} is {value:.4f}, the serving model {serving} has "
            f"{reference:.4f}; more than {config.gate.max_worsening:.0%} worse is deployed only "
            "with force"
        )


def _quality(entry: Entry, metric: str, same_data: bool) -> float | None:
    """The metric; between data versions its ratio to the popularity baseline on the same test
    set, because values of different test sets say nothing about each other. None: not known."""
    value = entry.metrics.get(metric)
    baseline = 1.0 if same_data else entry.baseline_comparison.get(f"baseline_{metric}")
    if not (_is_number(value) and _is_number(baseline) and baseline):
        return None
    return float(value) / float(baseline)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
