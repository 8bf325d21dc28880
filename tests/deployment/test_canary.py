import itertools
import threading
import time

import pytest
import requests

from recsys.deployment import CanaryConfig, DeploymentConfig
from recsys.deployment.client import ServiceClient
from recsys.deployment.gate import Swap, plan_deployment
from recsys.deployment.history import read_history
from recsys.deployment.job import DeploymentFailedError, deploy
from recsys.deployment.verification import judge
from recsys.experiments.definitions import Definition
from recsys.experiments.state import Experiments
from recsys.settings import Settings
from tests.serving.shops import add_model

PLAN = Swap("new", "old", "")


def row(**values: float) -> dict:
    return {"requests": 100, "error_rate": 0.0, "fallback_rate": 0.1, "avg_latency_ms": 2} | values


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        ({}, {}, None),
        ({"error_rate": 0.05}, {}, "error_rate"),
        ({"fallback_rate": 0.4}, {}, "fallback_rate"),
        ({"fallback_rate": 0.4}, {"fallback_rate": 0.35}, None),
        ({"avg_latency_ms": 20}, {}, "avg_latency_ms"),
        ({"error_rate": 1.0, "requests": 3}, {}, None),
        ({"fallback_rate": 0.9}, {"requests": 3}, None),
    ],
)
def test_a_canary_is_judged_by_errors_fallbacks_and_latency(
    new: dict, old: dict, expected: str | None
):
    found = judge({"new": row(**new), "old": row(**old)}, CanaryConfig(), PLAN)
    assert (found is None) == (expected is None)
    if expected:
        assert expected in found


def test_a_canary_without_traffic_is_let_through():
    assert judge({}, CanaryConfig(), PLAN) is None


@pytest.fixture
def with_canary(config: DeploymentConfig) -> DeploymentConfig:
    canary = CanaryConfig(enabled=True, share=0.5, minutes=0.03, min_requests=10)
    return config.model_copy(update={"canary": canary})


@pytest.fixture
def traffic(port: int):
    """Asks for users all the time; yields the models that answered each user."""
    stop, answered = threading.Event(), {}

    def ask() -> None:
        session = requests.Session()
        number = 0
        while not stop.is_set():
            number += 1
            try:
                answer = session.post(
                    f"http://127.0.0.1:{port}/recommend",
                    json={"user_id": number % 60 if number % 2 else f"new-{number % 60}"},
                    timeout=5,
                ).json()
                answered.setdefault(answer["user_id"], []).append(answer["model_id"])
            except (requests.RequestException, KeyError):
                time.sleep(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    yield answered
    stop.set()
    thread.join()


def test_a_canary_serves_a_share_of_the_users_and_then_all(
    settings: Settings, service, client: ServiceClient, with_canary: DeploymentConfig, traffic
):
    add_model(settings, "als_1")
    with service():
        add_model(settings, "als_2", recall=0.2)
        plan = plan_deployment(settings, client, with_canary)
        seen: dict[str, set[str]] = {}
        watch = threading.Timer(1.2, lambda: seen.update({"during": models_now(traffic)}))
        watch.start()
        summary = deploy(settings, client, with_canary, plan)
        watch.join()
        assert client.serving_model() == "als_2"
    assert seen["during"] == {"als_1", "als_2"}
    assert summary["status"] == "success"
    # Whoever got the canary kept it.
    assert not any(
        [model for model, later in itertools.pairwise(models) if later < model]
        for models in traffic.values()
    )


def models_now(traffic: dict) -> set[str]:
    return {models[-1] for models in list(traffic.values())}


def test_a_canary_that_answers_worse_is_ended(
    settings: Settings, service, client: ServiceClient, with_canary: DeploymentConfig, traffic
):
    add_model(settings, "als_1")
    strict = with_canary.canary.model_copy(update={"max_latency_ratio": 1e-6})
    config = with_canary.model_copy(update={"canary": strict})
    with service():
        add_model(settings, "als_2", recall=0.2)
        plan = plan_deployment(settings, client, config)
        with pytest.raises(DeploymentFailedError, match="the canary failed: avg_latency_ms"):
            deploy(settings, client, config, plan)
        traffic.clear()
        time.sleep(0.5)
        assert models_now(traffic) == {"als_1"}
    [entry] = read_history(settings)
    assert entry["status"] == "failed"
    assert "als_1 is still in service" in entry["error"]


def test_a_deployment_verifies_what_it_deployed_whatever_experiments_run(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    for model_id in ("als_1", "als_2", "als_3"):
        add_model(settings, model_id, select=model_id == "als_1")
    sides = [{"name": name, "share": 0.5, "model_id": name} for name in ("als_1", "als_2")]
    asked = {"question": "Which one?", "variants": sides, "primary_metric": "clicks_per_list"}
    definition = Definition.model_validate({"name": "both", **asked})
    Experiments(settings).start(definition, by="lan")
    with service():
        summary = deploy(settings, client, config, Swap("als_3", "als_1", "named"))
    assert summary["status"] == "success"
