"""The corners of the canonical description: degenerate cells, polar origins, cell choices."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal
from detect_cases import assert_identical, disguise
from symmetry_cases import make_crystal

from asexlatent.symmetry import SymmetricCrystal, lattice_variables, symmetrize
from asexlatent.symmetry.canonical import _gaps, _ranks, _smallest_floats, wrap

TETRAHEDRAL = np.degrees(np.arccos(-1 / 3))
DEGENERATE = {
    # more symmetric than the group: many cells are equally short
    "triclinic": [
        (5, 5, 5, 60, 60, 60),
        (5, 5, 5, 90, 90, 90),
        (5, 5, 5, TETRAHEDRAL, TETRAHEDRAL, TETRAHEDRAL),
        (5, 5, 6, 90, 90, 120),
        (5, 6, 7, 90, 90, 90),
        (5, 5, 5, 70, 70, 70),
        (5, 5, 7, 60, 90, 90),
        (4, 6, 8, 60, 75, 90),
    ],
    "monoclinic": [
        (5, 6, 5, 90, 120, 90),
        (5, 5, 5, 90, 90, 90),
        (5, 7, 6, 90, 90, 90),
        (5, 7, 5, 90, 100, 90),
        (5, 7, 10, 90, np.degrees(np.arccos(-0.25)), 90),
        (4, 7, 8, 90, np.degrees(np.arccos(-0.25)), 90),
        (5, 6, 5 * np.sqrt(2), 90, 135, 90),
    ],
    "orthorhombic": [(6, 6, 6, 90, 90, 90), (5, 5, 7, 90, 90, 90), (7, 5, 5, 90, 90, 90)],
}


@pytest.mark.parametrize(
    "number", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 19, 23, 28, 33, 43, 47, 57, 70]
)
def test_cells_more_symmetric_than_the_crystal(number):
    rng = np.random.default_rng(number)
    lattice = lattice_variables(number)
    for parameters in DEGENERATE[lattice.system]:
        values = np.array(parameters, dtype=float)
        values[3:] = np.radians(values[3:])
        random = make_crystal(number, rng)
        atoms = SymmetricCrystal(number, lattice.project(values), random.sites).to_atoms()
        if (
            len(atoms) > 1
            and atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)].min() < 0.1
        ):
            continue
        first = symmetrize(atoms, symprec=1e-4).crystal
        for _ in range(3):
            assert_identical(symmetrize(disguise(atoms, rng), symprec=1e-4).crystal, first)


def test_triclinic_cells_are_reduced():
    # pymatgen's Niggli cell has the same lengths, and angles all acute or none.
    from pymatgen.core import Lattice

    rng = np.random.default_rng(0)
    for _ in range(30):
        cell = rng.normal(size=(3, 3)) * 5
        if abs(np.linalg.det(cell)) < 20:
            continue
        atoms = Atoms("CNO", cell=cell, scaled_positions=rng.random((3, 3)), pbc=True)
        if len(neighbor_list("i", atoms, 0.1)):
            continue
        found = symmetrize(atoms).crystal
        niggli = Lattice(cell).get_niggli_reduced_lattice()
        assert found.cell_parameters[:3] == pytest.approx(sorted(niggli.abc), abs=1e-6)
        angles = np.degrees(found.cell_parameters[3:])
        assert sorted(angles) == pytest.approx(sorted(niggli.angles), abs=1e-5)
        assert (angles < 90).all() or (angles >= 90 - 1e-3).all()


def test_monoclinic_cells_are_short_and_obtuse():
    points = [(0.11, 0.23, 0.37), (0.41, 0.13, 0.72)]
    for number in range(3, 16):
        for beta in (50, 75, 90, 115, 140):
            cell = [5, 7, 8, 90, beta, 90]
            atoms = crystal("CN", points, spacegroup=number, cellpar=cell)
            atoms.info.clear()
            a, _, c, _, found, _ = symmetrize(atoms).crystal.cell_parameters
            assert found > np.pi / 2 - 1e-6
            # within what the centring and the glide allow: c + 2 a or a + 2 c are no shorter
            assert abs(a * c * np.cos(found)) <= max(a, c) ** 2 + 1e-6
            if number in (3, 4, 6, 10, 11):  # everything allowed: fully reduced
                assert a <= c + 1e-9
                assert abs(np.cos(found)) * c <= a / 2 + 1e-6


def test_orthorhombic_axes_are_sorted_where_the_group_allows():
    points = [(0.11, 0.23, 0.37)]
    for number, allowed in ((16, True), (19, True), (47, True), (61, False), (62, False)):
        atoms = crystal("C", points, spacegroup=number, cellpar=[7, 6, 5, 90, 90, 90])
        atoms.info.clear()
        lengths = symmetrize(atoms).crystal.cell_free
        assert (list(lengths) == sorted(lengths)) == allowed


def test_polar_groups_have_an_atom_at_the_origin():
    rng = np.random.default_rng(4)
    for number, axes in ((4, [1]), (8, [0, 2]), (33, [2]), (99, [2]), (160, [2]), (1, [0, 1, 2])):
        atoms = make_crystal(number, rng).to_atoms()
        first = symmetrize(atoms, symprec=1e-4).crystal
        if first.space_group != number:
            continue
        scaled = first.scaled_positions()[:, axes]
        assert np.abs(scaled - np.rint(scaled)).max(axis=1).min() < 1e-9
        for _ in range(5):
            assert_identical(symmetrize(disguise(atoms, rng), symprec=1e-4).crystal, first)


def test_numbers_that_are_nearly_equal_are_equal():
    assert wrap(np.array([-1e-9, 1 - 1e-9, 0.3, 1.25])) == pytest.approx([-1e-9, -1e-9, 0.3, 0.25])
    assert list(_ranks(np.array([0.5, 0.1, 0.1 + 1e-9, 0.5 - 1e-9]))) == [1, 0, 0, 1]
    rows = np.array([[1.0, 5.0], [1.0 + 1e-9, 4.0], [2.0, 0.0]])
    assert list(_smallest_floats(rows, 1e-5)) == [1]
    assert _gaps(np.array([0.1, 0.4, 0.4, 0.9])) == pytest.approx([0.2, 0.3, 0.3, 0.5])
    assert _gaps(np.array([0.7, 0.7])) == pytest.approx([1, 1])
