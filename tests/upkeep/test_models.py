"""A model that somebody could still want stays."""

import pytest

from recsys.errors import InputError
from recsys.experiments.definitions import Definition
from recsys.experiments.state import Experiments
from recsys.publishing import write_json
from recsys.registry import Registry
from recsys.upkeep import job
from tests.registry.test_registry import add, artifact, select
from tests.serving.service_process import running_service
from tests.serving.shops import add_model
from tests.upkeep.ageing import aged, write


@pytest.fixture
def shop(settings):
    """Ten old models, of which m0 is the current best."""
    for number in range(10):
        add(settings, f"m{number}", low=0.5 if number == 0 else 0.1)
    select(settings)
    _age(settings)
    return settings


def _age(settings):
    for folder in settings.artifacts.glob("*/*"):
        aged(folder, 60)


def _left(settings):
    return {entry.model_id for entry in Registry(settings).list()}


def test_the_newest_models_and_the_current_best_stay(shop):
    # Made within a second of each other, models count as newer by name.
    summary = job.clean_models(shop, dry_run=False)
    assert _left(shop) == {"m0", "m5", "m6", "m7", "m8", "m9"}
    assert summary["models"]["count"] == 4
    assert summary["models"]["freed_bytes"] > 1000
    folders = {path.name for path in (shop.artifacts / "popularity").iterdir()}
    assert folders == _left(shop)


def test_a_dry_run_counts_the_same_and_removes_nothing(shop):
    plan = job.clean_models(shop, dry_run=True)
    assert len(_left(shop)) == 10
    assert job.clean_models(shop, dry_run=False) == plan


def test_what_the_last_deployments_and_the_note_of_the_service_name_stays(shop):
    deployment = {"model_id": "m1", "previous_model_id": "m2", "status": "success"}
    write_json(shop.deployment_history, {"deployments": [deployment]})
    write_json(shop.artifacts / "served_model.json", {"model_id": "m3"})
    job.clean_models(shop, dry_run=False)
    assert _left(shop) == {"m0", "m1", "m2", "m3", "m5", "m6", "m7", "m8", "m9"}


def test_what_a_running_experiment_needs_stays(shop):
    sides = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "model_id": "m1"}]
    asked = {"question": "Is b better?", "variants": sides, "primary_metric": "clicks_per_list"}
    definition = Definition.model_validate({"name": "blend", **asked})
    Experiments(shop).start(definition, by="lan")
    job.clean_models(shop, dry_run=False)
    assert "m1" in _left(shop)
    Experiments(shop).stop("blend", by="lan", because="done")
    job.clean_models(shop, dry_run=False)
    assert "m1" not in _left(shop)


@pytest.mark.boots
def test_what_the_running_service_serves_stays(settings, free_port, monkeypatch):
    add_model(settings, "als_0")
    with running_service(settings, free_port):
        for number in range(1, 8):
            add_model(settings, f"als_{number}", recall=0.1 + number / 100)
        _age(settings)
        (settings.artifacts / "served_model.json").unlink(missing_ok=True)
        monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{free_port}")
        monkeypatch.setenv("RECSYS_ADMIN_TOKEN", "tok")
        job.clean_models(settings, dry_run=False)
    assert _left(settings) == {"als_0", "als_3", "als_4", "als_5", "als_6", "als_7"}


def test_young_models_stay(shop):
    aged(shop.artifacts / "popularity" / "m1", 3)
    job.clean_models(shop, dry_run=False)
    assert "m1" in _left(shop)


@pytest.mark.parametrize("damaged", ["artifacts/cf/registry.json", "logs/deployment_history.json"])
def test_nothing_goes_while_nobody_knows_what_is_in_use(shop, damaged):
    (shop.home / damaged).parent.mkdir(exist_ok=True)
    (shop.home / damaged).write_text("{torn")
    with pytest.raises(InputError, match=damaged):
        job.clean_models(shop, dry_run=False)
    assert len(list((shop.artifacts / "popularity").iterdir())) == 10


def test_an_artefact_that_was_never_registered_goes_after_two_days(shop):
    aged(artifact(shop, "lost"), 3)
    artifact(shop, "in_the_making")
    summary = job.clean_models(shop, dry_run=False)
    assert summary["unregistered artefacts"]["examples"] == ["lost"]
    assert (shop.artifacts / "popularity" / "in_the_making").is_dir()


def test_the_index_of_a_model_goes_with_it(shop):
    for model_id in ("m1", "m9"):
        write(shop.artifacts / "indexes" / f"{model_id}.faiss", days=60)
    plan = job.clean_models(shop, dry_run=True)
    assert plan["search indexes"]["examples"] == ["m1.faiss"]
    assert job.clean_models(shop, dry_run=False) == plan
    assert [path.stem for path in (shop.artifacts / "indexes").iterdir()] == ["m9"]


def test_without_a_registry_no_artefact_counts_as_unregistered(settings):
    aged(artifact(settings, "m1"), 60)
    assert job.clean_models(settings, dry_run=False) == {}


def test_models_behind_a_link_out_of_the_state_root_are_left_alone(shop, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shop.artifacts.rename(elsewhere)
    shop.artifacts.symlink_to(elsewhere)
    with pytest.raises(InputError, match="outside of the state root"):
        job.clean_models(shop, dry_run=False)
    assert len(list((elsewhere / "popularity").iterdir())) == 10
