"""How personal recommendations are, which recall alone does not tell (decision 161).

Where many buy the same few products, a list of those has a good recall whoever asks for it. What
customers feel is whether their list is another than everybody's, and right where that is hard."""

from typing import NamedTuple

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Float64Array, Int32Array
from recsys.evaluation import MOST_LOST
from recsys.evaluation.leave_one_out import LeaveOneOut
from recsys.evaluation.metrics import resampled_means
from recsys.evaluation.ranking import (
    BLOCK,
    HeldOut,
    Ranks,
    Scorer,
    rank_among,
    user_of_target,
)
from recsys.models.base import Histories
from recsys.models.histories import take_users, user_range, user_rows
from recsys.models.kinds import not_offered
from recsys.models.lists import best_lists
from recsys.models.popularity import RecentPopularity

BEST_SELLERS = 20
CUSTOMERS = 400
_LENGTH = 10
_LOOKED_AT = 50  # listings of a family are many
_SEED = 0


class Expected(NamedTuple):
    """How much each of the ``(targets,)`` answers to questions is what popularity would say."""

    rarity: Float64Array  # one over the propensity of the product to be seen
    outside: BoolArray  # not among the twenty best sellers when the question was asked


def expected(questions: HeldOut, known: Histories, items: int) -> Expected:
    """How expected the answers are, by what was bought lately when each question was asked, as of
    `known`: best sellers of all time may be products that nobody buys any more.

    A purchase is seen where a product was seen, and what sells is seen: the propensity is taken for
    ``sqrt((popularity + 1) / (that of the best seller + 1))`` (Saito et al. 2020, "Unbiased
    recommender learning from missing-not-at-random implicit feedback")."""
    recent = RecentPopularity().fit(known, items)
    owner = user_of_target(questions)
    rarity = np.zeros(len(owner))
    outside = np.zeros(len(owner), dtype=np.bool_)
    for start in range(0, questions.users, BLOCK):
        stop = min(start + BLOCK, questions.users)
        part = slice(questions.indptr[start], questions.indptr[stop])
        sold = recent.score(user_range(questions.histories, start, stop), questions.now[start:stop])
        rows, of_target = owner[part] - start, sold[owner[part] - start, questions.targets[part]]
        rarity[part] = np.sqrt((sold.max(axis=1)[rows] + 1) / (of_target + 1))
        outside[part] = rank_among(sold, rows, questions.targets[part]) > BEST_SELLERS
    return Expected(rarity, outside)


def personal_recall(ranks: Ranks, questions: HeldOut, answers: Expected) -> dict[str, float]:
    """Recall@10 that popular answers do not decide, with 95 % intervals over resampled users.

    ``debiased_recall_at_10`` is ``sum(rarity * hit) / sum(rarity)`` over all answers: the
    self-normalised inverse propensity estimate of what recall would be had all products been seen
    alike (Yang et al. 2018, "Unbiased offline recommender evaluation for missing-not-at-random
    implicit feedback").

    ``recall_at_10_outside_best_20`` is the mean recall of the answers that were not among the
    twenty best sellers; users without one are not asked. 0 where there are none."""
    owner, hit = user_of_target(questions), ranks.ranks <= _LENGTH

    def of_users(values: Float64Array | BoolArray) -> Float64Array:
        sums = np.bincount(owner, weights=values, minlength=questions.users)
        return np.asarray(sums, dtype=np.float64)

    asked = of_users(answers.outside)
    recall = of_users(answers.outside & hit) / np.maximum(asked, 1)
    weighted = of_users(answers.rarity * hit), of_users(answers.rarity)
    return {
        **_ratio("debiased_recall_at_10", *weighted),
        **_ratio("recall_at_10_outside_best_20", recall, (asked > 0).astype(np.float64)),
    }


def as_good(ours: Float64Array, best: Float64Array) -> bool:
    """Whether a ranking serves users as well as the `best` one, so that being more personal may
    decide. Both are ``(users,)`` and say how well each user was served.

    It may lose no more than one standard error of the loss, user by user, as trees and penalties
    are chosen (Breiman et al. 1984: the simplest within one standard error of the best), and no
    more than `MOST_LOST` of the best: with few users chance explains much."""
    loss = best - ours
    by_chance = loss.std() / np.sqrt(len(loss))
    return bool(loss.mean() <= min(by_chance, MOST_LOST * best.mean()))


