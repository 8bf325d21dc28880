import json
import math
import multiprocessing
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from recsys.models.artifacts import save_artifact
from recsys.models.popularity import Popularity
from recsys.models.storage import ArtifactError
from recsys.registry import Registry, RegistryError
from recsys.settings import Settings
from recsys.storage import DamagedError, open_store
from tests.models.shop import ITEMS, USERS, taste_histories

ITEM_IDS = [f"p{item}" for item in range(ITEMS)]


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(settings)


def artifact(settings: Settings, model_id: str) -> Path:
    histories = taste_histories()
    model = Popularity().fit(histories, ITEMS)
    return save_artifact(
        settings.artifacts / "popularity" / model_id,
        model=model,
        item_ids=ITEM_IDS,
        user_ids=[f"{user:09}" for user in range(USERS)],
        histories=histories,
        popularity=model.score(histories, 0)[0],
        products=pd.DataFrame({"product_id": ITEM_IDS}),
        manifest={"model_id": model_id, "data_version": "v1"},
    )


def add(
    settings, model_id, recall=0.2, low=0.1, passes=True, data_version="v1", segments=None, **more
):
    artifact(settings, model_id)
    return Registry(settings).register(
        model_id,
        data_version=data_version,
        model_type="popularity",
        hyperparameters={},
        metrics={"recall_at_10": recall, "recall_at_10_low": low, **more},
        baseline_comparison={"passes": passes, "reason": "beats" if passes else "does not beat"},
        training_info={} if segments is None else {"segments": segments},
    )


def one_known(recall: float, users: int = 500) -> dict[str, dict[str, float]]:
    figures = {"recall_at_10": recall, "recall_at_10_low": recall - 0.02}
    return {"one_known_item": {"users": users, **figures, "recall_at_10_high": recall + 0.02}}


def select(settings, data_version="v1"):
    return Registry(settings).select_best(data_version, selected_by="test")


def test_an_empty_registry_has_no_best(registry):
    assert registry.current_best() is None
    assert registry.list() == []
    assert registry.problem() is None


def test_registering_does_not_select(settings, registry):
    add(settings, "a")
    assert registry.current_best() is None
    assert [entry.model_id for entry in registry.list()] == ["a"]


def test_the_highest_lower_bound_wins_not_the_highest_value(settings, registry):
    add(settings, "lucky", recall=0.30, low=0.10)
    add(settings, "steady", recall=0.25, low=0.20)
    selection = select(settings)
    assert (selection.model_id, selection.changed) == ("steady", True)
    best = registry.current_best()
    assert best is not None
    assert best.model_id == "steady"
    assert registry.folder(best).is_dir()


def shared(overlap: float) -> dict[str, float]:
    low, high = overlap - 0.1, overlap + 0.1
    return {
        "newcomer_overlap": overlap,
        "newcomer_overlap_low": low,
        "newcomer_overlap_high": high,
    }


def test_of_models_as_good_as_the_best_the_most_personal_is_selected(settings):
    add(settings, "accurate", recall=0.25, low=0.22, **shared(7.2))
    add(settings, "personal", recall=0.23, low=0.20, **shared(4.5))
    add(settings, "alike", recall=0.24, low=0.21, **shared(7.1))
    add(settings, "worse", recall=0.21, low=0.18, **shared(0.5))
    add(settings, "unmeasured", recall=0.24, low=0.21)
    selection = select(settings)
    assert selection.model_id == "personal"
    assert "most personal of those within the interval" in selection.reason
    assert "4.5 products in ten are those of newcomers, not 7.2" in selection.reason
    assert (
        "interval of accurate, which has the highest lower bound of recall_at_10: 0.22"
        in selection.reason
    )


def test_what_is_more_personal_by_chance_alone_does_not_displace_the_best(settings):
    add(settings, "accurate", recall=0.25, low=0.22, **shared(4.6))
    add(settings, "alike", recall=0.24, low=0.21, **shared(4.5))
    assert select(settings).model_id == "accurate"


