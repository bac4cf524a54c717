"""Structures that everybody knows, through detection and every other form."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import make_supercell
from named_structures import STRUCTURES
from symmetry_cases import assert_same_description, assert_same_geometry, sample

from asexlatent.symmetry import SymmetricCrystal, from_row, symmetrize

NAMES = sorted(STRUCTURES)


def test_there_are_enough():
    assert len(NAMES) >= 50


@pytest.mark.parametrize("name", NAMES)
def test_the_published_group_and_sites_are_found(name):
    named = STRUCTURES[name]
    found = symmetrize(named.atoms(), space_group="detect")
    crystal = found.crystal
    assert crystal.space_group == named.space_group
    sites = [(site.species, site.position.multiplicity) for site in crystal.sites]
    published = zip(named.species, named.multiplicities, strict=True)
    assert sorted(sites) == sorted(published)
    assert found.displacement < 1e-10
    assert_same_geometry(named.atoms(), crystal.to_atoms())


@pytest.mark.parametrize("name", sample(NAMES, 4))
def test_every_form_gives_the_same_crystal(name, tmp_path):
    crystal = SymmetricCrystal.from_atoms(STRUCTURES[name].atoms(), space_group="detect")
    assert_same_description(crystal, SymmetricCrystal.from_atoms(crystal.to_atoms()))
    assert_same_description(crystal, SymmetricCrystal.from_structure(crystal.to_structure()))
    assert_same_description(crystal, SymmetricCrystal.from_pyxtal(crystal.to_pyxtal()))
    species = [site.species for site in crystal.sites]
    assert_same_description(crystal, from_row(crystal.to_row(), species=species))
    path = tmp_path / "crystal.cif"
    crystal.to_cif(path)
    assert_same_description(crystal, SymmetricCrystal.from_cif(path))
    from_pyxtal_atoms = SymmetricCrystal.from_atoms(crystal.to_pyxtal().to_ase())
    assert_same_description(crystal, from_pyxtal_atoms)


@pytest.mark.parametrize("name", sample(NAMES, 4))
def test_other_cells_of_the_same_crystal_give_the_same_description(name):
    """Primitive, another basis, a supercell; rotated, shifted, unwrapped, reordered."""
    from spglib import standardize_cell

    atoms = STRUCTURES[name].atoms()
    crystal = SymmetricCrystal.from_atoms(atoms, space_group="detect")
    rng = np.random.default_rng(len(name))

    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    lattice, scaled, numbers = standardize_cell(cell, to_primitive=True, no_idealize=True)
    primitive = type(atoms)(numbers, cell=lattice, scaled_positions=scaled, pbc=True)
    assert_same_description(crystal, SymmetricCrystal.from_atoms(primitive))

    other = make_supercell(primitive, [[1, 1, 0], [0, 1, 0], [0, -1, 1]], wrap=False)
    if len(primitive) < 30:
        other = make_supercell(other, [[1, 0, 1], [0, 2, 0], [0, 0, 1]])
    other.rotate(rng.uniform(0, 360), rng.normal(size=3), rotate_cell=True)
    other.positions += rng.normal(size=3)
    other.positions += rng.integers(-2, 3, (len(other), 3)) @ other.cell.array
    other = other[rng.permutation(len(other))]
    assert_same_description(crystal, SymmetricCrystal.from_atoms(other))


def test_rock_salt_is_the_same_whichever_ion_is_at_the_origin():
    atoms = STRUCTURES["rock salt"].atoms()
    shifted = atoms.copy()
    shifted.positions += atoms.cell.sum(axis=0) / 2
    one, other = (SymmetricCrystal.from_atoms(a, space_group="detect") for a in (atoms, shifted))
    assert_same_description(one, other)


@pytest.mark.parametrize("style", ["pyxtal", "spglib"])
@pytest.mark.parametrize("name", ["baddeleyite", "spinel", "scheelite", "low quartz", "calcite"])
def test_seeds_of_pyxtal_in_both_origin_choices(name, style):
    from pyxtal import pyxtal

    atoms = STRUCTURES[name].atoms()
    struct = pyxtal()
    struct.from_seed(atoms, style=style)
    crystal = SymmetricCrystal.from_pyxtal(struct)
    assert crystal.space_group == STRUCTURES[name].space_group
    assert_same_geometry(struct.to_ase(), crystal.to_atoms())


@pytest.mark.parametrize(
    ("hall", "cell"),
    [
        (82, (5.1, 6.3, 7.7, 90, 101, 90)),  # P 1 21/n 1
        (84, (5.1, 6.3, 7.7, 90, 90, 101)),  # P 1 1 21/a
        (64, (5.1, 6.3, 7.7, 90, 101, 90)),  # A 1 2/m 1
        (294, (5.1, 6.3, 7.7, 90, 90, 90)),  # P b n m
        (525, (9, 9, 9, 90, 90, 90)),  # F d -3 m, origin choice 1
    ],
)
def test_pyxtal_objects_in_another_setting(hall, cell):
    """They are taken by their atoms, in the standard setting of the same group."""
    from pyxtal import pyxtal
    from pyxtal.lattice import Lattice
    from pyxtal.symmetry import Group

    group = Group(hall, use_hall=True)
    struct = pyxtal()
    general = (group[0].get_label(), 0.12, 0.23, 0.31)
    lattice = Lattice.from_para(*cell, ltype="triclinic")  # any cell, as it is
    struct.build(hall, ["C"], [group[0].multiplicity], lattice, [[general]], use_hall=True)
    crystal = SymmetricCrystal.from_pyxtal(struct)
    assert crystal.space_group == group.number
    assert_same_geometry(struct.to_ase(), crystal.to_atoms())
