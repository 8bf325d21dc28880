"""The steps of the job model_deployment, as its DAG calls them.

`failure` is always the key of Airflow's run in the alerts (`recsys.alerting.runs`).
"""

from typing import Any

from recsys.alerting import Severity
from recsys.alerting.message import Alert
from recsys.config import load_config
from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceError, connect_service
from recsys.deployment.deploy import JOB, DeploymentFailedError, deploy, record_refusal, tell
from recsys.deployment.gate import GateError, Swap, plan_deployment
from recsys.errors import InputError
from recsys.settings import Settings


def check_gate(
    settings: Settings, options: dict[str, Any], failure: str | None = None
) -> dict[str, Any]:
    """Choose and check the model; `options` are the DAG's params. Returns the `Swap` as a mapping.
    Raises `DeploymentFailedError` if there is no model that may be deployed, or no service to
    deploy to; but for a dry run, that is written down and raises an alert."""
    config = load_config(settings, DeploymentConfig)
    client = connect_service(config)
    model_id, rollback = options.get("model_id") or None, bool(options.get("rollback"))
    force = bool(options.get("force"))
    try:
        swap = plan_deployment(
            settings, client, config, model_id=model_id, rollback=rollback, force=force
        )
    except (InputError, ServiceError) as error:
        if not options.get("dry_run"):
            known = error.swap if isinstance(error, GateError) else None
            wanted = model_id or ("model before" if rollback else "current best")
            record_refusal(settings, known or Swap(wanted, None, ""), str(error), failure)
        raise DeploymentFailedError(str(error)) from error
    return swap.as_dict()


def ask_for_approval(settings: Settings, plan: dict[str, Any], link: str, question_id: str) -> None:
    """Tell that a deployment waits for a person, and where to answer; once for each question."""
    name = f"{JOB}_waits"
    hours = load_config(settings, DeploymentConfig).approval_hours
    message = (
        f"{plan['model_id']} waits for your approval to replace {plan['serving']}; without one "
        f"within {hours:g} hours it is not deployed"
    )
    facts, key = {"model_id": plan["model_id"]}, f"{name}:{question_id}"
    tell(settings, Alert(name, message, Severity.WARNING, facts=facts, link=link, key=key))


def bring_into_service(
    settings: Settings, plan: dict[str, Any], options: dict[str, Any], failure: str | None = None
) -> dict[str, Any]:
    """Deploy what `check_gate` planned; the run's summary. A dry run changes nothing."""
    if options.get("dry_run"):
        return {"dry_run": True, "status": "planned", **plan}
    config = load_config(settings, DeploymentConfig)
    return deploy(settings, connect_service(config), config, Swap(**plan), failure)
