"""The job model_deployment, step by step: choose a model, ask, swap it, verify it, and take it back
if it does not hold. `failure` is what Airflow's own alerts of the same run go by
(`recsys.alerting.runs`)."""

import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from recsys.alerting import AlertManager, Severity
from recsys.alerting.message import Alert
from recsys.config import load_config
from recsys.deployment import DeploymentConfig, verification
from recsys.deployment.client import (
    DividedServiceError,
    ServiceClient,
    ServiceError,
    connect_service,
)
from recsys.deployment.comparison import note_comparison
from recsys.deployment.gate import GateError, Swap, plan_deployment
from recsys.deployment.history import append_history
from recsys.errors import InputError, RequestError
from recsys.registry import Registry
from recsys.settings import Settings

logger = logging.getLogger(__name__)

JOB = "model_deployment"
WAITS = "model_deployment_waits"
ALERT = f"{JOB}_failed"
_PAUSE_SECONDS = 1.0


class DeploymentFailedError(InputError):
    """The model is not in service. Trying again without a change would fail again."""


def check_gate(
    settings: Settings, options: dict[str, Any], failure: str | None = None
) -> dict[str, Any]:
    """Choose and check the model; `options` are the DAG's params. Returns the `Swap` as a mapping.
    Raises `RequestError` for options that cannot be meant, `DeploymentFailedError` if there is no
    model that may be deployed, or no service to deploy to; but for a dry run, that is written down
    and raises an alert."""
    config = load_config(settings, DeploymentConfig)
    client = connect_service(config)
    model_id, rollback = options.get("model_id") or None, bool(options.get("rollback"))
    force = bool(options.get("force"))
    try:
        swap = plan_deployment(
            settings, client, config, model_id=model_id, rollback=rollback, force=force
        )
    except RequestError:
        raise
    except (InputError, ServiceError) as error:
        if not options.get("dry_run"):
            known = error.swap if isinstance(error, GateError) else None
            wanted = model_id or ("model before" if rollback else "current best")
            record_refusal(settings, known or Swap(wanted, None, ""), str(error), failure)
        raise DeploymentFailedError(str(error)) from error
    if swap.serving not in (None, swap.model_id) and not swap.rollback:
        note_comparison(settings, str(swap.serving), swap.model_id)
    return swap.as_dict()


def ask_for_approval(settings: Settings, plan: dict[str, Any], link: str, question_id: str) -> None:
    """Tell that a deployment waits for a person, and where to answer; once for each question."""
    hours = load_config(settings, DeploymentConfig).approval_hours
    facts = {"model_id": plan["model_id"], "serving": plan["serving"] or "-", "hours": f"{hours:g}"}
    message, key = "a deployment waits for approval", f"{WAITS}:{question_id}"
    tell(settings, Alert(WAITS, message, Severity.WARNING, facts=facts, link=link, key=key))


def bring_into_service(
    settings: Settings,
    plan: dict[str, Any],
    options: dict[str, Any],
    failure: str | None = None,
    *,
    approved: bool = True,
) -> dict[str, Any]:
    """Deploy what `check_gate` planned; the run's summary. A dry run changes nothing. `approved`:
    it was settled whether a person has to agree. Raises as `deploy`, and if somebody has to."""
    if options.get("dry_run"):
        return {"dry_run": True, "status": "planned"}  # the plan is what `check_gate` returned
    config, swap = load_config(settings, DeploymentConfig), Swap(**plan)
    if config.require_approval and not approved and needs_approval(plan, options):
        reason = "require_approval was set after this run had begun, and nobody was asked"
        record_refusal(settings, swap, reason, failure)
        raise DeploymentFailedError(f"{swap.model_id} was not deployed: {reason}; run it again")
    return deploy(settings, connect_service(config), config, swap, failure)


