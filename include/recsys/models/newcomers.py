"""Where a product stands that a model does not know: with those near to it. NumPy alone.

Near is who shares the family, the text, the brand, the category or the price. A newcomer's score is
the mean of its neighbours' scores, and more where it sells already; a customer who had a newcomer
had, in part, its neighbours.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array
from recsys.models.base import Histories
from recsys.models.histories import one_a_product, user_rows
from recsys.models.kinds import CODE_OF, DISMISS, not_offered
from recsys.schema import Kind

NEIGHBOURS = 20
FEW_PURCHASES = 5
"""A product with fewer is new: what people did says little of it."""
LIFT = 0.2
"""How far newcomers are lifted above their neighbours, of whom a mean is less than the best; but
not above those of their own family, whose place in a list is one (decision 150)."""
TREND, BEST_SELLERS = 0.5, 10
"""What sells as the tenth of the best-selling products does, or better, gains half of what lies
between the mean of all scores and the best; what sells less gains less (decision 166)."""
LEAST_SALES = 3.0
"""So much sells the tenth at least: in a shop of few sales a single one is no trend."""
MOST_LIFTED = 2
"""So many places of a list are for products with few purchases that would not reach it by
themselves. Without a bound, a customer of rare taste gets a list of them (decision 150)."""

_FAMILY, _TEXT, _BRAND, _CATEGORY, _PRICE = 3.0, 1.0, 0.15, 0.25, 0.1
_SHARPNESS = 16.0
"""The weight of a neighbour is e to the power of this times how near it is."""
_SAME_PRICE = 0.25
"""Prices of this difference in their logarithm are half as near as equal ones."""

_CELLS_AT_ONCE = 1 << 20
_MOST_COMPARED = 100_000_000  # pairs of products: five seconds, whatever a shop has
_LEAST_COMPARED = 1_000

_VIEW = CODE_OF[Kind.VIEW]


class Traits(NamedTuple):
    """What tells how near products are, ``(items,)`` each: numbers of the family, of the brand and
    of the category (-1 unknown), the price in dong (NaN unknown); and ``(items, d)`` text vectors
    of length one, zeros for a product without, None where there are none at all."""

    families: Int32Array
    brands: Int32Array
    categories: Int32Array
    prices: Float64Array
    vectors: Float32Array | None = None


@dataclass(frozen=True)
class Newcomers:
    """Products that follow the `known` ones of a model in the catalogue.

    ``(newcomers, k)`` `near` are columns of the model, `weights` how much each counts: a row sums
    up to one, or to zero if nothing is near."""

    known: int
    near: Int32Array
    weights: Float32Array
    lift: Float32Array  # (newcomers,) how far each is lifted above its neighbours
    trend: Float32Array  # (newcomers,) how well each sells, from 0 to 1: see `TREND`

    def beside(self, values: Float32Array) -> Float32Array:
        """``(..., known + newcomers)`` from ``(..., known)`` `values` of products: a newcomer has
        the mean of its neighbours', or of all if it has none."""
        mean, _ = self._means(values, slice(None))
        return np.concatenate([values, mean], axis=-1)

    def lifted(self, values: Float32Array) -> Float32Array:
        """As `beside`, and what lies above the mean of all is lifted by the share `lift` of that.
        Linear in `values`: of vectors, sums and parts of scores it gives those of the scores."""
        return np.concatenate([values, self._lifted(values, slice(None))], axis=-1)

    def lifted_some(self, values: Float32Array, items: Int32Array) -> Float32Array:
        """``(..., some)`` those of `lifted` that stand in the columns `items`."""
        new = items >= self.known
        chosen = np.empty((*values.shape[:-1], len(items)), dtype=np.float32)
        chosen[..., ~new] = values[..., items[~new]]
        chosen[..., new] = self._lifted(values, items[new] - self.known)
        return chosen

    def place(self, scores: Float32Array) -> Float32Array:
        """``(..., known + newcomers)`` scores from a model's ``(..., known)``: as `lifted`, and
        higher where a newcomer sells already."""
        placed = self.lifted(scores)
        if self.trend.any():
            best, of_all = scores.max(axis=-1, keepdims=True), scores.mean(axis=-1, keepdims=True)
            placed[..., self.known :] += self.gain(best - of_all)
        return placed

    def gain(self, span: Float32Array) -> Float32Array:
        """``(..., newcomers)`` what their own sales add where ``(..., 1)`` `span` lies between the
        mean of all scores and the best."""
        return np.float32(TREND) * self.trend * span

    def popular(self, popularity: Float32Array) -> Float32Array:
        """``(known + newcomers,)`` from the ``(known,)`` `popularity`: as `beside`, and what sells
        as the tenth of the best-selling products is as popular as that."""
        placed = self.beside(popularity)
        own = self.trend * np.float32(_tenth(popularity))
        placed[self.known :] = np.maximum(placed[self.known :], own)
        return placed

    def _lifted(self, values: Float32Array, rows: Int32Array | slice) -> Float32Array:
        mean, of_all = self._means(values, rows)
        return mean + self.lift[rows] * (mean - of_all)

    def _means(
        self, values: Float32Array, rows: Int32Array | slice
    ) -> tuple[Float32Array, Float32Array]:
        """Means of the neighbours of the newcomers `rows`, and ``(..., 1)`` that of all."""
        weights = self.weights[rows]
        mean = mean_of_near(values, self.near[rows], weights)
        of_all = values.mean(axis=-1, keepdims=True)
        return np.where(weights.any(axis=1), mean, of_all), of_all

    def like(self, item: int) -> list[tuple[int, float]]:
        """The model's products that stand for that in column `item`, and their weights: itself if
        the model knows it, else its neighbours."""
        if item < self.known:
            return [(item, 1.0)]
        near, weights = self.near[item - self.known], self.weights[item - self.known]
        return list(zip(near[weights > 0].tolist(), weights[weights > 0].tolist(), strict=True))

    def as_known(self, histories: Histories) -> Histories:
        """The same users with what the model knows alone: a newcomer among `histories` counts as
        looks at its neighbours. One that was dismissed says nothing."""
        new = histories.items >= self.known
        if not new.any():
            return histories
        number = histories.items[new] - self.known
        width = self.near.shape[1]
        entry = np.repeat(np.arange(len(new)), np.where(new, width, 1))
        spread = new[entry]
        items, weight = histories.items[entry], histories.weight[entry]
        kinds = histories.kinds[entry]
        said = spread & (kinds == DISMISS)
        items[spread] = self.near[number].ravel()
        weight[spread] *= self.weights[number].ravel()
        kinds[spread] = _VIEW
        kept = ~said & (~spread | (weight > 0))
        ends = np.append(0, np.cumsum(np.bincount(entry[kept], minlength=len(new))))
        entry = entry[kept]
        return one_a_product(
            replace(
                histories,
                indptr=ends[histories.indptr],
                items=items[kept],
                confidence=histories.confidence[entry],
                weight=weight[kept],
                times=histories.times[entry],
                kinds=kinds[kept],
            )
        )


