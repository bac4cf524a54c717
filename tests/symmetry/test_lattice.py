"""Cell parameters against ASE and PyXtal."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase.geometry import cell_to_cellpar, cellpar_to_cell
from hypothesis import given, settings
from hypothesis import strategies as st

from asexlatent.symmetry import cell_from_parameters, lattice_variables, parameters_from_cell
from asexlatent.symmetry.lattice import cell_problem, relative_volume

lengths = st.floats(0.5, 100)
angles = st.floats(0.2, math.pi - 0.2)
parameters = st.tuples(lengths, lengths, lengths, angles, angles, angles)


@given(parameters)
@settings(max_examples=200, deadline=None)
def test_cells_are_those_of_ase(values):
    if relative_volume(values[3:]) < 1e-2:
        return
    in_degrees = [*values[:3], *np.degrees(values[3:])]
    cell = cell_from_parameters(values)
    assert np.allclose(cell, cellpar_to_cell(in_degrees), rtol=1e-9, atol=1e-9)
    assert parameters_from_cell(cell) == pytest.approx(values, rel=1e-10)
    back = cell_to_cellpar(cell)
    assert np.degrees(parameters_from_cell(cell)[3:]) == pytest.approx(back[3:], abs=1e-6)
    volume = relative_volume(values[3:]) * math.prod(values[:3])
    assert volume == pytest.approx(abs(np.linalg.det(cell)), rel=1e-9)


def test_right_angles_are_exact():
    cell = cell_from_parameters([3, 4, 5, math.pi / 2, math.pi / 2, math.pi / 2])
    assert (cell == np.diag([3.0, 4.0, 5.0])).all()


@pytest.mark.parametrize(
    ("group", "names"),
    [
        (1, "a b c alpha beta gamma"),
        (3, "a b c beta"),
        (15, "a b c beta"),
        (16, "a b c"),
        (75, "a c"),
        (143, "a c"),
        (166, "a c"),
        (168, "a c"),
        (195, "a"),
        (230, "a"),
    ],
)
def test_free_parameters_by_lattice_system(group, names):
    assert lattice_variables(group).names == tuple(names.split())


def test_the_metric_has_the_symmetry_of_the_group():
    """Every rotation of every group leaves the metric of a cell of its lattice unchanged."""
    from asexlatent.symmetry import wyckoff_positions

    for group in range(1, 231):
        lattice = lattice_variables(group)
        free = lattice.project([5.1, 6.3, 7.7, 1.4, 1.8, 1.65])
        cell = cell_from_parameters(lattice.parameters(free))
        metric = cell @ cell.T
        for rotation in wyckoff_positions(group)[0].rotations:
            assert np.allclose(rotation.T @ metric @ rotation, metric, atol=1e-10)


def test_projection_averages_what_symmetry_ties():
    lattice = lattice_variables(194)
    free = lattice.project([4.0, 4.2, 9.0, 1.5, 1.6, 2.0])
    assert free == pytest.approx([4.1, 9.0])
    expected = [4.1, 4.1, 9.0, math.pi / 2, math.pi / 2, 2 * math.pi / 3]
    assert lattice.parameters(free) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 4, 5, 1.5, 1.5, 1.5], "a = 0 Å is not positive"),
        ([3, -4, 5, 1.5, 1.5, 1.5], "b = -4 Å"),
        ([3, 4, math.nan, 1.5, 1.5, 1.5], "c is nan"),
        ([3, 4, 5, 90, 90, 90], "degrees"),
        ([3, 4, 5, 0, 1.5, 1.5], "alpha"),
        ([3, 4, 5, 2.5, 2.5, 2.5], "no volume"),
        ([3, 4, 5, 0.5, 0.5, 1.0], "no volume"),
    ],
)
def test_impossible_cells(values, words):
    assert words in cell_problem(values)


def test_a_possible_cell_has_no_problem():
    assert cell_problem([3, 4, 5, 1.5, 1.5, 1.5]) is None