def needs_approval(plan: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether the plan is one to ask a person about. A rollback cannot wait."""
    unchanged = plan["serving"] == plan["model_id"]
    return not (unchanged or plan.get("rollback") or options.get("dry_run"))


def deploy(
    settings: Settings,
    client: ServiceClient,
    config: DeploymentConfig,
    swap: Swap,
    failure: str | None = None,
) -> dict[str, Any]:
    """Bring the planned model into service and verify it; on any failure restore the previous, in
    one step, so that no bad model stays while somebody schedules the next. A model that serves
    already is only verified. `failure`: see `raise_alarm`.

    Returns the run's summary. Raises `DeploymentFailedError` after the previous model was restored
    (or could not be), the history was written and the alert was sent."""
    started, unchanged = time.monotonic(), swap.serving == swap.model_id
    checked, problem = _swap_and_verify(settings, client, config, swap)
    status, rolled_back = "success", False
    if problem is not None:
        status, rolled_back, outcome = _restore(settings, client, config, swap)
        problem = f"{problem}; {outcome}"
    if not unchanged or problem is not None:
        _write_down(settings, swap, status, problem, checked, rolled_back)
    if not unchanged or problem is not None or swap.held is not None:
        _hold_or_release(settings, swap, status)
    if problem is not None:
        raise_alarm(settings, swap.model_id, problem, failure)
        raise DeploymentFailedError(f"{swap.model_id} was not deployed: {problem}")
    return {
        "model_id": swap.model_id,
        "previous_model_id": swap.serving,
        "status": "unchanged" if unchanged else "success",
        "reason": swap.reason,
        "verification": dict(checked.checks),
        "rollback_triggered": False,
        "duration_seconds": round(time.monotonic() - started, 3),
    }


def record_refusal(
    settings: Settings, swap: Swap, problem: str, failure: str | None = None
) -> None:
    """Write a deployment that never began into the history, and raise the alarm."""
    _write_down(settings, swap, "failed", problem)
    raise_alarm(settings, swap.model_id, problem, failure)


def raise_alarm(
    settings: Settings, model_id: str, problem: str, failure: str | None = None
) -> None:
    """Send the critical alert. `failure` names the failure of one run of Airflow
    (`recsys.alerting.runs`): what Airflow's callbacks report of it afterwards is held back then.
    Without it every failure is an event of its own."""
    text = f"Deployment of {model_id} failed: {problem}"
    key = failure or f"{ALERT}:{datetime.now(UTC).isoformat()}"
    facts = {"model_id": model_id, "error": problem}
    tell(settings, Alert(ALERT, text, Severity.CRITICAL, facts=facts, key=key))


def tell(settings: Settings, alert: Alert) -> None:
    """Send an alert, once by its key; that it cannot be sent is logged."""
    try:
        AlertManager(settings).deliver(replace(alert, until_resolved=True, event=True))
    except Exception:
        logger.exception("The alert could not be sent | alert=%s", alert.name)


def _write_down(
    settings: Settings,
    swap: Swap,
    status: str,
    error: str | None,
    checked: verification.Verification = verification.NOT_VERIFIED,
    rolled_back: bool = False,
) -> None:
    """Add to the history; somebody is told if that fails, or if the old history is lost. The run
    goes on: what serves is right or wrong with or without a record of it."""
    entry = {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_id": swap.model_id,
        "previous_model_id": swap.serving,
        "status": status,
        "verification": dict(checked.checks),
        "rollback_triggered": rolled_back,
        "reason": swap.reason,
        "error": error,
    }
    alert = f"{JOB}_history"
    facts: dict[str, str] = {}
    try:
        if aside := append_history(settings, entry):
            text = "the history was damaged"
            facts = {"file": str(settings.deployment_history), "place": aside}
    except OSError as problem:
        logger.exception("The deployment history cannot be written")
        text = "a deployment is not on record"
        facts = {"model_id": swap.model_id, "outcome": status, "error": str(problem)}
    if facts:
        key = f"{alert}:{'/'.join(facts.values())}"
        tell(settings, Alert(alert, text, Severity.WARNING, facts=facts, key=key))


def _hold_or_release(settings: Settings, swap: Swap, status: str) -> None:
    """What was taken out of service, or passed over, is not brought back by the next night; what a
    person brought back is free again. That it fails is only logged."""
    registry = Registry(settings)
    try:
        if status == "rolled_back":
            registry.hold(swap.model_id)
        elif status == "success":
            if registry.get(swap.model_id).status == "held":
                registry.release(swap.model_id)
            if swap.held is not None:
                registry.hold(swap.held)
    except (InputError, OSError):
        logger.exception("The registry does not know what is held | model_id=%s", swap.model_id)


def _swap_and_verify(
    settings: Settings, client: ServiceClient, config: DeploymentConfig, swap: Swap
) -> tuple[verification.Verification, str | None]:
    """The verification, and what went wrong (None: nothing)."""
    try:
        sample = verification.sample_of(settings, swap.model_id)
        another = swap.serving not in (None, swap.model_id) and not swap.rollback
        if (
            another
            and config.canary.enabled
            and (objection := verification.try_on_some_users(client, config.canary, swap))
        ):
            return verification.NOT_VERIFIED, f"the canary failed: {objection}"
        if swap.serving != swap.model_id:
            client.reload(swap.model_id)
    except (ServiceError, InputError) as error:
        return verification.NOT_VERIFIED, f"the reload failed: {error}"
    checked = verification.verify(client, swap.model_id, sample, config.verify)
    problems = "; ".join(checked.problems)
    return checked, f"the verification failed: {problems}" if problems else None


def _restore(
    settings: Settings, client: ServiceClient, config: DeploymentConfig, swap: Swap
) -> tuple[str, bool, str]:
    """Make sure that the previous model serves: ``(status, rollback_triggered, sentence)``."""
    previous = swap.serving
    if previous is None:
        return "failed", False, "there is no previous model to restore"
    if previous == swap.model_id:
        return "failed", False, "it was in service before this run, nothing was changed"
    try:
        if client.wait_for_serving_model() == previous:
            return "failed", False, f"{previous} is still in service"
    except DividedServiceError as error:
        logger.warning("The previous model is reloaded in every replica: %s", error)
    except ServiceError as error:
        return "failed", False, f"what serves now is not known: {error}"
    problems = _reload_patiently(settings, client, config, previous)
    if problems:
        return "failed", True, f"{previous} could NOT be restored: {'; '.join(problems)}"
    return "rolled_back", True, f"{previous} is in service again"


def _reload_patiently(
    settings: Settings, client: ServiceClient, config: DeploymentConfig, model_id: str
) -> tuple[str, ...]:
    """Reload and verify, again while the service is coming back; what is wrong in the end."""
    until = time.monotonic() + config.patience_seconds
    while True:
        try:
            client.reload(model_id)
            sample = verification.sample_of(settings, model_id)
            problems = verification.verify(client, model_id, sample, config.verify).problems
        except (ServiceError, InputError) as error:
            problems = (str(error),)
        if not problems or time.monotonic() >= until:
            return problems
        time.sleep(_PAUSE_SECONDS)
