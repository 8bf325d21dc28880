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


@dataclass(frozen=True)
class Plan:
    """What a run is going to do.

    `serving` is what the service answers with now; None: no model, or nothing is known of it.
    After a `rollback` the serving model is held (`Registry.hold`).
    """

    model_id: str
    serving: str | None
    reason: str
    rollback: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "rollback" or value}


class GateError(InputError):
    """The model must not be deployed; the text says why. `plan` is what was wanted, if known."""

    def __init__(self, text: str, plan: Plan | None = None) -> None:
        super().__init__(text)
        self.plan = plan


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
    and nothing else. A current best that is held is not deployed: what serves stays.

    Raises `GateError` or `InputError` if there is no such model, it is archived or damaged, worse
    than the serving one, or not to be compared with it (a `GateError` knows the models that it is
    about); `ServiceError` if the service does not answer.
    """
    if rollback and model_id:
        raise InputError("model_id and rollback exclude each other: give one of them")
    serving = client.wait_for_serving_model()
    about = Plan(
        f"the model before {serving}" if rollback else model_id or "current best", serving, ""
    )
    try:
        if rollback:
            reason = f"rollback was asked for; {serving} is held until it is released"
            about = Plan(model_before(settings, serving), serving, reason, rollback=True)
        elif model_id:
            about = Plan(model_id, serving, "the model was named")
        else:
            about = _plan_best(settings, serving)
        entry = check_sound(settings, about.model_id)
        if not (rollback or force or about.model_id == serving):
            _check_not_worse(settings, entry, serving, config)
    except InputError as error:
        known = error.plan if isinstance(error, GateError) else None
        raise GateError(str(error), known or about) from error
    return about


def check_sound(settings: Settings, model_id: str) -> Entry:
    """The entry of a model that is registered, not archived, and undamaged.

    Raises `InputError` otherwise.
    """
    registry = Registry(settings)
    entry = registry.get(model_id)
    if entry.status == "archived":
        raise GateError(f"{model_id}: is archived; archived models are not deployed")
    verify_artifact(registry.folder(entry))
    return entry


def _plan_best(settings: Settings, serving: str | None) -> Plan:
    best = Registry(settings).current_best()
    if best is None:
        raise GateError(
            f"{settings.registry}: no model is selected; run model_training, or name a model"
        )
    if best.status != "held" or best.model_id == serving:
        return Plan(best.model_id, serving, "it is the registry's current best")
    held = (
        f"the current best {best.model_id} was taken out of service and is held until a newer "
        f"training selects another, or a person names it or runs `registry release "
        f"{best.model_id}`"
    )
    if serving is None:
        raise GateError(
            f"{held}; the service has no model: name one", Plan(best.model_id, None, "")
        )
    return Plan(serving, serving, held)


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
