"""A blend of the other model types, with product text where purchases say little."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from recsys.arrays import Float32Array, Int32Array, Int64Array
from recsys.config import ConfigModel
from recsys.errors import InputError
from recsys.models import storage
from recsys.models.als import Als, AlsParameters, Trainer
from recsys.models.base import (
    Histories,
    Model,
    Parameters,
    Progress,
    RememberingModel,
    parse_parameters,
)
from recsys.models.histories import steps_from_end, strength, user_rows
from recsys.models.item_knn import ItemKnn, ItemKnnParameters
from recsys.models.kinds import had, not_offered
from recsys.models.linear import Linear, LinearParameters
from recsys.models.newcomers import Rare, Traits, find_rare
from recsys.models.popularity import RecentPopularity, RecentPopularityParameters
from recsys.models.self_attention import SelfAttention, SelfAttentionParameters
from recsys.models.siblings import lower_siblings

COMPONENTS: dict[str, type[Model]] = {
    one.model_type: one for one in (ItemKnn, Als, RecentPopularity, Linear, SelfAttention)
}
CONTENT = "content"
_CONTENT_DECAY = np.float32(0.8)


Fitter = Callable[[Model, Histories, int, Progress | None], Model]
"""Fits a model as its own `Model.fit` does."""


class HybridWeights(Parameters):
    """How much each component counts; only the ratios matter."""

    item_knn: float = Field(default=1.0, ge=0)
    als: float = Field(default=0.5, ge=0)
    recent_popularity: float = Field(default=0.2, ge=0)
    linear: float = Field(default=0.0, ge=0)
    self_attention: float = Field(default=0.0, ge=0)
    content: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _one_component_counts(self) -> Self:
        if not any(getattr(self, name) > 0 for name in COMPONENTS):
            raise ValueError(f"one of {list(COMPONENTS)} must be above 0")
        return self


class HybridParameters(ConfigModel):
    """What can be chosen: the weights, how soon scores of a sequence model fall, what a new product
    is, and the components' parameters."""

    weights: HybridWeights = HybridWeights()
    temperature: float = Field(default=3.0, gt=0, strict=True)
    few_purchases: float = Field(default=5.0, gt=0, strict=True)
    lift: float = Field(default=0.0, ge=0, strict=True)
    siblings: float = Field(default=1.0, ge=0, le=1, strict=True)
    item_knn: ItemKnnParameters = ItemKnnParameters()
    als: AlsParameters = AlsParameters()
    recent_popularity: RecentPopularityParameters = RecentPopularityParameters()
    linear: LinearParameters = LinearParameters()
    self_attention: SelfAttentionParameters = SelfAttentionParameters()


