"""Choosing the parameters of a model type on validation, within a time budget.

What the last search found is kept in ``artifacts/cf/tuning/<type>.json``."""

import copy
import functools
import itertools
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recsys import schema
from recsys.arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    first_in_row,
)
from recsys.content.embeddings import current_embeddings
from recsys.data.versions import PublishedVersion
from recsys.errors import InputError
from recsys.evaluation import MIN_USERS, MOST_LOST, ranking
from recsys.evaluation.leave_one_out import LeaveOneOut
from recsys.evaluation.metrics import metrics_per_user
from recsys.evaluation.personal import as_good, overlap_with_popular
from recsys.evaluation.ranking import BLOCK, HeldOut, Ranks
from recsys.evaluation.report import segments_of
from recsys.models.als import Als, Trainer
from recsys.models.base import Histories, Model, Progress
from recsys.models.bpr import Bpr
from recsys.models.histories import user_range, user_rows
from recsys.models.hybrid import COMPONENTS, CONTENT, Hybrid, HybridParameters
from recsys.models.item_knn import ItemKnn
from recsys.models.kinds import had, not_offered
from recsys.models.linear import Linear
from recsys.models.model_types import create_model, model_class
from recsys.models.newcomers import Rare, Traits, find_rare
from recsys.models.popularity import RecentPopularity
from recsys.models.self_attention import SelfAttention
from recsys.models.siblings import lower_siblings
from recsys.publishing import write_json
from recsys.settings import Settings
from recsys.text import fold
from recsys.training.config import TrainingConfig
from recsys.training.fits import KeptFits
from recsys.training.search import Found, Point, Range, search

logger = logging.getLogger(__name__)

_BEST = 100
_FITS_KEPT = 3
_SAMPLE = 25_000
# What a second of the budget is taken for when factors are bounded. It is not measured, so that a
# seed gives the same figures on every machine.
_WORK_A_SECOND = 15e9
_LIFTS = tuple(number / 20 for number in range(11))
_LIFT_COST = 0.01
_SIBLINGS = (1.0, 0.5, 0.25)
_LIFT_CELLS = 40_000_000  # scores that are looked at with each lift: some seconds in all
# A family whose fit takes minutes is searched for so many times as long as the others.
_SLOW = 10
_MOST_PASSES, _PATIENCE, _JUDGED = 100, 5, 5_000
_DIMENSIONS = ((128, 30_000), (64, 2_000), (32, 0))  # by the entries that follow another one
_HYBRID_SHARE = {"item_knn": 0.3, "als": 0.4, "recent_popularity": 0.0}
_TEMPERATURE = 1.0  # at which scores are kept for all temperatures
_OTHERS = ("few_purchases", "temperature")  # what a blend has beside weights
_NORMAL_95 = 1.96
_FELT = 1.0  # where less than one of ten products is a popular one, nobody's list is everybody's
_LOOKED_AT = 100  # so many of the best blends are looked at for how personal they are

JOINING: dict[str, tuple[dict[str, Range], list[Point]]] = {
    Linear.model_type: (
        {Linear.model_type: Range(0, 4)},
        [{Linear.model_type: weight} for weight in (0.5, 1.0, 2.0)],
    ),
    SelfAttention.model_type: (
        {SelfAttention.model_type: Range(0, 6), "temperature": Range(0.5, 10, log=True)},
        [{SelfAttention.model_type: weight, "temperature": 3.0} for weight in (1.0, 2.0, 4.0)],
    ),
}
"""What joins a blend where its own training found parameters, and where the blend is clearly better
with it: each adds a fit that takes long to all that are made of the blend. What is searched for
then, and where that begins."""

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


class ContentVectors(NamedTuple):
    """``(items, dimensions)`` vectors, zeros for a product without, and the set they are of."""

    set_id: str
    vectors: Float32Array


_Change = Callable[[Float32Array, Histories], Float32Array]
"""What is done to the scores of a blend, to see whether it ranks better then."""


