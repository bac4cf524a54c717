"""The user's own atoms: followed exactly, changed in cell and positions only."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixSymmetry
from detect_cases import assert_identical, disguise, disguises, spglib_number
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry_cases import assert_same_geometry, make_crystal

from asexlatent.symmetry import CrystalError, SymmetricCrystal, symmetrize


def moved(crystal: SymmetricCrystal, rng: np.random.Generator, size: float) -> SymmetricCrystal:
    """Other free variables: lengths and angles by a few per cent, coordinates by ``size``."""
    n = len(crystal.cell_free)
    steps = rng.uniform(-1, 1, len(crystal.free_variables)) * size
    variables = crystal.free_variables + steps
    variables[:n] = crystal.cell_free * (1 + steps[:n])
    return crystal.with_free_variables(variables)


@pytest.mark.parametrize("start", range(1, 231, 23))
def test_the_given_atoms_come_back(start):
    rng = np.random.default_rng(start)
    for number in range(start, min(start + 23, 231), 2):
        variants = [atoms for _, atoms in disguises(make_crystal(number, rng).to_atoms(), rng)]
        for atoms in (variants[number % len(variants)], variants[-1]):
            found = symmetrize(atoms, symprec=1e-4)
            cell, positions = found.embedding.apply(found.crystal)
            assert np.abs(cell - atoms.cell.array).max() < 1e-8
            assert np.abs(positions - atoms.positions).max() < 1e-7


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 230), st.integers(0, 2**32 - 1))
def test_other_free_variables_give_the_same_crystal_in_the_users_cell(number, seed):
    rng = np.random.default_rng(seed)
    atoms = disguise(make_crystal(number, rng, n_sites=2).to_atoms(), rng)
    found = symmetrize(atoms, symprec=1e-4)
    other = moved(found.crystal, rng, 0.02)
    cell, positions = found.embedding.apply(other)
    rebuilt = Atoms(atoms.numbers, positions=positions, cell=cell, pbc=True)
    assert_same_geometry(rebuilt, other.to_atoms())
    # The definition, directly: every atom is an atom of its site, in the frame of the crystal.
    e = found.embedding
    assert e.rotation @ e.rotation.T == pytest.approx(np.eye(3))
    assert np.linalg.det(e.rotation) == pytest.approx(1)
    assert cell == pytest.approx(e.transformation @ other.cell @ e.rotation)
    conventional = positions @ np.linalg.inv(other.cell @ e.rotation) + e.origin
    for i in (0, len(atoms) - 1):
        site = other.sites[e.site[i]]
        assert site.species == atoms[i].symbol
        assert conventional[i] == pytest.approx(site.expand()[e.operation[i]] + e.shift[i])


def test_the_space_group_survives_other_free_variables():
    rng = np.random.default_rng(7)
    for number in range(2, 231, 12):
        atoms = disguise(make_crystal(number, rng).to_atoms(), rng)
        found = symmetrize(atoms, symprec=1e-4)
        other = moved(found.crystal, rng, 0.01)
        cell, positions = found.embedding.apply(other)
        rebuilt = Atoms(atoms.numbers, positions=positions, cell=cell, pbc=True)
        assert spglib_number(rebuilt) == spglib_number(other.to_atoms())
        again = symmetrize(rebuilt, symprec=1e-5).crystal
        assert_identical(again, symmetrize(other.to_atoms(), symprec=1e-5).crystal)


def test_atoms_move_continuously():
    # No wrapping and no jump to another image, however far a coordinate runs.
    atoms = bulk("ZnO", "wurtzite", 3.25, 5.2) * (2, 1, 1)
    found = symmetrize(atoms)
    _, before = found.embedding.apply(found.crystal)
    variables = found.crystal.free_variables.copy()
    variables[-1] += 2.5
    _, after = found.embedding.apply(found.crystal.with_free_variables(variables))
    zinc = np.array(atoms.get_chemical_symbols()) == "Zn"
    assert np.linalg.norm(after - before, axis=1)[zinc] == pytest.approx(2.5 * 5.2)
    assert after[~zinc] == pytest.approx(before[~zinc])


def test_write_back_touches_cell_and_positions_only():
    atoms = bulk("ZnO", "wurtzite", 3.25, 5.2) * (2, 2, 1)
    atoms.set_tags(range(len(atoms)))
    atoms.set_momenta(np.arange(48.0).reshape(16, 3))
    atoms.set_initial_magnetic_moments(np.linspace(0, 1, 16))
    atoms.set_celldisp([0.1, 0.2, 0.3])
    atoms.info.update(label="mine", number=7)
    atoms.calc = LennardJones()
    found = symmetrize(atoms)
    atoms.set_constraint([FixAtoms([0, 1]), FixSymmetry(atoms)])
    before, constraints, calc = atoms.copy(), list(atoms.constraints), atoms.calc
    other = found.crystal.with_free_variables(found.crystal.free_variables * 1.05)
    found.embedding.write_back(atoms, other)
    cell, positions = found.embedding.apply(other)
    # Both constraints would have forbidden this.
    assert np.array_equal(atoms.cell.array, cell)
    assert np.array_equal(atoms.positions, positions)
    assert np.abs(positions - before.positions).max() > 0.1
    assert atoms.constraints == constraints
    assert atoms.calc is calc
    assert atoms.info == before.info
    assert atoms.pbc.all()
    assert set(atoms.arrays) == set(before.arrays)
    for name in set(atoms.arrays) - {"positions"}:
        assert np.array_equal(atoms.arrays[name], before.arrays[name])
    assert atoms.get_celldisp() == pytest.approx(before.get_celldisp())


def test_write_back_refuses_other_atoms():
    atoms = bulk("NaCl", "rocksalt", 5.64)
    found = symmetrize(atoms)
    with pytest.raises(CrystalError, match="2 atoms were embedded, not 4"):
        found.embedding.write_back(atoms * (2, 1, 1), found.crystal)
    with pytest.raises(CrystalError, match="species differ"):
        found.embedding.write_back(atoms[::-1], found.crystal)