def test_a_wide_interval_does_not_let_a_bad_model_win_by_being_personal(settings):
    add(settings, "accurate", recall=0.30, low=0.15, **shared(7.2))
    add(settings, "personal", recall=0.26, low=0.12, **shared(2.0))
    assert select(settings).model_id == "accurate"


def test_a_model_of_an_older_version_of_the_code_is_selected_as_before(settings):
    add(settings, "old", recall=0.25, low=0.22)
    add(settings, "personal", recall=0.24, low=0.21, **shared(2.0))
    assert select(settings).model_id == "old"


def test_a_model_that_takes_much_from_customers_of_one_item_does_not_replace_the_best(settings):
    add(settings, "serving", low=0.10, segments=one_known(0.2))
    select(settings)
    add(settings, "lucky", low=0.15, segments=one_known(0.1))
    add(settings, "fair", low=0.12, segments=one_known(0.19))
    selection = select(settings)
    assert selection.model_id == "fair"
    assert selection.refused == {
        "lucky": "it loses more than 20% against serving in one_known_item "
        "(recall@10 0.1000, not 0.2000)"
    }


def test_being_personal_costs_no_segment_more_than_the_stated_share(settings):
    add(settings, "accurate", recall=0.25, low=0.22, segments=one_known(0.2), **shared(7.2))
    add(settings, "personal", recall=0.24, low=0.21, segments=one_known(0.1), **shared(2.0))
    add(settings, "fair", recall=0.23, low=0.20, segments=one_known(0.18), **shared(4.0))
    assert select(settings).model_id == "fair"


@pytest.mark.parametrize("segments", [one_known(0.13), one_known(0.1, users=19), {}, None])
def test_a_loss_that_the_size_of_a_segment_does_not_prove_is_none(settings, segments):
    add(settings, "serving", low=0.10, segments=one_known(0.2))
    select(settings)
    add(settings, "better", low=0.15, segments=segments)
    assert select(settings).model_id == "better"


def test_a_best_of_another_version_is_stood_for_by_the_best_of_its_type(settings, registry):
    add(settings, "serving", low=0.10, segments=one_known(0.9))
    select(settings)
    add(settings, "tonight", low=0.15, data_version="v2", segments=one_known(0.3))
    add(settings, "weak", low=0.05, data_version="v2", segments=one_known(0.1))
    serving = registry.get("serving")
    assert registry.stand_in(serving, "v2").model_id == "tonight"
    assert registry.stand_in(serving, "v1").model_id == "serving"
    assert registry.stand_in(serving, "v3") is None
    selection = select(settings, "v2")
    assert (selection.model_id, list(selection.refused)) == ("tonight", ["weak"])


def test_the_file_has_the_documented_layout(settings):
    add(settings, "a")
    select(settings)
    content = json.loads(settings.registry.read_text())
    assert set(content) == {"current_best", "models", "metadata"}
    assert {"model_id", "model_type", "path", "selection_metric", "selection_value"} <= set(
        content["current_best"]
    )
    assert set(content["models"]["a"]) == {
        "model_type", "path", "created_at", "data_version", "git_commit", "hyperparameters",
        "metrics", "baseline_comparison", "training_info", "status",
    }  # fmt: skip


def test_a_model_below_the_baseline_is_registered_but_never_selected(settings, registry):
    add(settings, "bad", recall=0.9, low=0.8, passes=False)
    selection = select(settings)
    assert selection.model_id is None
    assert "does not beat" in selection.reason
    assert registry.current_best() is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_no_number_never_selects(settings, value):
    add(settings, "broken", recall=value, low=value)
    add(settings, "half", recall=0.5, low=value)
    assert select(settings).model_id is None


def test_models_of_other_data_are_not_compared(settings, registry):
    add(settings, "old", recall=0.9, low=0.9, data_version="v0")
    select(settings, "v0")
    add(settings, "new", recall=0.2, low=0.1, data_version="v1")
    assert select(settings, "v1").model_id == "new"


def test_without_a_passing_model_the_old_best_stays(settings, registry):
    add(settings, "old", data_version="v0")
    select(settings, "v0")
    add(settings, "new", passes=False, data_version="v1")
    selection = select(settings, "v1")
    assert (selection.model_id, selection.changed) == ("old", False)
    assert registry.current_best().model_id == "old"