@dataclass(frozen=True)
class Subject:
    """A shop as trainings see it."""

    training: Histories  # parameters are chosen by fits on these
    validation: HeldOut  # that answer these
    items: int  # number of products
    seed: int
    content: ContentVectors | None = None  # for the model type that uses them
    trainer: Trainer | None = None  # what trains ALS; None is `implicit`
    weights: Mapping[str, float] | None = None  # of signals, where there are some
    traits: Traits | None = None  # for the model type that lifts products with few purchases
    fits: KeptFits | None = None  # keeps the fits of slow model types

    def fit(
        self,
        model_type: str,
        parameters: Mapping[str, Any],
        histories: Histories | None = None,
        progress: Progress | None = None,
    ) -> Model:
        """A new model with `parameters`, fitted on `histories`, or else on `training`."""
        model = create_model(model_type, parameters, self.seed, self.trainer)
        if isinstance(model, Hybrid):
            model.use_content(self.content and self.content.vectors).use_traits(self.traits)
            model.fitted_by(self._fit)
        return self._fit(model, histories or self.training, self.items, progress)

    def _fit(
        self, model: Model, histories: Histories, items: int, progress: Progress | None
    ) -> Model:
        if self.fits is None:
            return model.fit(histories, items, progress)
        return self.fits.fit(model, self.seed, histories, items, progress)


def content_vectors(settings: Settings, item_ids: Sequence[str]) -> ContentVectors | None:
    """The current embeddings of `item_ids`, in their order. None when there are no embeddings yet,
    or when they are of other products altogether."""
    embeddings = current_embeddings(settings)
    if embeddings is None or set(item_ids).isdisjoint(embeddings.product_ids):
        return None
    return ContentVectors(embeddings.set_id, embeddings.vectors_of(item_ids))


def product_traits(
    version: PublishedVersion, data: LeaveOneOut, texts: ContentVectors | None
) -> Traits:
    """What tells how near the products of `version` are, in the order of `data`."""
    products = version.products().set_index(schema.PRODUCT).reindex(data.item_ids)

    def numbers(column: str) -> Int32Array:
        names = products[column].fillna("").map(fold)
        return pd.factorize(names.mask(names == ""))[0].astype(np.int32)

    prices = products[schema.PRICE].to_numpy(dtype=np.float64)
    groups = (data.families, numbers(schema.BRAND), numbers(schema.CATEGORY))
    return Traits(*groups, prices, texts and texts.vectors)


def choose_parameters(
    settings: Settings, config: TrainingConfig, version_id: str, model_type: str, subject: Subject
) -> Found:
    """Tune on validation, from the last result or else the configured parameters.

    A result that was found on the same data with the same settings is taken as it is, so a
    training that is repeated gives the same model."""

    def key_of(name: str) -> dict[str, Any]:
        """What a search depends on: with an equal key there is nothing new to find."""
        texts = subject.content if name == Hybrid.model_type else None
        return {
            "data_version": version_id,
            "embeddings": texts.set_id if texts else None,
            "seed": config.seed,
            "engine": config.engine,
            "tuning": config.tuning.model_dump(),
            "parameters": config.parameters.get(name, {}),
            **({"signals": subject.weights} if subject.weights else {}),
            **({"joining": joining} if name == Hybrid.model_type and joining else {}),
        }

    found = {name: _read_last(settings, name) for name in {model_type, *COMPONENTS}}
    joining: dict[str, Any] = {}
    for name in JOINING:
        key, last = found[name]
        if last and (name in config.model_types or key == key_of(name)):
            joining[name] = last.parameters
    same = {name: last for name, (key, last) in found.items() if last and key == key_of(name)}
    if model_type in same:
        return same[model_type]
    _, last = found[model_type]
    best = tune(
        model_type,
        subject,
        last.parameters if last else config.parameters.get(model_type, {}),
        seconds=config.tuning.seconds * (_SLOW if model_class(model_type).slow else 1),
        trials=config.tuning.trials,
        tuned_components={
            **{name: same[name].parameters for name in same if name in _HYBRID_SHARE},
            **joining,
        },
    )
    content = {"parameters": best.parameters, "score": best.score, "trials": best.trials}
    write_json(_file(settings, model_type), {**content, "key": key_of(model_type)})
    return best


def _file(settings: Settings, model_type: str) -> Path:
    return settings.artifacts / "tuning" / f"{model_type}.json"


def _read_last(settings: Settings, model_type: str) -> tuple[Any, Found | None]:
    """The key of the last search and what it found. Nothing when there was none, or when it cannot
    be used with the model types as they are."""
    try:
        stored = json.loads(_file(settings, model_type).read_text(encoding="utf-8"))
        key = stored.pop("key")
        found = Found(**stored, reused=True)
        model_class(model_type).create(found.parameters)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, InputError):
        return None, None
    return key, found