@dataclass(frozen=True)
class Rare:
    """A model's own products with fewer than `FEW_PURCHASES`: their columns ``(rare,)`` `items`,
    and ``(rare, k)`` `near` and `weights` as of `Newcomers`."""

    items: Int32Array
    near: Int32Array
    weights: Float32Array

    def lift(self, scores: Float32Array, by: float, histories: Histories) -> Float32Array:
        """``(users, products)`` `scores`, with those of `lifted` products higher by their `gain`
        times `by`."""
        higher = scores.copy()
        higher[:, self.items] += (
            self.lifted(scores, by, histories) * np.float32(by) * (self.gain(scores))
        )
        return higher

    def lifted(self, scores: Float32Array, by: float, histories: Histories) -> BoolArray:
        """``(users, rare)`` which of them are lifted: the best `MOST_LIFTED` of each user, when
        all were, among what the users of `histories` may be offered."""
        higher = scores[:, self.items] + np.float32(by) * self.gain(scores)
        number = np.full(scores.shape[1], -1)
        number[self.items] = np.arange(len(self.items))
        barred = not_offered(histories)
        had = number[histories.items[barred]]
        higher[user_rows(histories)[barred][had >= 0], had[had >= 0]] = -np.inf
        most = min(MOST_LIFTED, len(self.items))
        best = np.argpartition(higher, len(self.items) - most, axis=1)[:, len(self.items) - most :]
        lifted = np.zeros(higher.shape, dtype=np.bool_)
        np.put_along_axis(lifted, best, np.take_along_axis(higher, best, axis=1) > -np.inf, axis=1)
        return lifted

    def gain(self, scores: Float32Array) -> Float32Array:
        """``(users, rare)`` their own scores, and to each the mean of its neighbours'."""
        own = scores[:, self.items]
        return own + mean_of_near(scores, self.near, self.weights)


def find_rare(traits: Traits, purchases: Int64Array) -> Rare | None:
    """The products of `traits` of which ``(products,)`` `purchases` are few, and what is near; None
    if there are none."""
    items = np.flatnonzero(purchases < FEW_PURCHASES).astype(np.int32)
    if not len(items):
        return None
    return Rare(items, *find_near(traits, items, _bought(purchases, len(items))))


