"""Choosing what the hybrid blends: its members, their weights, and what else changes its scores."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from recsys.arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    first_in_row,
)
from recsys.errors import InputError
from recsys.evaluation import MIN_USERS, MOST_LOST, ranking
from recsys.evaluation.leave_one_out import Fold
from recsys.evaluation.metrics import metrics_per_user
from recsys.evaluation.personalisation import as_good, overlap_with_popular
from recsys.evaluation.ranking import BLOCK, HeldOut, Ranks
from recsys.evaluation.report import segments_of
from recsys.models.base import Histories, Model
from recsys.models.histories import user_range, user_rows
from recsys.models.hybrid import COMPONENTS, CONTENT, Hybrid, HybridParameters
from recsys.models.kinds import had, not_offered
from recsys.models.linear import Linear
from recsys.models.newcomers import Rare, find_rare
from recsys.models.popularity import RecentPopularity
from recsys.models.self_attention import SelfAttention
from recsys.models.siblings import lower_siblings
from recsys.training.family_tuning import SPACES, tune_alone
from recsys.training.search import Found, Point, Range, Trial, search
from recsys.training.subject import Subject, judged_on, metric_per_user

logger = logging.getLogger(__name__)

_BEST = 100
_LIFTS = tuple(number / 20 for number in range(11))
_LIFT_COST = 0.01
_USUAL_LIFT = 0.2  # what was good where it was measured, see decision 150
_SIBLINGS = (1.0, 0.5, 0.25)
_LIFT_CELLS = 40_000_000  # scores that are looked at with each lift: some seconds in all
HYBRID_SHARE = {"item_knn": 0.3, "als": 0.4, "recent_popularity": 0.0}
_TEMPERATURE = 1.0  # at which scores are kept for all temperatures
_OTHERS = ("few_purchases", "temperature")  # what a blend has beside weights
_NORMAL_95 = 1.96
_BLENDS = 6  # where questions are few so many are tried for one trial of parameters: no fit is made
_FELT = 1.0  # where less than one of ten products is a popular one, nobody's list is everybody's
_LOOKED_AT = 100  # so many of the best blends are looked at for how personal they are

JOINING: dict[str, tuple[dict[str, Range], list[Point]]] = {
    Linear.model_type: ({Linear.model_type: Range(0, 4)}, [{Linear.model_type: 1.0}]),
    SelfAttention.model_type: (
        {SelfAttention.model_type: Range(0, 6), "temperature": Range(0.5, 10, log=True)},
        [{SelfAttention.model_type: weight, "temperature": 3.0} for weight in (1.0, 2.0, 4.0)],
    ),
}
"""What takes part in a blend where its own training found parameters: what is searched for then,
and where that begins. A slow one joins only where the blend is clearly better with it: it adds
minutes to every fit. A quick one is a member like the others."""

_Change = Callable[[Float32Array, Histories], Float32Array]
"""What is done to the scores of a blend, to see whether it ranks better then."""


def tune_hybrid(
    subject: Subject,
    start: Mapping[str, Any],
    tuned: Mapping[str, Mapping[str, Any]],
    seconds: float,
    trials: int,
) -> Found:
    begun = time.monotonic()
    folds = judged_on(subject)
    fitted: dict[str, list[Model]] = {}
    for name in COMPONENTS:
        own = dict(tuned.get(name) or start.get(name, {}))
        if name in SPACES and name not in JOINING and name not in tuned:
            share = seconds * HYBRID_SHARE[name]
            alone, model = tune_alone(name, subject, own, share, trials)
            if not subject.folds:
                fitted[name] = [model]
                continue
            own = alone.parameters
        if name not in JOINING:
            fitted[name] = [subject.fit(name, own, fold.training) for fold in folds]
        elif name in tuned and (members := _fit_or_none(name, subject, own, folds)) is not None:
            fitted[name] = members
    judged = [
        _JudgedFold(subject, fold, {name: members[number] for name, members in fitted.items()})
        for number, fold in enumerate(folds)
    ]
    left = max(seconds - (time.monotonic() - begun), 0.1 * seconds)
    blends = trials * (_BLENDS if subject.folds else 1)
    found = _tune_weights(subject, judged, start, left, blends)
    chosen = {name: found.parameters[name] for name in _OTHERS}
    chosen["lift"] = _choose_lift(subject, judged, found.parameters)
    chosen["siblings"] = _choose_siblings(subject, judged, found.parameters)
    weights = {name: value for name, value in found.parameters.items() if name not in _OTHERS}
    components = {name: members[0].hyperparameters for name, members in fitted.items()}
    return replace(found, parameters={"weights": weights, **chosen} | components)


def _fit_or_none(
    name: str, subject: Subject, parameters: Mapping[str, Any], folds: Sequence[Fold]
) -> list[Model] | None:
    """A blend does without what cannot be fitted any more: the shop has outgrown a model type, or
    torch does not import."""
    try:
        return [subject.fit(name, parameters, fold.training) for fold in folds]
    except InputError as error:
        logger.warning("The blend goes without %s, which cannot be fitted: %s", name, error)
        return None


class _JudgedFold:
    """Blends of components that are `fitted` on what is known in a fold, and its questions."""

    def __init__(self, subject: Subject, fold: Fold, fitted: Mapping[str, Model]) -> None:
        self.fitted = fitted
        self._training, self._items = fold.training, subject.items
        self._texts = subject.content and subject.content.vectors
        self.purchases = np.bincount(fold.training.items[had(fold.training)], minlength=self._items)
        components = [*fitted, *([CONTENT] if self._texts is not None else [])]
        weights = dict.fromkeys(components, 1.0)
        everything = Hybrid.of_fitted(fitted, weights, temperature=_TEMPERATURE)
        self.trials = BlendTrials(everything.use_content(self._texts), fold.questions)

    def blend(self, point: Point) -> Hybrid:
        others = {name: point[name] for name in _OTHERS}
        weights = {name: value for name, value in point.items() if name not in _OTHERS}
        blend = Hybrid.of_fitted(self.fitted, weights, **others).use_content(self._texts)
        return blend.count_purchases(self._training, self._items)


def _tune_weights(
    subject: Subject,
    folds: Sequence[_JudgedFold],
    start: Mapping[str, Any],
    seconds: float,
    trials: int,
) -> Found:
    """Weights of the fitted components, and what else a blend depends on. Slow ones that are
    joining come one after another, each for an equal share of the time."""
    judged = _JudgedBlends(folds)
    # Only the ratios count, so the first component keeps its weight.
    space = {"als": Range(0, 2), "recent_popularity": Range(0, 5)}
    if subject.content is not None:
        space |= {CONTENT: Range(0, 2), "few_purchases": Range(0.5, 200, log=True)}
    joining = [name for name in JOINING if name in folds[0].fitted]
    quick = [name for name in joining if not COMPONENTS[name].slow]
    slow = [name for name in joining if COMPONENTS[name].slow]
    defaults = HybridParameters()
    weights: Mapping[str, float] = start.get("weights", {})
    base = {
        **defaults.weights.model_dump(),
        **weights,
        **{name: 0.0 for name in JOINING if name not in quick},
        **{name: start.get(name, getattr(defaults, name)) for name in _OTHERS},
    }
    starts = [base, {**base, "recent_popularity": 0.0}, {**base, "als": 1.0}]
    for name in quick:
        more, points = JOINING[name]
        space |= more
        starts += [{**one, **point} for one in starts for point in points]
    limits: Any = {"trials": trials, "seed": subject.seed, "seconds": seconds / (2 + len(slow))}
    found = search(judged.score, space, starts, **limits)
    for name in quick:
        without = {**found.parameters, name: 0.0}
        if judged.score(without) >= found.score:
            found = replace(found, parameters=without)
            space = {key: bounds for key, bounds in space.items() if key != name}
    for name in slow:
        more, points = JOINING[name]
        last = {key: start[key] for key in more if key in start} | {
            key: value for key, value in weights.items() if key in more
        }
        starts = [{**found.parameters, **point} for point in (*points, last)]
        joined = search(judged.score, space | more, starts, **limits)
        history = found.history + [max(found.score, one) for one in joined.history]
        made, tried = found.trials + joined.trials, found.tried + joined.tried
        # The other weights have moved as well, and that may have been all the gain.
        without = {**joined.parameters, name: 0.0}
        if all(judged.better(joined.parameters, one) for one in (found.parameters, without)):
            space |= more
            found = joined
        found = replace(found, trials=made, history=history, tried=tried)
    return judged.more_personal(found, space, limits)


class _JudgedBlends:
    """Blends of the same components in all `folds`."""

    def __init__(self, folds: Sequence[_JudgedFold]) -> None:
        self._folds = folds
        self._tried: list[tuple[Point, float]] = []

    def score(self, point: Point) -> float:
        score = float(self._of_users(point).mean())
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
        score = self.score(more.parameters)
        return replace(
            found,
            parameters=more.parameters,
            score=score,
            trials=found.trials + more.trials,
            tried=[*found.tried, Trial(dict(more.parameters), score)],
        )

    def _of_users(self, point: Point) -> Float64Array:
        every = [metric_per_user(fold.trials.ranks(fold.blend(point))) for fold in self._folds]
        return np.concatenate(every)

    def _overlap(self, point: Point) -> float:
        """The mean of the folds, which are of equal size."""
        every = [fold.trials.scores(fold.blend(point)) for fold in self._folds]
        return float(np.mean([overlap_with_popular(*of_fold) for of_fold in every]))


def _less_popular(point: Point, weights: Sequence[str]) -> list[Point]:
    """`point`, and others with less of the `weights` beside the first component's, and of recent
    popularity still less."""
    popular = RecentPopularity.model_type
    points = []
    for all_others, popularity in itertools.product((1, 0.5), (1, 0.8, 0.65, 0.5)):
        lower = {name: all_others * point[name] for name in weights}
        points.append({**point, **lower, popular: popularity * lower[popular]})
    return points


def _choose_lift(subject: Subject, folds: Sequence[_JudgedFold], point: Point) -> float:
    """How far the blend of `point` lifts products with few purchases: the usual, if on validation
    that costs at most `_LIFT_COST` of recall@10 or not more beyond chance (95 %), or what finds
    more of them still and costs no more than that. Where the usual costs too much, what finds the
    most at no such cost. 0 if too few customers are asked for such products to tell."""
    if subject.traits is None:
        return 0.0
    new: list[BoolArray] = []
    every: list[list[Ranks]] = []
    for judged, fold in zip(folds, judged_on(subject, _LIFT_CELLS // subject.items), strict=True):
        new.append(segments_of(fold.questions, judged.purchases)["new_products"])
        rare = find_rare(subject.traits, judged.purchases)
        changes = [_lifting(rare, lift) for lift in _LIFTS]
        every.append(_changed_ranks(judged.blend(point), changes, fold.questions))
    asked = np.concatenate(new)
    if asked.sum() < MIN_USERS:
        return 0.0
    found = [
        np.concatenate([metrics_per_user(ranks)["recall_at_10"] for ranks in of_folds])
        for of_folds in zip(*every, strict=True)
    ]
    allowed = []
    for place, recall in enumerate(found):
        kept = recall - (1 - _LIFT_COST) * found[0]
        chance = _NORMAL_95 * float(kept.std()) / len(kept) ** 0.5
        if kept.mean() >= (-chance if _LIFTS[place] <= _USUAL_LIFT else 0):
            allowed.append(place)
    usual = _LIFTS.index(_USUAL_LIFT)
    if usual in allowed:
        allowed = [place for place in allowed if place >= usual]
    figures = [(recall[asked].mean(), recall.mean()) for recall in found]
    return _LIFTS[max(allowed, key=lambda place: figures[place])]


def _choose_siblings(subject: Subject, folds: Sequence[_JudgedFold], point: Point) -> float:
    """Which share of their score other sizes and shades of what a customer had keep in the blend of
    `point`: all of it, unless validation is better with less."""
    if subject.traits is None:
        return 1.0
    lower = partial(lower_siblings, families=subject.traits.families)
    changes: list[_Change] = [partial(lower, share=share) for share in _SIBLINGS]
    asked = zip(folds, judged_on(subject, _LIFT_CELLS // subject.items), strict=True)
    every = [_changed_ranks(one.blend(point), changes, fold.questions) for one, fold in asked]
    scores = [
        float(np.concatenate([metric_per_user(ranks) for ranks in of_folds]).mean())
        for of_folds in zip(*every, strict=True)
    ]
    return _SIBLINGS[scores.index(max(scores))]


def _lifting(rare: Rare | None, lift: float) -> _Change:
    def change(scores: Float32Array, histories: Histories) -> Float32Array:
        return scores if rare is None else rare.lift(scores, lift, histories)

    return change


def _changed_ranks(blend: Hybrid, changes: Sequence[_Change], questions: HeldOut) -> list[Ranks]:
    """Ranks of the answers with each of the `changes` of the scores."""
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
    return [Ranks(questions.indptr, of_change) for of_change in ranks]


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
