"""What is bought together: products that complete a cart, and not others in the place of it.

Learned from baskets: what a customer got within a day, and what in the basket after it. Families of
products are counted, not listings: nobody completes a cream with a larger one of it. Few products
share many baskets, so each is backed by what goes with its category, and that by what goes with
anything. Another product of the category, and one of which the text says nearly the same, is rather
taken instead: such pairs count less.

Counting needs SciPy and imports it; loading and asking do not."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from recsys.arrays import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    IntegerArray,
    unit_rows,
)
from recsys.models import storage
from recsys.models.base import Histories
from recsys.models.histories import acquired, keep_entries, user_rows
from recsys.models.sparse_rows import SparseRows

if TYPE_CHECKING:
    from scipy import sparse

BASKET_SECONDS = 12 * 3_600
"""Two purchases of one basket lie so far apart at most: a day, whatever the time zone."""
NEXT_DAYS, NEXT_WEIGHT = 60, 0.3
"""What the next basket counts beside the same one, if it comes within so many days."""
LARGEST_BASKET = 50
"""Families. Whoever takes more buys for another shop, and pairs grow with the square."""
SAME_CATEGORY, SAME_TEXT, NEAR_TEXT = 0.5, 0.5, 0.8
"""What pairs of one category count, and those whose texts have this cosine."""
SHRINKAGE = 5.0
"""With so many baskets a product is trusted as much as what backs it."""
TO_NORM = 0.1
"""How much it counts against a product that it is in many baskets: with 0 all carts get what sells,
and with 0.5 what few people ever bought."""
KEPT, KEPT_OF_MANY = 50, 300
"""Of a family, and of a category: the strongest."""
_CELLS_AT_ONCE = 50_000  # pairs whose texts are compared: 150 MB with 384 dimensions
_LEAST_SHARE = 1e-6
_LISTING = 1e-3
_DAY = 86_400


@dataclass(frozen=True)
class Complements:
    """What goes with what, by family."""

    families: Int32Array  # (items,) number of each product's family
    listings: Float32Array  # (items,) 1 for the best-selling of its family, others hardly less
    categories: Int32Array  # (families,) number of each family's category
    trust: Float32Array  # (families + categories,) in [0, 1]: how much it leaves to what backs it
    rows: SparseRows  # of the families, of the categories, of everything; columns are families

    def scores(self, items: IntegerArray, weights: Float32Array | None = None) -> Float32Array:
        """``(all items,)`` how well each product goes with the products `items` together, each of
        which counts its weight, or 1; 0 where nothing is known, and for the families of `items`."""
        cart, place = np.unique(self.families[items], return_inverse=True)
        counts = np.bincount(place, weights=weights, minlength=len(cart))
        part = np.minimum(counts, 1).astype(np.float32)  # two sizes of a product are one
        category = len(self.categories) + self.categories[cart]
        everything = np.full(len(cart), len(self.trust))
        to_category = self.trust[cart]
        parts = [part, part * to_category, part * to_category * self.trust[category]]
        rows = np.concatenate([cart, category, everything]).astype(np.int32)
        asked = np.array([0, len(rows)], dtype=np.int64)
        sums = self.rows.weighted_sums(asked, rows, np.concatenate(parts))[0]
        sums[cart] = 0
        return np.asarray(sums[self.families] * self.listings, dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write the arrays into the existing `folder`."""
        for name, array in _arrays(self).items():
            storage.write_array(folder, name, array)

    @classmethod
    def load(cls, folder: Path, items: int) -> Self:
        """Read what `save` wrote of a model of so many products. Raises `ArtifactError` if it is
        not sound."""
        read = {name: storage.read_array(folder, name, kind, 1) for name, kind in _STORED.items()}
        rows = SparseRows(*(read.pop(one.name) for one in fields(SparseRows)))
        found = cls(**read, rows=rows)
        if problem := rows.problem() or found._problem(items):
            raise storage.ArtifactError(f"{folder}: the complements are not sound: {problem}")
        return found

    def _problem(self, items: int) -> str | None:
        if not len(self.families) == len(self.listings) == items:
            return f"{len(self.families)} families of {items} products"
        families = len(self.categories)
        categories = len(self.trust) - families
        if self.rows.size != len(self.trust) + 1:
            return f"{self.rows.size} rows for {len(self.trust)} families and categories"
        numbers = ((self.families, families), (self.categories, categories))
        if any(len(one) and not 0 <= one.min() <= one.max() < size for one, size in numbers):
            return "a product is of a family, or a family of a category, that does not exist"
        if len(self.rows.columns) and self.rows.columns.max() >= families:
            return "a cell lies in a column that is no family"
        return None


_STORED: dict[str, type[np.generic]] = {
    **{"families": np.int32, "listings": np.float32, "categories": np.int32, "trust": np.float32},
    **{"starts": np.int64, "columns": np.int32, "values": np.float32},
}


def _arrays(complements: Complements) -> dict[str, Int32Array | Float32Array | Int64Array]:
    own = {name: getattr(complements, name) for name in _STORED if hasattr(complements, name)}
    return own | {one.name: getattr(complements.rows, one.name) for one in fields(SparseRows)}


