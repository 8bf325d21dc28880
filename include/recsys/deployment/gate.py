"""Which model is to be deployed, and whether it may be."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from recsys.config import load_config
from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceClient
from recsys.deployment.history import model_before
from recsys.errors import InputError, RequestError
from recsys.models.artifacts import verify_artifact
from recsys.registry import Entry, Registry, RegistryError, segment_loss
from recsys.settings import Settings
from recsys.training.config import TrainingConfig


@dataclass(frozen=True)
class Swap:
    """What a run is going to do: bring `model_id` into service in place of `serving`, which is None
    for no model, or one unknown. What a person chose lasts: `held` is the model that the next night
    would bring back otherwise (`Registry.hold`). A `rollback` is neither tried on some users nor
    asked about."""

    model_id: str
    serving: str | None
    reason: str
    rollback: bool = False
    held: str | None = None

    def as_dict(self) -> dict[str, Any]:
        own = asdict(self)
        return {name: own[name] for name in own if own[name] or name not in ("rollback", "held")}


class GateError(InputError):
    """The model must not be deployed; the text says why. `swap` is what was wanted, if known."""

    def __init__(self, text: str, swap: Swap | None = None) -> None:
        super().__init__(text)
        self.swap = swap


def plan_deployment(
    settings: Settings,
    client: ServiceClient,
    config: DeploymentConfig,
    *,
    model_id: str | None = None,
    rollback: bool = False,
    force: bool = False,
) -> Swap:
    """Choose the model (`model_id`, with `rollback` the one before the serving one, else the
    registry's current best) and check that it may be deployed. `force` lets a model pass that is
    worse or cannot be compared, and nothing else. A held current best leaves what serves.

    Raises `RequestError` for options that cannot be meant, `GateError` if there is no such model,
    it is archived or damaged, worse than the serving one, or not to be compared with it;
    `ServiceError` if the service does not answer."""
    if rollback and model_id:
        raise RequestError("model_id and rollback exclude each other: give one of them")
    if model_id:
        _require_known(settings, model_id)
    serving = client.wait_for_serving_model()
    wanted = f"the model before {serving}" if rollback else model_id or "current best"
    swap = Swap(wanted, serving, "the model was named" if model_id else "")
    registry = Registry(settings)
    try:
        if rollback:
            reason = f"rollback was asked for; {serving} is held until it is released"
            before = model_before(settings, serving)
            swap = Swap(before, serving, reason, rollback=True, held=serving)
        elif not model_id:
            swap = _plan_best(settings, registry, serving)
        elif (best := registry.current_best()) and best.model_id != model_id:
            also = f"the current best {best.model_id} is held until it is released"
            swap = replace(swap, reason=f"{swap.reason}; {also}", held=best.model_id)
        entry = registry.get(swap.model_id)
        if entry.status == "archived":
            raise GateError(f"{entry.model_id}: is archived; archived models are not deployed")
        verify_artifact(registry.folder(entry))
        if not (rollback or force or serving in (None, swap.model_id)):
            current = _entry_or_none(registry, str(serving))
            if current is not None:  # else there is nothing to compare with any more
                _check_segments(settings, registry, entry, current)
                _check_not_worse(entry, current, config)
    except InputError as error:
        known = error.swap if isinstance(error, GateError) else None
        raise GateError(str(error), known or swap) from error
    return swap


def _require_known(settings: Settings, model_id: str) -> None:
    try:
        Registry(settings).get(model_id)
    except RegistryError as error:
        raise RequestError(f"model_id: {error}") from error


def _plan_best(settings: Settings, registry: Registry, serving: str | None) -> Swap:
    best = registry.current_best()
    if best is None:
        nothing = "no model is selected; run model_training, or name a model"
        raise GateError(f"{settings.registry}: {nothing}")
    if best.status != "held" or best.model_id == serving:
        return Swap(best.model_id, serving, "it is the registry's current best")
    held = (
        f"the current best {best.model_id} was taken out of service and is held until a newer "
        f"training selects another, or a person names it or runs `registry release {best.model_id}`"
    )
    if serving is None:
        wanted = Swap(best.model_id, None, "")
        raise GateError(f"{held}; the service has no model: name one", wanted)
    return Swap(serving, serving, held)


def _entry_or_none(registry: Registry, model_id: str) -> Entry | None:
    try:
        return registry.get(model_id)
    except RegistryError:
        return None


def _check_segments(settings: Settings, registry: Registry, entry: Entry, current: Entry) -> None:
    reference = registry.stand_in(current, entry.data_version)
    most = load_config(settings, TrainingConfig).most_slice_loss
    if loss := segment_loss(entry, reference, most):
        raise GateError(
            f"{entry.model_id}: {loss}, in the place of the serving {current.model_id}; "
            "such a model is deployed only with force"
        )


def _check_not_worse(entry: Entry, current: Entry, config: DeploymentConfig) -> None:
    serving = current.model_id
    metric = config.gate.metric
    same_data = entry.data_version == current.data_version
    what = metric if same_data else f"{metric} against its baseline"
    value, reference = (_quality(one, metric, same_data) for one in (entry, current))
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
    if not isinstance(value, int | float) or not isinstance(baseline, int | float) or not baseline:
        return None
    quality = value / baseline
    return quality if math.isfinite(quality) else None