def tune(
    model_type: str,
    subject: Subject,
    start: Mapping[str, Any],
    *,
    seconds: float,
    trials: int,
    tuned_components: Mapping[str, Mapping[str, Any]] | None = None,
) -> Found:
    """Search from `start`, for at most `seconds` (a trial is never cut off, but for the passes of
    `self_attention`) and `trials`.

    The objective is the mean of recall@10 and NDCG@10 on at most 25,000 validation users. Of a
    hybrid, the components in `tuned_components` are taken as they are; those that are `JOINING` and
    not among them are left out."""
    if model_type == Hybrid.model_type:
        return _tune_hybrid(subject, start, tuned_components or {}, seconds, trials)
    if model_type in SPACES:
        return _tune_alone(model_type, subject, start, seconds, trials)[0]
    if model_type == SelfAttention.model_type:
        return _tune_passes(subject, start, seconds, trials)
    model = subject.fit(model_type, start)
    score = objective(model, sample_of(subject))
    return Found(model.hyperparameters, score, trials=1, history=[score])


def objective(model: Any, questions: HeldOut) -> float:
    """Mean of recall@10 and NDCG@10."""
    return _mean_metric(ranking.rank_targets(model, questions))


def _mean_metric(ranks: Ranks) -> float:
    per_user = metrics_per_user(ranks)
    return float((per_user["recall_at_10"].mean() + per_user["ndcg_at_10"].mean()) / 2)


def _metric_per_user(ranks: Ranks) -> Float64Array:
    per_user = metrics_per_user(ranks)
    return (per_user["recall_at_10"] + per_user["ndcg_at_10"]) / 2


