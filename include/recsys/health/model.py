"""Is there a selected model, is it intact, and does the service serve it?"""

from datetime import UTC, datetime, timedelta
from typing import Any

from recsys.alerting import Severity
from recsys.config import load_config
from recsys.errors import InputError
from recsys.health.config import HealthConfig
from recsys.health.service import serving_model
from recsys.health.verdict import Finding, critical, verdict
from recsys.models.artifacts import verify_artifact
from recsys.registry import Registry
from recsys.settings import Settings, load_settings


def check_model_health(settings: Settings | None = None) -> dict[str, Any]:
    """Check the registry, the files of its current best, and what is being served.

    A service that does not answer is the service check's business and no problem here.

    Returns ``healthy``, and if a model is selected ``model_id``, ``selected_at`` and
    ``serving_model_id`` (None if the service does not say); when unhealthy ``error`` and
    ``severity``.
    """
    settings = settings or load_settings()
    registry = Registry(settings)
    damage = registry.repair()
    if damage is not None:
        repaired = "was written again from its last good copy"
        outcome = "is still so" if registry.problem() else repaired
        return verdict([critical(f"{damage}; it {outcome}")])
    selection = registry.selection()
    if selection is None:
        return verdict([Finding(Severity.WARNING, "no model is selected yet; run model_training")])
    problems = []
    try:
        verify_artifact(registry.folder(registry.get(selection.model_id)))
    except (InputError, OSError) as error:
        problems.append(critical(f"current best {selection.model_id}: {error}"))
    served = serving_model()
    grace = timedelta(hours=load_config(settings, HealthConfig).model.deployment_grace_hours)
    waiting = datetime.now(UTC) - datetime.fromisoformat(selection.selected_at)
    held = registry.get(selection.model_id).status == "held"  # a person wanted another one
    if served is not None and served != selection.model_id and waiting > grace and not held:
        problem = (
            f"the service serves {served}, although {selection.model_id} was selected"
            f" {waiting.total_seconds() / 3600:.0f} hours ago"
        )
        problems.append(Finding(Severity.WARNING, problem))
    return verdict(
        problems,
        model_id=selection.model_id,
        selected_at=selection.selected_at,
        serving_model_id=served,
    )
