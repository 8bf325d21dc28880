"""What exploring costs: drawn products against the others at the same positions."""

import numpy as np
import pytest

from recsys.outcomes.daily import read_explored
from recsys.outcomes.exploration import Counts, chance_of, cost_of_exploring, expected_clicks
from recsys.outcomes.report import build_report
from recsys.settings import Settings
from tests.outcomes.shop import a_list, an_event, record, send
from tests.outcomes.test_job import DAY
from tests.outcomes.test_report import english_page, run, text_of


def counts(shown: list[list[float]], clicks: list[list[float]]) -> Counts:
    return Counts(np.array(shown), np.array(clicks))


def test_positions_weigh_as_much_as_they_are_explored() -> None:
    # Explored at the second position only, where others have one click in ten.
    explored = counts([[0, 0], [20, 10]], [[0, 0], [1, 0]])
    others = counts([[100, 100], [50, 50]], [[50, 50], [5, 5]])
    cost = cost_of_exploring(explored, others)
    assert cost.explored.value == pytest.approx(1 / 30)
    assert cost.others.value == pytest.approx(0.1)
    assert cost.lost.value == pytest.approx(30 * 0.1 - 1)
    assert (cost.lost.low, cost.others.low) == (None, None)  # of two blocks of customers
    assert expected_clicks(np.array([[0.0, 30.0], [10.0, 0.0]]), others).tolist() == [3.0, 5.0]


def test_the_truth_lies_in_the_interval_of_what_was_lost() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(200):
        liking = rng.gamma(2, 0.5, 256)
        rates = np.array([[0.3], [0.2], [0.1]]) * liking / 3
        own, drawn = rng.poisson(200, (3, 256)), rng.poisson(20, (3, 256))
        explored = Counts(drawn, rng.binomial(drawn, (rates / 2).clip(max=1)))
        found = cost_of_exploring(explored, Counts(own, rng.binomial(own, rates.clip(max=1)))).lost
        assert found.low is not None
        assert found.high is not None
        # What the drawn have is half of what the others have, at whatever position.
        truth = 60 * 256 * 0.2 / 3 / 2
        inside += found.low <= truth <= found.high
    assert inside >= 180


def test_few_clicks_more_are_chance() -> None:
    chances = chance_of(np.array([0.0, 2.0, 9.0]), np.array([1.0, 1.0, 1.0]))
    assert chances == pytest.approx([1.0, 0.2642, 0.0], abs=1e-4)


@pytest.fixture
def explored(settings: Settings) -> Settings:
    """Lists of two products; at the second place every other time one that is drawn. Of these "new"
    is clicked always, "dull" never, and what they displaced in one list of four."""
    lists, events = [], []
    for number in range(160):
        drawn = ("new", "dull")[number // 2 % 2] if number % 2 else "b"
        lists.append(
            a_list(
                number, ["a", drawn], f"u{number}", sources="me" if number % 2 else "mm",
                propensities=[0.5, 0.25 if number % 2 else 0.5],
            )
        )  # fmt: skip
        if drawn == "new" or (drawn == "b" and number % 8 == 0):
            events.append(an_event(number, drawn, user=f"u{number}"))
    lists.append(a_list(999, ["a", "b"], "u1"))  # of a placement that does not explore
    record(settings, lists)
    send(settings, events)
    run(settings)
    return settings


def test_the_report_tells_what_exploring_cost_and_who_earned_a_place(explored: Settings) -> None:
    found = build_report(explored, DAY)["exploration"]
    assert (found["places"], found["clicks"], found["products"]) == (80, 40, 2)
    assert found["share"] == 80 / 320
    assert found["explored"]["value"] == 0.5
    assert found["others"]["value"] == 0.25
    assert found["lost"]["value"] == pytest.approx(80 * 0.25 - 40)
    assert found["lost"]["low"] < -20 < found["lost"]["high"]
    assert found["earned"] == 1
    assert found["best"] == [
        {"product": "new", "name": "", "shown": 40, "clicks": 40, "expected": 10.0}
    ]
    drawn = read_explored(explored, DAY)
    assert drawn.to_numpy().tolist() == [["dull", 1, 40, 0], ["new", 1, 40, 40]]


def test_the_page_tells_it(explored: Settings) -> None:
    report = build_report(explored, DAY)
    page = english_page(report)
    text = text_of(page)
    assert "80 places (25.0% of those of exploring lists) were given to 2 products" in text
    assert "Exploring brought about 20 clicks more" in text
    report["exploration"]["lost"] = {"value": 12.3, "low": 3.1, "high": 21.4}
    assert "Exploring cost about 12 clicks (3 – 21), of 60 of all lists" in text_of(
        english_page(report)
    )
    report["exploration"]["lost"] = {"value": 12.3, "low": None, "high": None}
    report["exploration"]["best"] = []
    text = text_of(english_page(report))
    assert "cannot be told yet" in text
    assert "None of these products" in text


def test_a_shop_that_does_not_explore_has_nothing_of_it(settings: Settings) -> None:
    record(settings, [a_list(1, ["a", "b"])])
    run(settings)
    report = build_report(settings, DAY)
    assert report["exploration"] is None
    assert "xplor" not in text_of(english_page(report))
    assert len(read_explored(settings, DAY)) == 0
    assert not [*settings.outcomes.rglob("explored.parquet")]
