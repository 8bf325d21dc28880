"""Choosing the parameters of a model type by itself."""

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from recsys.models.als import Als
from recsys.models.base import Model
from recsys.models.bpr import Bpr
from recsys.models.item_knn import ItemKnn
from recsys.models.linear import Linear
from recsys.models.model_types import model_class
from recsys.models.self_attention import SelfAttention
from recsys.training.fits import Measured
from recsys.training.search import Found, Point, Range, Trial, search
from recsys.training.subject import (
    Subject,
    objective,
    sample_of,
)

_FITS_KEPT = 3
# What a second of the budget is taken for when factors are bounded. It is not measured, so that a
# seed gives the same figures on every machine.
_WORK_A_SECOND = 15e9
_MOST_PASSES, _PATIENCE, _JUDGED = 100, 5, 5_000
_DIMENSIONS = ((128, 30_000), (64, 2_000), (32, 0))  # by the entries that follow another one

SPACES: dict[str, dict[str, Range]] = {
    Als.model_type: {
        "factors": Range(8, 128, log=True, whole=True),
        "regularization": Range(0.003, 30, log=True),
        "alpha": Range(1, 100, log=True),
        "fold_in_weight": Range(1, 100, log=True),
        "fold_in_decay": Range(0.2, 1),
    },
    Bpr.model_type: {
        "factors": Range(8, 128, log=True, whole=True),
        "iterations": Range(20, 150, log=True, whole=True),
        "learning_rate": Range(0.005, 0.2, log=True),
        "regularization": Range(0.001, 0.1, log=True),
        "bias": Range(0, 2),
        "fold_in_weight": Range(1, 100, log=True),
        "fold_in_decay": Range(0.2, 1),
        "fold_in_regularization": Range(0.01, 100, log=True),
    },
    ItemKnn.model_type: {
        "window": Range(1, 50, log=True, whole=True),
        "gap_decay": Range(0.3, 1),
        "together": Range(0, 3),
        "reverse": Range(0, 1.5),
        "user_norm": Range(0, 1),
        "from_norm": Range(0, 1),
        "to_norm": Range(0, 1),
        "shrinkage": Range(0.1, 100, log=True),
        "history_decay": Range(0.2, 1),
    },
    Linear.model_type: {
        "window": Range(1, 50, log=True, whole=True),
        "gap_decay": Range(0.3, 1),
        "together": Range(0, 3),
        "reverse": Range(0, 1.5),
        "age_decay": Range(0.995, 1),
        "user_norm": Range(0, 1),
        "regularization": Range(1, 10_000, log=True),
        "history_decay": Range(0.2, 1),
    },
}
"""Model types without an entry have nothing to tune: the half-life of recent popularity is part of
the definition of the baseline."""

STARTS: dict[str, list[Point]] = {
    Als.model_type: [
        {"factors": 16, "regularization": 10.0, "alpha": 40.0, "fold_in_weight": 40.0},
        {"factors": 128, "regularization": 0.01, "alpha": 40.0}
        | {"fold_in_weight": 15.0, "fold_in_decay": 0.45},
    ],
    Bpr.model_type: [{}],
    ItemKnn.model_type: [{"reverse": 0.1}, {"reverse": 1.0, "user_norm": 0.5, "together": 1.0}],
    Linear.model_type: [{"regularization": 1000.0, "age_decay": 0.999}, {"regularization": 30.0}],
}
"""Where searches begin besides the last result: shops differ most in these."""

LONG_MEMORY: dict[str, Point] = {
    one.model_type: {"history_decay": 0.9} for one in (ItemKnn, Linear)
}
"""And where there are signals: each pushes what was before it away, and the usual value is what was
good for ratings, which are fewer and say more (decision 137)."""

_SEARCHED_WITH: dict[str, dict[str, float]] = {Als.model_type: {"starts": 1}}
"""What a search sets to be quick. What it finds gets back what was asked for."""


