"""Integer lattices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from asexlatent.topology.integers import (
    adjugate,
    coordinates,
    determinant,
    lattice_basis,
    saturation_index,
)

ROWS = st.integers(0, 6).flatmap(lambda k: arrays(np.int64, (k, 3), elements=st.integers(-6, 6)))


@given(ROWS)
def test_basis_spans_the_same_lattice(rows):
    basis = lattice_basis(rows)
    assert len(basis) == (np.linalg.matrix_rank(rows) if len(rows) else 0)
    assert np.array_equal(coordinates(rows, basis) @ basis, rows)
    if len(basis) == 3:
        # The index of the lattice is the greatest common divisor of all 3 x 3 minors.
        minors = [
            round(np.linalg.det(rows[[i, j, k]]))
            for i in range(len(rows))
            for j in range(i)
            for k in range(j)
        ]
        assert saturation_index(basis) == np.gcd.reduce(minors)


@given(arrays(np.int64, (3, 3), elements=st.integers(-50, 50)))
def test_determinant_and_adjugate(matrix):
    assert determinant(matrix) == round(np.linalg.det(matrix))
    assert np.array_equal(matrix @ adjugate(matrix), determinant(matrix) * np.eye(3))


@pytest.mark.parametrize(
    ("basis", "index"),
    [([[0, 0, 4]], 4), ([[1, 1, 0], [1, -1, 0]], 2), ([[2, 0, 0], [0, 2, 0], [0, 0, 2]], 8)],
)
def test_saturation_index(basis, index):
    assert saturation_index(np.array(basis)) == index


def test_a_vector_outside_the_lattice():
    with pytest.raises(ArithmeticError):
        coordinates(np.array([[1, 0, 0]]), np.array([[2, 0, 0]]))