class Hybrid:
    """Scores of the components, cut off at zero, each divided by its largest of the user; those of
    a sequence model, which are logarithms of odds, as odds beside its largest (`softened`).

    With text vectors, `content` adds the similarity of a product's text to the texts of the
    user's history, scaled by ``few_purchases / (few_purchases + purchases)``: a new product
    competes by its text, a known one by what people did with it. A component of weight zero is
    not fitted at all.

    With traits of the products, a few of those with few purchases are lifted for each user: by the
    share `lift` of their score and of what is near to them (`recsys.models.newcomers.Rare`); and
    other sizes and shades of what the user had keep the share `siblings` of their score."""

    model_type: ClassVar[str] = "hybrid"
    slow: ClassVar[bool] = False

    def __init__(self, parameters: HybridParameters | None = None, seed: int = 0) -> None:
        chosen = parameters or HybridParameters()
        self._weights: dict[str, float] = chosen.weights.model_dump()
        self._temperature = chosen.temperature
        self._few_purchases = chosen.few_purchases
        self._lift = chosen.lift
        self._siblings = chosen.siblings
        self._components: dict[str, Model] = {
            name: kind.create(getattr(chosen, name).model_dump(), seed)
            for name, kind in COMPONENTS.items()
        }
        self._content: Float32Array | None = None
        self._novelty: Float32Array = np.zeros(0, dtype=np.float32)
        self._traits: Traits | None = None
        self._rare: Rare | None = None
        self._families: Int32Array | None = None
        self._fitter: Fitter | None = None

    @classmethod
    def create(cls, parameters: Mapping[str, Any], seed: int = 0) -> Self:
        return cls(parse_parameters(cls.model_type, HybridParameters, parameters), seed)

    @classmethod
    def of_fitted(
        cls,
        components: Mapping[str, Model],
        weights: Mapping[str, float],
        few_purchases: float = HybridParameters().few_purchases,
        temperature: float = HybridParameters().temperature,
    ) -> Self:
        """A blend of components that are fitted already, for choosing weights."""
        chosen = {"few_purchases": few_purchases, "temperature": temperature}
        model = cls.create({"weights": weights, **chosen})
        model._components = dict(components)
        return model

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return {
            "weights": dict(self._weights),
            "temperature": self._temperature,
            "few_purchases": self._few_purchases,
            "lift": self._lift,
            "siblings": self._siblings,
            **{name: model.hyperparameters for name, model in self._components.items()},
        }

    @property
    def personal(self) -> bool:
        """Whether anything but popularity counts."""
        by_text = self._content is not None and self._weights[CONTENT] > 0
        return by_text or any(self._components[name].personal for name in self._used())

    def use_content(self, vectors: Float32Array | None) -> Self:
        """Use ``(items, dimensions)`` normalised text vectors; a product without has zeros."""
        self._content = vectors
        return self

    def use_traits(self, traits: Traits | None) -> Self:
        """Use what tells how near the products are, to lift those with few purchases and to lower
        siblings."""
        self._traits = traits
        return self

    def trained_by(self, trainer: Trainer | None) -> Self:
        """Leave the training of ALS to `trainer`; None is `implicit`."""
        component = self._components[Als.model_type]
        assert isinstance(component, Als)
        component.trained_by(trainer)
        return self

    def fitted_by(self, fitter: Fitter | None) -> Self:
        """Leave the fits of the components to `fitter`; None: to the components."""
        self._fitter = fitter
        return self

    def count_purchases(self, histories: Histories, items: int) -> Self:
        """Learn which products are new; part of `fit`."""
        counts = np.bincount(histories.items, weights=histories.weight, minlength=items)
        few = self._few_purchases
        self._novelty = (few / (few + counts)).astype(np.float32)
        self._rare = None
        if self._traits is not None and self._lift > 0:
            purchases = np.bincount(histories.items[had(histories)], minlength=items)
            self._rare = find_rare(self._traits, purchases)
        self._families = None
        if self._traits is not None and self._siblings < 1:
            self._families = self._traits.families
        return self

    def fit(self, histories: Histories, items: int, progress: Progress | None = None) -> Self:
        if self._content is not None and len(self._content) != items:
            raise InputError(f"hybrid: {len(self._content)} text vectors for {items} products")
        for name in self._used():
            component, told = self._components[name], progress and _of(name, progress)
            if self._fitter is None:
                component.fit(histories, items, told)
            else:
                self._components[name] = self._fitter(component, histories, items, told)
        return self.count_purchases(histories, items)

    def score(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        total = self.blend(self.component_scores(histories, now))
        if self._rare is not None:
            total = self._rare.lift(total, self._lift, histories)
        return self._with_siblings(total, histories)

    def component_scores(
        self, histories: Histories, now: int | Int64Array
    ) -> dict[str, Float32Array]:
        """Normalised ``(users, items)`` scores of each component that has a weight."""
        parts = {
            name: self._scaled(name, self._components[name].score(histories, now), histories)
            for name in self._used()
        }
        if self._content is not None and self._weights[CONTENT] > 0:
            parts[CONTENT] = self._content_scores(self._content, histories)
        return parts

    def tempered(
        self, parts: Mapping[str, Float32Array], temperature: float
    ) -> dict[str, Float32Array]:
        """`component_scores` of a blend with that `temperature`, as this one has them."""
        power = np.float32(temperature / self._temperature)
        return {
            name: scores**power if name == SelfAttention.model_type and power != 1 else scores
            for name, scores in parts.items()
        }

    def blend(
        self, parts: Mapping[str, Float32Array], items: Int32Array | None = None
    ) -> Float32Array:
        """The weighted sum of `component_scores`. `items` says which products the columns of each
        row are, if they are not all in order."""
        novelty = self._novelty if items is None else self._novelty[items]
        total: Float32Array | None = None
        for name, scores in parts.items():
            weight: Any = np.float32(self._weights[name])
            weighted = scores * (weight * novelty if name == CONTENT else weight)
            total = weighted if total is None else np.add(total, weighted, out=total)
        assert total is not None  # one component always has a weight
        return total

    def parts(self, histories: Histories, now: int | Int64Array) -> dict[str, Float32Array]:
        """`component_scores` with their weights: their sum is `score`."""
        scores = self.component_scores(histories, now).items()
        parts = {name: self.blend({name: of_component}) for name, of_component in scores}
        if self._rare is not None:
            total = np.sum(list(parts.values()), axis=0)
            lifted = self._rare.lifted(total, self._lift, histories) * np.float32(self._lift)
            for part in parts.values():
                part[:, self._rare.items] += lifted * self._rare.gain(part)
        return {name: self._with_siblings(part, histories) for name, part in parts.items()}

    def _with_siblings(self, scores: Float32Array, histories: Histories) -> Float32Array:
        if self._families is None:
            return scores
        return lower_siblings(scores, histories, self._families, self._siblings)

    def slow_queries(self, histories: Histories) -> Float32Array | None:
        reader = self._reader()
        return None if reader is None else reader.slow_queries(histories)

    def remember(self, histories: Histories, queries: Float32Array) -> None:
        reader = self._reader()
        if reader is None:
            raise InputError("hybrid: there is no component that reads slowly")
        reader.remember(histories, queries)

    def similar(self, item: int) -> Float32Array:
        total = np.zeros(len(self._novelty), dtype=np.float32)
        for similar in self.parts_of_similar(item).values():
            total += similar
        return total

    def parts_of_similar(self, item: int) -> dict[str, Float32Array]:
        """``(items,)`` what each component adds to `similar`."""
        parts: dict[str, Float32Array] = {}
        for name in self._used():
            if name != RecentPopularity.model_type:
                similar = np.maximum(self._components[name].similar(item), 0)
                similar[item] = 0
                similar /= max(float(similar.max()), 1e-12)
                parts[name] = np.float32(self._weights[name]) * similar
        if self._content is not None:
            # Products that nobody bought together yet are at least ordered by their text.
            text = np.maximum(self._content @ self._content[item], 0)
            weight: Any = np.maximum(np.float32(self._weights[CONTENT]), np.float32(0.1))
            parts[CONTENT] = weight * text
        return parts

    def save(self, folder: Path) -> None:
        for name in self._used():
            (folder / name).mkdir()
            self._components[name].save(folder / name)
        storage.write_array(folder, "novelty", self._novelty)
        if self._content is not None:
            storage.write_array(folder, "content", self._content)
        if self._rare is not None:
            storage.write_array(folder, "rare_items", self._rare.items)
            storage.write_array(folder, "rare_near", self._rare.near)
            storage.write_array(folder, "rare_weights", self._rare.weights)
        if self._families is not None:
            storage.write_array(folder, "families", self._families)
        has = {
            "has_content": self._content is not None,
            "has_rare": self._rare is not None,
            "has_families": self._families is not None,
        }
        storage.write_parameters(folder, {**self.hyperparameters, **has})

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = storage.read_parameters(folder)
        has_content = stored.pop("has_content", False)
        has_rare = stored.pop("has_rare", False)
        has_families = stored.pop("has_families", False)
        model = cls.create(stored)
        model._novelty = storage.read_array(folder, "novelty", np.float32, 1)
        if has_content:
            model._content = storage.read_array(folder, "content", np.float32, 2)
            if len(model._content) != len(model._novelty):
                raise storage.ArtifactError(
                    f"{folder}: content.npy does not fit the number of products"
                )
        if has_rare:
            model._rare = _read_rare(folder, len(model._novelty))
        if has_families:
            model._families = _read_families(folder, len(model._novelty))
        for name in model._used():
            model._components[name] = COMPONENTS[name].load(folder / name)
        return model

    def _scaled(self, name: str, scores: Float32Array, histories: Histories) -> Float32Array:
        if name == SelfAttention.model_type:
            return softened(scores, histories, self._temperature)
        return normalised(scores, histories)

    def _reader(self) -> RememberingModel | None:
        """The component that reads a history slowly; there is one kind at most."""
        used = [self._components[name] for name in self._used()]
        return next((one for one in used if isinstance(one, RememberingModel)), None)

    def _used(self) -> list[str]:
        return [name for name in self._components if self._weights[name] > 0]

    def _content_scores(self, content: Float32Array, histories: Histories) -> Float32Array:
        weight = _CONTENT_DECAY ** steps_from_end(histories) * strength(histories)
        profile = np.zeros((histories.users, content.shape[1]), dtype=np.float32)
        asked = np.flatnonzero(np.diff(histories.indptr))  # a sum of nothing is not one to NumPy
        terms = weight.astype(np.float32)[:, None] * content[histories.items]
        profile[asked] = np.add.reduceat(terms, histories.indptr[asked], axis=0)
        return normalised(profile @ content.T, histories)


def _read_families(folder: Path, products: int) -> Int32Array:
    families = storage.read_array(folder, "families", np.int32, 1)
    # There are no more families than products, and numbers have no gaps.
    if len(families) != products or not (families >= 0).all() or (families >= products).any():
        raise storage.ArtifactError(f"{folder}: families.npy does not fit the products")
    return families


def _read_rare(folder: Path, products: int) -> Rare:
    items = storage.read_array(folder, "rare_items", np.int32, 1)
    near = storage.read_array(folder, "rare_near", np.int32, 2)
    rare = Rare(items, near, storage.read_array(folder, "rare_weights", np.float32, 2))
    fits = len(items) == len(near) and near.shape == rare.weights.shape
    for columns in (rare.items, rare.near):
        fits = fits and (not columns.size or 0 <= columns.min() <= columns.max() < products)
    if not fits:
        raise storage.ArtifactError(f"{folder}: rare_near.npy does not fit the products")
    return rare


def normalised(scores: Float32Array, histories: Histories) -> Float32Array:
    """`scores` ``(users, items)`` cut off at zero and divided by the largest of each row.

    The largest among the products that may be recommended: those that the user had would set the
    scale, and count as one at most. A row without positive scores is zero."""
    positive = np.maximum(scores, np.float32(0))
    barred = not_offered(histories)
    seen = (user_rows(histories)[barred], histories.items[barred])
    of_seen = positive[seen]
    positive[seen] = 0
    positive /= np.maximum(positive.max(axis=1, keepdims=True), np.float32(1e-12))
    positive[seen] = np.minimum(of_seen, 1)
    return positive


def softened(scores: Float32Array, histories: Histories, temperature: float) -> Float32Array:
    """``exp((score - largest) / temperature)`` of `scores` ``(users, items)``, the largest being
    that of each row among the products that may be recommended; others count as one at most."""
    barred = not_offered(histories)
    seen = (user_rows(histories)[barred], histories.items[barred])
    offered = scores.copy()
    offered[seen] = -np.inf
    largest = offered.max(axis=1, keepdims=True)
    largest[largest == -np.inf] = 0
    offered[seen] = np.minimum(scores, largest)[seen]
    offered -= largest
    offered /= np.float32(temperature)
    return np.exp(offered, out=offered)


def _of(component: str, progress: Progress) -> Progress:
    """`progress` of one component: several measure what they call alike, such as a loss."""

    def told(iteration: int, measured: dict[str, float]) -> None:
        progress(iteration, {f"{component}.{name}": value for name, value in measured.items()})

    return told
