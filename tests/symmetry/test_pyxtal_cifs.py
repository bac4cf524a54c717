"""The structure files that PyXtal ships: read by others, taken apart and put together by us."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import ase.io
import pytest
import spglib
from ase import Atoms
from symmetry_cases import assert_same_description, assert_same_geometry, sample

from asexlatent.symmetry import CrystalError, SymmetricCrystal, from_row, symmetrize
from asexlatent.symmetry.convert import read_cif

FOLDER = Path(importlib.util.find_spec("pyxtal").origin).parent / "database" / "cifs"
FILES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".cif", ".vasp"))
SYMPREC = 1e-3


def read(name: str) -> Atoms:
    if name.endswith(".cif"):
        return read_cif(FOLDER / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ase.io.read(FOLDER / name)


def spglib_number(atoms: Atoms) -> int:
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    return spglib.get_symmetry_dataset(cell, symprec=SYMPREC).number


def test_there_are_files():
    assert len(FILES) > 80


@pytest.mark.parametrize("name", sample(FILES, 6))
def test_files_come_back_through_every_form(name, tmp_path):
    atoms = read(name)
    found = symmetrize(atoms, symprec=SYMPREC, space_group="detect")
    crystal = found.crystal
    assert crystal.space_group == spglib_number(atoms)
    assert found.displacement < SYMPREC
    assert_same_geometry(atoms, crystal.to_atoms(), 2 * found.displacement + 1e-6)

    options = {"symprec": SYMPREC, "space_group": "detect"}
    again = SymmetricCrystal.from_atoms(crystal.to_atoms(), **options)
    assert_same_description(crystal, again)
    assert_same_geometry(crystal.to_atoms(), again.to_atoms())
    assert_same_description(
        crystal, SymmetricCrystal.from_structure(crystal.to_structure(), **options)
    )
    assert_same_description(crystal, SymmetricCrystal.from_pyxtal(crystal.to_pyxtal()))
    crystal.to_cif(tmp_path / name)
    assert_same_description(crystal, SymmetricCrystal.from_cif(tmp_path / name, **options))
    if crystal.n_sites > 8:
        with pytest.raises(CrystalError, match="at most 8"):
            crystal.to_row()
    else:
        species = [site.species for site in crystal.sites]
        assert_same_description(crystal, from_row(crystal.to_row(), species=species))


@pytest.mark.parametrize("name", sample([name for name in FILES if name.endswith(".cif")], 4))
def test_cif_files_are_read_as_they_declare_themselves(name):
    """The group written in the file is the one of the crystal, even if there is more symmetry."""
    crystal = SymmetricCrystal.from_cif(FOLDER / name)
    assert_same_geometry(read(name), crystal.to_atoms(), 2e-2)
    declared = read(name).info.get("spacegroup")
    if declared is not None and declared.no > 1:
        assert crystal.space_group == declared.no
