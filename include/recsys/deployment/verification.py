"""Does the service answer with the model that it should, and are the answers any good?"""

from dataclasses import dataclass
from typing import Any

from recsys.deployment.client import ServiceClient, ServiceError
from recsys.deployment.config import VerifyConfig
from recsys.models.artifacts import read_manifest
from recsys.registry import Registry
from recsys.settings import Settings

COLD_USER = "deployment-check-stranger-{}"


@dataclass(frozen=True)
class Verification:
    """The three checks, and a sentence for each one that failed."""

    health_check: bool
    model_id_match: bool
    recommendations_work: bool
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.health_check and self.model_id_match and self.recommendations_work

    def checks(self) -> dict[str, bool]:
        return {
            "health_check": self.health_check,
            "model_id_match": self.model_id_match,
            "recommendations_work": self.recommendations_work,
        }


NOT_VERIFIED = Verification(False, False, False, ())


def sample_users(settings: Settings, model_id: str) -> list[str]:
    """Users that the model's metadata names for trying it out."""
    registry = Registry(settings)
    manifest = read_manifest(registry.folder(registry.get(model_id)))
    return [str(user) for user in manifest.get("sample_users") or []]


def verify(
    client: ServiceClient, model_id: str, users: list[str], config: VerifyConfig
) -> Verification:
    """Make the three checks. A check that cannot be made has failed."""
    problems: list[str] = []
    healthy = matches = False
    try:
        health = client.health()
        healthy = health.get("status") == "healthy"
        if not healthy:
            problems.append(f"health_check: the service is {health.get('status')}")
        matches = health.get("model_id") == model_id
        if not matches:
            problems.append(f"model_id_match: the service serves {health.get('model_id')}")
    except ServiceError as error:
        problems.append(f"health_check: {error}")
    try:
        wrong = _check_recommendations(client, model_id, users[: config.sample_users], config)
    except ServiceError as error:
        wrong = str(error)
    if wrong:
        problems.append(f"recommendations_work: {wrong}")
    return Verification(healthy, matches, wrong is None, tuple(problems))


def _check_recommendations(
    client: ServiceClient, model_id: str, users: list[str], config: VerifyConfig
) -> str | None:
    """What is wrong with the answers to sample users and strangers, None if nothing is."""
    if not users:
        return "the model's metadata names no sample users"
    personal = 0
    for user in users:
        answer = client.recommend(user, config.topk)
        wrong = _problem(answer, model_id, config)
        if wrong:
            return f"user {user}: {wrong}"
        personal += answer.get("fallback") is False
    for number in range(config.cold_users):
        stranger = COLD_USER.format(number)
        wrong = _problem(client.recommend(stranger, config.topk), model_id, config)
        if wrong:
            return f"unknown user {stranger}: {wrong}"
    if personal < config.min_personal_share * len(users):
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
