"""Projection onto Wyckoff positions against brute force."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asexlatent.symmetry import cell_from_parameters, lattice_variables, wyckoff_positions

fractions = st.floats(-2, 2, allow_nan=False)


def cell_of(group: int, lengths, angles) -> np.ndarray:
    lattice = lattice_variables(group)
    free = lattice.project([*lengths, *angles])
    return cell_from_parameters(lattice.parameters(free))


def brute_force(position, point, cell, steps: int, images: int) -> float:
    """Smallest distance (Å) over a grid of free coordinates, all atoms, many images."""
    grid = np.arange(steps) / steps
    free = np.array(list(itertools.product(grid, repeat=position.dof)))
    atoms = np.einsum("mij,gj->gmi", position.linear, free) + position.translations
    difference = atoms.reshape(-1, 3) - point
    difference -= np.rint(difference)
    shifts = np.array(list(itertools.product(range(-images, images + 1), repeat=3)))
    best = np.inf
    for shift in shifts:
        best = min(best, np.linalg.norm((difference + shift) @ cell, axis=1).min())
    return best


@st.composite
def cases(draw, groups):
    group = draw(groups)
    position = draw(st.sampled_from(wyckoff_positions(group)[1:] or wyckoff_positions(group)))
    lengths = draw(st.tuples(*[st.floats(2, 12)] * 3))
    angles = draw(st.tuples(*[st.floats(0.9, 1.5)] * 3))  # below 3 * 2 pi / 3: always a cell
    point = np.array(draw(st.tuples(fractions, fractions, fractions)))
    return position, point, cell_of(group, lengths, angles)


@given(cases(st.integers(1, 230)))
@settings(max_examples=150, deadline=None)
def test_projection_is_consistent_and_idempotent(case):
    position, point, cell = case
    found = position.project(point, cell)
    nearest = position.expand(found.free)[found.operation] + found.shift
    moved = np.linalg.norm((nearest - point) @ cell)
    assert moved == pytest.approx(found.distance, abs=1e-9)
    again = position.project(nearest, cell)
    assert again.distance < 1e-7
    landed = position.expand(again.free)[again.operation] + again.shift
    assert np.allclose(landed, nearest, atol=1e-8)


@given(cases(st.integers(1, 230)))
@settings(max_examples=60, deadline=None)
def test_no_point_of_a_grid_is_nearer(case):
    position, point, cell = case
    found = position.project(point, cell)
    assert found.distance <= brute_force(position, point, cell, steps=12, images=1) + 1e-9


@given(cases(st.sampled_from([2, 3, 5, 6, 8, 10, 12, 13, 15])), st.floats(0.15, 0.9))
@settings(max_examples=60, deadline=None)
def test_no_point_of_a_grid_is_nearer_in_skewed_cells(case, angle):
    position, point, _ = case
    angles = (angle, 1.1 * angle, 1.2 * angle) if position.space_group == 2 else (1.5, angle, 1.5)
    cell = cell_of(position.space_group, (3, 8, 11), angles)
    found = position.project(point, cell)
    assert found.distance <= brute_force(position, point, cell, steps=12, images=5) + 1e-9


def test_fixed_points_match_brute_force_exactly():
    """With no free coordinate the grid is exact, so both must agree."""
    rng = np.random.default_rng(5)
    for group in (2, 12, 47, 139, 166, 191, 225, 227, 230):
        cell = cell_of(group, rng.uniform(3, 9, 3), rng.uniform(1.0, 1.5, 3))
        for position in wyckoff_positions(group):
            if position.dof == 0:
                point = rng.uniform(-1, 1, 3)
                expected = brute_force(position, point, cell, steps=1, images=2)
                assert position.project(point, cell).distance == pytest.approx(expected, abs=1e-9)


def test_the_nearest_operation_is_taken_not_the_first():
    """Whichever atom of the orbit a row names, a slightly displaced one goes back to it."""
    position = next(p for p in wyckoff_positions(123) if p.label == "4j")  # (x, x, 0), (-x, x, 0)
    assert position.dof == 1
    cell = np.diag([5.0, 5.0, 7.0])
    offset = np.array([0.004, -0.003, 0.002])
    for atom in position.expand([0.31]):
        found = position.project(atom + offset, cell)
        nearest = position.expand(found.free)[found.operation] + found.shift
        assert found.distance <= np.linalg.norm(offset @ cell)
        assert np.linalg.norm((nearest - atom) @ cell) < 0.04


def test_general_position_takes_any_point_as_it_is():
    found = wyckoff_positions(62)[0].project([0.1, -3.2, 7.7], np.eye(3))
    assert found.distance == 0
    assert found.free == pytest.approx([0.1, -3.2, 7.7])
    assert not found.shift.any()


@pytest.mark.parametrize(
    ("group", "lengths", "angles"),
    [
        (2, (5, 6, 7), (0.011, 0.012, 0.02)),
        (2, (3, 40, 900), (0.35, 0.36, 0.7)),
        (12, (30, 4, 31), (1.57, 0.001, 1.57)),
        (194, (1, 1, 5000), (1.5, 1.5, 1.5)),
        (166, (1e4, 1, 0.1), (1.5, 1.5, 1.5)),
        (47, (1e4, 0.1, 1), (1.5, 1.5, 1.5)),
        (12, (1e4, 0.1, 1e4), (1.57, 0.01, 1.57)),
    ],
)
def test_extreme_cells_are_no_trap(group, lengths, angles):
    cell = cell_of(group, lengths, angles)
    rng = np.random.default_rng(2)
    for position in wyckoff_positions(group):
        start = time.perf_counter()
        found = position.project(rng.uniform(-2, 2, 3), cell)
        assert time.perf_counter() - start < 0.5
        assert np.isfinite(found.distance)


def test_every_position_has_a_unimodular_frame_and_uses_its_own_variables_only():
    for group in range(1, 231):
        for position in wyckoff_positions(group):
            others = [i for i in range(3) if i not in position.variables]
            assert not position.rotations[:, :, others].any()
            axes, inverse = position._frames
            assert axes.shape == (position.multiplicity, 3 - position.dof)
            assert np.allclose(np.abs(np.linalg.det(inverse)), 1)
            # the representative shows its free coordinates as they are
            free = np.random.default_rng(group).random(position.dof)
            assert np.allclose(position.representative(free)[position.variables], free)
