"""A model on trial: a share of the users gets it, and the request log tells how it does."""

import logging
import time
from typing import Any

from recsys.deployment.client import ServiceClient, ServiceError
from recsys.deployment.config import CanaryConfig
from recsys.deployment.gate import Plan

logger = logging.getLogger(__name__)

_MINUTE = 60.0


def try_on_some_users(client: ServiceClient, config: CanaryConfig, plan: Plan) -> str | None:
    """Run the trial. Returns why the model must not go on, None if it may.

    Whatever happens, nobody is left with a model that failed: the canary is ended then.

    Raises
    ------
    ServiceError
        If the service does not answer.
    """
    client.start_canary(plan.model_id, config.share)
    passed = False
    try:
        time.sleep(config.minutes * _MINUTE)
        problem = judge(client.traffic_by_model(config.minutes), config, plan)
        passed = problem is None
        return problem
    finally:
        if not passed:
            _end(client)


def judge(traffic: dict[str, dict[str, Any]], config: CanaryConfig, plan: Plan) -> str | None:
    """What speaks against the model on trial, None if nothing does."""
    ours = traffic.get(plan.model_id)
    if ours is None or ours["requests"] < config.min_requests:
        logger.warning("Too few requests to judge the canary by | traffic=%s", ours)
        return None
    if ours["error_rate"] > config.max_error_rate:
        return f"error_rate={ours['error_rate']:.3f}, more than {config.max_error_rate:g}"
    theirs = traffic.get(plan.serving or "")
    if theirs is None or theirs["requests"] < config.min_requests:
        return None
    increase = (ours["fallback_rate"] or 0) - (theirs["fallback_rate"] or 0)
    if increase > config.max_fallback_increase:
        return (
            f"fallback_rate={ours['fallback_rate']:.3f}, "
            f"{plan.serving} has {theirs['fallback_rate'] or 0:.3f}"
        )
    if ours["avg_latency_ms"] > config.max_latency_ratio * theirs["avg_latency_ms"]:
        return (
            f"avg_latency_ms={ours['avg_latency_ms']:.2f}, "
            f"{plan.serving} has {theirs['avg_latency_ms']:.2f}"
        )
    return None


def _end(client: ServiceClient) -> None:
    try:
        client.end_canary()
    except ServiceError:
        logger.exception("The canary could not be ended")
