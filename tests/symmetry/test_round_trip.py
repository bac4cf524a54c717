"""Random crystals of all 230 groups, special positions included, through every form and back."""

from __future__ import annotations

import numpy as np
import pytest
import spglib
from ase import Atoms
from symmetry_cases import (
    assert_same_description,
    assert_same_geometry,
    make_crystal,
    sample,
)

from asexlatent.symmetry import SymmetricCrystal, from_row, symmetrize

SYMPREC = 1e-4


def spglib_number(atoms: Atoms) -> int:
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    return spglib.get_symmetry_dataset(cell, symprec=SYMPREC).number


def assert_every_form(crystal: SymmetricCrystal, folder) -> None:
    options = {"symprec": SYMPREC}
    atoms = crystal.to_atoms()
    assert_same_description(crystal, SymmetricCrystal.from_atoms(atoms, **options))
    structure = crystal.to_structure()
    assert_same_description(crystal, SymmetricCrystal.from_structure(structure, **options))
    struct = crystal.to_pyxtal()
    assert_same_description(crystal, SymmetricCrystal.from_pyxtal(struct))
    assert_same_description(crystal, SymmetricCrystal.from_atoms(struct.to_ase(), **options))
    path = folder / "crystal.cif"
    crystal.to_cif(path)
    assert_same_description(crystal, SymmetricCrystal.from_cif(path, **options))
    if crystal.n_sites <= 8:
        species = [site.species for site in crystal.sites]
        assert_same_description(crystal, from_row(crystal.to_row(), species=species))


@pytest.mark.parametrize("group", sample(list(range(1, 231)), 9))
def test_random_wyckoff_sites(group, tmp_path):
    made = make_crystal(group, np.random.default_rng([11, group]))
    atoms = made.to_atoms()
    found = symmetrize(atoms, symprec=SYMPREC)
    crystal = found.crystal
    assert crystal.space_group == spglib_number(atoms)  # sites may have more symmetry
    assert found.displacement < 1e-6
    assert_same_geometry(atoms, crystal.to_atoms())
    assert spglib_number(crystal.to_atoms()) == crystal.space_group
    assert_every_form(crystal, tmp_path)


@pytest.mark.parametrize("group", sample(list(range(1, 231)), 16))
def test_random_crystals_of_pyxtal(group, tmp_path):
    from pyxtal import pyxtal

    struct = pyxtal()
    for n in (4, 6, 8, 9, 12, 16, 18, 24, 32, 36, 48, 64, 96, 192):
        try:
            struct.from_random(3, group, ["Si", "O"], [n, 2 * n], random_state=group)
        except Exception:  # PyXtal says in several ways that a composition does not fit
            continue
        if struct.valid:
            break
    crystal = SymmetricCrystal.from_pyxtal(struct)
    assert crystal.space_group == group
    assert crystal.wyckoffs == [site.wp.get_label() for site in struct.atom_sites]
    assert_same_geometry(struct.to_ase(), crystal.to_atoms())
    assert_every_form(SymmetricCrystal.from_atoms(struct.to_ase(), symprec=SYMPREC), tmp_path)


def test_a_p1_crystal_of_200_atoms(tmp_path):
    rng = np.random.default_rng(1)
    atoms = Atoms(
        ["C", "O"] * 100,
        cell=[[19, 0, 0], [3, 21, 0], [-4, 2, 20]],
        scaled_positions=rng.random((200, 3)),
        pbc=True,
    )
    crystal = SymmetricCrystal.from_atoms(atoms, symprec=SYMPREC)
    assert crystal.space_group == 1
    assert crystal.n_sites == 200
    assert_same_geometry(atoms, crystal.to_atoms())
    assert_every_form(crystal, tmp_path)