def tune_alone(
    model_type: str, subject: Subject, start: Mapping[str, Any], seconds: float, trials: int
) -> tuple[Found, Model]:
    """What the search found, and the model that was fitted with it."""
    questions = sample_of(subject)
    fit = _last_fits(model_type, subject)

    def score(point: Point) -> float:
        return objective(fit(point), questions)

    base = model_class(model_type).create(start).hyperparameters
    space = dict(SPACES[model_type])
    quick = _SEARCHED_WITH.get(model_type, {})
    memory = LONG_MEMORY.get(model_type, {}) if subject.weights else {}
    others = [{}, *([memory] if memory else []), *STARTS[model_type]]
    starts = [{**base, **other, **quick} for other in others]
    if "factors" in space:
        fits_a_model = int(base.get("starts", 1))
        space["factors"] = _affordable_factors(space["factors"], subject, seconds / fits_a_model)
        most = int(space["factors"].high)
        starts = [{**point, "factors": min(point["factors"], most)} for point in starts]
    found = search(score, space, starts, seconds=seconds, trials=trials, seed=subject.seed)
    model = fit({**found.parameters, **{name: base[name] for name in quick}})
    if quick:
        found.score = objective(model, questions)
    return replace(found, parameters=model.hyperparameters), model


def tune_passes(subject: Subject, start: Mapping[str, Any], seconds: float, trials: int) -> Found:
    """Of each point as many passes as are best on validation, and the best of the points. The first
    has all the time that it needs; another one is tried when there is as much left."""
    deadline = time.monotonic() + seconds
    entries = int((np.diff(subject.training.indptr) - 1).clip(min=0).sum())
    sized = {"dimensions": next(most for most, from_ in _DIMENSIONS if entries >= from_)}
    base = SelfAttention.create({**sized, **start}).hyperparameters
    others: tuple[Point, ...] = ({}, {"dropout": 0.5}, {"dimensions": 2 * sized["dimensions"]})
    found: list[tuple[Found, SelfAttention, Measured]] = []
    longest = 0.0
    for other in others[: max(trials, 1)]:
        begun = time.monotonic()
        if found and begun + longest > deadline:
            break
        found.append(_best_pass(subject, {**base, **other}, deadline))
        longest = max(longest, time.monotonic() - begun)
    best, model, measured = max(found, key=lambda each: each[0].score)
    subject.keep(model, measured)
    history = np.maximum.accumulate(np.concatenate([each.history for each, *_ in found]))
    score = objective(model, sample_of(subject))
    tried = [trial for each, *_ in found for trial in each.tried]
    return replace(best, score=score, trials=len(found), history=history.tolist(), tried=tried)


def _best_pass(
    subject: Subject, point: Point, deadline: float
) -> tuple[Found, SelfAttention, Measured]:
    """`point` with the number of passes after which validation was answered best, the model as a
    fit of so many passes makes it, and what these measured; `history` has an entry a pass."""
    model = SelfAttention.create({**point, "epochs": _MOST_PASSES}, subject.seed)
    questions = sample_of(subject, _JUDGED)
    found, best = Found(dict(point), -math.inf), model
    measured: list[tuple[int, dict[str, float]]] = []
    scores: list[float] = []
    for number, told in enumerate(model.passes(subject.training, subject.items), start=1):
        measured.append((number, told))
        score = objective(model, questions)
        scores.append(score)
        if score > found.score:
            # What a fit of so many passes would be: only the number is another.
            found.score, best = score, model.asked_with({"epochs": number})
            found.parameters["epochs"] = number
        found.history.append(found.score)
        if time.monotonic() >= deadline or number - found.parameters["epochs"] >= _PATIENCE:
            break
    found.tried = [Trial(dict(found.parameters), found.score, scores)]
    return found, best, measured[: found.parameters["epochs"]]


def _affordable_factors(bounds: Range, subject: Subject, seconds: float) -> Range:
    """`bounds` up to what can be fitted about six times in `seconds`, and to the products.

    Six is what the evaluation of the chosen parameters takes as well. An ALS fit is some
    ``100 * (users + items) * factors ** 2`` operations, of users with two purchases and more."""
    users = int((np.diff(subject.training.indptr) > 1).sum())
    affordable = (seconds / 6 * _WORK_A_SECOND / (100 * (users + subject.items))) ** 0.5
    most = min(bounds.high, max(affordable, 2 * bounds.low), max(subject.items, 2 * bounds.low))
    return replace(bounds, high=float(int(most)))


def _last_fits(model_type: str, subject: Subject) -> Callable[[Point], Any]:
    """Fits `model_type` with a point; the latest few are kept by what training reads of it."""
    late = model_class(model_type).score_parameters  # type: ignore[attr-defined]

    @functools.lru_cache(_FITS_KEPT)
    def fitted(read: tuple[tuple[str, float], ...]) -> Any:
        return subject.fit(model_type, dict(read))

    def fit(point: Point) -> Any:
        read = tuple(sorted(item for item in point.items() if item[0] not in late))
        return fitted(read).asked_with({name: point[name] for name in late})

    return fit
