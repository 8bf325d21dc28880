"""Counting what people bought after what: the training of `recsys.models.item_knn`.

Apart from the model, because this needs SciPy and scoring does not.
"""

import numpy as np
from scipy import sparse

from recsys.arrays import BoolArray, Float64Array, Int32Array
from recsys.models.base import Histories
from recsys.models.histories import moments, strength, user_rows
from recsys.models.parameters import ItemKnnParameters
from recsys.models.sparse_rows import SparseRows

_LONGEST_OFFSET = 200


def learn_transitions(histories: Histories, items: int, chosen: ItemKnnParameters) -> SparseRows:
    """``(items, items)`` how strongly each product leads to each other one."""
    later, together = count_transitions(histories, items, chosen)
    counts = np.bincount(histories.items, weights=histories.weight, minlength=items)
    both = later + chosen.reverse * later.T + chosen.together * (together + together.T)
    both = sparse.csr_matrix(both)
    norm_from, norm_to = counts**chosen.from_norm, counts**chosen.to_norm
    rows = np.repeat(np.arange(items), np.diff(both.indptr))
    both.data /= norm_from[rows] * norm_to[both.indices] + chosen.shrinkage
    both.sort_indices()
    return SparseRows(
        both.indptr.astype(np.int64), both.indices.astype(np.int32), both.data.astype(np.float32)
    )


def count_transitions(
    histories: Histories, items: int, chosen: ItemKnnParameters
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """``(items, items)`` decayed counts: of j bought later than i, and of both at one moment.

    Entries that lie up to `_LONGEST_OFFSET` places apart in one history are paired.
    """
    moment = moments(histories)
    user = user_rows(histories)
    lengths = np.diff(histories.indptr)
    norm = np.maximum(lengths, 1).astype(np.float64) ** -chosen.user_norm
    value = strength(histories)
    shape = (items, items)
    later, together = sparse.csr_matrix(shape), sparse.csr_matrix(shape)
    for offset in range(1, min(int(lengths.max(initial=0)), _LONGEST_OFFSET + 1)):
        first = np.flatnonzero(user[offset:] == user[:-offset])
        gap = moment[first + offset] - moment[first]
        within = gap <= chosen.window
        if not within.any():
            break
        first, gap = first[within], gap[within]
        weight = value[first] * value[first + offset] * norm[user[first]]
        weight *= chosen.gap_decay ** np.maximum(gap - 1, 0)
        pairs = histories.items[first], histories.items[first + offset]
        later += _counts(weight, pairs, gap > 0, shape)
        together += _counts(weight, pairs, gap == 0, shape)
    return later, together


def _counts(
    weight: Float64Array,
    pairs: tuple[Int32Array, Int32Array],
    chosen: BoolArray,
    shape: tuple[int, int],
) -> sparse.csr_matrix:
    first, second = pairs
    cells = (first[chosen], second[chosen])
    return sparse.csr_matrix((weight[chosen], cells), shape=shape)
