"""Users as the least-squares answer to their history, against fixed item vectors."""

import numpy as np

from recsys.arrays import Float32Array, Int32Array, Int64Array
from recsys.models.base import Histories

_CELLS_AT_ONCE = 1 << 23
"""Largest number of cells of a temporary array: 32 MB."""


class FoldIn:
    """Solves ``(Y'Y + reg + Y_u' D Y_u) x = Y_u' D 1`` for any users, D being entry weights.

    An entry without weight is as if it were not there (the textbook's D + 1 on the right would
    keep half of its pull).
    """

    def __init__(self, items: Float32Array, regularization: float) -> None:
        self._items = items
        gram = items.astype(np.float64).T @ items
        gram += regularization * np.eye(items.shape[1])
        self._gram: Float32Array = gram.astype(np.float32)
        # Z = Y A^-1 with A = Y'Y + reg: what an observation of each item adds to a user.
        self._response: Float32Array = np.linalg.solve(gram, items.T).T.astype(np.float32)

    def solve(self, histories: Histories, weight: Float32Array) -> Float32Array:
        """``(users, factors)`` for entries that weigh ``(entries,)`` `weight`."""
        factors = self._items.shape[1]
        queries = np.zeros((histories.users, factors), dtype=np.float32)
        lengths = np.diff(histories.indptr)
        for group, width in _length_groups(lengths):
            at_once = max(1, _CELLS_AT_ONCE // (width * max(width, factors)))
            for first in range(0, len(group), at_once):
                users = group[first : first + at_once]
                # Shorter histories of a group are filled up with entries of no weight.
                place = np.arange(width)
                filled = place < lengths[users][:, None]
                entry = np.where(filled, histories.indptr[:-1][users][:, None] + place, 0)
                filled_weight = np.where(filled, weight[entry], np.float32(0))
                solve = self._solve_short if width <= factors else self._solve_long
                queries[users] = solve(histories.items[entry], filled_weight)
        return queries

    def _solve_short(self, items: Int32Array, weight: Float32Array) -> Float32Array:
        """``(users, factors)`` for ``(users, width)`` items.

        By the Woodbury identity the system is as small as the history, not as large as the
        number of factors.
        """
        responses = self._response[items]
        kernel = np.matmul(responses, self._items[items].transpose(0, 2, 1))
        system = np.eye(items.shape[1], dtype=np.float32) + weight[:, :, None] * kernel
        pull = np.linalg.solve(system, weight[:, :, None])
        return np.asarray(np.matmul(pull.transpose(0, 2, 1), responses)[:, 0], dtype=np.float32)

    def _solve_long(self, items: Int32Array, weight: Float32Array) -> Float32Array:
        """The same for histories longer than the number of factors."""
        vectors = self._items[items]
        weighted = vectors * weight[:, :, None]
        system = self._gram + np.matmul(weighted.transpose(0, 2, 1), vectors)
        pull = weighted.sum(axis=1)[:, :, None]
        return np.asarray(np.linalg.solve(system, pull)[:, :, 0], dtype=np.float32)


def _length_groups(lengths: Int64Array) -> list[tuple[Int64Array, int]]:
    """Users grouped by the power of two that their history fits in, and the longest of each."""
    groups = []
    exponent = np.ceil(np.log2(np.maximum(lengths, 1))).astype(int)
    for size in np.unique(exponent[lengths > 0]):
        users = np.flatnonzero((exponent == size) & (lengths > 0))
        groups.append((users, int(lengths[users].max())))
    return groups


def unit_rows(vectors: Float32Array) -> Float32Array:
    """`vectors` with rows of length one; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, np.float32(1e-12)), dtype=np.float32)
