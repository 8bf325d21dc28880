"""A plain random search around the best point so far, within a number of trials and seconds.

Steps are taken in the unit cube that the ranges are mapped to; they grow after a success and
shrink after a failure, and now and then a point is drawn from anywhere. The result depends on
the seed and the number of trials alone, as long as the time does not run out."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from recsys.errors import InputError

Point = dict[str, float]

_FIRST_STEP = 0.25
_SMALLEST_STEP, _LARGEST_STEP = 0.03, 0.5
_ANYWHERE = 0.1


@dataclass(frozen=True)
class Range:
    """Values from `low` to `high`; evenly by ratio if `log`, whole numbers if `whole`."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def to_unit(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def from_unit(self, place: float) -> float:
        place = min(max(place, 0.0), 1.0)
        if self.log:
            value = self.low * (self.high / self.low) ** place
        else:
            value = self.low + place * (self.high - self.low)
        return round(value) if self.whole else float(f"{value:.4g}")


class Trial(NamedTuple):
    """A point that was tried, and its score, None where the training broke down. `passes` has the
    score after each pass of a model that learns in passes."""

    parameters: Mapping[str, Any]
    score: float | None
    passes: Sequence[float] = ()


@dataclass
class Found:
    """What a search found."""

    parameters: dict[str, Any]  # the best point; of a tuned model, all that it is created with
    score: float
    trials: int = 0
    history: list[float] = field(default_factory=list)  # the best score after each trial
    tried: list[Trial] = field(default_factory=list)
    reused: bool = False  # an earlier training found it, and nothing was searched


def search(
    objective: Callable[[Point], float],
    space: Mapping[str, Range],
    starts: Sequence[Point],
    *,
    seconds: float,
    trials: int,
    seed: int,
) -> Found:
    """Maximise `objective` over `space`.

    All `starts` are tried first (as far as the time allows, but at least one); names in a start
    that are not in the space are kept as they are. A score that is not finite never wins.

    Raises the `InputError` of `objective` if no point at all can be scored."""
    generator = np.random.default_rng(seed)
    deadline = time.monotonic() + seconds
    result = Found(parameters=dict(starts[0]), score=-math.inf)
    step = _FIRST_STEP
    problem: InputError | None = None
    while result.trials < max(trials, 1):
        if result.trials and time.monotonic() >= deadline:
            break
        if result.trials < len(starts):
            point = dict(starts[result.trials])
        else:
            point = _neighbour(result.parameters, space, step, generator)
        try:
            score = objective(point)
        except InputError as error:
            # A point where training breaks down is a bad point, as long as others are not.
            score, problem = -math.inf, error
        improved = math.isfinite(score) and score > result.score
        if improved:
            result.parameters, result.score = point, score
        if result.trials >= len(starts):
            step = min(step * 1.5, _LARGEST_STEP) if improved else max(step * 0.9, _SMALLEST_STEP)
        result.trials += 1
        result.history.append(result.score)
        result.tried.append(Trial(dict(point), score if math.isfinite(score) else None))
    if problem is not None and not math.isfinite(result.score):
        raise problem
    return result


def _neighbour(
    best: Point, space: Mapping[str, Range], step: float, generator: np.random.Generator
) -> Point:
    point = dict(best)
    names = list(space)
    anywhere = generator.random() < _ANYWHERE
    moved = max(1, int(generator.integers(1, min(3, len(names)) + 1)))
    for index in generator.choice(len(names), size=moved, replace=False):
        name = names[int(index)]
        bounds = space[name]
        place = (
            generator.random()
            if anywhere
            else bounds.to_unit(best.get(name, bounds.low)) + step * generator.normal()
        )
        value = bounds.from_unit(float(place))
        if bounds.whole and value == best.get(name):
            value = best[name] + (1 if value < bounds.high else -1)
        point[name] = value
    return point
