"""Training the sentiment scorer on the shop's own stars."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from recsys.comments import ngrams
from recsys.comments.config import LearnedConfig
from recsys.comments.evaluation import measure
from recsys.comments.linear import NgramScorer, version_of, weigh
from recsys.comments.shingles import UInt64
from recsys.schema import POSITIVE_RATING
from recsys.settings import CORES
from recsys.text_columns import fold_series

_PENALTY = 5.0  # sklearn's C: on Hasaki 1, 5 and 20 differ by less than the error of the AUC
_MIN_TEXTS = 2  # an n-gram of a single text says nothing about another

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """The training data: one entry for each group of texts that count as one.

    Attributes
    ----------
    texts
        One text of the group.
    key
        Its `TextFeatures.key`.
    rating
        Mean stars over the group's distinct (user, text) pairs.
    fold
        Number of its fold: texts of one user share it, and so do all copies of one text.
    member_keys, member_units
        Every key of every group and the position of its group.
    """

    texts: pd.Series
    key: UInt64
    rating: Float64
    fold: npt.NDArray[np.int8]
    member_keys: UInt64
    member_units: npt.NDArray[np.int64]

    @property
    def positive(self) -> Bool:
        return self.rating >= POSITIVE_RATING

    def take(self, chosen: npt.NDArray[np.int64]) -> "Units":
        """The units at the positions `chosen`."""
        position = np.full(len(self.key), -1)
        position[chosen] = np.arange(len(chosen))
        kept = position[self.member_units] >= 0
        return Units(
            self.texts.iloc[chosen],
            self.key[chosen],
            self.rating[chosen],
            self.fold[chosen],
            self.member_keys[kept],
            position[self.member_units[kept]],
        )


def gather_units(
    texts: pd.Series, key: UInt64, group: npt.NDArray[np.int64], rows: pd.DataFrame, folds: int
) -> Units:
    """Turn a view into training data.

    Parameters
    ----------
    texts, key, group
        The distinct texts, their keys and the number of the group of near-equal texts that
        each belongs to (-1: a text without words, left out).
    rows
        One row for each (text, user, rating) of the view: ``text`` is a position in `texts`.
    """
    rows = rows.assign(group=group[rows["text"]])
    rows = rows[rows["group"] >= 0].drop_duplicates(["group", "user", "rating"])
    by_group = rows.groupby("group", sort=True)
    table = by_group.agg(rating=("rating", "mean"), user=("user", "min"), last=("user", "max"))
    order = np.lexsort((key, group))
    order = order[group[order] >= 0]
    first = order[np.r_[True, np.diff(group[order]) > 0]] if len(order) else order
    own = pd.util.hash_array(table["user"].to_numpy(dtype=object), categorize=False)
    shared = (table["user"] != table["last"]).to_numpy()
    fold = np.where(shared, key[first], own) % np.uint64(folds)
    position = pd.Index(table.index).get_indexer(pd.Index(group[order]))
    return Units(
        texts.iloc[first],
        key[first],
        table["rating"].to_numpy(dtype=np.float64),
        fold.astype(np.int8),
        key[order],
        position,
    )


def choose(units: Units, limit: int) -> npt.NDArray[np.int64]:
    """Positions of at most `limit` units to train on, in order of key.

    The rarer class may fill half of it; within a class the smallest keys are taken, so that
    the choice hardly changes when texts are added.
    """
    order = np.argsort(units.key, kind="stable")
    positive = units.positive[order]
    sides = sorted((order[~positive], order[positive]), key=len)
    rare = sides[0][: limit // 2]
    return np.sort(np.concatenate([rare, sides[1][: limit - len(rare)]]))


def train(units: Units, config: LearnedConfig, as_of: datetime) -> NgramScorer:
    """Fit one model a fold, calibrate on what each had not seen, measure the same way."""
    chosen = units.take(choose(units, config.max_training_texts))
    counts = _count(chosen.texts)
    seen_in = np.bincount(counts.indices, minlength=ngrams.WIDTH)
    columns = np.flatnonzero(seen_in >= _MIN_TEXTS)
    idf = np.zeros(ngrams.WIDTH, dtype=np.float32)
    idf[columns] = np.log((1 + len(chosen.key)) / (1 + seen_in[columns])) + 1
    weighed = weigh(counts, idf)[:, columns]
    weights, intercepts = _fit_folds(weighed, chosen, config.folds)
    decisions = _unseen(weighed, weights, intercepts, chosen.fold)
    sample_weight = _sampling_weights(units, chosen)
    calibration = _calibrate(decisions, chosen.positive, sample_weight)
    plain = weigh(_count(fold_series(chosen.texts)), idf)[:, columns]
    order = np.argsort(chosen.member_keys)
    owners = chosen.member_units[order]
    arrays: dict[str, npt.NDArray[Any]] = {
        "columns": columns.astype(np.int32),
        "idf": idf[columns],
        "weights": weights.astype(np.float32),
        "intercepts": intercepts,
        "calibration": calibration,
        "keys": chosen.member_keys[order],
        "folds": chosen.fold[owners],
        "positive": chosen.positive[owners],
    }
    metrics = measure(
        ratings=chosen.rating,
        decisions=decisions,
        decisions_without_accents=_unseen(plain, weights, intercepts, chosen.fold),
        calibration=calibration,
        sample_weight=sample_weight,
    )
    return NgramScorer(version_of(as_of, arrays), as_of, metrics, arrays)


def _count(texts: pd.Series) -> sparse.csr_matrix:
    return sparse.vstack([counts for _, counts in ngrams.in_chunks(texts)], format="csr")


def _fit_folds(weighed: sparse.csr_matrix, units: Units, folds: int) -> tuple[Float64, Float64]:
    """Weights (columns x folds) and intercepts of the models, each fitted without its fold."""

    def fit(fold: int) -> tuple[Float64, float]:
        rows = np.flatnonzero(units.fold != fold)
        model = LogisticRegression(C=_PENALTY, class_weight="balanced", max_iter=200, tol=1e-3)
        model.fit(weighed[rows], units.positive[rows])
        return model.coef_[0], float(model.intercept_[0])

    with threadpool_limits(1), ThreadPoolExecutor(CORES) as pool:
        fitted = list(pool.map(fit, range(folds)))
    return np.stack([weights for weights, _ in fitted], axis=1), np.array([b for _, b in fitted])


def _unseen(
    weighed: sparse.csr_matrix, weights: Float64, intercepts: Float64, fold: npt.NDArray[np.int8]
) -> Float64:
    decisions = weighed @ weights + intercepts
    return decisions[np.arange(len(fold)), fold.astype(np.int64)]


def _sampling_weights(units: Units, chosen: Units) -> Float64:
    """How many of all units each chosen one stands for."""
    share = [
        (units.positive == side).sum() / max((chosen.positive == side).sum(), 1)
        for side in (False, True)
    ]
    return np.where(chosen.positive, share[1], share[0])


def _calibrate(decisions: Float64, positive: Bool, sample_weight: Float64) -> Float64:
    """Slope and offset that turn decisions into log-odds at the shop's own rate of positives."""
    model = LogisticRegression(C=1e6, max_iter=1000)
    model.fit(decisions[:, None], positive, sample_weight=sample_weight)
    return np.array([model.coef_[0, 0], model.intercept_[0]])
