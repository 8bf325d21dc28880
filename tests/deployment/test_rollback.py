"""A rollback lasts until a person or a newer training ends it, and stays with the shop's source."""

import pytest

from recsys.deployment import job
from recsys.deployment.client import ServiceClient
from recsys.deployment.history import read_history
from recsys.deployment.job import DeploymentFailedError
from recsys.health.model import check_model_health
from recsys.publishing import write_json
from recsys.registry import Registry, RegistryError
from recsys.settings import Settings
from tests.deployment.conftest import TOKEN
from tests.serving.shops import DATA_VERSION, add_model


@pytest.fixture(autouse=True)
def environment(settings: Settings, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("RECSYS_ADMIN_TOKEN", TOKEN)
    folder = settings.home / "config"
    folder.mkdir(parents=True)
    (folder / "deployment.yaml").write_text("patience_seconds: 0.2\n")
    (folder / "health.yaml").write_text("model: {deployment_grace_hours: 0}\n")


def run(settings: Settings, **options) -> dict:
    """The job model_deployment, as its DAG calls it."""
    return job.bring_into_service(settings, job.check_gate(settings, options), options)


def roll_back(settings: Settings) -> None:
    """als_1 serves, als_2 is deployed as the current best, and taken back by a person."""
    add_model(settings, "als_2", recall=0.2, seed=1)
    assert run(settings)["status"] == "success"
    assert run(settings, rollback=True)["model_id"] == "als_1"


def status(settings: Settings, model_id: str) -> str:
    return Registry(settings).get(model_id).status


def test_the_next_night_leaves_a_rollback_alone(settings, service, client: ServiceClient):
    add_model(settings, "als_1")
    with service():
        roll_back(settings)
        assert status(settings, "als_2") == "held"
        assert "als_2 is held" in read_history(settings)[-1]["reason"]
        summary = run(settings)
        assert (summary["status"], client.serving_model()) == ("unchanged", "als_1")
        assert "registry release als_2" in summary["reason"]
        # What a person decided is no finding of the health check.
        assert check_model_health(settings)["healthy"] is True


def test_a_person_releases_the_model_or_names_it(settings, service, client: ServiceClient):
    add_model(settings, "als_1")
    with service():
        roll_back(settings)
        Registry(settings).release("als_2")
        assert run(settings)["status"] == "success"
        assert client.serving_model() == "als_2"
        run(settings, rollback=True)
        assert run(settings, model_id="als_2")["status"] == "success"
        assert status(settings, "als_2") == "active"
        assert run(settings)["status"] == "unchanged"
    with pytest.raises(RegistryError, match="is not held"):
        Registry(settings).release("als_2")


@pytest.mark.parametrize("serving", ["als_1", "als_2"])
def test_the_next_night_leaves_alone_what_a_person_named(
    settings, service, client: ServiceClient, serving
):
    add_model(settings, "als_1")
    with service():
        add_model(settings, "als_2", recall=0.2, seed=1)
        if serving == "als_2":
            run(settings)
        summary = run(settings, model_id="als_1", force=True)
        assert "the current best als_2 is held until it is released" in summary["reason"]
        assert status(settings, "als_2") == "held"
        assert (run(settings)["status"], client.serving_model()) == ("unchanged", "als_1")
        add_model(settings, "als_3", recall=0.15, seed=2)
        assert (run(settings)["status"], client.serving_model()) == ("success", "als_3")


def test_a_rollback_passes_over_a_model_that_was_deleted(settings, service, client: ServiceClient):
    add_model(settings, "als_1")
    with service():
        add_model(settings, "als_2", recall=0.2, seed=1)
        run(settings)
        add_model(settings, "als_3", recall=0.3, seed=2)
        run(settings, model_id="als_1", force=True)
        run(settings, model_id="als_3")
        run(settings, model_id="als_2", force=True)
        Registry(settings).select_best(DATA_VERSION, selected_by="test")
        Registry(settings).archive("als_3")
        Registry(settings).delete("als_3")
        run(settings, rollback=True)
        assert client.serving_model() == "als_1"


def test_a_rollback_is_not_tried_on_some_users_first(settings, service, client: ServiceClient):
    add_model(settings, "als_1")
    with service():
        add_model(settings, "als_2", recall=0.2, seed=1)
        run(settings)
        text = "patience_seconds: 0.2\ncanary: {enabled: true, minutes: 60}\n"
        (settings.home / "config" / "deployment.yaml").write_text(text)
        assert run(settings, rollback=True)["model_id"] == client.serving_model() == "als_1"


def test_a_run_that_began_before_approval_was_required_changes_nothing(
    settings, service, client: ServiceClient
):
    add_model(settings, "als_1")
    with service():
        add_model(settings, "als_2", recall=0.2, seed=1)
        plan = job.check_gate(settings, {})
        text = "patience_seconds: 0.2\nrequire_approval: true\n"
        (settings.home / "config" / "deployment.yaml").write_text(text)
        with pytest.raises(DeploymentFailedError, match="nobody was asked; run it again"):
            job.bring_into_service(settings, plan, {}, approved=False)
        assert client.serving_model() == "als_1"
        assert job.bring_into_service(settings, plan, {})["status"] == "success"
        plan = job.check_gate(settings, {"rollback": True})
        assert job.bring_into_service(settings, plan, {}, approved=False)["model_id"] == "als_1"


def test_a_newer_training_ends_the_rollback(settings, service, client: ServiceClient):
    add_model(settings, "als_1")
    with service():
        roll_back(settings)
        # Not as good as the one that is held, which is out of the selection.
        add_model(settings, "als_3", recall=0.15, seed=2)
        assert Registry(settings).current_best().model_id == "als_3"
        assert run(settings)["status"] == "success"
        assert client.serving_model() == "als_3"
        assert status(settings, "als_2") == "held"


def test_a_model_that_did_not_pass_its_verification_is_not_tried_every_night(
    settings, service, client: ServiceClient
):
    add_model(settings, "als_1")
    with service():
        add_model(settings, "als_2", recall=0.2, sample_users=("gone-1", "gone-2"))
        with pytest.raises(DeploymentFailedError):
            run(settings)
        assert status(settings, "als_2") == "held"
        assert run(settings)["status"] == "unchanged"
        assert client.serving_model() == "als_1"


def test_a_rollback_never_takes_a_model_of_another_source(settings, service):
    for version_id, source in (("v0", "sample"), (DATA_VERSION, "hasaki")):
        manifest = {"as_of": "2025-01-15T00:00:00+00:00", "source": {"name": source}, "files": {}}
        write_json(settings.versions / version_id / "manifest.json", manifest)
    add_model(settings, "als_1", data_version="v0")
    with service():
        add_model(settings, "als_2", recall=0.2)
        run(settings)
        with pytest.raises(DeploymentFailedError, match="als_1 was trained on source sample"):
            run(settings, rollback=True)


def test_the_record_of_a_refused_rollback_names_the_models(settings, service):
    add_model(settings, "als_1")
    with service():
        add_model(settings, "als_2", recall=0.2)
        run(settings)
        Registry(settings).archive("als_1")
        with pytest.raises(DeploymentFailedError, match="als_1: is archived"):
            run(settings, rollback=True)
        refused = read_history(settings)[-1]
        assert (refused["model_id"], refused["previous_model_id"]) == ("als_1", "als_2")
        with pytest.raises(DeploymentFailedError):
            run(settings, model_id="als_1")
        refused = read_history(settings)[-1]
        assert (refused["model_id"], refused["previous_model_id"]) == ("als_1", "als_2")
    settings.deployment_history.unlink()
    with service():
        with pytest.raises(DeploymentFailedError, match="nothing to roll back to"):
            run(settings, rollback=True)
        serving = read_history(settings)[-1]["previous_model_id"]
        assert read_history(settings)[-1]["model_id"] == f"the model before {serving}"
