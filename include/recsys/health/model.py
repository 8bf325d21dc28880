"""Is there a selected model, is it intact, and does the service serve it?"""

from datetime import UTC, datetime, timedelta
from typing import Any

from recsys.alerting import Severity
from recsys.config import load_config
from recsys.errors import InputError
from recsys.health.config import HealthConfig
from recsys.health.service import serving_model
from recsys.health.verdict import Finding, verdict
from recsys.models.artifacts import verify_artifact
from recsys.registry import Registry
from recsys.settings import Settings, load_settings


def check_model_health(settings: Settings | None = None) -> dict[str, Any]:
    """Check the registry, the files of its current best, and what is being served; that the service
    does not answer is no problem here.

    Returns ``healthy``, and if a model is selected ``model_id``, ``selected_at`` and
    ``serving_model_id`` (None if the service does not say); when unhealthy ``error`` and
    ``severity``."""
    settings = settings or load_settings()
    registry = Registry(settings)
    if damage := registry.repair():
        repaired = "it was written again from its last good copy"
        outcome = "it is still so" if registry.problem() else repaired
        return verdict([Finding(f"{damage}; {outcome}")])
    selection = registry.selection()
    if selection is None:
        return verdict([Finding("no model is selected yet; run model_training", Severity.WARNING)])
    problems = []
    try:
        verify_artifact(registry.folder(registry.get(selection.model_id)))
    except (InputError, OSError) as error:
        problems.append(Finding(f"current best {selection.model_id}: {error}"))
    served = serving_model()
    grace = timedelta(hours=load_config(settings, HealthConfig).model.deployment_grace_hours)
    waiting = datetime.now(UTC) - datetime.fromisoformat(selection.selected_at)
    held = registry.get(selection.model_id).status == "held"  # a person wanted another one
    if served is not None and served != selection.model_id and waiting > grace and not held:
        selected = f"{selection.model_id} was selected {waiting / timedelta(hours=1):.0f} hours ago"
        problem = f"the service serves {served}, although {selected}"
        problems.append(Finding(problem, Severity.WARNING))
    about = {"model_id": selection.model_id, "selected_at": selection.selected_at}
    return verdict(problems, **about, serving_model_id=served)