def test_a_model_whose_artifact_was_changed_is_not_selected(settings):
    add(settings, "a", low=0.5)
    add(settings, "b", low=0.1)
    (settings.artifacts / "popularity" / "a" / "popularity.npy").write_bytes(b"x")
    selection = select(settings)
    assert selection.model_id == "b"
    assert "popularity.npy" in selection.refused["a"]


def test_a_model_whose_artifact_is_gone_is_not_selected(settings):
    add(settings, "a", low=0.5)
    add(settings, "b", low=0.1)
    shutil.rmtree(settings.artifacts / "popularity" / "a")
    selection = select(settings)
    assert selection.model_id == "b"
    assert "missing" in selection.refused["a"]


def test_a_model_that_is_damaged_in_the_store_is_not_selected(settings, monkeypatch):
    def fetch(_, key: str) -> Path:
        raise DamagedError(f"s3://shop/{key}: its content is not what was published")

    add(settings, "a")
    monkeypatch.setattr(type(open_store(settings)), "fetch", fetch)
    assert "not what was published" in select(settings).refused["a"]


def test_a_model_without_an_artifact_cannot_be_registered(settings, registry):
    with pytest.raises(ArtifactError, match="missing"):
        registry.register(
            "ghost",
            data_version="v1",
            model_type="als",
            hyperparameters={},
            metrics={},
            baseline_comparison={},
            training_info={},
        )
    assert registry.list() == []


def test_an_id_is_registered_once(settings, registry):
    add(settings, "a")
    with pytest.raises(RegistryError, match="already"):
        registry.register(
            "a", data_version="v1", model_type="popularity", hyperparameters={}, metrics={},
            baseline_comparison={}, training_info={},
        )  # fmt: skip


def test_an_archived_model_is_not_selected_and_keeps_its_artifact(settings, registry):
    entry = add(settings, "a")
    registry.archive("a")
    assert select(settings).model_id is None
    assert registry.folder(entry).is_dir()


def test_deleting_removes_entry_and_artifact(settings, registry):
    folder = registry.folder(add(settings, "a"))
    registry.delete("a")
    assert not folder.exists()
    with pytest.raises(RegistryError, match="no model"):
        registry.get("a")


def test_the_current_and_the_serving_model_are_not_deleted(settings, registry):
    add(settings, "a", low=0.5)
    add(settings, "b")
    select(settings)
    for remove in (registry.delete, registry.archive):
        with pytest.raises(RegistryError, match="current best"):
            remove("a")
    with pytest.raises(RegistryError, match="serves"):
        registry.delete("b", serving="b")
    assert len(registry.list()) == 2


def test_a_path_outside_the_artifacts_is_never_deleted(settings, registry, tmp_path):
    add(settings, "a")
    precious = tmp_path / "precious"
    precious.mkdir()
    content = json.loads(settings.registry.read_text())
    content["models"]["a"]["path"] = str(precious)
    settings.registry.write_text(json.dumps(content))
    with pytest.raises(RegistryError, match="no artefact of ours"):
        registry.delete("a")
    assert precious.is_dir()


NONSENSE = [
    "",
    "{",
    "[]",
    '{"models": 7}',
    '{"models": {"a": {}}}',
    '{"models": {"a": null}}',
    "\x00",
    '{"models": {}, "models": {}}',
    pytest.param("[" * 100_000, id="deep"),
]


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_registry_edited_into_nonsense_is_read_from_the_last_good_one(
    settings, registry, nonsense
):
    add(settings, "a")
    select(settings)
    settings.registry.write_text(nonsense)
    problem = registry.problem()
    assert problem.startswith(f"{settings.registry}: is not a sound registry: ")
    assert not re.search(r"\n|_Content|pydantic|Entry", problem)
    assert nonsense != "[]" or "the whole file: expected an object, not a list" in problem
    assert registry.current_best().model_id == "a"
    assert settings.registry.read_text() == nonsense