def learn_complements(
    histories: Histories, families: Int32Array, categories: Int32Array, texts: Float32Array | None
) -> Complements:
    """From all that users did, an entry an event.

    `families` ``(items,)`` is the number of each product's family, from 0 without gaps,
    `categories` ``(items,)`` that of its category, 0 where none is known; `texts` ``(items, d)``
    are vectors of length one, zeros for a product without."""
    count = int(families.max()) + 1
    got = keep_entries(histories, acquired(histories, families))
    pairs, baskets = _count_pairs(got, families, count)
    category = np.zeros(count, dtype=np.int32)
    category[families] = categories
    pairs.data *= _not_instead(pairs, category, _texts_of(texts, families, count))

    many = np.bincount(category, weights=baskets)
    left = np.concatenate([baskets, many, [max(baskets.sum(), 1)]]) + SHRINKAGE
    share = np.maximum(baskets / left[-1], _LEAST_SHARE) ** TO_NORM
    sold = np.bincount(got.items, weights=got.weight, minlength=len(families)).astype(np.float64)
    return Complements(
        families=families.astype(np.int32),
        listings=_listings(sold, families, count),
        categories=category,
        trust=(SHRINKAGE / left[:-1]).astype(np.float32),
        rows=_rows_of(_with_many(pairs, category), 1 / left, 1 / share),
    )


def _count_pairs(
    got: Histories, families: Int32Array, count: int
) -> tuple["sparse.csr_matrix", Float64Array]:
    """``(families, families)`` how often, and how near, the second came with or after the first,
    and ``(families,)`` in how many baskets each was."""
    from scipy import sparse

    user = user_rows(got)
    new = np.ones(len(user), dtype=np.bool_)
    new[1:] = (user[1:] != user[:-1]) | (np.diff(got.times) > BASKET_SECONDS)
    first = np.flatnonzero(new)
    basket, family = np.divmod(
        np.unique((np.cumsum(new) - 1) * np.int64(count) + families[got.items]), count
    )
    sizes = np.bincount(basket, minlength=len(first))
    baskets = np.bincount(family, minlength=count).astype(np.float64)
    kept = sizes[basket] <= LARGEST_BASKET
    # A basket is a row whose square counts its pairs: the more there are, the less each says.
    near = (np.maximum(sizes, 2) - 1.0) ** -0.25
    cells = (near[basket[kept]], (basket[kept], family[kept]))
    held = sparse.csr_matrix(cells, shape=(len(first), count))
    follows = user[first][1:] == user[first][:-1]
    follows &= np.diff(got.times[first]) <= NEXT_DAYS * _DAY
    before = np.flatnonzero(follows)
    pairs = held.T @ held + NEXT_WEIGHT * (held[before].T @ held[before + 1])
    pairs = sparse.csr_matrix(pairs)
    pairs.setdiag(0)
    pairs.eliminate_zeros()
    return pairs, baskets


def _texts_of(texts: Float32Array | None, families: Int32Array, count: int) -> Float32Array | None:
    """``(families, d)`` direction of the texts of each family."""
    if texts is None:
        return None
    total = np.zeros((count, texts.shape[1]), dtype=np.float32)
    np.add.at(total, families, texts)
    return unit_rows(total)


def _not_instead(
    pairs: "sparse.csr_matrix", category: Int32Array, texts: Float32Array | None
) -> Float32Array:
    """``(cells,)`` what is left of each pair where one may be taken instead of the other."""
    row, column = _row_of(pairs), pairs.indices
    left = np.ones(len(row), dtype=np.float32)
    left[(category[row] == category[column]) & (category[row] > 0)] = SAME_CATEGORY
    if texts is not None:
        left[_near(texts, row, column)] *= np.float32(SAME_TEXT)
    return left


def _near(texts: Float32Array, row: Int64Array, column: Int32Array) -> BoolArray:
    near = np.zeros(len(row), dtype=np.bool_)
    for start in range(0, len(row), _CELLS_AT_ONCE):
        part = slice(start, start + _CELLS_AT_ONCE)
        cosine = np.einsum("ij,ij->i", texts[row[part]], texts[column[part]])
        near[part] = cosine >= NEAR_TEXT
    return near


def _with_many(pairs: "sparse.csr_matrix", category: Int32Array) -> "sparse.csr_matrix":
    """The rows of the families, of the categories, and of everything together."""
    from scipy import sparse

    count = len(category)
    cells = (np.ones(count), (category, np.arange(count)))
    members = sparse.csr_matrix(cells)
    return sparse.csr_matrix(
        sparse.vstack([pairs, members @ pairs, sparse.csr_matrix(pairs.sum(axis=0))])
    )


def _rows_of(pairs: "sparse.csr_matrix", left: Float64Array, right: Float64Array) -> SparseRows:
    """The strongest cells of each row, times `left` of the row and `right` of the column."""
    families = len(right)
    row, column = _row_of(pairs), pairs.indices
    value = (pairs.data * left[row] * right[column]).astype(np.float32)
    order = np.lexsort((column, -value, row))
    place = np.arange(len(order)) - pairs.indptr[row]
    kept = np.sort(order[place < np.where(row < families, KEPT, KEPT_OF_MANY)])
    starts = np.zeros(pairs.shape[0] + 1, dtype=np.int64)
    np.cumsum(np.bincount(row[kept], minlength=pairs.shape[0]), out=starts[1:])
    return SparseRows(starts, column[kept].astype(np.int32), value[kept])


def _listings(sold: Float64Array, families: Int32Array, count: int) -> Float32Array:
    best = np.zeros(count)
    np.maximum.at(best, families, sold)
    return (1 - _LISTING * (1 - (sold + 1) / (best[families] + 1))).astype(np.float32)


def _row_of(matrix: "sparse.csr_matrix") -> Int64Array:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
