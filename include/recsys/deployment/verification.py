"""Does a model hold: on trial by what the request log says, in service by what it answers?"""

import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from recsys.deployment import CanaryConfig, VerifyConfig
from recsys.deployment.client import ServiceClient, ServiceError
from recsys.deployment.gate import Swap
from recsys.experiments.definitions import Guardrails
from recsys.experiments.guardrails import broken_guardrail
from recsys.merchandising.recommending import POPULARITY
from recsys.models.artifacts import read_manifest
from recsys.models.model_types import IMPERSONAL
from recsys.privacy import load_forgotten
from recsys.registry import Registry
from recsys.settings import Settings

logger = logging.getLogger(__name__)

_STRANGERS = ("deployment-check-stranger-0", "deployment-check-stranger-1")
_TOPK = 10
# Share of the sample users that the model has to answer itself: a few may be left out of it by now.
_MIN_PERSONAL_SHARE = 0.5


class Sample(NamedTuple):
    """Users that a model is tried out with, and the ``fallback_method`` of its own lists."""

    users: list[str]
    own: str | None


class Verification(NamedTuple):
    """Which of the three checks held, and a sentence for each one that failed."""

    checks: Mapping[str, bool]
    problems: tuple[str, ...]


NOT_VERIFIED = Verification(
    dict.fromkeys(("health_check", "model_id_match", "recommendations_work"), False), ()
)


def sample_of(settings: Settings, model_id: str) -> Sample:
    """The users that the model's metadata names for trying it out, but for those who are forgotten
    by now: the service takes them for strangers."""
    registry = Registry(settings)
    manifest = read_manifest(registry.folder(registry.get(model_id)))
    named, forgotten = map(str, manifest.get("sample_users") or []), load_forgotten(settings)
    users = [user for user in named if user not in forgotten]
    return Sample(users, POPULARITY if manifest["model_type"] in IMPERSONAL else None)


def verify(
    client: ServiceClient, model_id: str, sample: Sample, config: VerifyConfig
) -> Verification:
    """Make the three checks. A check that cannot be made has failed."""
    wrong: dict[str, str | None] = {}
    try:
        health = client.health()
        status, served = health.get("status"), health.get("model_id")
        wrong["health_check"] = None if status == "healthy" else f"the service is {status}"
        wrong["model_id_match"] = None if served == model_id else f"the service serves {served}"
    except ServiceError as error:
        wrong["health_check"] = str(error)
    try:
        problem = _check_recommendations(client, model_id, sample, config)
    except ServiceError as error:
        problem = str(error)
    wrong["recommendations_work"] = problem
    checks = {name: wrong.get(name, "not known") is None for name in NOT_VERIFIED.checks}
    return Verification(checks, tuple(f"{name}: {one}" for name, one in wrong.items() if one))


def _check_recommendations(
    client: ServiceClient, model_id: str, sample: Sample, config: VerifyConfig
) -> str | None:
    """What is wrong with the answers to sample users and strangers, None if nothing is."""
    users = sample.users[: config.sample_users]
    if not users:
        return "the model's metadata names no sample users"
    personal = 0
    for number, user in enumerate((*users, *_STRANGERS), start=1):
        answer = client.recommend(user, _TOPK)
        if wrong := _problem(answer, model_id, config):
            # Alerts and logs carry this: customers are named by their place among the samples.
            who = f"unknown user {user}" if user in _STRANGERS else f"sample user {number}"
            return f"{who}: {wrong}"
        personal += user not in _STRANGERS and answer.get("fallback_method") == sample.own
    if personal < _MIN_PERSONAL_SHARE * len(users):
        return f"only {personal} of {len(users)} sample users were answered by the model itself"
    return None


def _problem(answer: dict[str, Any], model_id: str, config: VerifyConfig) -> str | None:
    products = [row.get("product_id") for row in answer.get("recommendations") or []]
    if not products:
        return "the list is empty"
    if len(set(products)) != len(products):
        return "the list has a product twice"
    if answer.get("model_id") != model_id:
        return f"the answer was made by {answer.get('model_id')}"
    latency = float(answer.get("latency_ms") or 0)
    if latency > config.max_latency_ms:
        return f"the answer took {latency:.0f} ms, more than {config.max_latency_ms:.0f} ms"
    return None


def try_on_some_users(client: ServiceClient, config: CanaryConfig, swap: Swap) -> str | None:
    """Run the trial. Returns why the model must not go on, None if it may. The canary of a model
    that failed is ended, also where it had only begun. Raises `ServiceError` if the service does
    not answer."""
    passed = False
    try:
        client.start_canary(swap.model_id, config.share)
        time.sleep(60 * config.minutes)
        problem = judge(client.traffic_by_model(config.minutes), config, swap)
        passed = problem is None
        return problem
    finally:
        if not passed:
            try:
                client.end_canary()
            except ServiceError:
                logger.exception("The canary could not be ended")


def judge(traffic: dict[str, dict[str, Any]], config: CanaryConfig, swap: Swap) -> str | None:
    """What speaks against the model on trial, None if nothing does."""
    ours, theirs = traffic.get(swap.model_id), traffic.get(swap.serving or "")
    if ours is None or ours["requests"] < config.min_requests:
        logger.warning("Too few requests to judge the canary by | traffic=%s", ours)
    limits = Guardrails(
        max_latency_ratio=config.max_latency_ratio, min_requests=config.min_requests
    )
    found = broken_guardrail(ours, theirs, limits)
    if found is None:
        return None
    if found.rate == "error_rate":
        return f"error_rate={found.ours:.3f}, more than {found.theirs:g}"
    return f"{found.rate}={found.ours:.3f}, the serving model {swap.serving} has {found.theirs:.3f}"
