"""Item-to-item transitions: what people bought after what.

Counting needs SciPy and imports it; scoring does not."""

from typing import TYPE_CHECKING

import numpy as np

from recsys.models.base import Histories, Parameters
from recsys.models.histories import pairs_within, strength, user_rows, worth
from recsys.models.sparse_rows import RowsModel, SparseRows

if TYPE_CHECKING:
    from scipy import sparse


class ItemKnnParameters(Parameters):
    """What can be chosen. A transition i -> j is divided by ``n_i ** from_norm * n_j ** to_norm +
    shrinkage``, with n the number of purchases."""

    window: int = 20  # how many moments apart two purchases may lie to be a transition
    gap_decay: float = 0.9  # each moment further apart counts this much of the one before
    together: float = 0.5  # weight of two products bought at one moment, in both directions
    reverse: float = 0.5  # weight of the way back from the later product to the earlier one
    user_norm: float = 0.1  # a user with n entries, signals by their weight, counts n ** -user_norm
    from_norm: float = 0.5
    to_norm: float = 0.25
    shrinkage: float = 15.0
    history_decay: float = 0.65  # when a user is scored, each moment further back counts so much


class ItemKnn(RowsModel[ItemKnnParameters]):
    """Directed, decayed co-occurrence of products with shrinkage."""

    model_type = "item_knn"
    parameters_type = ItemKnnParameters
    rows_name = "transition"

    def _learn(self, histories: Histories, items: int) -> SparseRows:
        return learn_transitions(histories, items, self._parameters)


def learn_transitions(histories: Histories, items: int, chosen: ItemKnnParameters) -> SparseRows:
    """``(items, items)`` how strongly each product leads to each other one."""
    from scipy import sparse

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
) -> tuple["sparse.csr_matrix", "sparse.csr_matrix"]:
    """``(items, items)`` decayed counts: of j bought later than i, and of both at one moment."""
    from scipy import sparse

    user = user_rows(histories)
    amounts = np.bincount(user, weights=worth(histories), minlength=histories.users)
    norm = np.maximum(amounts, 1) ** -chosen.user_norm
    value = strength(histories)
    shape = (items, items)
    later, together = sparse.csr_matrix(shape), sparse.csr_matrix(shape)
    for first, second, gap in pairs_within(histories, chosen.window):
        weight = value[first] * value[second] * norm[user[first]]
        weight *= chosen.gap_decay ** np.maximum(gap - 1, 0)
        pairs = np.stack([histories.items[first], histories.items[second]])
        apart, at_once = gap > 0, gap == 0
        later += sparse.csr_matrix((weight[apart], pairs[:, apart]), shape=shape)
        together += sparse.csr_matrix((weight[at_once], pairs[:, at_once]), shape=shape)
    return later, together
