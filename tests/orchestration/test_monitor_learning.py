"""How a model was learnt, from what a training leaves beside it."""

import re
from datetime import UTC

import pytest

from recsys.orchestration.monitor.charts import Chart
from recsys.orchestration.monitor.language import Language
from recsys.orchestration.monitor.learning import Learning, gather_learning
from recsys.publishing import write_json
from recsys.registry import Registry
from recsys.settings import Settings
from recsys.training.job import train_model
from tests.models.shop import publish_shop, taste_interactions
from tests.orchestration.monitor_pages import render
from tests.orchestration.test_monitor_models import details
from tests.serving.shops import add_model

TRIALS = 4


def learnt(settings: Settings, model_id: str, sort: str = "score", down: bool = True) -> Learning:
    registry = Registry(settings)
    return gather_learning(registry, registry.get(model_id), sort, down)


def named(learning: Learning) -> dict[str, Chart]:
    return {chart.name: chart for chart in learning.curves}


def record(settings: Settings, curves: dict) -> str:
    """A model with these curves."""
    add_model(settings, "als_1")
    folder = Registry(settings).place(Registry(settings).get("als_1"))
    write_json(folder / "evaluation.json", {"curves": curves})
    return "als_1"


def trial(score: float | None, **parameters: object) -> dict:
    return {"score": score, "parameters": parameters, "passes": []}


def test_a_training_shows_its_starts_and_every_trial_also_when_its_search_is_used_again(
    settings: Settings,
) -> None:
    version = publish_shop(settings, taste_interactions())
    settings.home.joinpath("config").mkdir(exist_ok=True)
    (settings.home / "config" / "training.yaml").write_text(
        f"tuning: {{trials: {TRIALS}, seconds: 60}}\n"
        "parameters: {als: {factors: 8, iterations: 5, starts: 3}}\n"
    )
    first, again = (train_model(settings, "als", version)["model_id"] for _ in range(2))
    for model_id in (first, again):
        found = learnt(settings, model_id)
        assert [row.number for row in found.trials if row.best] == [found.trials[0].number]
        assert sorted(row.number for row in found.trials) == list(range(1, TRIALS + 1))
        iterations = named(found)["loss_of_starts"]
        assert [line.name for line in iterations.lines] == ["1", "2", "3"]
        for line in iterations.lines:
            assert line.values[-1] < line.values[0]
        best = named(found)["search"].lines[0]
        assert best.values[-1] == found.trials[0].score
    assert Registry(settings).get(again).training_info["tuning"]["reused"]
    page = render(
        settings,
        "model.html",
        "en",
        found=details(settings, again),
        sort="score",
        down=True,
        most=2,
    )
    assert f"{TRIALS} trials of parameters" in page
    assert "This training took what was found before" in page


def test_trials_sort_by_any_column_and_those_that_broke_down_come_last(settings: Settings) -> None:
    tried = [trial(0.1, a=3, b="x"), trial(None, a=2, b="y"), trial(0.3, a=1), trial(0.2, a=3, c=1)]
    model_id = record(settings, {"iterations": {}, "search": [], "trials": tried})

    def order(sort: str, down: bool) -> list[int]:
        return [row.number for row in learnt(settings, model_id, sort, down).trials]

    assert order("score", True) == [3, 4, 1, 2]
    assert order("score", False) == [1, 4, 3, 2]
    assert order("a", False) == [3, 2, 1, 4]
    assert order("b", True) == [2, 1, 3, 4]
    assert order("number", False) == [1, 2, 3, 4]
    assert order("no such column", True) == [1, 2, 3, 4]
    assert learnt(settings, model_id).columns == ["a", "b", "c"]
    assert [row.number for row in learnt(settings, model_id).trials if row.best] == [3]
    registry = Registry(settings)
    made = registry.get(model_id).model_copy(update={"training_info": {"tuning": {"score": 0.2}}})
    found = gather_learning(registry, made, "number", down=False)
    assert [row.number for row in found.trials if row.best] == [4]  # not the highest score
    lines = named(learnt(settings, model_id))["search"].lines
    assert {line.name: list(line.values) for line in lines} == {
        "best_so_far": [0.1, 0.1, 0.3, 0.3],
        "each_trial": [0.1, None, 0.3, 0.2],
    }


def test_a_model_that_learns_in_passes_has_a_curve_of_each_trial(settings: Settings) -> None:
    tried = [
        trial(0.3, dropout=0.2) | {"passes": [0.1, 0.3, 0.2]},
        trial(0.2, dropout=0.5) | {"passes": [0.1, 0.2]},
    ]
    model_id = record(settings, {"iterations": {"loss": [2, 1]}, "search": [], "trials": tried})
    passes = named(learnt(settings, model_id))["passes"]
    assert [list(line.values) for line in passes.lines] == [[0.1, 0.3, 0.2], [0.1, 0.2, None]]
    assert list(passes.days) == ["1", "2", "3"]


def test_what_the_members_of_a_blend_measured_is_told_apart(settings: Settings) -> None:
    measured = {
        "item_knn.transitions": [9.0],
        "als.loss": [4, 3, 5, 2],
        "self_attention.loss": [2, 1],
    }
    record(settings, {"iterations": measured, "search": [], "trials": []})
    entry = Registry(settings).get("als_1")
    blend = entry.model_copy(
        update={"model_type": "hybrid", "hyperparameters": {"als": {"starts": 2}, "weights": {}}}
    )
    als, attention = gather_learning(Registry(settings), blend, "score", True).curves
    assert [list(line.values) for line in als.lines] == [[4, 3], [5, 2]]
    assert als.title(Language("en", UTC)) == "ALS: Loss while learning, of each start"
    assert [list(line.values) for line in attention.lines] == [[2, 1]]


def test_nothing_is_drawn_of_one_value_and_parameters_that_are_alike_are_no_columns(
    settings: Settings,
) -> None:
    tried = [trial(0.1, factors=8)]
    curves = {"iterations": {"transitions": [28_890.0]}, "search": [0.1], "trials": tried}
    found = learnt(settings, record(settings, curves))
    assert (found.curves, found.columns, len(found.trials)) == ([], [], 1)


@pytest.mark.parametrize("content", ["{", "[]", '{"curves": {}}', '{"curves": {"trials": [1]}}'])
def test_what_earlier_code_wrote_or_nobody_can_read_is_nothing(
    settings: Settings, content: str
) -> None:
    model_id = record(settings, {})
    folder = Registry(settings).place(Registry(settings).get(model_id))
    (folder / "evaluation.json").write_text(content)
    assert learnt(settings, model_id) == Learning([], [], [])


def test_a_search_of_before_trials_were_noted_has_the_best_so_far(settings: Settings) -> None:
    model_id = record(settings, {"iterations": {"loss": [3, 2, 1]}, "search": [0.1, 0.2]})
    found = named(learnt(settings, model_id))
    assert list(found) == ["loss", "search"]
    assert list(found["search"].lines[0].values) == [0.1, 0.2]


def test_a_name_of_a_parameter_is_no_markup(settings: Settings) -> None:
    tried = [trial(0.1, **{"<b>": 1}), trial(0.2, **{"<b>": 2})]
    record(settings, {"iterations": {}, "search": [], "trials": tried})
    found = details(settings, "als_1")
    page = render(settings, "model.html", "vi", found=found, sort="<b>", down=False, most=1)
    assert "<code>&lt;b&gt;</code> ↑" in page
    assert re.search(r"sort=%3Cb%3E&amp;order=down#trials", page)
