"""Swap the model, verify it, and take it back if it does not hold."""

import logging
import time
from datetime import UTC, datetime
from typing import Any

from recsys.alerting import AlertManager, Severity
from recsys.alerting.message import Alert
from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceClient, ServiceError
from recsys.deployment.gate import Plan
from recsys.deployment.history import append_history
from recsys.deployment.verification import (
    NOT_VERIFIED,
    Verification,
    sample_users,
    try_on_some_users,
    verify,
)
from recsys.errors import InputError
from recsys.registry import Registry
from recsys.settings import Settings

logger = logging.getLogger(__name__)

JOB = "model_deployment"
ALERT = f"{JOB}_failed"
_PAUSE_SECONDS = 1.0


class DeploymentFailedError(InputError):
    """The model is not in service. Trying again without a change would fail again."""


def deploy(
    settings: Settings,
    client: ServiceClient,
    config: DeploymentConfig,
    plan: Plan,
    failure: str | None = None,
) -> dict[str, Any]:
    """Bring the planned model into service and verify it; on any failure restore the previous.

    Reload, verification and rollback are one step on purpose: no bad model stays in service
    while somebody schedules the next step. A model that serves already is only verified.
    `failure` is what Airflow's own alerts of the same run go by (`raise_alarm`).

    Returns the run's summary. Raises `DeploymentFailedError` after the previous model was restored
    (or could not be), the history was written and the alert was sent.
    """
    started = time.monotonic()
    unchanged = plan.serving == plan.model_id
    verification, problem = _swap_and_verify(settings, client, config, plan)
    status, rolled_back = "success", False
    if problem is not None:
        status, rolled_back, outcome = _restore(settings, client, config, plan)
        problem = f"{problem}; {outcome}"
    if not (unchanged and problem is None):
        entry = _entry(plan, status, verification, rolled_back, problem)
        _write_down(settings, entry)
        _hold_or_release(settings, plan, status)
    if problem is not None:
        raise_alarm(settings, plan.model_id, problem, failure)
        raise DeploymentFailedError(f"{plan.model_id} was not deployed: {problem}")
    return {
        "model_id": plan.model_id,
        "previous_model_id": plan.serving,
        "status": "unchanged" if unchanged else "success",
        "reason": plan.reason,
        "verification": verification.checks(),
        "rollback_triggered": False,
        "duration_seconds": round(time.monotonic() - started, 3),
    }


def record_refusal(
    settings: Settings, plan: Plan, problem: str, failure: str | None = None
) -> None:
    """Write a deployment that never began into the history, and raise the alarm."""
    _write_down(settings, _entry(plan, "failed", NOT_VERIFIED, False, problem))
    raise_alarm(settings, plan.model_id, problem, failure)


def raise_alarm(
    settings: Settings, model_id: str, problem: str, failure: str | None = None
) -> None:
    """Send the critical alert. That it cannot be sent is logged and hides nothing.

    `failure` names the failure of one run of Airflow (`recsys.alerting.runs`): this is
    its one alert then, and what Airflow's callbacks report of it afterwards is held back. Without
    it every failure is an event of its own.
    """
    tell(
        settings,
        Alert(
            ALERT,
            f"Deployment of {model_id} failed: {problem}",
            Severity.CRITICAL,
            facts={"model_id": model_id},
            key=failure or f"{ALERT}:{datetime.now(UTC).isoformat()}",
            until_resolved=failure is not None,
        ),
    )


def _write_down(settings: Settings, entry: dict[str, Any]) -> None:
    """Add to the history; somebody is told if that fails, or if the old history is lost.

    What serves is right or wrong with or without a record of it, so the run goes on.
    """
    try:
        aside = append_history(settings, entry)
    except OSError as error:
        logger.exception("The deployment history cannot be written")
        problem = f"{entry['model_id']} ({entry['status']}) is not on record: {error}"
    else:
        if aside is None:
            return
        problem = (
            f"{settings.deployment_history} was damaged and is now {aside}; a new history "
            "begins, and a rollback knows nothing of what was before"
        )
    name = f"{JOB}_history"
    tell(
        settings,
        Alert(name, problem, Severity.WARNING, key=f"{name}:{problem}", until_resolved=True),
    )


