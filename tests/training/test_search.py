import math

import pytest

from recsys.errors import InputError
from recsys.training.search import Range, search

SPACE = {"a": Range(0.001, 100, log=True), "b": Range(0, 1), "c": Range(1, 64, whole=True)}
START = {"a": 50.0, "b": 0.1, "c": 3, "kept": 7.0}


def bowl(point):
    return -(math.log10(point["a"]) ** 2) - (point["b"] - 0.7) ** 2 - ((point["c"] - 40) / 30) ** 2


def run(objective=bowl, seconds=60.0, trials=150, seed=1):
    return search(objective, SPACE, [START], seconds=seconds, trials=trials, seed=seed)


def test_it_comes_close_to_the_best_point():
    found = run()
    assert found.score > -0.05
    assert found.parameters["kept"] == 7.0
    assert isinstance(found.parameters["c"], int)
    assert found.history == sorted(found.history)


def test_every_point_that_was_tried_is_noted_with_its_score():
    def fragile(point):
        if point["b"] > 0.5:
            raise InputError("NaN")
        return bowl(point)

    found = run(fragile)
    assert len(found.tried) == found.trials == 150
    assert found.tried[0].parameters == START
    for one in found.tried:
        broken = one.parameters["b"] > 0.5
        assert one.score == (None if broken else bowl(one.parameters))
    scores = [one.score for one in found.tried if one.score is not None]
    assert 1 < len(scores) < 150
    assert max(scores) == found.score


def test_the_same_seed_finds_the_same_point():
    assert run().parameters == run().parameters
    assert run(seed=2).parameters != run().parameters


def test_points_stay_in_their_ranges():
    seen = []
    run(lambda point: seen.append(point) or bowl(point))
    for name, bounds in SPACE.items():
        assert all(bounds.low <= point[name] <= bounds.high for point in seen)


def test_without_time_only_the_start_is_tried():
    found = run(seconds=0)
    assert (found.trials, found.parameters) == (1, START)


def test_a_point_that_breaks_training_or_is_nan_never_wins():
    def fragile(point):
        if point["b"] > 0.5:
            raise InputError("NaN")
        return math.nan if point["c"] > 30 else bowl(point)

    best = run(fragile).parameters
    assert best["b"] <= 0.5
    assert best["c"] <= 30


def test_when_every_point_breaks_the_reason_is_told():
    def broken(point):
        raise InputError("NaN in factors")

    with pytest.raises(InputError, match="NaN in factors"):
        run(broken, trials=3)
