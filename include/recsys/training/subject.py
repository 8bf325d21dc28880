"""A shop as trainings see it, and how what they make is judged on validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recsys import schema
from recsys.arrays import (
    Float32Array,
    Float64Array,
    Int32Array,
)
from recsys.content.embeddings import current_embeddings
from recsys.data.versions import PublishedVersion
from recsys.evaluation import ranking
from recsys.evaluation.leave_one_out import Fold, LeaveOneOut
from recsys.evaluation.metrics import metrics_per_user
from recsys.evaluation.ranking import HeldOut, Ranks
from recsys.models.als import Trainer
from recsys.models.base import Histories, Model, Progress
from recsys.models.hybrid import Hybrid
from recsys.models.model_types import create_model
from recsys.models.newcomers import Traits
from recsys.settings import Settings
from recsys.text import fold
from recsys.training.fits import KeptFits, Measured

_SAMPLE = 25_000


class ContentVectors(NamedTuple):
    """``(items, dimensions)`` vectors, zeros for a product without, and the set they are of."""

    set_id: str
    vectors: Float32Array


@dataclass(frozen=True)
class Subject:
    """A shop as trainings see it."""

    training: Histories  # parameters are chosen by fits on these
    validation: HeldOut  # that answer these, or where there are `folds` on these
    items: int  # number of products
    seed: int
    content: ContentVectors | None = None  # for the model type that uses them
    trainer: Trainer | None = None  # what trains ALS; None is `implicit`
    weights: Mapping[str, float] | None = None  # of signals, where there are some
    traits: Traits | None = None  # for the model type that lifts products with few purchases
    fits: KeptFits | None = None  # keeps the fits of slow model types
    folds: Sequence[Fold] = ()  # the same questions, each with more that is known

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

    def keep(self, model: Model, measured: Measured) -> None:
        """Spare `fit` what was fitted on `training` already, a tuning having stopped it there."""
        if self.fits is not None:
            self.fits.keep(model, self.seed, self.training, self.items, measured)

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


def judged_on(subject: Subject, most: int = _SAMPLE) -> list[Fold]:
    """What parameters are judged by: fits on the `training` of each answer its questions. At most
    25,000 users are asked in all, or `most` if that is less."""
    if not subject.folds:
        return [Fold(subject.training, sample_of(subject, most))]
    most = max(min(most, _SAMPLE) // len(subject.folds), 1)
    return [Fold(one.training, _sample(one.questions, most, subject.seed)) for one in subject.folds]


def sample_of(subject: Subject, most: int = _SAMPLE) -> HeldOut:
    """The validation of `subject`, of at most 25,000 users, or `most` if that is less."""
    return _sample(subject.validation, min(most, _SAMPLE), subject.seed)


def _sample(questions: HeldOut, most: int, seed: int) -> HeldOut:
    if questions.users <= most:
        return questions
    chosen = np.random.default_rng(seed).choice(questions.users, most, replace=False)
    return ranking.take_questions(questions, np.sort(chosen))


def objective(model: Any, questions: HeldOut) -> float:
    """Mean of recall@10 and NDCG@10."""
    return float(metric_per_user(ranking.rank_targets(model, questions)).mean())


def objective_on(folds: Sequence[Fold], models: Sequence[Any]) -> float:
    """`objective` of all users of the `folds`, those of each asked of its own model."""
    every = zip(models, folds, strict=True)
    ranks = [ranking.rank_targets(model, fold.questions) for model, fold in every]
    return float(np.concatenate([metric_per_user(one) for one in ranks]).mean())


def metric_per_user(ranks: Ranks) -> Float64Array:
    per_user = metrics_per_user(ranks)
    return (per_user["recall_at_10"] + per_user["ndcg_at_10"]) / 2
