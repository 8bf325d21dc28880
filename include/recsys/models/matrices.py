"""Histories as sparse matrices, which is what most training starts from."""

import numpy as np
from scipy import sparse

from recsys.arrays import Float32Array
from recsys.models.base import Histories


def interaction_matrix(
    histories: Histories, items: int, values: Float32Array | None = None
) -> sparse.csr_matrix:
    """``(users, items)`` CSR matrix; repeated products are summed. Values default to one."""
    data = np.ones(len(histories.items), dtype=np.float32) if values is None else values
    matrix = sparse.csr_matrix(
        (data, histories.items, histories.indptr), shape=(histories.users, items), copy=True
    )
    matrix.sum_duplicates()
    return matrix


def users_of_several(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """The rows of users of two products or more, or all rows if there are no such users.

    The others say nothing about what goes together. In a shop of reviews nine users in ten have
    one product.
    """
    several = np.diff(matrix.indptr) > 1
    return matrix[several] if several.any() else matrix
