from pathlib import Path

import pytest

from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceClient
from recsys.deployment.gate import Swap, plan_deployment
from recsys.deployment.history import read_history
from recsys.deployment.job import DeploymentFailedError, deploy
from recsys.ids import IdRules
from recsys.privacy import ask_to_forget
from recsys.settings import Settings
from tests.deployment.conftest import client_of, running_service
from tests.serving.shops import add_model

PASSED = {"health_check": True, "model_id_match": True, "recommendations_work": True}


def alerts(settings: Settings) -> list[str]:
    log = settings.logs / "service" / "alerts.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [line for line in lines if "model_deployment_" in line and " triggered: " in line]


def test_a_good_model_comes_into_service(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    add_model(settings, "als_1")
    with service():
        add_model(settings, "als_2", recall=0.2, seed=1)
        plan = plan_deployment(settings, client, config)
        assert plan == Swap("als_2", "als_1", "it is the registry's current best")
        summary = deploy(settings, client, config, plan)
        assert client.serving_model() == "als_2"
    assert summary["status"] == "success"
    assert summary["verification"] == PASSED
    [entry] = read_history(settings)
    assert entry["model_id"] == "als_2"
    assert entry["previous_model_id"] == "als_1"
    assert entry["status"] == "success"
    assert entry["verification"] == PASSED
    assert entry["rollback_triggered"] is False
    assert not alerts(settings)


def test_the_first_model_of_a_service_that_started_without_one(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    with service():
        add_model(settings, "als_1")
        plan = plan_deployment(settings, client, config)
        assert plan.serving is None
        deploy(settings, client, config, plan)
        assert client.serving_model() == "als_1"
    assert read_history(settings)[0]["previous_model_id"] is None


def test_a_model_that_serves_already_is_a_no_op(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    add_model(settings, "als_1")
    with service():
        plan = plan_deployment(settings, client, config)
        summary = deploy(settings, client, config, plan)
    assert summary["status"] == "unchanged"
    assert summary["verification"] == PASSED
    assert read_history(settings) == []


def test_sample_users_who_are_forgotten_speak_against_no_model(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    add_model(settings, "als_1")
    with service():
        add_model(settings, "als_2", recall=0.2, sample_users=("3", "4", "5"))
        ask_to_forget(settings, ["4", "5"], "lan", IdRules())
        plan = plan_deployment(settings, client, config)
        assert deploy(settings, client, config, plan)["verification"] == PASSED


def test_a_failed_verification_restores_the_previous_model(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    add_model(settings, "als_1")
    with service():
        # It loads and answers, but the users it was trained for get no personal list.
        add_model(settings, "als_2", recall=0.2, sample_users=("gone-1", "gone-2"))
        plan = plan_deployment(settings, client, config)
        with pytest.raises(DeploymentFailedError, match="recommendations_work: only 0 of 2"):
            deploy(settings, client, config, plan)
        assert client.serving_model() == "als_1"
    [entry] = read_history(settings)
    assert entry["status"] == "rolled_back"
    assert entry["rollback_triggered"] is True
    assert entry["verification"] == {**PASSED, "recommendations_work": False}
    [alert] = alerts(settings)
    assert "CRITICAL" in alert
    assert "als_1 is in service again" in alert


def test_a_corrupt_artefact_never_comes_into_service(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    add_model(settings, "als_1")
    with service():
        add_model(settings, "als_2", recall=0.2)
        plan = plan_deployment(settings, client, config)
        (settings.artifacts / "als" / "als_2" / "model" / "item_factors.npy").write_bytes(b"x")
        with pytest.raises(DeploymentFailedError, match="item_factors"):
            deploy(settings, client, config, plan)
        assert client.serving_model() == "als_1"
    [entry] = read_history(settings)
    assert entry["status"] == "failed"
    assert entry["rollback_triggered"] is False
    assert len(alerts(settings)) == 1


def test_a_wrong_token_changes_nothing(
    settings: Settings, service, port: int, config: DeploymentConfig
):
    add_model(settings, "als_1")
    with service():
        add_model(settings, "als_2", recall=0.2)
        client = client_of(port, config, token="not-the-token")
        plan = plan_deployment(settings, client, config)
        with pytest.raises(DeploymentFailedError, match="answered 401"):
            deploy(settings, client, config, plan)
        assert client.serving_model() == "als_1"
    assert read_history(settings)[0]["status"] == "failed"
    assert len(alerts(settings)) == 1


@pytest.mark.boots
def test_a_service_that_dies_before_the_verification_is_reported(
    settings: Settings, port: int, client: ServiceClient, config: DeploymentConfig
):
    add_model(settings, "als_1")
    with running_service(settings, port):
        add_model(settings, "als_2", recall=0.2)
        plan = plan_deployment(settings, client, config)
    with pytest.raises(DeploymentFailedError, match="what serves now is not known"):
        deploy(settings, client, config, plan)
    [entry] = read_history(settings)
    assert entry["status"] == "failed"
    assert len(alerts(settings)) == 1


def test_a_damaged_history_is_set_aside(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    add_model(settings, "als_1")
    settings.logs.mkdir(parents=True, exist_ok=True)
    settings.deployment_history.write_text('{"deployments": [{"mod')
    with service():
        add_model(settings, "als_2", recall=0.2)
        deploy(settings, client, config, plan_deployment(settings, client, config))
    assert [entry["model_id"] for entry in read_history(settings)] == ["als_2"]
    [aside] = settings.logs.glob("deployment_history.damaged_*.json")
    assert aside.read_text() == '{"deployments": [{"mod'
    [alert] = alerts(settings)
    assert "WARNING" in alert
    assert aside.name in alert


def test_a_history_that_cannot_be_written_hides_nothing(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    add_model(settings, "als_1")
    settings.logs.mkdir(parents=True, exist_ok=True)
    Path(f"{settings.deployment_history}.lock").mkdir()
    with service():
        add_model(settings, "als_2", recall=0.2)
        plan = plan_deployment(settings, client, config)
        assert deploy(settings, client, config, plan)["status"] == "success"
        assert client.serving_model() == "als_2"
    assert read_history(settings) == []
    [alert] = alerts(settings)
    assert "a deployment is not on record | model_id=als_2, outcome=success, error=" in alert
