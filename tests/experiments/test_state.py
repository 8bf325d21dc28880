import json
import threading
from datetime import UTC, datetime

import pytest

from recsys.experiments.definitions import Definition
from recsys.experiments.state import ExperimentError, Experiments, models_in_experiments
from recsys.registry import Registry, RegistryError
from recsys.settings import Settings
from tests.serving.shops import add_model


def definition(name: str = "blend", **changes) -> Definition:
    content = {
        "name": name,
        "question": "Is it better?",
        "variants": [
            {"name": "today", "share": 0.5},
            {"name": "new", "share": 0.5, "model_id": "als_2"},
        ],
        "primary_metric": "clicks_per_list",
    }
    return Definition.model_validate(content | changes)


@pytest.fixture
def experiments(settings: Settings) -> Experiments:
    add_model(settings, "als_1")
    add_model(settings, "als_2", select=False)
    return Experiments(settings)


def test_an_experiment_starts_and_ends_and_is_on_record(experiments, settings):
    started = experiments.start(definition(), by="lan")
    assert [one.name for one in experiments.running()] == ["blend"]
    assert Experiments(settings).get("blend") == started
    assert models_in_experiments(settings) == {"als_2"}
    assert experiments.stop("blend", by="minh", because="we know enough")
    assert not experiments.stop("blend", by="minh", because="again")
    ended = experiments.get("blend")
    assert (ended.running, ended.ended_by, ended.ended_because) == (False, "minh", "we know enough")
    assert models_in_experiments(settings) == set()
    audit = (settings.logs / "experiment_audit.log").read_text()
    assert "start | name=blend, by=lan" in audit
    assert 'stop | name=blend, by=minh, because="we know enough"' in audit


def test_a_reason_forges_no_line_and_no_field_of_the_audit_log(experiments, settings):
    experiments.start(definition(), by="lan, as=root")
    forged = 'so | start\n2026-01-01 00:00:00 | INFO | experiments | stop | name=x, by="minh"'
    experiments.stop("blend", by="minh", because=forged)
    start, stop = (settings.logs / "experiment_audit.log").read_text().splitlines()
    assert ', by="lan, as=root", variants=' in start
    quoted = stop.partition(", because=")[2]
    assert json.loads(quoted) == forged


def test_a_name_that_was_used_is_told_with_the_time_of_the_shop(experiments):
    moment = datetime(2026, 3, 1, 17, 5, tzinfo=UTC)
    experiments.start(definition(), by="lan", now=moment)
    with pytest.raises(ExperimentError, match=r"was started at 2026-03-02 00:05 \+07;"):
        experiments.start(definition(), by="lan")


def test_what_cannot_be_served_is_refused(experiments, settings):
    def refused(problem: str, **changes) -> None:
        with pytest.raises(ExperimentError, match=problem):
            experiments.start(definition(**changes), by="lan")
        assert experiments.all() == []

    def side(**model) -> list:
        return [{"name": "today", "share": 0.5}, {"name": "new", "share": 0.5, **model}]

    refused("new: 'als_9': no model of this id", variants=side(model_id="als_9"))
    refused("new: no active model of type bpr", variants=side(model_type="bpr"))
    refused("primary_metric: expected a metric", primary_metric=None)
    refused("holdout: this name is the service's own", name="holdout")
    Registry(settings).archive("als_2")
    refused("new: model als_2 is archived")
    add_model(settings, "als_3", select=False)
    next((settings.artifacts / "als" / "als_3" / "model").glob("*.npy")).write_bytes(b"x")
    refused("new: .*als_3", variants=side(model_id="als_3"))


def test_a_model_of_another_source_is_refused(experiments, settings):
    for version, source in (("v1", "hasaki"), ("v2", "sample")):
        folder = settings.versions / version
        folder.mkdir(parents=True)
        manifest = {"as_of": "2025-01-15T00:00:00+00:00", "source": {"name": source}, "files": {}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    add_model(settings, "als_4", data_version="v1")
    add_model(settings, "als_5", data_version="v2", select=False)
    sides = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "model_id": "als_5"}]
    with pytest.raises(ExperimentError, match="trained on source sample, the shop's is hasaki"):
        experiments.start(definition(variants=sides), by="lan")


def test_a_list_belongs_to_one_experiment(experiments):
    experiments.start(definition(placements=("home", "cart")), by="lan")
    for placements, where in ((("cart",), "placement cart"), ((), "all placements")):
        with pytest.raises(ExperimentError, match=f"experiment blend runs on {where}"):
            experiments.start(definition("second", placements=placements), by="lan")
    experiments.start(definition("second", placements=("mail",)), by="lan")
    experiments.stop("blend", by="lan", because="done")
    experiments.start(definition("third", placements=("home",)), by="lan")
    with pytest.raises(ExperimentError, match="an experiment of this name was started at"):
        experiments.start(definition("blend", placements=("elsewhere",)), by="lan")


def test_of_a_type_the_newest_sound_model_is_served(experiments, settings):
    sides = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "model_type": "als"}]
    experiments.start(definition(variants=sides), by="lan")
    newest = Registry(settings).list()[0].model_id
    assert models_in_experiments(settings) == {newest}


def test_a_damaged_file_leaves_the_last_good_one_in_force(experiments, settings):
    experiments.start(definition(), by="lan")
    place = settings.home / "artifacts" / "experiments.json"
    for damage in (b"{", b'{"experiments": [{"definition": 1}]}', b'{"other": 1}'):
        place.write_bytes(damage)
        again = Experiments(settings)
        assert [one.name for one in again.running()] == ["blend"]
        assert "experiments.json" in str(again.problem())
    again.stop("blend", by="lan", because="done")
    assert again.problem() is None
    assert list(place.parent.glob("experiments.damaged_*"))
    assert "experiments set aside" in (settings.logs / "experiment_audit.log").read_text()


def test_two_who_start_at_once_are_both_there(experiments, settings):
    def start(number: int) -> None:
        placed = definition(f"e{number}", placements=(f"p{number}",))
        Experiments(settings).start(placed, by="lan")

    threads = [threading.Thread(target=start, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.name for one in experiments.running()} == {f"e{number}" for number in range(6)}


def test_a_canary_is_replaced_grows_and_ends(experiments):
    experiments.start_canary("als_2", 0.1, by="model_deployment")
    [first] = experiments.running()
    experiments.start_canary("als_2", 0.1, by="model_deployment")
    assert experiments.running() == [first]
    experiments.start_canary("als_2", 0.4, by="model_deployment")
    [running] = experiments.running()
    assert first.salt == running.salt
    assert running.definition.control.share == 0.4
    experiments.start(definition(), by="lan")  # a canary is in nobody's way
    assert experiments.end_canary("lan")
    assert not experiments.end_canary("lan")
    with pytest.raises(RegistryError):
        experiments.start_canary("als_9", 0.1, by="x")


def test_what_the_sequence_is_planned_for_is_set_once(experiments):
    experiments.start(definition(), by="lan", now=datetime(2026, 1, 1, tzinfo=UTC))
    experiments.remember_information("blend", 2.5)
    experiments.remember_information("blend", 9.0)
    assert experiments.get("blend").information == 2.5
    with pytest.raises(ExperimentError, match="no experiment of this name"):
        experiments.get("other")