def find_newcomers(
    traits: Traits, purchases: Int64Array, sales: Float64Array | None = None
) -> Newcomers | None:
    """The products of `traits` that follow those a model knows, of which ``(known,)`` `purchases`
    are known; None if there are none. Neighbours are products with purchases: the others have no
    score that says anything. ``(products,)`` `sales` are those of late, None if nobody counted
    them; one that has just happened counts one."""
    known, items = len(purchases), len(traits.families)
    if items == known:
        return None
    asked = np.arange(known, items, dtype=np.int32)
    near, weights = find_near(traits, asked, _bought(purchases, len(asked)))
    family = traits.families[asked, None]
    sibling = (traits.families[near] == family) & (family >= 0) & (weights > 0)
    lift = np.where(sibling.any(axis=1), 0, LIFT).astype(np.float32)
    trend = np.zeros(len(asked), np.float32) if sales is None else trend_of(sales, known)
    return Newcomers(known, near, weights, lift, trend)


def trend_of(sales: Float64Array, known: int) -> Float32Array:
    """``(newcomers,)`` what those that follow the `known` products sell beside the tenth of these,
    at most 1."""
    of_tenth = max(_tenth(sales[:known]), LEAST_SALES)
    return np.minimum(sales[known:] / of_tenth, 1).astype(np.float32)


def mean_of_near(scores: Float32Array, near: Int32Array, weights: Float32Array) -> Float32Array:
    """``(..., n)`` weighted means of the ``(..., products)`` `scores` of the ``(n, k)`` `near`."""
    mean = np.zeros((*scores.shape[:-1], len(near)), dtype=np.float32)
    for column, weight in zip(near.T, weights.T, strict=True):
        mean += scores.take(column, axis=-1) * weight
    return mean


def _tenth(values: Float32Array | Float64Array) -> float:
    """The tenth of the best, or the last if there are fewer."""
    if not len(values):
        return 0.0
    place = min(BEST_SELLERS, len(values))
    return float(np.partition(values, len(values) - place)[len(values) - place])


def _bought(purchases: Int64Array, asked: int) -> Int32Array:
    """The products with purchases, the best known of them if the `asked` ones are very many."""
    most = max(_LEAST_COMPARED, _MOST_COMPARED // max(asked, 1))
    among = np.flatnonzero(purchases > 0)
    if len(among) > most:
        among = np.sort(among[np.argpartition(-purchases[among], most)[:most]])
    return among.astype(np.int32)


def find_near(
    traits: Traits, asked: Int32Array, among: Int32Array, neighbours: int = NEIGHBOURS
) -> tuple[Int32Array, Float32Array]:
    """``(asked, k)`` products of `among` that are near to each of `asked`, not itself, and their
    weights, which sum up to one; all zero in a row where nothing is near."""
    width = min(neighbours, len(among))
    near = np.zeros((len(asked), width), dtype=np.int32)
    weights = np.zeros((len(asked), width), dtype=np.float32)
    at_once = max(1, _CELLS_AT_ONCE // max(len(among), 1))
    for start in range(0, len(asked) if width else 0, at_once):
        rows = asked[start : start + at_once]
        close = _closeness(traits, rows, among)
        best = np.argpartition(close, len(among) - width, axis=1)[:, len(among) - width :]
        closeness = np.take_along_axis(close, best, axis=1)
        weight = np.exp(_SHARPNESS * (closeness - closeness.max(axis=1, keepdims=True)))
        weight *= closeness > 0
        near[start : start + at_once] = among[best]
        total = np.maximum(weight.sum(axis=1, keepdims=True), np.float32(1e-12))
        weights[start : start + at_once] = weight / total
    return near, weights


def _closeness(traits: Traits, rows: Int32Array, among: Int32Array) -> Float32Array:
    """``(rows, among)``: how near the products are, 0 for nothing in common, and for itself."""
    close = np.zeros((len(rows), len(among)), dtype=np.float32)
    if traits.vectors is not None:
        close += np.float32(_TEXT) * np.maximum(traits.vectors[rows] @ traits.vectors[among].T, 0)
    for weight, numbers in (
        (_FAMILY, traits.families),
        (_BRAND, traits.brands),
        (_CATEGORY, traits.categories),
    ):
        same = (numbers[rows, None] == numbers[among]) & (numbers[rows, None] >= 0)
        close += np.float32(weight) * same
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = np.log(traits.prices).astype(np.float32)
        apart = np.abs(levels[rows, None] - levels[among])
    price = np.float32(_PRICE) / (1 + apart / np.float32(_SAME_PRICE))
    close += np.where(np.isfinite(price), price, 0)
    close[rows[:, None] == among] = 0
    return close
