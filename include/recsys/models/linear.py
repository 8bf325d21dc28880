"""Item-to-item regression in closed form: what a history says about the next product.

Each purchase is an example: what its customer had around it, decayed by how far away it lies, tells
which product it is; old examples may count less. The weights of all products are one regularised
regression, solved exactly, so what two products say alike is not counted twice (EASE, SLIST).
Solving needs SciPy and imports it; scoring does not."""

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from recsys.arrays import AnyArray, Float32Array, Int64Array
from recsys.errors import InputError
from recsys.models.base import Histories, Parameters
from recsys.models.histories import pairs_within, strength, user_rows, worth
from recsys.models.sparse_rows import RowsModel, SparseRows

if TYPE_CHECKING:
    from scipy import sparse

_Pairs = tuple[Int64Array, Int64Array, AnyArray]
_NO_PAIRS: _Pairs = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))

_DAY = 86_400
_ROWS_AT_ONCE = 512
"""Rows of weights that are there before they are cut down: 25 MB for 12,000 products."""


class LinearParameters(Parameters):
    """What can be chosen."""

    window: int = 20  # how many moments away a product may lie and still be told from
    gap_decay: float = 0.9  # each moment further apart counts this much of the one before
    together: float = 0.5  # how much counts what was bought at the same moment
    reverse: float = Field(default=0.3, ge=0)  # weight of telling a product from what came after it
    age_decay: float = Field(
        default=1.0, gt=0, le=1
    )  # each day before the newest one counts so much
    user_norm: float = 0.1  # a user with n entries, signals by their weight, counts n ** -user_norm
    regularization: float = Field(default=300.0, gt=0)
    history_decay: float = 0.65  # when a user is scored, each moment further back counts so much
    kept: int = Field(default=100, ge=1)  # so many weights of each product are kept, the largest
    most_items: int = Field(default=20_000, ge=1)  # products; solving takes 4 bytes of each pair


class Linear(RowsModel[LinearParameters]):
    """Directed, decayed item-to-item regression."""

    model_type = "linear"
    parameters_type = LinearParameters
    rows_name = "link"

    def _learn(self, histories: Histories, items: int) -> SparseRows:
        chosen = self._parameters
        if items > chosen.most_items:
            raise InputError(
                f"linear: {items:,} products, and with most_items={chosen.most_items:,} no more "
                f"than these are solved for; they take {4e-9 * items**2:.1f} GB. Raise it in "
                "'parameters' of config/training.yaml if there is room, or take linear out of "
                "'model_types'"
            )
        products, targets = count_products(histories, items, chosen)
        return _solve(products, targets, chosen)


def count_products(
    histories: Histories, items: int, chosen: LinearParameters
) -> tuple["sparse.csr_matrix", "sparse.csr_matrix"]:
    """``(items, items)`` sums over all examples: of the products around a purchase times each
    other, and of these times what was purchased."""
    from scipy import sparse

    shape, value = (len(histories.items), items), strength(histories)
    # Entries that are examples, entries around each, and how much these count.
    before: list[_Pairs] = [_NO_PAIRS]
    after: list[_Pairs] = [_NO_PAIRS]
    for first, second, gap in pairs_within(histories, chosen.window):
        decay = np.where(gap > 0, chosen.gap_decay ** np.maximum(gap - 1, 0), chosen.together)
        early, late, at_once = decay * value[first], decay * value[second], gap == 0
        before.append((second, first, early))
        before.append((first[at_once], second[at_once], late[at_once]))
        after.append((first[~at_once], second[~at_once], late[~at_once]))

    amounts = np.bincount(user_rows(histories), weights=worth(histories), minlength=histories.users)
    norm = np.maximum(amounts, 1) ** -chosen.user_norm
    age = (histories.times.max(initial=0) - histories.times) / _DAY
    weight = value * norm[user_rows(histories)] * chosen.age_decay**age
    weight = weight.astype(np.float32)
    bought = sparse.csr_matrix((weight, (np.arange(shape[0]), histories.items)), shape=shape)
    products, targets = sparse.csr_matrix((items, items)), sparse.csr_matrix((items, items))
    for examples, share in ((before, 1.0), (after, chosen.reverse)):
        example, source, much = (np.concatenate(each) for each in zip(*examples, strict=True))
        cells = (much.astype(np.float32), (example, histories.items[source]))
        around = sparse.csr_matrix(cells, shape=shape)
        products += share * (around.T @ sparse.diags(weight) @ around)
        targets += share * (around.T @ bought)
    return sparse.csr_matrix(products), sparse.csr_matrix(targets)


def _solve(
    products: "sparse.csr_matrix", targets: "sparse.csr_matrix", chosen: LinearParameters
) -> SparseRows:
    """The largest weights of each row of ``(products + regularization) ** -1 @ targets``. There is
    one dense matrix of ``(items, items)`` in single precision at any time."""
    from scipy.linalg import lapack

    items = products.shape[0]
    matrix = products.astype(np.float32).toarray(order="F")
    matrix[np.diag_indices(items)] += np.float32(chosen.regularization)
    matrix, failed = lapack.spotrf(matrix, lower=1, overwrite_a=1, clean=0)
    if failed:
        raise InputError(
            f"linear: the regression cannot be solved with a regularization of "
            f"{chosen.regularization:g}; a larger one is needed"
        )
    inverse, _ = lapack.spotri(matrix, lower=1, overwrite_c=1)
    _mirror(inverse)
    aimed = targets.astype(np.float32).T.tocsr()
    starts, columns, values = [np.zeros(1, np.int64)], [], []
    for start in range(0, items, _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, items))
        weights = np.ascontiguousarray((aimed @ inverse[:, rows]).T)
        weights[np.arange(len(rows)), rows] = 0  # no product is a reason for itself
        counts, column, value = _largest(weights, chosen.kept)
        starts.append(starts[-1][-1] + np.cumsum(counts))
        columns.append(column)
        values.append(value)
    return SparseRows(np.concatenate(starts), np.concatenate(columns), np.concatenate(values))


def _mirror(matrix: Float32Array) -> None:
    """Copy what stands below the diagonal to above it, some columns at a time."""
    for start in range(0, len(matrix), _ROWS_AT_ONCE):
        stop = start + _ROWS_AT_ONCE
        square = np.tril(matrix[start:stop, start:stop])
        matrix[start:stop, start:stop] = square + np.tril(square, -1).T
        matrix[start:stop, stop:] = matrix[stop:, start:stop].T


def _largest(weights: Float32Array, most: int) -> tuple[Int64Array, ...]:
    """How many cells each row of `weights` keeps, their columns and their values: the `most`
    largest, of either sign, that are not zero."""
    columns = np.broadcast_to(np.arange(weights.shape[1]), weights.shape)
    if most < weights.shape[1]:
        columns = np.argpartition(-np.abs(weights), most - 1, axis=1)[:, :most]
        columns.sort(axis=1)
    values = np.take_along_axis(weights, columns, axis=1)
    kept = values != 0
    return kept.sum(axis=1), columns[kept].astype(np.int32), values[kept]