def test_a_folder_in_the_place_of_the_registry_is_nonsense_like_any_other(settings, registry):
    add(settings, "a")
    select(settings)
    settings.registry.unlink()
    settings.registry.mkdir()
    assert registry.problem() is not None
    assert registry.current_best().model_id == "a"
    add(settings, "b")
    assert {entry.model_id for entry in registry.list()} == {"a", "b"}
    assert registry.problem() is None


def test_the_next_writer_keeps_the_nonsense_aside(settings, registry):
    add(settings, "a")
    select(settings)
    settings.registry.write_text("{nonsense")
    add(settings, "b")
    kept = list(settings.artifacts.glob("registry.damaged_*.json"))
    assert [path.read_text() for path in kept] == ["{nonsense"]
    assert {entry.model_id for entry in registry.list()} == {"a", "b"}
    assert registry.current_best().model_id == "a"
    assert registry.problem() is None


def test_a_registry_that_is_gone_is_read_from_its_last_good_copy_and_repaired(settings, registry):
    add(settings, "a")
    select(settings)
    before = settings.registry.read_bytes()
    settings.registry.unlink()
    assert "is gone" in registry.problem()
    assert registry.current_best().model_id == "a"
    assert "is gone" in registry.repair()
    assert settings.registry.read_bytes() != b""
    assert json.loads(settings.registry.read_text())["models"] == json.loads(before)["models"]
    assert registry.problem() is None
    assert registry.repair() is None


def test_nonsense_without_a_good_copy_is_left_for_somebody_to_save(settings, registry):
    settings.registry.parent.mkdir(parents=True)
    settings.registry.write_text("{nonsense")
    assert registry.repair() is not None
    assert settings.registry.read_text() == "{nonsense"


def test_a_held_model_is_selected_again_when_it_is_released(settings, registry):
    add(settings, "a", low=0.2)
    add(settings, "b", low=0.1)
    registry.hold("a")
    registry.hold("a")
    selection = select(settings)
    assert selection.model_id == "b"
    assert "nobody has released it" in selection.refused["a"]
    registry.release("a")
    assert select(settings).model_id == "a"
    lines = (settings.logs / "registry_audit.log").read_text().splitlines()
    assert [line.split(" | ")[3] for line in lines][2:] == [
        "hold", "select_best", "release", "select_best",
    ]  # fmt: skip
    with pytest.raises(RegistryError, match="is not held"):
        registry.release("b")
    registry.archive("b")
    registry.hold("b")
    assert registry.get("b").status == "archived"


def test_every_operation_is_a_line_in_the_audit_log(settings, registry):
    add(settings, "a")
    select(settings)
    add(settings, "b")
    registry.archive("b")
    registry.delete("b")
    lines = (settings.logs / "registry_audit.log").read_text().splitlines()
    assert [line.split(" | ")[3] for line in lines] == [
        "register", "select_best", "register", "archive", "delete",
    ]  # fmt: skip


def _register_many(home: Path, prefix: str, count: int) -> None:
    for number in range(count):
        add(Settings(home), f"{prefix}{number}")


def test_writers_in_several_processes_lose_nothing(settings):
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_register_many, args=(settings.home, prefix, 5)) for prefix in "abcd"
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(Registry(settings).list()) == 20


def test_a_model_that_was_written_anew_is_the_same_model_elsewhere(settings, registry):
    entry = add(settings, "a")
    select(settings)
    place = registry.next_place(entry)
    assert place == settings.artifacts / "popularity" / "a.1"
    shutil.copytree(registry.folder(entry), place)
    registry.move("a", place)
    assert registry.folder(registry.get("a")) == place
    assert registry.current_best() == registry.get("a")
    assert registry.selection().path == "artifacts/cf/popularity/a.1"
    assert registry.next_place(registry.get("a")).name == "a.2"
    assert registry.source_of("a") is None
    with pytest.raises(ArtifactError, match=r"missing"):
        registry.move("a", place.with_name("a.7"))


def test_an_entry_leads_to_no_other_model(settings, registry):
    entry = add(settings, "a")
    for name in ("b", "a.x", "a.1.1", "ab"):
        with pytest.raises(RegistryError, match="no artefact of ours"):
            registry.place(entry.model_copy(update={"path": f"artifacts/cf/popularity/{name}"}))
