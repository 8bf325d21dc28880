"""Sums of sparse rows are those of SciPy, whatever the rows and however many at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from recsys.models import sparse_rows
from recsys.models.sparse_rows import SparseRows


def rows_of(matrix: sparse.csr_matrix) -> SparseRows:
    return SparseRows(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)


def some_matrix(size: int, seed: int) -> sparse.csr_matrix:
    matrix = sparse.random(size, size, density=0.3, format="csr", dtype=np.float32, rng=seed)
    return sparse.csr_matrix(matrix)


@given(
    size=st.integers(1, 30),
    lengths=st.lists(st.integers(0, 6), max_size=12),
    seed=st.integers(0, 99),
    at_once=st.sampled_from([1, 40, 1 << 18]),
)
def test_weighted_sums_are_a_product_of_matrices(size, lengths, seed, at_once):
    matrix, random = some_matrix(size, seed), np.random.default_rng(seed)
    indptr = np.append(0, np.cumsum(lengths)).astype(np.int64)
    rows = random.integers(size, size=indptr[-1]).astype(np.int32)
    weights = random.random(indptr[-1], dtype=np.float32)
    asked = sparse.csr_matrix((weights, rows, indptr), shape=(len(lengths), size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_rows, "_CELLS_AT_ONCE", at_once)
        sums = rows_of(matrix).weighted_sums(indptr, rows, weights)
    assert sums.dtype == np.float32
    np.testing.assert_allclose(sums, (asked @ matrix).toarray(), rtol=1e-5, atol=1e-6)


def test_a_row_has_its_zeros():
    matrix = some_matrix(20, 3)
    for number in range(20):
        assert np.array_equal(rows_of(matrix).row(number), matrix[[number]].toarray()[0])


@pytest.mark.parametrize(
    ("starts", "columns", "values", "problem"),
    [
        ([0, 1, 2], [0, 1], [1, 1], None),
        ([0, 0, 0], [], [], None),
        ([1, 1, 2], [0, 1], [1, 1], "start"),
        ([0, 2, 1], [0, 1], [1, 1], "start"),
        ([], [], [], "start"),
        ([0, 1, 3], [0, 1], [1, 1], "3 cells"),
        ([0, 1, 2], [0, 1], [1], "1 values"),
        ([0, 1, 2], [0, 2], [1, 1], "column"),
        ([0, 1, 2], [0, -1], [1, 1], "column"),
    ],
)
def test_arrays_that_are_no_matrix_are_told_apart(starts, columns, values, problem):
    rows = SparseRows(
        np.array(starts, np.int64), np.array(columns, np.int32), np.array(values, np.float32)
    )
    found = rows.problem()
    assert found is None if problem is None else problem in str(found)
