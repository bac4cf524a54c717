"""Declared groups: projected onto, reported, refused."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms, FixSymmetry
from ase.spacegroup import Spacegroup, crystal
from detect_cases import assert_identical, disguise
from symmetry_cases import assert_same_geometry, make_crystal

from asexlatent.symmetry import CrystalError, SymmetricCrystal, symmetrize
from asexlatent.symmetry.impose import group_number
from asexlatent.symmetry.normalizer import UNIT, operations
from asexlatent.symmetry.settings import setting_from_operations, subgroup_settings

NACL = bulk("NaCl", "rocksalt", 5.64, cubic=True)


def assert_has_operations(crystal: SymmetricCrystal) -> None:
    """The operations of the group, from the tables, map the atoms onto themselves."""
    atoms = crystal.to_atoms()
    scaled = atoms.get_scaled_positions()
    group = operations(crystal.space_group)
    for rotation, translation in zip(group.rotations, group.translations / UNIT, strict=True):
        metric = atoms.cell.array @ atoms.cell.array.T
        assert np.allclose(rotation.T @ metric @ rotation, metric)
        difference = (scaled @ rotation.T + translation)[:, None] - scaled[None]
        difference -= np.rint(difference)
        near = np.linalg.norm(difference @ atoms.cell.array, axis=2) < 1e-6
        assert (near.sum(axis=1) == 1).all()
        assert np.array_equal(atoms.numbers[near.argmax(axis=1)], atoms.numbers)


# ------------------------------------------------------------------------------- by number


@pytest.mark.parametrize(
    "number", [2, 5, 8, 12, 42, 44, 69, 71, 87, 119, 121, 139, 146, 160, 166, 196, 202, 209, 225]
)
def test_translationengleiche_subgroups_of_rock_salt(number):
    found = symmetrize(NACL, space_group=number)
    assert found.crystal.space_group == number
    assert found.displacement < 1e-8
    assert_has_operations(found.crystal)
    assert_same_geometry(found.crystal.to_atoms(), NACL)
    for variant in (NACL * (1, 2, 1), bulk("NaCl", "rocksalt", 5.64)):
        variant = disguise(variant, np.random.default_rng(number))
        again = symmetrize(variant, space_group=number)
        assert_identical(again.crystal, found.crystal)
        cell, positions = again.embedding.apply(again.crystal)
        assert np.abs(positions - variant.positions).max() < 1e-8
        assert np.abs(cell - variant.cell.array).max() < 1e-8


def test_all_maximal_subgroups_that_pyxtal_lists():
    from pyxtal.symmetry import Group

    for number in range(1, 231, 5):
        for subgroup in set(Group(number, quick=True).get_max_t_subgroup()["subgroup"]):
            assert subgroup_settings(number, subgroup), (number, subgroup)


def test_subgroups_of_random_crystals():
    from pyxtal.symmetry import Group

    rng = np.random.default_rng(0)
    for number in range(3, 231, 19):
        made = make_crystal(number, rng)
        if not any(site.position.index == 0 for site in made.sites):
            continue  # special positions alone can be another crystal
        atoms = disguise(made.to_atoms(), rng)
        for subgroup in sorted(set(Group(number, quick=True).get_max_t_subgroup()["subgroup"]))[:3]:
            found = symmetrize(atoms, symprec=1e-4, space_group=int(subgroup))
            assert found.crystal.space_group == subgroup
            assert found.displacement < 1e-6
            assert_has_operations(found.crystal)
            assert_same_geometry(found.crystal.to_atoms(), atoms)


def test_a_crystal_is_always_possible_in_the_group_it_was_made_in():
    # Special positions alone are often more symmetric, with more translations even.
    rng = np.random.default_rng(1)
    for number in range(1, 231, 7):
        atoms = make_crystal(number, rng).to_atoms()
        found = symmetrize(atoms, symprec=1e-4, space_group=number)
        assert found.crystal.space_group == number
        assert found.displacement < 1e-6
        assert_same_geometry(found.crystal.to_atoms(), atoms)


def test_p1_frees_every_atom_of_the_given_cell():
    for atoms in (NACL, bulk("C", "diamond", 3.57, cubic=True) * (3, 3, 3)):
        found = symmetrize(atoms, space_group=1)
        assert found.crystal.wyckoffs == ["1a"] * len(atoms)
        assert sorted(found.embedding.site) == list(range(len(atoms)))
        assert found.displacement < 1e-8
        assert_same_geometry(found.crystal.to_atoms(), atoms)
        turned = atoms[np.random.default_rng(0).permutation(len(atoms))]
        turned.rotate(20, "z", rotate_cell=True)
        turned.translate([1, 2, 3])
        assert_identical(symmetrize(turned, space_group=1).crystal, found.crystal)
    mirrored = NACL.copy()
    mirrored.set_cell(mirrored.cell.array[[1, 0, 2]])
    assert symmetrize(mirrored, space_group=1).crystal.n_sites == 8


def test_noisy_atoms_are_projected_and_the_displacement_is_reported():
    noisy = NACL.copy()
    noisy.rattle(0.05, seed=3)
    assert symmetrize(noisy).crystal.space_group == 1
    for number in (225, 216, 166):
        found = symmetrize(noisy, space_group=number)
        assert found.crystal.space_group == number
        assert_has_operations(found.crystal)
        _, positions = found.embedding.apply(found.crystal)
        largest = np.linalg.norm(positions - noisy.positions, axis=1).max()
        assert found.displacement == pytest.approx(largest, abs=1e-6)
        # No farther than the perfect crystal is, give or take where its origin is put.
        assert largest < 2 * np.linalg.norm(noisy.positions - NACL.positions, axis=1).max()
    with pytest.raises(CrystalError, match=r"225 \(Fm-3m\).*raise max_displacement"):
        symmetrize(noisy, space_group=225, max_displacement=0.02)


def test_projection_is_the_nearest_symmetric_arrangement():
    # Against a direct minimisation: distances to the noisy atoms over all free variables.
    from scipy.optimize import least_squares

    cellpar = [5, 6, 7, 90, 100, 90]
    clean = crystal("CO", [(0.1, 0.2, 0.3), (0.4, 0.4, 0.6)], spacegroup=14, cellpar=cellpar)
    clean.info.clear()
    noisy = clean.copy()
    noisy.rattle(0.05, seed=1)
    found = symmetrize(noisy, space_group=14)
    crystal_, embedding = found.crystal, found.embedding
    n = len(crystal_.cell_free)

    def residual(x: np.ndarray) -> np.ndarray:
        trial = crystal_.with_free_variables(np.concatenate([crystal_.cell_free, x[:-3]]))
        _, positions = embedding.apply(trial)
        return (positions + x[-3:] - noisy.positions).ravel()  # the origin is free

    start = np.concatenate([crystal_.free_variables[n:], np.zeros(3)])
    best = least_squares(residual, start, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    assert (residual(start) ** 2).sum() == pytest.approx(2 * best.cost, rel=1e-6)


def test_a_strained_cell_is_made_symmetric():
    strained = NACL.copy()
    strained.set_cell(strained.cell.array * (1.02, 0.99, 1.0), scale_atoms=True)
    found = symmetrize(strained, space_group=225)
    assert found.crystal.space_group == 225
    # The mean of the squares is kept; the longest axis changes most.
    length = 5.64 * np.sqrt((1.02**2 + 0.99**2 + 1) / 3)
    assert found.crystal.cell_free == pytest.approx([length])
    assert found.cell_change == pytest.approx(5.64 * 1.02 - length)
    with pytest.raises(CrystalError, match="225"):
        symmetrize(strained, space_group=225, max_displacement=0.05)


def test_groups_the_atoms_do_not_have_are_refused_by_name():
    for number, name in ((62, "Pnma"), (152, "P3_121")):
        with pytest.raises(CrystalError, match=rf"space group {number} \({name}\)") as caught:
            symmetrize(NACL, space_group=number)
        assert "found 225 (Fm-3m)" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(CrystalError, match="max_displacement must be positive"):
        symmetrize(NACL, space_group=2, max_displacement=-1)


def test_groups_by_name():
    assert group_number("Fm-3m") == group_number("F m -3 m") == group_number("225") == 225
    assert group_number("P2_1/c") == group_number("P21/c") == group_number("P 1 21/c 1") == 14
    assert group_number("C2/m") == 12
    assert group_number("R-3m") == 166
    for wrong in ("Foo", "", 0, 231, 2.5, True):
        with pytest.raises(CrystalError):
            group_number(wrong)


# ------------------------------------------------------------------------------- by ASE


def declared_rock_salt(**options) -> Atoms:
    points = [(0, 0, 0), (0.5, 0.5, 0.5)]
    cellpar = [5.64, 5.64, 5.64, 90, 90, 90]
    return crystal(["Na", "Cl"], points, spacegroup=225, cellpar=cellpar, **options)


def test_spacegroup_in_info_is_imposed_with_its_own_setting():
    for setting, point in ((1, (0, 0, 0)), (2, (0.125, 0.125, 0.125))):
        group = Spacegroup(227, setting)
        atoms = crystal("C", [point], spacegroup=group, cellpar=[3.57] * 3 + [90] * 3)
        atoms.rattle(0.05, seed=1)
        found = symmetrize(atoms)
        assert found.crystal.space_group == 227
        assert found.crystal.wyckoffs == ["8a"]
        assert 0.05 < found.displacement < 0.3
        assert "spacegroup" not in found.crystal.info
        assert symmetrize(atoms, space_group="detect").crystal.space_group == 1


def test_spacegroup_in_info_of_a_primitive_cell_goes_by_its_number():
    atoms = declared_rock_salt(primitive_cell=True)
    assert len(atoms) == 2
    assert symmetrize(atoms).crystal.wyckoffs == ["4a", "4b"]


def test_spacegroup_that_is_lower_than_what_the_atoms_have():
    # The declared one counts, with its own translations: rock salt as Pm-3m.
    found = symmetrize(NACL, space_group=Spacegroup(221))
    assert found.crystal.space_group == 221
    assert sorted(found.crystal.wyckoffs) == ["1a", "1b", "3c", "3d"]
    assert_has_operations(found.crystal)
    assert_same_geometry(found.crystal.to_atoms(), NACL)


def test_a_stale_spacegroup_is_an_error_with_a_way_out():
    atoms = declared_rock_salt()
    atoms[0].symbol = "K"
    with pytest.raises(CrystalError, match=r"atoms.info\['spacegroup'\].*space_group='detect'"):
        symmetrize(atoms)
    assert symmetrize(atoms, space_group="detect").crystal.space_group == 221
    assert symmetrize(atoms, space_group=123).crystal.space_group == 123


def test_p1_in_info_declares_nothing():
    atoms = NACL.copy()
    atoms.info["spacegroup"] = Spacegroup(1)
    assert symmetrize(atoms).crystal.space_group == 225


@pytest.mark.filterwarnings("ignore")
def test_fix_symmetry_is_imposed():
    clean = bulk("C", "diamond", 3.57) * (2, 2, 2)
    atoms = clean.copy()
    atoms.set_constraint([FixAtoms([0]), FixSymmetry(atoms)])
    atoms.set_positions(
        atoms.positions + np.random.default_rng(0).normal(0, 0.03, (16, 3)), apply_constraint=False
    )
    found = symmetrize(atoms)
    assert found.crystal.space_group == 227
    assert 0.03 < found.displacement < 0.3
    with pytest.raises(CrystalError, match="FixSymmetry cannot be imposed"):
        symmetrize(atoms, max_displacement=0.01)
    # Asking for a group overrides it.
    assert symmetrize(atoms, space_group=1).crystal.n_sites == 16


@pytest.mark.filterwarnings("ignore")
def test_fix_symmetry_of_a_lower_group():
    atoms = bulk("NaCl", "rocksalt", 5.6) * (2, 1, 1)
    atoms[0].symbol = "K"
    constraint = FixSymmetry(atoms)
    # Later the atoms happen to be more symmetric than what the constraint keeps.
    atoms[0].symbol = "Na"
    atoms.set_constraint(constraint)
    found = symmetrize(atoms)
    assert found.crystal.space_group == 166
    assert found.crystal.n_sites > 2
    assert_has_operations(found.crystal)
    assert_same_geometry(found.crystal.to_atoms(), atoms)


def test_inexact_operations_are_made_exact():
    rng = np.random.default_rng(0)
    for number in (14, 62, 148, 198, 227):
        group = operations(number)
        cell = make_crystal(number, rng, n_sites=1).cell
        shift = rng.random(3)
        translations = group.translations / UNIT + shift - group.rotations @ shift
        translations += rng.uniform(-1, 1, translations.shape) * 2e-3
        # a supercell of two cells along a: every operation comes twice, if it fits at all
        found = setting_from_operations(cell, group.rotations, translations)
        assert found.space_group == number
        volume = abs(np.linalg.det(found.transformation))
        assert volume == pytest.approx(1)


def test_operations_that_make_no_group_are_refused():
    atoms = Atoms("C2", cell=[3, 3, 3], scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], pbc=True)
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    with pytest.raises(CrystalError, match="no group"):
        setting_from_operations(atoms.cell.array, np.array([np.eye(3), quarter]), np.zeros((2, 3)))
    two = np.diag([-1, -1, 1])
    with pytest.raises(CrystalError, match="contradict"):
        setting_from_operations(
            atoms.cell.array, np.array([np.eye(3), two]), np.array([[0, 0, 0], [0, 0, 0.3]])
        )