def _tune_alone(
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


def _tune_passes(subject: Subject, start: Mapping[str, Any], seconds: float, trials: int) -> Found:
    """Of each point as many passes as are best on validation, and the best of the points. The first
    has all the time that it needs; another one is tried when there is as much left."""
    deadline = time.monotonic() + seconds
    entries = int((np.diff(subject.training.indptr) - 1).clip(min=0).sum())
    sized = {"dimensions": next(most for most, from_ in _DIMENSIONS if entries >= from_)}
    base = SelfAttention.create({**sized, **start}).hyperparameters
    others: tuple[Point, ...] = ({}, {"dropout": 0.3}, {"dimensions": 2 * sized["dimensions"]})
    found: list[tuple[Found, SelfAttention]] = []
    longest = 0.0
    for other in others[: max(trials, 1)]:
        begun = time.monotonic()
        if found and begun + longest > deadline:
            break
        found.append(_best_pass(subject, {**base, **other}, deadline))
        longest = max(longest, time.monotonic() - begun)
    best, model = max(found, key=lambda each: each[0].score)
    history = np.maximum.accumulate(np.concatenate([each.history for each, _ in found]))
    score = objective(model, sample_of(subject))
    return replace(best, score=score, trials=len(found), history=history.tolist())


def _best_pass(subject: Subject, point: Point, deadline: float) -> tuple[Found, SelfAttention]:
    """`point` with the number of passes after which validation was answered best, and the model as
    it was then; `history` has an entry a pass."""
    model = SelfAttention.create({**point, "epochs": _MOST_PASSES}, subject.seed)
    questions = sample_of(subject, _JUDGED)
    found, best = Found(dict(point), -math.inf), model
    for number, _ in enumerate(model.passes(subject.training, subject.items), start=1):
        score = objective(model, questions)
        if score > found.score:
            found.score, best = score, copy.copy(model)
            found.parameters["epochs"] = number
        found.history.append(found.score)
        if time.monotonic() >= deadline or number - found.parameters["epochs"] >= _PATIENCE:
            break
    return found, best


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


def _tune_hybrid(
    subject: Subject,
    start: Mapping[str, Any],
    tuned: Mapping[str, Mapping[str, Any]],
    seconds: float,
    trials: int,
) -> Found:
    begun = time.monotonic()
    fitted: dict[str, Model] = {}
    for name in COMPONENTS:
        own = dict(tuned.get(name) or start.get(name, {}))
        if name in JOINING:
            if name in tuned and (member := _fit_or_none(name, subject, own)) is not None:
                fitted[name] = member
        elif name in SPACES and name not in tuned:
            share = seconds * _HYBRID_SHARE[name]
            _, fitted[name] = _tune_alone(name, subject, own, share, trials)
        else:
            fitted[name] = subject.fit(name, own)
    left = max(seconds - (time.monotonic() - begun), 0.1 * seconds)
    found = _tune_weights(subject, fitted, start, left, trials)
    weights = dict(found.parameters)
    chosen = {name: weights.pop(name) for name in _OTHERS}
    blend = Hybrid.of_fitted(fitted, weights, **chosen)
    chosen["lift"] = _choose_lift(subject, blend)
    chosen["siblings"] = _choose_siblings(subject, blend)
    components = {name: model.hyperparameters for name, model in fitted.items()}
    return replace(found, parameters={"weights": weights, **chosen} | components)


def _fit_or_none(name: str, subject: Subject, parameters: Mapping[str, Any]) -> Model | None:
    """A blend does without what cannot be fitted any more: the shop has outgrown a model type, or
    torch does not import."""
    try:
        return subject.fit(name, parameters)
    except InputError as error:
        logger.warning("The blend goes without %s, which cannot be fitted: %s", name, error)
        return None


def _tune_weights(
    subject: Subject,
    fitted: Mapping[str, Model],
    start: Mapping[str, Any],
    seconds: float,
    trials: int,
) -> Found:
    """Weights of the `fitted` components, and what else a blend depends on. Those that are joining
    come one after another, each for an equal share of the time."""
    judged = _JudgedBlends(subject, fitted)
    # Only the ratios count, so the first component keeps its weight.
    space = {"als": Range(0, 2), "recent_popularity": Range(0, 5)}
    if subject.content is not None:
        space |= {CONTENT: Range(0, 2), "few_purchases": Range(0.5, 200, log=True)}
    defaults = HybridParameters()
    base = {
        **defaults.weights.model_dump(),
        **start.get("weights", {}),
        **dict.fromkeys(JOINING, 0.0),
        **{name: start.get(name, getattr(defaults, name)) for name in _OTHERS},
    }
    starts = [base, {**base, "recent_popularity": 0.0}, {**base, "als": 1.0}]
    joining = [name for name in JOINING if name in fitted]
    limits: Any = {"trials": trials, "seed": subject.seed, "seconds": seconds / (2 + len(joining))}
    found = search(judged.score, space, starts, **limits)
    for name in joining:
        more, points = JOINING[name]
        last = {key: start[key] for key in more if key in start} | {
            key: value for key, value in start.get("weights", {}).items() if key in more
        }
        starts = [{**found.parameters, **point} for point in (*points, last)]
        joined = search(judged.score, space | more, starts, **limits)
        history = found.history + [max(found.score, one) for one in joined.history]
        made = found.trials + joined.trials
        # The other weights have moved as well, and that may have been all the gain.
        without = {**joined.parameters, name: 0.0}
        if all(judged.better(joined.parameters, one) for one in (found.parameters, without)):
            space |= more
            found = joined
        found = replace(found, trials=made, history=history)
    return judged.more_personal(found, space, limits)


class _JudgedBlends:
    """Blends of `fitted` components on the validation of a subject."""

    def __init__(self, subject: Subject, fitted: Mapping[str, Model]) -> None:
        self._subject, self._fitted = subject, fitted
        texts = subject.content and subject.content.vectors
        components = [*fitted, *([CONTENT] if texts is not None else [])]
        weights = dict.fromkeys(components, 1.0)
        everything = Hybrid.of_fitted(fitted, weights, temperature=_TEMPERATURE)
        self._trials = BlendTrials(everything.use_content(texts), sample_of(subject))
        self._tried: list[tuple[Point, float]] = []

    def score(self, point: Point) -> float:
        score = _mean_metric(self._trials.ranks(self._blend(point)))
        self._tried.append((point, score))
        return score

    def better(self, point: Point, before: Point) -> bool:
        """Whether users gain in the mean by more than chance explains (95 %)."""
        gain = self._of_users(point) - self._of_users(before)
        return float(gain.mean()) > _NORMAL_95 * float(gain.std()) / len(gain) ** 0.5

    def more_personal(
        self, found: Found, space: Mapping[str, Range], limits: Mapping[str, Any]
    ) -> Found:
        """`found`, or a blend that is as good and shares less with what is popular: one that was
        tried, or that is found in `space` from there."""
        if self._overlap(found.parameters) < _FELT:
            return found
        best = self._of_users(found.parameters)

        def personal(point: Point) -> float:
            return -self._overlap(point) if as_good(self._of_users(point), best) else -math.inf

        left_out = {name for name in JOINING if not found.parameters[name]}
        least = (1 - MOST_LOST) * found.score
        near = [
            point
            for point, score in sorted(self._tried, key=lambda one: -one[1])
            if score >= least and not any(point[name] for name in left_out)
        ]
        start = max(near[:_LOOKED_AT], key=personal)
        # Few blends are as good: it begins at many that are less popular, and looks longer.
        starts = _less_popular(start, [name for name in space if name not in _OTHERS])
        more = search(personal, space, starts, **{**limits, "trials": 4 * limits["trials"]})
        return replace(
            found,
            parameters=more.parameters,
            score=self.score(more.parameters),
            trials=found.trials + more.trials,
        )

    def _of_users(self, point: Point) -> Float64Array:
        return _metric_per_user(self._trials.ranks(self._blend(point)))

    def _overlap(self, point: Point) -> float:
        scores, popularity = self._trials.scores(self._blend(point))
        return overlap_with_popular(scores, popularity)

    def _blend(self, point: Point) -> Hybrid:
        others = {name: point[name] for name in _OTHERS}
        weights = {name: value for name, value in point.items() if name not in _OTHERS}
        blend = Hybrid.of_fitted(self._fitted, weights, **others)
        return blend.count_purchases(self._subject.training, self._subject.items)


def _less_popular(point: Point, weights: Sequence[str]) -> list[Point]:
    """`point`, and others with less of the `weights` beside the first component's, and of recent
    popularity still less."""
    popular = RecentPopularity.model_type
    points = []
    for all_others, popularity in itertools.product((1, 0.5), (1, 0.8, 0.65, 0.5)):
        lower = {name: all_others * point[name] for name in weights}
        points.append({**point, **lower, popular: popularity * lower[popular]})
    return points


def _choose_lift(subject: Subject, blend: Hybrid) -> float:
    """How far `blend` lifts products with few purchases: what finds the most of them on validation,
    of all that cost at most `_LIFT_COST` of recall@10. 0 if too few customers are asked for
    such products to tell."""
    if subject.traits is None:
        return 0.0
    purchases = np.bincount(subject.training.items[had(subject.training)], minlength=subject.items)
    questions = sample_of(subject, _LIFT_CELLS // subject.items)
    new = segments_of(questions, purchases)["new_products"]
    rare = find_rare(subject.traits, purchases)
    if rare is None or new.sum() < MIN_USERS:
        return 0.0
    texts = subject.content and subject.content.vectors
    blend.use_content(texts).count_purchases(subject.training, subject.items)
    figures = []
    for ranks in _changed_ranks(blend, [_lifting(rare, lift) for lift in _LIFTS], questions):
        recall = metrics_per_user(Ranks(questions.indptr, ranks))["recall_at_10"]
        figures.append((recall[new].mean(), recall.mean()))
    least = (1 - _LIFT_COST) * figures[0][1]
    allowed = [place for place, (_, overall) in enumerate(figures) if overall >= least]
    return _LIFTS[max(allowed, key=lambda place: figures[place])]


def _choose_siblings(subject: Subject, blend: Hybrid) -> float:
    """Which share of their score other sizes and shades of what a customer had keep in `blend`:
    all of it, unless validation is better with less."""
    if subject.traits is None:
        return 1.0
    questions = sample_of(subject, _LIFT_CELLS // subject.items)
    texts = subject.content and subject.content.vectors
    blend.use_content(texts).count_purchases(subject.training, subject.items)
    lower = partial(lower_siblings, families=subject.traits.families)
    changes: list[_Change] = [partial(lower, share=share) for share in _SIBLINGS]
    every = _changed_ranks(blend, changes, questions)
    scores = [_mean_metric(Ranks(questions.indptr, ranks)) for ranks in every]
    return _SIBLINGS[scores.index(max(scores))]


def _lifting(rare: Rare, lift: float) -> _Change:
    return lambda scores, histories: rare.lift(scores, lift, histories)


def _changed_ranks(blend: Hybrid, changes: Sequence[_Change], questions: HeldOut) -> Int64Array:
    """``(changes, targets)`` ranks of the answers with each of the `changes` of the scores."""
    ranks = np.zeros((len(changes), len(questions.targets)), dtype=np.int64)
    for start in range(0, questions.users, BLOCK):
        stop = min(start + BLOCK, questions.users)
        histories, scores = ranking.finite_scores(blend, questions, start, stop)
        barred = not_offered(histories)
        seen = (user_rows(histories)[barred], histories.items[barred])
        part = slice(questions.indptr[start], questions.indptr[stop])
        rows = ranking.user_of_target(questions)[part] - start
        for number, change in enumerate(changes):
            changed = change(scores.copy(), histories)
            changed[seen] = -np.inf
            ranks[number, part] = ranking.rank_among(changed, rows, questions.targets[part])
    return ranks


def sample_of(subject: Subject, most: int = _SAMPLE) -> HeldOut:
    """The validation of `subject`, of at most 25,000 users, or `most` if that is less."""
    users, most = subject.validation.users, min(most, _SAMPLE)
    if users <= most:
        return subject.validation
    chosen = np.random.default_rng(subject.seed).choice(users, most, replace=False)
    return ranking.take_questions(subject.validation, np.sort(chosen))


class BlendTrials:
    """Blends of component scores of `questions`, which `model` gives once for all weights.

    A product that stands high for no component stands high for no blend, so the best hundred of
    each component and the answers themselves stand for the whole shop. A component without a weight
    is left out."""

    def __init__(self, model: Hybrid, questions: HeldOut) -> None:
        self._questions = questions
        # A user's targets are the first candidates, in their order.
        first = np.repeat(questions.indptr[:-1], np.diff(questions.indptr))
        self._columns = (np.arange(len(questions.targets)) - first).astype(np.int32)
        starts = range(0, questions.users, BLOCK)
        blocks = [self._read(model, at, min(at + BLOCK, questions.users)) for at in starts]
        items, barred, parts = zip(*blocks, strict=True)
        self._items, self._barred = np.concatenate(items), np.concatenate(barred)
        self._parts = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def ranks(self, blend: Hybrid) -> Ranks:
        """Ranks of the answers by the weights and the temperature of `blend`."""
        scores, _ = self.scores(blend)
        ranks = ranking.rank_among(scores, ranking.user_of_target(self._questions), self._columns)
        return Ranks(self._questions.indptr, ranks)

    def scores(self, blend: Hybrid) -> tuple[Float32Array, Float32Array]:
        """``(users, candidates)`` scores of `blend`, -inf where a candidate does not count, and how
        popular each was lately."""
        scores = blend.blend(blend.tempered(self._parts, _TEMPERATURE), self._items)
        scores[self._barred] = -np.inf
        return scores, self._parts[RecentPopularity.model_type]

    def _read(
        self, model: Hybrid, start: int, stop: int
    ) -> tuple[Int32Array, BoolArray, dict[str, Float32Array]]:
        """Candidates of the users, which of them do not count, and their scores."""
        histories = user_range(self._questions.histories, start, stop)
        parts = model.component_scores(histories, self._questions.now[start:stop])
        barred = not_offered(histories)
        seen = (user_rows(histories)[barred], histories.items[barred])
        candidates = [_padded_targets(self._questions, start, stop)]
        for scores in parts.values():
            scores[seen] = -1
            best = min(_BEST, scores.shape[1] - 1)
            candidates.append(np.argpartition(-scores, best, axis=1)[:, :best].astype(np.int32))
        items = np.concatenate(candidates, axis=1)
        chosen = {name: np.take_along_axis(every, items, axis=1) for name, every in parts.items()}
        known = next(iter(chosen.values())) < 0
        kept = {name: np.maximum(scores, 0) for name, scores in chosen.items()}
        return items, known | ~first_in_row(items), kept


def _padded_targets(questions: HeldOut, start: int, stop: int) -> Int32Array:
    """``(users, most)`` targets, each row filled up with its first."""
    sizes = np.diff(questions.indptr)
    place = np.arange(int(sizes.max()))
    entry = np.where(place < sizes[start:stop, None], place, 0)
    return questions.targets[questions.indptr[start:stop, None] + entry]
