"""Training the sentiment scorer on the shop's own stars, and measuring it on unseen texts."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from recsys.arrays import AnyArray, BoolArray, Float64Array, Int8Array, Int64Array, UInt64Array
from recsys.columns import fold_series
from recsys.comments import ngrams
from recsys.comments.linear import NgramScorer, version_of, weigh
from recsys.schema import NEGATIVE_RATING, POSITIVE_RATING
from recsys.settings import CORES

_BINS = 10


def auc_with_interval(positive: BoolArray, scores: Float64Array) -> dict[str, float | int | None]:
    """ROC-AUC with its 95 % interval (DeLong); None where a class has fewer than two members."""
    good, bad = scores[positive], scores[~positive]
    counts = {"positive": len(good), "negative": len(bad)}
    if min(counts.values()) < 2:
        return {"auc": None, "interval": None, **counts}
    ranks = rankdata(np.concatenate([good, bad]))
    above = (ranks[: len(good)] - rankdata(good)) / len(bad)
    below = 1 - (ranks[len(good) :] - rankdata(bad)) / len(good)
    error = np.sqrt(above.var(ddof=1) / len(good) + below.var(ddof=1) / len(bad))
    interval = round(float(1.96 * error), 4)
    return {"auc": round(float(above.mean()), 4), "interval": interval, **counts}


def calibration_error(
    positive: BoolArray, probability: Float64Array, weight: Float64Array
) -> float:
    """Mean distance between what was promised and what came, over ten bins of equal weight."""
    order = np.argsort(probability, kind="stable")
    cumulative = np.cumsum(weight[order])
    bins = np.minimum((cumulative / cumulative[-1] * _BINS).astype(int), _BINS - 1)
    total = np.bincount(bins, weight[order], minlength=_BINS)
    promised = np.bincount(bins, (weight * probability)[order], minlength=_BINS)
    came = np.bincount(bins, (weight * positive)[order], minlength=_BINS)
    return float(np.abs(promised - came).sum() / total.sum())


def measure(
    ratings: Float64Array,
    decisions: Float64Array,
    decisions_without_accents: Float64Array,
    calibration: Float64Array,
    sample_weight: Float64Array,
) -> dict[str, Any]:
    """Cross-fitted figures of a scorer: happy (>= 4 stars) against unhappy (<= 2) texts."""
    clear = (ratings >= POSITIVE_RATING) | (ratings <= NEGATIVE_RATING)
    happy = ratings >= POSITIVE_RATING
    probability = expit(calibration[0] * decisions + calibration[1])
    folded = auc_with_interval(happy[clear], decisions_without_accents[clear])
    return {
        "texts": len(ratings),
        **auc_with_interval(happy[clear], decisions[clear]),
        "auc_without_accents": folded["auc"],
        "calibration_error": round(calibration_error(happy, probability, sample_weight), 4),
    }


FOLDS = 4
"""Parts for cross-fitting: a comment is scored by the model that was fitted without its part."""
MAX_TRAINING_TEXTS = 16_000
"""At most so many distinct texts are trained on; the rarer class may fill half of them."""

_PENALTY = 5.0  # sklearn's C: on Hasaki 1, 5 and 20 differ by less than the error of the AUC
_MIN_TEXTS = 2  # an n-gram of a single text says nothing about another


@dataclass(frozen=True)
class Units:
    """The training data: one entry for each group of texts that count as one."""

    texts: pd.Series  # one of the group
    key: UInt64Array  # its `TextFeatures.key`
    rating: Float64Array  # mean stars over the group's distinct (user, text) pairs
    fold: Int8Array  # texts of one user share it, and so do all copies of one text
    member_keys: UInt64Array  # every key of every group
    member_units: Int64Array  # the position of its group

    @property
    def positive(self) -> BoolArray:
        return self.rating >= POSITIVE_RATING

    def take(self, chosen: Int64Array) -> "Units":
        """The units at the positions `chosen`."""
        position = np.full(len(self.key), -1)
        position[chosen] = np.arange(len(chosen))
        kept = position[self.member_units] >= 0
        own = (self.texts.iloc[chosen], self.key[chosen], self.rating[chosen], self.fold[chosen])
        return Units(*own, self.member_keys[kept], position[self.member_units[kept]])


def gather_units(
    texts: pd.Series, key: UInt64Array, group: Int64Array, rows: pd.DataFrame
) -> Units:
    """Turn a view into training data.

    `group` is the number of the group of near-equal texts that each of the distinct `texts` belongs
    to (-1: one without words, left out). `rows` has one row for each (text, user, rating) of the
    view: ``text`` is a position in `texts`."""
    rows = rows.assign(group=group[rows["text"]])
    rows = rows[rows["group"] >= 0].drop_duplicates(["group", "user", "rating"])
    by_group = rows.groupby("group", sort=True)
    table = by_group.agg(rating=("rating", "mean"), user=("user", "min"), last=("user", "max"))
    order = np.lexsort((key, group))
    order = order[group[order] >= 0]
    first = order[np.r_[True, np.diff(group[order]) > 0]] if len(order) else order
    own = pd.util.hash_array(table["user"].to_numpy(dtype=object), categorize=False)
    shared = (table["user"] != table["last"]).to_numpy()
    fold = np.where(shared, key[first], own) % np.uint64(FOLDS)
    position = pd.Index(table.index).get_indexer(pd.Index(group[order]))
    rating = table["rating"].to_numpy(dtype=np.float64)
    return Units(texts.iloc[first], key[first], rating, fold.astype(np.int8), key[order], position)


def choose(units: Units, limit: int) -> Int64Array:
    """Positions of at most `limit` units to train on, in order of key.

    The rarer class may fill half of it; within a class the smallest keys are taken, so that
    the choice hardly changes when texts are added."""
    order = np.argsort(units.key, kind="stable")
    positive = units.positive[order]
    sides = sorted((order[~positive], order[positive]), key=len)
    rare = sides[0][: limit // 2]
    return np.sort(np.concatenate([rare, sides[1][: limit - len(rare)]]))


def train(units: Units, as_of: datetime) -> NgramScorer:
    """Fit one model a fold, calibrate on what each had not seen, measure the same way."""
    chosen = units.take(choose(units, MAX_TRAINING_TEXTS))
    counts = ngrams.count(chosen.texts)
    seen_in = np.bincount(counts.indices, minlength=ngrams.WIDTH)
    columns = np.flatnonzero(seen_in >= _MIN_TEXTS)
    idf = np.zeros(ngrams.WIDTH, dtype=np.float32)
    idf[columns] = np.log((1 + len(chosen.key)) / (1 + seen_in[columns])) + 1
    weighed = weigh(counts, idf)[:, columns]
    weights, intercepts = _fit_folds(weighed, chosen)
    decisions = _unseen(weighed, weights, intercepts, chosen.fold)
    sample_weight = _sampling_weights(units, chosen)
    calibration = _calibrate(decisions, chosen.positive, sample_weight)
    plain = weigh(ngrams.count(fold_series(chosen.texts)), idf)[:, columns]
    order = np.argsort(chosen.member_keys)
    owners = chosen.member_units[order]
    arrays: dict[str, AnyArray] = {
        "columns": columns.astype(np.int32),
        "idf": idf[columns],
        "weights": weights.astype(np.float32),
        "intercepts": intercepts,
        "calibration": calibration,
        "keys": chosen.member_keys[order],
        "folds": chosen.fold[owners],
        "positive": chosen.positive[owners],
    }
    folded = _unseen(plain, weights, intercepts, chosen.fold)
    metrics = measure(chosen.rating, decisions, folded, calibration, sample_weight)
    return NgramScorer(version_of(as_of, arrays), as_of, metrics, arrays)


def _fit_folds(weighed: sparse.csr_matrix, units: Units) -> tuple[Float64Array, Float64Array]:
    """Weights (columns x folds) and intercepts of the models, each fitted without its fold."""

    def fit(fold: int) -> tuple[Float64Array, float]:
        rows = np.flatnonzero(units.fold != fold)
        model = LogisticRegression(C=_PENALTY, class_weight="balanced", max_iter=200, tol=1e-3)
        model.fit(weighed[rows], units.positive[rows])
        return model.coef_[0], float(model.intercept_[0])

    with threadpool_limits(1), ThreadPoolExecutor(CORES) as pool:
        fitted = list(pool.map(fit, range(FOLDS)))
    return np.stack([weights for weights, _ in fitted], axis=1), np.array([b for _, b in fitted])


def _unseen(
    weighed: sparse.csr_matrix, weights: Float64Array, intercepts: Float64Array, fold: Int8Array
) -> Float64Array:
    decisions = weighed @ weights + intercepts
    return decisions[np.arange(len(fold)), fold.astype(np.int64)]


def _sampling_weights(units: Units, chosen: Units) -> Float64Array:
    """How many of all units each chosen one stands for."""
    every, few = (np.bincount(one.positive, minlength=2) for one in (units, chosen))
    return (every / np.maximum(few, 1))[chosen.positive.astype(np.int64)]


def _calibrate(
    decisions: Float64Array, positive: BoolArray, sample_weight: Float64Array
) -> Float64Array:
    """Slope and offset that turn decisions into log-odds at the shop's own rate of positives."""
    model = LogisticRegression(C=1e6, max_iter=1000)
    model.fit(decisions[:, None], positive, sample_weight=sample_weight)
    return np.array([model.coef_[0, 0], model.intercept_[0]])
