"""The steps of the job model_deployment, as its DAG calls them."""

from typing import Any

from recsys.deployment.client import ServiceError
from recsys.deployment.config import load_config
from recsys.deployment.deploy import DeploymentFailedError, deploy, record_refusal
from recsys.deployment.gate import Plan, plan_deployment
from recsys.deployment.replicas import connect_service
from recsys.errors import InputError
from recsys.settings import Settings


def check_gate(
    settings: Settings, options: dict[str, Any], run_id: str | None = None
) -> dict[str, Any]:
    """Choose and check the model; `options` are the DAG's params, `run_id` is Airflow's.

    Returns ``{"model_id", "serving", "reason"}``. A refusal is written down and raises an alert,
    except in a dry run.

    Raises
    ------
    DeploymentFailedError
        If there is no model that may be deployed, or no service to deploy to.
    """
    config = load_config(settings)
    client = connect_service(config)
    try:
        plan = plan_deployment(
            settings,
            client,
            config,
            model_id=options.get("model_id") or None,
            rollback=bool(options.get("rollback")),
            force=bool(options.get("force")),
        )
    except (InputError, ServiceError) as error:
        if not options.get("dry_run"):
            record_refusal(settings, config, options.get("model_id"), error, run_id)
        raise DeploymentFailedError(str(error)) from error
    return plan.as_dict()


def bring_into_service(
    settings: Settings,
    plan: dict[str, Any],
    options: dict[str, Any],
    run_id: str | None = None,
) -> dict[str, Any]:
    """Deploy what `check_gate` planned; the run's summary. A dry run changes nothing."""
    if options.get("dry_run"):
        return {"dry_run": True, "status": "planned", **plan}
    config = load_config(settings)
    return deploy(settings, connect_service(config), config, Plan(**plan), run_id)
