"""Choosing the parameters of a family on validation, within a time budget."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsys.arrays import Float32Array
from recsys.evaluation.metrics import metrics_per_user
from recsys.evaluation.ranking import (
    HeldOut,
    Ranks,
    rank_targets,
    take_questions,
)
from recsys.models.als import Als, Trainer
from recsys.models.base import Histories, Model
from recsys.models.bpr import Bpr
from recsys.models.families import create_model, family_of
from recsys.models.hybrid import COMPONENTS, CONTENT, DEFAULT_WEIGHTS, Hybrid
from recsys.models.item_knn import ItemKnn
from recsys.training.blend_trials import BlendTrials
from recsys.training.search import Point, Range, Search, search

_SAMPLE = 25_000
_OPERATIONS_A_SECOND = 15e9
_HYBRID_SHARE = {"item_knn": 0.3, "als": 0.4, "recent_popularity": 0.0}

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
}
"""Families without an entry have nothing to tune: the half-life of recent popularity is part of
the definition of the baseline."""

STARTS: dict[str, list[Point]] = {
    Als.model_type: [
        {"factors": 16, "regularization": 10.0, "alpha": 40.0, "fold_in_weight": 40.0},
        {
            "factors": 128,
            "regularization": 0.01,
            "alpha": 40.0,
            "fold_in_weight": 15.0,
            "fold_in_decay": 0.45,
        },
    ],
    Bpr.model_type: [{}],
    ItemKnn.model_type: [
        {"reverse": 0.1},
        {"reverse": 1.0, "user_norm": 0.5, "together": 1.0},
    ],
}
"""Where searches begin besides the last result: shops differ most in these."""

_SEARCHED_WITH: dict[str, dict[str, float]] = {Als.model_type: {"starts": 1}}
"""What a search sets to be quick. What it finds gets back what was asked for."""

_SCORE_TIME = {
    Als.model_type: ("fold_in_weight", "fold_in_decay"),
    Bpr.model_type: ("bias", "fold_in_weight", "fold_in_decay"),
    ItemKnn.model_type: ("history_decay",),
}
"""Parameters that training does not read: a fitted model is asked again with others."""


@dataclass(frozen=True)
class Problem:
    """What parameters are chosen for: a fit on `training` that answers `validation`."""

    training: Histories
    validation: HeldOut
    items: int
    seed: int
    content: Float32Array | None = None
    trainer: Trainer | None = None

    def fit(self, model_type: str, parameters: Mapping[str, Any]) -> Model:
        """A new model with `parameters`, fitted on `training`."""
        model = create_model(model_type, parameters, self.seed, self.trainer)
        return model.fit(self.training, self.items)


@dataclass(frozen=True)
class Tuned:
    """`parameters` for `Model.create`, and how they were found."""

    parameters: dict[str, Any]
    score: float
    trials: int
    seconds: float
    exhausted: bool
    history: list[float]


def tune(
    model_type: str,
    problem: Problem,
    start: Mapping[str, Any],
    *,
    seconds: float,
    trials: int,
    tuned_components: Mapping[str, Mapping[str, Any]] | None = None,
) -> Tuned:
    """Search from `start`, for at most `seconds` (a trial is never cut off) and `trials`.

    The objective is the mean of recall@10 and NDCG@10 on at most 25,000 validation users. Of a
    hybrid, the components in `tuned_components` are taken as they are.
    """
    begun = time.monotonic()
    if model_type == Hybrid.model_type:
        parameters, found = _tune_hybrid(problem, start, tuned_components or {}, seconds, trials)
    elif model_type in SPACES:
        parameters, found, _ = _tune_family(model_type, problem, start, seconds, trials)
    else:
        model = problem.fit(model_type, start)
        score = objective(model, _sample(problem))
        parameters, found = model.hyperparameters, Search({}, score, trials=1, history=[score])
    return Tuned(
        parameters=parameters,
        score=found.score,
        trials=found.trials,
        seconds=round(time.monotonic() - begun, 2),
        exhausted=found.exhausted,
        history=found.history,
    )


def objective(model: Any, questions: HeldOut) -> float:
    """Mean of recall@10 and NDCG@10."""
    return _mean_metric(rank_targets(model, questions))


def _mean_metric(ranks: Ranks) -> float:
    per_user = metrics_per_user(ranks)
    return float((per_user["recall_at_10"].mean() + per_user["ndcg_at_10"].mean()) / 2)


def _tune_family(
    model_type: str, problem: Problem, start: Mapping[str, Any], seconds: float, trials: int
) -> tuple[dict[str, Any], Search, Model]:
    """The parameters, the search and the model that was fitted with them."""
    family, questions = family_of(model_type), _sample(problem)
    fits = _LastFits(family, problem)

    def score(point: Point) -> float:
        return objective(fits.of(point), questions)

    base = family.create(start, problem.seed).hyperparameters
    space = dict(SPACES[model_type])
    quick = _SEARCHED_WITH.get(model_type, {})
    starts = [{**base, **other, **quick} for other in ({}, *STARTS[model_type])]
    if "factors" in space:
        fits_a_model = int(base.get("starts", 1))
        space["factors"] = _affordable_factors(space["factors"], problem, seconds / fits_a_model)
        most = int(space["factors"].high)
        starts = [{**point, "factors": min(point["factors"], most)} for point in starts]
    found = search(
        score,
        space,
        starts,
        seconds=seconds,
        trials=trials,
        seed=problem.seed,
    )
    model = fits.of({**found.best, **{name: base[name] for name in quick}})
    if quick:
        found.score = objective(model, questions)
    return model.hyperparameters, found, model


def _affordable_factors(bounds: Range, problem: Problem, seconds: float) -> Range:
    """`bounds` up to what can be fitted about six times in `seconds`, and to the products.

    Six is what the evaluation of the chosen parameters takes as well. An ALS fit is some
    ``100 * (users + items) * factors ** 2`` operations, of users with two purchases and more; the
    rate is one of two slow cores.
    """
    users = int((np.diff(problem.training.indptr) > 1).sum())
    affordable = (seconds / 6 * _OPERATIONS_A_SECOND / (100 * (users + problem.items))) ** 0.5
    most = min(bounds.high, max(affordable, 2 * bounds.low), max(problem.items, 2 * bounds.low))
    return replace(bounds, high=float(int(most)))


class _LastFits:
    """Fitted models by what training reads, the latest few."""

    _KEPT = 3

    def __init__(self, family: type[Model], problem: Problem) -> None:
        self._family, self._problem = family, problem
        self._fitted: dict[tuple[tuple[str, float], ...], Model] = {}

    def of(self, point: Point) -> Model:
        late = _SCORE_TIME[self._family.model_type]
        key = tuple(sorted((name, value) for name, value in point.items() if name not in late))
        model = self._fitted.pop(key, None)
        if model is None:
            model = self._problem.fit(self._family.model_type, point)
        self._fitted[key] = model
        while len(self._fitted) > self._KEPT:
            self._fitted.pop(next(iter(self._fitted)))
        return with_score_parameters(model, {name: point[name] for name in late})


def with_score_parameters(model: Any, changes: Mapping[str, float]) -> Any:
    """A copy of a fitted model that is asked with other score-time parameters."""
    changed = object.__new__(type(model))
    changed.__dict__.update(model.__dict__)
    changed._parameters = dataclasses.replace(model._parameters, **changes)
    return changed


def _tune_hybrid(
    problem: Problem,
    start: Mapping[str, Any],
    tuned: Mapping[str, Mapping[str, Any]],
    seconds: float,
    trials: int,
) -> tuple[dict[str, Any], Search]:
    begun = time.monotonic()
    fitted: dict[str, Model] = {}
    exhausted = False
    for name in COMPONENTS:
        own = dict(tuned.get(name) or start.get(name, {}))
        if name in SPACES and name not in tuned:
            share = seconds * _HYBRID_SHARE[name]
            _, found, fitted[name] = _tune_family(name, problem, own, share, trials)
            exhausted |= found.exhausted
        else:
            fitted[name] = problem.fit(name, own)
    left = max(seconds - (time.monotonic() - begun), 0.1 * seconds)
    found = _tune_weights(problem, fitted, start, left, trials)
    found.exhausted |= exhausted
    best = dict(found.best)
    few = best.pop("few_purchases")
    parameters = {
        "weights": best,
        "few_purchases": few,
        **{name: model.hyperparameters for name, model in fitted.items()},
    }
    return parameters, found


def _tune_weights(
    problem: Problem,
    fitted: Mapping[str, Model],
    start: Mapping[str, Any],
    seconds: float,
    trials: int,
) -> Search:
    components = [*COMPONENTS, *([CONTENT] if problem.content is not None else [])]
    everything = Hybrid.of_fitted(fitted, dict.fromkeys(components, 1.0))
    trial = BlendTrials(everything.use_content(problem.content), _sample(problem))

    def score(point: Point) -> float:
        weights = dict(point)
        few = weights.pop("few_purchases")
        blend = Hybrid.of_fitted(fitted, weights, few)
        return _mean_metric(trial.ranks(blend.count_purchases(problem.training, problem.items)))

    # Only the ratios count, so the first component keeps its weight.
    space = {"als": Range(0, 2), "recent_popularity": Range(0, 5)}
    if problem.content is not None:
        space |= {CONTENT: Range(0, 2), "few_purchases": Range(0.5, 200, log=True)}
    base = {
        **DEFAULT_WEIGHTS,
        **start.get("weights", {}),
        "few_purchases": start.get("few_purchases", 5.0),
    }
    starts = [base, {**base, "recent_popularity": 0.0}, {**base, "als": 1.0}]
    return search(score, space, starts, seconds=seconds, trials=trials, seed=problem.seed)


def _sample(problem: Problem) -> HeldOut:
    users = problem.validation.users
    if users <= _SAMPLE:
        return problem.validation
    generator = np.random.default_rng(problem.seed)
    return take_questions(
        problem.validation, np.sort(generator.choice(users, _SAMPLE, replace=False))
    )
