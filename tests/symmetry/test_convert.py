"""Other people's objects: the same crystal must come out of every one of them."""

from __future__ import annotations

import io
import warnings

import ase.io
import numpy as np
import pytest
from symmetry_cases import assert_same_atoms, make_crystal, sample

from asexlatent.symmetry import CrystalError, SymmetricCrystal, hall_number
from asexlatent.symmetry.wyckoff import hermann_mauguin, operation_strings

ALL_GROUPS = range(1, 231)


@pytest.fixture(scope="module", params=sample([0, 1, 2], 3))
def crystals(request) -> list[SymmetricCrystal]:
    """One crystal of every third group; with the slow ones, of all."""
    groups = ALL_GROUPS[request.param :: 3]
    return [make_crystal(group, np.random.default_rng([7, group])) for group in groups]


def test_pyxtal_objects_are_the_same_crystal(crystals):
    for crystal in crystals:
        struct = crystal.to_pyxtal()
        assert struct.valid
        assert struct.group.number == crystal.space_group
        assert [site.wp.get_label() for site in struct.atom_sites] == crystal.wyckoffs
        assert sum(struct.numIons) == crystal.n_atoms
        assert_same_atoms(crystal.to_atoms(), struct.to_ase(resort=False))
        back = SymmetricCrystal.from_pyxtal(struct)
        assert back.wyckoffs == crystal.wyckoffs
        assert back.free_variables == pytest.approx(crystal.free_variables, abs=1e-9)


def test_pyxtal_can_go_on_with_the_object():
    struct = make_crystal(136, np.random.default_rng(2)).to_pyxtal()
    assert struct.copy().to_ase().get_volume() == pytest.approx(struct.to_ase().get_volume())
    assert "Group: P 42/m n m (136)" in str(struct)
    assert struct.get_1D_representation() is not None
    again = type(struct)()
    again.load_dict(struct.save_dict())
    assert_same_atoms(struct.to_ase(), again.to_ase())


@pytest.mark.parametrize("group", [2, 14, 36, 62, 88, 139, 148, 166, 194, 205, 221, 227])
def test_random_crystals_of_pyxtal(group):
    from pyxtal import pyxtal

    struct = pyxtal()
    struct.from_random(3, group, ["C", "O"], [24, 48] if group > 204 else [12, 12], random_state=1)
    crystal = SymmetricCrystal.from_pyxtal(struct)
    assert crystal.space_group == group
    assert_same_atoms(struct.to_ase(resort=False), crystal.to_atoms())


def test_pyxtal_objects_that_are_no_crystals():
    from pyxtal import pyxtal

    with pytest.raises(CrystalError, match="not a valid three-dimensional"):
        SymmetricCrystal.from_pyxtal(pyxtal())
    with pytest.raises(CrystalError, match="molecular"):
        SymmetricCrystal.from_pyxtal(pyxtal(molecular=True))


def test_structures(crystals):
    for crystal in crystals:
        structure = crystal.to_structure()
        assert structure.lattice.matrix == pytest.approx(crystal.cell)
        assert_same_atoms(crystal.to_atoms(), structure.to_ase_atoms())


def test_disordered_structures_are_refused():
    from pymatgen.core import Lattice, Structure

    structure = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    with pytest.raises(CrystalError, match="partial occupancies"):
        SymmetricCrystal.from_structure(structure)


# ------------------------------------------------------------------ CIF


def test_ase_reads_the_same_crystal_from_our_cif(crystals):
    for crystal in crystals:
        text = crystal.to_cif()
        assert_same_atoms(crystal.to_atoms(), ase.io.read(io.StringIO(text), format="cif"))


def test_pymatgen_reads_the_same_crystal_from_our_cif(crystals):
    from pymatgen.core import Structure

    for crystal in crystals:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = Structure.from_str(crystal.to_cif(), fmt="cif")
        # pymatgen rounds coordinates within 1e-4 of 1/3 and the like
        assert_same_atoms(crystal.to_atoms(), structure.to_ase_atoms(), tolerance=2e-3)


def test_a_cif_holds_the_inequivalent_sites_only(tmp_path):
    crystal = SymmetricCrystal.build(227, [3.567], [("C", "8a", [])])
    path = tmp_path / "diamond.cif"
    text = crystal.to_cif(path)
    assert path.read_text() == text
    assert "_space_group_IT_number 227" in text
    assert "'F d -3 m :2'" in text
    assert text.count("'x, y, z'") == 1
    assert sum(line.startswith("C1 C 8 a ") for line in text.splitlines()) == 1
    assert len(ase.io.read(path)) == 8


def test_symbols_and_operations_are_those_of_spglib():
    import spglib
    from ase.spacegroup.spacegroup import parse_sitesym

    for group in ALL_GROUPS:
        kind = spglib.get_spacegroup_type(hall_number(group))
        bare = hermann_mauguin(group).split(":")[0].replace(" ", "")
        # spglib: short symbols with underscores, and e for the double glide planes
        short = kind.international_short.replace("_", "")
        full = kind.international_full.replace("_", "").replace(" ", "")
        if group not in (39, 41, 64, 67, 68):
            assert bare in (short, full), (group, bare, short, full)
        ours = parse_sitesym(list(operation_strings(group)))
        theirs = spglib.get_symmetry_from_database(hall_number(group))
        assert as_set(*ours) == as_set(theirs["rotations"], theirs["translations"])


def as_set(rotations, translations) -> set[tuple]:
    """Symmetry operations as integers, translations in 24ths of the cell."""
    return {
        (*r.ravel().tolist(), *(np.rint(24 * t) % 24).tolist())
        for r, t in zip(rotations, translations, strict=True)
    }


def test_a_missing_cif():
    with pytest.raises(FileNotFoundError):
        SymmetricCrystal.from_cif("/nowhere/x.cif")


def test_a_file_that_is_no_cif(tmp_path):
    path = tmp_path / "broken.cif"
    path.write_text("nothing of the kind\n")
    with pytest.raises(CrystalError, match=r"broken\.cif cannot be read as CIF"):
        SymmetricCrystal.from_cif(path)


def test_partial_occupancies_in_a_cif_are_refused(tmp_path):
    path = tmp_path / "half.cif"
    text = SymmetricCrystal.build(225, [4.2], [("Na", "4a", []), ("Cl", "4b", [])]).to_cif()
    path.write_text(text.replace("0.500000000000000 1.0", "0.500000000000000 0.5"))
    with pytest.raises(CrystalError, match="partial occupancies"):
        SymmetricCrystal.from_cif(path)