def overlap_with_popular(scores: Float32Array, popularity: Float32Array) -> float:
    """How many of the ten products with the highest `scores` are of the ten most popular, in the
    mean of users. Both are ``(users, candidates)``; the scores are -inf where a candidate does not
    count, and then it is none of the popular ones either."""
    length = min(_LENGTH, scores.shape[1])
    counts = scores > -np.inf
    popular = np.where(counts, popularity, -np.inf)
    listed, best = (
        np.argpartition(-values, length - 1, axis=1)[:, :length] for values in (scores, popular)
    )
    chosen = np.zeros(scores.shape, dtype=np.bool_)
    np.put_along_axis(chosen, best, True, axis=1)
    shared = np.take_along_axis(chosen & counts, listed, axis=1)
    return float(shared.sum(axis=1).mean())


def personal_lists(model: Scorer, data: LeaveOneOut) -> dict[str, float]:
    """What 400 of the known customers (of one data version always the same) get of the service at
    the end of `data`: products that are sold and new to them, one of a family.

    ``first_products`` is how many products stand first in a list. ``newcomer_overlap`` is how many
    of the ten products, in the mean, stand in the list of somebody of whom nothing is known, which
    is what was bought lately; with its 95 % interval over resampled customers. Who gets that list
    because the model has no opinion counts as well. `model` is fitted on ``data.learnt``."""
    known = np.flatnonzero(np.diff(data.everything.indptr))
    chosen = np.random.default_rng(_SEED).permutation(known)[:CUSTOMERS]
    recent = RecentPopularity().fit(data.learnt, len(data.item_ids)).at(data.as_of)
    everybodys = np.where(data.available, recent, np.float32(-np.inf))[None]
    newcomers = _lists(everybodys, data.families)[0]
    lists = _lists_of(model, take_users(data.everything, chosen), recent, data)
    shared = (np.isin(lists, newcomers) & (lists >= 0)).sum(axis=1).astype(np.float64)
    first = lists[:, 0]
    return {
        "first_products": float(len(np.unique(first[first >= 0]))),
        **_ratio("newcomer_overlap", shared, np.ones(len(shared))),
    }


def _lists_of(
    model: Scorer, asked: Histories, popularity: Float32Array, data: LeaveOneOut
) -> Int32Array:
    """``(users, 10)`` products, -1 where a list is shorter. Who is scored alike for all products
    gets what is popular, as of the service."""
    scores = np.array(model.score(asked, data.as_of), dtype=np.float32)
    scores[scores.max(axis=1) == scores.min(axis=1)] = popularity
    scores[:, ~data.available] = -np.inf
    barred = not_offered(asked)
    had = np.zeros((asked.users, int(data.families.max()) + 1), dtype=np.bool_)
    had[user_rows(asked)[barred], data.families[asked.items[barred]]] = True
    scores[had[:, data.families]] = -np.inf
    return _lists(scores, data.families)


def _lists(scores: Float32Array, families: Int32Array) -> Int32Array:
    items, _, counts = best_lists(scores, families, _LOOKED_AT)
    return np.where(np.arange(items.shape[1]) < counts[:, None], items, -1)[:, :_LENGTH]


def _ratio(name: str, values: Float64Array, weights: Float64Array) -> dict[str, float]:
    """The sum of ``(users,)`` `values` over that of `weights`, with its interval."""
    means = resampled_means(np.stack([values, weights], axis=1))
    total = np.maximum(means[:, 1], np.finfo(np.float64).tiny)
    low, high = np.quantile(means[:, 0] / total, [0.025, 0.975])
    mean = values.sum() / max(float(weights.sum()), np.finfo(np.float64).tiny)
    figures = {name: mean, f"{name}_low": low, f"{name}_high": high}
    return {key: round(float(value), 6) for key, value in figures.items()}
