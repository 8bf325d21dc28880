import pytest

from recsys.deployment import DeploymentConfig, GateConfig, job
from recsys.deployment.client import ServiceClient, ServiceError
from recsys.deployment.gate import plan_deployment
from recsys.deployment.history import read_history
from recsys.deployment.job import DeploymentFailedError, deploy
from recsys.errors import InputError, RequestError
from recsys.registry import Registry
from recsys.settings import Settings
from tests.deployment.conftest import TOKEN
from tests.serving.shops import add_model


def test_a_worse_model_needs_force(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    add_model(settings, "als_1", recall=0.12)
    add_model(settings, "als_2", recall=0.10, select=False)
    with service():
        with pytest.raises(InputError, match="only with force"):
            plan_deployment(settings, client, config, model_id="als_2")
        plan = plan_deployment(settings, client, config, model_id="als_2", force=True)
    assert plan.model_id == "als_2"


def test_a_model_that_takes_much_from_a_segment_needs_force(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    def segments(recall: float) -> dict[str, dict[str, float]]:
        figures = {"recall_at_10": recall, "recall_at_10_low": recall, "recall_at_10_high": recall}
        return {"one_known_item": {"users": 500, **figures}}

    add_model(settings, "als_1", segments=segments(0.2))
    add_model(settings, "als_2", recall=0.2, select=False, segments=segments(0.1))
    add_model(settings, "als_3", recall=0.3, data_version="v2", select=False)
    with service():
        with pytest.raises(InputError, match="20% against als_1 in one_known_item"):
            plan_deployment(settings, client, config, model_id="als_2")
        for model_id, force in (("als_2", True), ("als_3", False)):
            plan_deployment(settings, client, config, model_id=model_id, force=force)


def test_models_of_different_data_are_compared_by_their_gain_on_the_baseline(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    add_model(settings, "als_1", recall=0.12, baseline=0.06)
    add_model(settings, "als_2", recall=0.10, baseline=0.04, data_version="v2", select=False)
    add_model(settings, "als_3", recall=0.20, baseline=0.19, data_version="v3", select=False)
    with service():
        assert plan_deployment(settings, client, config, model_id="als_2").serving == "als_1"
        with pytest.raises(InputError, match="against its baseline"):
            plan_deployment(settings, client, config, model_id="als_3")


@pytest.mark.parametrize(
    ("metric", "serving", "candidate", "lacking"),
    [
        # Only the two headline metrics have a baseline, which other data is compared by.
        ("mrr_at_10", {"mrr_at_10": 0.3}, {"mrr_at_10": 0.01, "data_version": "v2"},
         "mrr_at_10 against its baseline of als_2"),
        ("ndcg_at_10", {"ndcg_at_10": 0.3}, {"ndcg_at_10": 0.01, "data_version": "v2"},
         "ndcg_at_10 against its baseline of als_2"),
        ("mrr_at_10", {"mrr_at_10": 0.3}, {}, "mrr_at_10 of als_2"),
        ("mrr_at_10", {}, {"mrr_at_10": 0.01}, "mrr_at_10 of als_1"),
        ("recall_at_10", {}, {"baseline": 0, "data_version": "v2"},
         "recall_at_10 against its baseline of als_2"),
        ("recall_at_10", {"baseline": 0}, {"data_version": "v2"},
         "recall_at_10 against its baseline of als_1"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_needs_force(
    settings: Settings,
    service,
    client: ServiceClient,
    config: DeploymentConfig,
    metric: str,
    serving: dict,
    candidate: dict,
    lacking: str,
):
    for model_id, given in (("als_1", serving), ("als_2", candidate)):
        metrics = {name: value for name, value in given.items() if "_at_" in name}
        options = {name: value for name, value in given.items() if "_at_" not in name}
        add_model(settings, model_id, select=model_id == "als_1", metrics=metrics, **options)
    config = config.model_copy(update={"gate": GateConfig(metric=metric)})
    with service():
        with pytest.raises(InputError, match=f"cannot be compared.*no {lacking}: choose another"):
            plan_deployment(settings, client, config, model_id="als_2")
        plan = plan_deployment(settings, client, config, model_id="als_2", force=True)
    assert plan.model_id == "als_2"


def test_a_metric_that_does_not_exist_is_refused(settings: Settings):
    folder = settings.home / "config"
    folder.mkdir(parents=True)
    (folder / "deployment.yaml").write_text("gate: {metric: recal_at_10}\n")
    with pytest.raises(InputError, match=r"deployment\.yaml: gate\.metric: .*recall_at_10"):
        job.check_gate(settings, {})


def test_archived_damaged_and_unknown_models_are_refused(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    for name in ("als_1", "als_2", "als_3"):
        add_model(settings, name, select=name == "als_1")
    Registry(settings).archive("als_2")
    (settings.artifacts / "als" / "als_3" / "popularity.npy").unlink()
    with service():
        with pytest.raises(InputError, match="archived"):
            plan_deployment(settings, client, config, model_id="als_2", force=True)
        with pytest.raises(InputError, match=r"popularity\.npy"):
            plan_deployment(settings, client, config, model_id="als_3")
        with pytest.raises(InputError, match="als_4"):
            plan_deployment(settings, client, config, model_id="als_4")


def test_rollback_goes_to_the_model_before_and_back_again(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    add_model(settings, "als_1")
    with service():
        for name in ("als_2", "als_3"):
            add_model(settings, name, recall=0.12, select=False)
            plan = plan_deployment(settings, client, config, model_id=name)
            deploy(settings, client, config, plan)
        plan = plan_deployment(settings, client, config, rollback=True)
        assert (plan.serving, plan.model_id) == ("als_3", "als_2")
        deploy(settings, client, config, plan)
        assert plan_deployment(settings, client, config, rollback=True).model_id == "als_3"


def test_rollback_without_a_history_says_so(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    add_model(settings, "als_1")
    with service(), pytest.raises(InputError, match="nothing to roll back to"):
        plan_deployment(settings, client, config, rollback=True)
    with pytest.raises(InputError, match="exclude each other"):
        plan_deployment(settings, client, config, rollback=True, model_id="als_1")


def test_no_selected_model_is_said(
    settings: Settings, service, client: ServiceClient, config: DeploymentConfig
):
    with service(), pytest.raises(InputError, match="run model_training"):
        plan_deployment(settings, client, config)


def test_no_service_is_said_after_the_patience(
    settings: Settings, client: ServiceClient, config: DeploymentConfig
):
    add_model(settings, "als_1")
    with pytest.raises(ServiceError, match="ConnectionError"):
        plan_deployment(settings, client, config)


@pytest.fixture
def environment(settings: Settings, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("RECSYS_ADMIN_TOKEN", TOKEN)
    folder = settings.home / "config"
    folder.mkdir(parents=True)
    (folder / "deployment.yaml").write_text("patience_seconds: 0.2\n")


@pytest.mark.usefixtures("environment")
def test_a_refused_deployment_is_on_record_with_an_alert(settings: Settings):
    add_model(settings, "als_1")
    with pytest.raises(DeploymentFailedError, match="ConnectionError"):
        job.check_gate(settings, {"model_id": "als_1"})
    [entry] = read_history(settings)
    assert entry["status"] == "failed"
    assert entry["verification"] == dict.fromkeys(entry["verification"], False)
    assert "als_1 failed" in (settings.logs / "service" / "alerts.log").read_text()


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    "options", [{"model_id": "asl_1"}, {"model_id": "als_1", "rollback": True}]
)
def test_a_slip_in_the_form_is_no_failed_deployment(settings: Settings, options: dict[str, object]):
    add_model(settings, "als_1")
    with pytest.raises(RequestError, match="model_id"):
        job.check_gate(settings, options)
    assert read_history(settings) == []
    assert not (settings.logs / "service" / "alerts.log").exists()


@pytest.mark.usefixtures("environment")
def test_a_dry_run_changes_nothing(settings: Settings, service, client: ServiceClient):
    add_model(settings, "als_1")
    with service():
        add_model(settings, "als_2", recall=0.2)
        plan = job.check_gate(settings, {"dry_run": True})
        summary = job.bring_into_service(settings, plan, {"dry_run": True})
        assert client.serving_model() == "als_1"
    reason = "it is the registry's current best"
    assert plan == {"model_id": "als_2", "serving": "als_1", "reason": reason}
    assert summary == {"dry_run": True, "status": "planned"}
    assert read_history(settings) == []


@pytest.mark.usefixtures("environment")
def test_the_job_deploys_from_the_environment(settings: Settings, service, client: ServiceClient):
    add_model(settings, "als_1")
    with service():
        add_model(settings, "als_2", recall=0.2)
        summary = job.bring_into_service(settings, job.check_gate(settings, {}), {})
        assert summary["status"] == "success"
        assert client.serving_model() == "als_2"
