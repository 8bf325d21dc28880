"""What the pages say of experiments, from the files of a simulated shop."""

import re
from datetime import UTC, datetime

import numpy as np
import pytest

from benchmarks.experiments.sequential import DAYS, simulate
from recsys.errors import InputError
from recsys.experiments.evaluation import evaluate
from recsys.experiments.state import Experiments
from recsys.orchestration.monitor.experiments import (
    gather_trial,
    gather_trials,
    intended,
    lifts,
    split,
)
from recsys.orchestration.monitor.language import Language
from recsys.orchestration.monitor.sections import section
from recsys.settings import EXPERIMENTS_KEY, Settings
from tests.experiments.test_evaluation import SHOP, START, after, write_days
from tests.experiments.test_state import definition
from tests.orchestration.monitor_pages import render
from tests.serving.shops import add_model

# Both sides get what is deployed: what is shown of models is elsewhere.
ASKED = definition(variants=[{"name": name, "share": 0.5} for name in ("today", "new")])


@pytest.fixture
def experiments(settings: Settings) -> Experiments:
    return Experiments(settings)


@pytest.fixture
def decided(experiments: Experiments, settings: Settings) -> Settings:
    """One whose other side is better by 30 %, after four weeks."""
    experiments.start(ASKED, by="lan", now=START)
    write_days(settings, simulate(np.random.default_rng(1), SHOP, DAYS, uplift=0.3))
    evaluate(settings, after(27.5))
    return settings


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def listed(settings: Settings, language: str) -> str:
    found = section(lambda: gather_trials(settings))
    return words(render(settings, "experiments.html", language, trials=found))


def test_a_verdict_is_a_sentence_with_the_difference_in_the_language_of_the_page(
    decided: Settings,
) -> None:
    vi, en = listed(decided, "vi"), listed(decided, "en")
    assert "Nhánh new tốt hơn. Chỉ số quyết định: Lượt bấm trên mỗi danh sách." in vi
    assert re.search(r"new so với today: \+\d+,\d% \(từ \+\d+,\d% đến \+\d+,\d%\)", vi)
    assert re.search(r"new against today: \+\d+\.\d% \(\+\d+\.\d% to \+\d+\.\d%\)", en)


def test_each_metric_has_a_picture_with_intervals_and_that_which_decides_is_first(
    decided: Settings,
) -> None:
    charts = lifts(gather_trial(decided, "blend"))
    assert charts[0].name == "lift_clicks_per_list"
    assert charts[0].zone == (-0.05, 0.05)
    assert {one.name for one in charts[1:]} == {
        *("lift_purchases_per_list", "lift_purchases_per_user"),
        *("lift_value_per_user", "lift_value_per_1000_lists"),
    }
    for chart in charts:
        [line] = chart.lines
        low, value, high = (ends[-1] for ends in (line.low, line.values, line.high))
        assert None not in (low, value, high)
        assert low < value < high
    [said] = charts[0].said(Language("en", UTC))
    assert re.fullmatch(r"new: \+[\d.]+% on .* 2026, between \+[\d.]+% and \+[\d.]+%\.", said)


def test_the_split_is_that_of_the_customers_day_by_day(decided: Settings) -> None:
    trial = gather_trial(decided, "blend")
    chart = split(trial)
    assert chart is not None
    last = [line.values[-1] for line in chart.lines]
    assert sum(one or 0 for one in last) == pytest.approx(1)
    assert last == pytest.approx(intended(trial), abs=0.02)


def test_an_experiment_without_figures_waits_for_them_and_has_no_pictures(
    experiments: Experiments, settings: Settings
) -> None:
    experiments.start(ASKED, by="lan", now=datetime.now(UTC))
    trial = gather_trial(settings, "blend")
    assert (trial.state, lifts(trial), split(trial)) == ("waiting", [], None)
    assert "No figures yet" in listed(settings, "en")


def test_who_ended_one_and_why_stands_there_and_what_runs_comes_first(
    decided: Settings, experiments: Experiments
) -> None:
    add_model(decided, "als_2")
    experiments.start_canary("als_2", 0.1, "lan")
    experiments.stop("blend", "lan", "the sale <begins>")
    assert [one.state for one in gather_trials(decided)] == ["guarded", "ended"]
    page = listed(decided, "en")
    assert "Ended by lan" in page
    assert "the sale &lt;begins&gt;" in page


def test_what_a_person_says_while_it_runs_is_the_verdict_of_the_job(
    experiments: Experiments, settings: Settings
) -> None:
    experiments.start(ASKED, by="lan", now=START)
    write_days(settings, simulate(np.random.default_rng(1), SHOP, DAYS))
    evaluate(settings, after(3.5))
    assert "Mới chạy 3,5 ngày" in listed(settings, "vi")
    assert "It has run for 3.5 days" in listed(settings, "en")


def test_a_damaged_list_is_a_sentence_and_an_unknown_name_is_none(
    experiments: Experiments, settings: Settings
) -> None:
    with pytest.raises(InputError, match="absent: there is no experiment"):
        gather_trial(settings, "absent")
    place = settings.home / EXPERIMENTS_KEY
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("{")
    assert "experiments.json" in listed(settings, "vi")