def _hold_or_release(settings: Settings, plan: Plan, status: str) -> None:
    """What was taken out of service is not brought back by the next night; what a person brought
    back is free again. What serves is right without the note, so that it fails is only logged."""
    registry = Registry(settings)
    held = plan.serving if plan.rollback else None
    try:
        if status == "rolled_back":
            registry.hold(plan.model_id)
        elif status == "success":
            if registry.get(plan.model_id).status == "held":
                registry.release(plan.model_id)
            if held is not None:
                registry.hold(held)
    except (InputError, OSError):
        logger.exception("The registry does not know what is held | model_id=%s", plan.model_id)


def tell(settings: Settings, alert: Alert) -> None:
    """Send an alert; that it cannot be sent is logged."""
    try:
        AlertManager(settings).deliver(alert)
    except Exception:
        logger.exception("The alert could not be sent | alert=%s", alert.name)


def _swap_and_verify(
    settings: Settings, client: ServiceClient, config: DeploymentConfig, plan: Plan
) -> tuple[Verification, str | None]:
    """The verification, and what went wrong (None: nothing)."""
    try:
        users = sample_users(settings, plan.model_id)
        if config.canary.enabled and plan.serving not in (None, plan.model_id):
            objection = try_on_some_users(client, config.canary, plan)
            if objection:
                return NOT_VERIFIED, f"the canary failed: {objection}"
        if plan.serving != plan.model_id:
            client.reload(plan.model_id)
    except (ServiceError, InputError) as error:
        return NOT_VERIFIED, f"the reload failed: {error}"
    verification = verify(client, plan.model_id, users, config.verify)
    if verification.passed:
        return verification, None
    return verification, "the verification failed: " + "; ".join(verification.problems)


def _restore(
    settings: Settings, client: ServiceClient, config: DeploymentConfig, plan: Plan
) -> tuple[str, bool, str]:
    """Make sure that the previous model serves: ``(status, rollback_triggered, sentence)``."""
    previous = plan.serving
    if previous is None:
        return "failed", False, "there is no previous model to restore"
    if previous == plan.model_id:
        return "failed", False, "it was in service before this run, nothing was changed"
    try:
        if client.wait_for_serving_model() == previous:
            return "failed", False, f"{previous} is still in service"
    except ServiceError as error:
        return "failed", False, f"what serves now is not known: {error}"
    verification = _reload_patiently(settings, client, config, previous)
    if verification.passed:
        return "rolled_back", True, f"{previous} is in service again"
    why = "; ".join(verification.problems)
    return "failed", True, f"{previous} could NOT be restored: {why}"


def _reload_patiently(
    settings: Settings, client: ServiceClient, config: DeploymentConfig, model_id: str
) -> Verification:
    """Reload and verify, again and again while the service is coming back."""
    until = time.monotonic() + config.patience_seconds
    while True:
        try:
            client.reload(model_id)
            verification = verify(client, model_id, sample_users(settings, model_id), config.verify)
        except (ServiceError, InputError) as error:
            verification = Verification(False, False, False, (str(error),))
        if verification.passed or time.monotonic() >= until:
            return verification
        time.sleep(_PAUSE_SECONDS)


def _entry(
    plan: Plan,
    status: str,
    verification: Verification,
    rollback_triggered: bool,
    problem: str | None,
) -> dict[str, Any]:
    return {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_id": plan.model_id,
        "previous_model_id": plan.serving,
        "status": status,
        "verification": verification.checks(),
        "rollback_triggered": rollback_triggered,
        "reason": plan.reason,
        "error": problem,
    }
