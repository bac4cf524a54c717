"""Detection: right crystal, right group, one canonical description, clear refusals."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, molecule
from ase.spacegroup import crystal
from detect_cases import assert_identical, disguise, disguises, recut, spglib_number
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetry_cases import assert_same_geometry, make_crystal

from asexlatent.symmetry import CrystalError, SymmetricCrystal, symmetrize


def made(*arguments, **options) -> Atoms:
    atoms = crystal(*arguments, **options)
    atoms.info.clear()  # it would declare its group
    return atoms


POINTS = [(0.11, 0.23, 0.37), (0.41, 0.13, 0.72)]
# group, Wyckoff positions (sites by atomic number, then letter)
STRUCTURES = {
    "rock salt": (bulk("NaCl", "rocksalt", 5.64), 225, ["4a", "4b"]),
    "diamond": (bulk("C", "diamond", 3.567), 227, ["8a"]),
    "hcp": (bulk("Mg"), 194, ["2c"]),
    "wurtzite": (bulk("ZnO", "wurtzite", 3.25, 5.2), 186, ["2b", "2b"]),
    "quartz": (
        made(
            ["Si", "O"],
            [(0.4697, 0, 1 / 3), (0.4133, 0.2672, 0.2144)],
            spacegroup=152,
            cellpar=[4.916, 4.916, 5.4054, 90, 90, 120],
        ),
        152,
        ["6c", "3a"],
    ),
    "calcite": (
        made(
            ["Ca", "C", "O"],
            [(0, 0, 0), (0, 0, 0.25), (0.257, 0, 0.25)],
            spacegroup=167,
            cellpar=[4.99, 4.99, 17.06, 90, 90, 120],
        ),
        167,
        ["6a", "18e", "6b"],  # C, O, Ca
    ),
    "baddeleyite": (
        made(
            ["Zr", "O", "O"],
            [(0.2754, 0.0395, 0.2083), (0.07, 0.3317, 0.3447), (0.4496, 0.7569, 0.4792)],
            spacegroup=14,
            cellpar=[5.15, 5.212, 5.317, 90, 99.23, 90],
        ),
        14,
        ["4e", "4e", "4e"],
    ),
    "Cc": (made("CN", POINTS, spacegroup=9, cellpar=[7, 8, 9, 90, 105, 90]), 9, ["4a", "4a"]),
    "Pna21": (made("CN", POINTS, spacegroup=33, cellpar=[7, 8, 9, 90, 90, 90]), 33, ["4a", "4a"]),
    "P-1": (made("CN", POINTS, spacegroup=2, cellpar=[7, 8, 9, 80, 105, 95]), 2, ["2i", "2i"]),
    "P1": (made("CN", POINTS, spacegroup=1, cellpar=[7, 8, 9, 80, 105, 95]), 1, ["1a", "1a"]),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_known_structures_in_every_disguise(name):
    atoms, number, wyckoffs = STRUCTURES[name]
    expected = SymmetricCrystal.from_atoms(atoms)
    assert expected.space_group == number
    assert expected.wyckoffs == wyckoffs
    assert spglib_number(expected.to_atoms()) == number
    assert_same_geometry(expected.to_atoms(), atoms)
    for _, variant in disguises(atoms, np.random.default_rng(0)):
        found = symmetrize(variant)
        assert found.displacement < 1e-8
        assert found.cell_change < 1e-8
        assert_identical(found.crystal, expected)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(STRUCTURES)), st.integers(0, 2**32 - 1))
def test_any_cell_order_and_orientation_is_the_same_crystal(name, seed):
    atoms = STRUCTURES[name][0]
    found = symmetrize(disguise(atoms, np.random.default_rng(seed)))
    assert_identical(found.crystal, SymmetricCrystal.from_atoms(atoms))


@pytest.mark.parametrize("start", [*range(1, 231, 10), *range(2, 231, 30)])
def test_random_crystals_of_all_groups(start):
    rng = np.random.default_rng(start)
    for number in range(start, min(start + 10, 231), 2):
        atoms = make_crystal(number, rng).to_atoms()
        first = symmetrize(atoms, symprec=1e-4)
        # Special positions can add symmetry: spglib says which group it really is.
        assert first.crystal.space_group == spglib_number(atoms)
        assert spglib_number(first.crystal.to_atoms()) == first.crystal.space_group
        assert_same_geometry(first.crystal.to_atoms(), atoms)
        again = symmetrize(disguise(atoms, rng), symprec=1e-4)
        assert_identical(again.crystal, first.crystal)
        # A canonical crystal is its own canonical description.
        assert_identical(symmetrize(first.crystal.to_atoms(), 1e-4).crystal, first.crystal)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 231))
def test_many_random_crystals(number):
    rng = np.random.default_rng(1000 + number)
    for _ in range(10):
        atoms = make_crystal(number, rng).to_atoms()
        first = symmetrize(atoms, symprec=1e-4).crystal
        assert_same_geometry(first.to_atoms(), atoms)
        for _, variant in disguises(atoms, rng):
            assert_identical(symmetrize(variant, symprec=1e-4).crystal, first)


def test_random_crystals_made_by_pyxtal():
    from pyxtal import pyxtal

    rng = np.random.default_rng(6)
    for number, n in (
        (14, 8),
        (36, 8),
        (62, 12),
        (99, 6),
        (136, 8),
        (148, 18),
        (194, 12),
        (227, 16),
    ):
        made_by = pyxtal()
        made_by.from_random(3, number, ["C"], [n], random_state=number)
        assert made_by.valid
        atoms = made_by.to_ase(resort=False)
        atoms.info.clear()
        found = symmetrize(disguise(atoms, rng), symprec=1e-4).crystal
        assert found.space_group == spglib_number(atoms)
        assert_same_geometry(found.to_atoms(), atoms)
        assert_identical(symmetrize(atoms, symprec=1e-4).crystal, found)


def test_pymatgen_agrees_that_it_is_the_same_structure():
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.io.ase import AseAtomsAdaptor

    matcher = StructureMatcher(primitive_cell=True, scale=False, attempt_supercell=False)
    rng = np.random.default_rng(5)
    for name in ("quartz", "baddeleyite", "Pna21", "P-1", "wurtzite"):
        atoms = STRUCTURES[name][0]
        rebuilt = symmetrize(disguise(atoms, rng)).crystal.to_structure()
        assert matcher.fit(rebuilt, AseAtomsAdaptor.get_structure(atoms)), name


def test_rock_salt_is_4a_4b_wherever_the_origin_is():
    for cubic in (True, False):
        atoms = bulk("NaCl", "rocksalt", 5.64, cubic=cubic)
        atoms.positions += atoms.positions[1] - atoms.positions[0]  # sodium where chlorine was
        found = SymmetricCrystal.from_atoms(atoms)
        assert [(s.species, s.position.label) for s in found.sites] == [("Na", "4a"), ("Cl", "4b")]


def test_settings_are_those_of_pyxtal():
    # Diamond from ASE has its origin at an atom; origin choice 2 puts the atoms at 1/8.
    found = SymmetricCrystal.from_atoms(bulk("C", "diamond", 3.567))
    assert found.hall_number == 526
    assert set((found.scaled_positions() * 8 % 2).round(9).ravel()) == {1.0}
    # Rhombohedral groups have hexagonal axes.
    bismuth = SymmetricCrystal.from_atoms(bulk("Bi"))
    assert bismuth.space_group == 166
    assert bismuth.cell_parameters[5] == pytest.approx(2 * np.pi / 3)


def test_mirror_images_are_told_apart():
    quartz = STRUCTURES["quartz"][0]
    mirrored = quartz.copy()
    mirrored.positions[:, 0] *= -1
    mirrored.set_cell(mirrored.cell.array * [-1, 1, 1])
    assert symmetrize(quartz).crystal.space_group == 152
    assert symmetrize(mirrored).crystal.space_group == 154
    # P2_1 2_1 2_1 is its own mirror image, the crystal is not.
    chiral = made("CNO", [*POINTS, (0.31, 0.47, 0.05)], spacegroup=19, cellpar=[5, 6, 7] + [90] * 3)
    mirrored = chiral.copy()
    mirrored.set_cell(-mirrored.cell.array)
    mirrored.positions *= -1
    one, other = symmetrize(chiral).crystal, symmetrize(mirrored).crystal
    assert one.space_group == other.space_group == 19
    assert not np.allclose(one.free_variables, other.free_variables, atol=1e-3)


def test_noise_is_removed_and_reported():
    rng = np.random.default_rng(2)
    atoms = STRUCTURES["baddeleyite"][0] * (2, 1, 1)
    noisy = atoms.copy()
    noisy.positions += rng.uniform(-1, 1, atoms.positions.shape) * 1e-3
    found = symmetrize(noisy, symprec=1e-2)
    assert found.crystal.space_group == 14
    assert 1e-4 < found.displacement < 3e-3
    # The mean over 8 noisy copies of each orbit is nearer to the truth than any of them.
    clean = symmetrize(atoms).crystal
    assert np.allclose(found.crystal.free_variables, clean.free_variables, atol=2e-4)
    assert symmetrize(noisy, symprec=1e-5).crystal.space_group == 1


def test_a_crystal_of_200_atoms_without_symmetry():
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(range(5), range(5), range(8)), axis=-1).reshape(-1, 3) / [5, 5, 8]
    cell = np.diag([10.0, 11.0, 16.0]) + rng.uniform(-1, 1, (3, 3))
    atoms = Atoms("C200", scaled_positions=grid, cell=cell, pbc=True)
    atoms.rattle(0.2, seed=1)
    first = symmetrize(atoms)
    assert first.crystal.space_group == 1
    assert first.crystal.n_sites == 200
    assert_identical(symmetrize(disguise_p1(atoms, rng)).crystal, first.crystal)


def disguise_p1(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    changed = recut(atoms, np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]]))
    changed = changed[rng.permutation(len(changed))]
    changed.translate(rng.uniform(-5, 5, 3))
    changed.rotate(33, (1, 2, 3), rotate_cell=True)
    return changed


def test_what_cannot_be_a_crystal_is_refused_in_one_line():
    nan = bulk("NaCl", "rocksalt", 5.64)
    nan.positions[0, 0] = np.nan
    double = bulk("NaCl", "rocksalt", 5.64) * (2, 1, 1)
    double.positions[3] = double.positions[0] + 1e-5
    flat = Atoms("C", cell=[[1, 0, 0], [0, 1, 0], [1, 1, 0]], pbc=True)
    cases = [
        (Atoms(cell=[3, 3, 3], pbc=True), "no atoms"),
        (molecule("H2O"), "not periodic along a, b, c"),
        (graphene(vacuum=5), "not periodic along c"),
        (Atoms("C", pbc=True), "no volume"),
        (flat, "no volume"),
        (nan, "not finite"),
        (double, r"atoms 0 \(Na\) and 3 \(Cl\) are 1.7e-05 Å apart"),
    ]
    for atoms, message in cases:
        with pytest.raises(CrystalError, match=message) as caught:
            symmetrize(atoms)
        assert "\n" not in str(caught.value)
    with pytest.raises(CrystalError, match="symprec must be a positive length"):
        symmetrize(bulk("Cu"), symprec=0)


@pytest.mark.parametrize("distance", [2e-4, 1e-3, 9e-3])
def test_atoms_nearer_than_symprec_are_told_apart(distance):
    """The crystal that a table row can hold too; its group is that of its construction."""
    x = 0.1 + distance / 4.0
    sites = [("C", "4c", [0.1, 0.2]), ("C", "4c", [x, 0.2]), ("C", "8d", [0.3, 0.1, 0.4])]
    crystal = SymmetricCrystal.build(62, (4.0, 5.0, 6.0), sites)
    found = symmetrize(crystal.to_atoms(), symprec=0.01)
    assert found.crystal.space_group == 62
    assert sorted(found.crystal.wyckoffs) == ["4c", "4c", "8d"]
    assert found.displacement < 1e-9


def test_whatever_comes_in_is_described_rightly_or_refused():
    rng = np.random.default_rng(11)
    described = 0
    for _ in range(80):
        n = int(rng.integers(1, 25))
        atoms = Atoms(f"C{n}", cell=rng.normal(size=(3, 3)) * rng.uniform(2, 15, (3, 1)), pbc=True)
        scaled = rng.integers(0, 8, (n, 3)) / 8 if rng.random() < 0.5 else rng.random((n, 3))
        atoms.set_scaled_positions(scaled)
        atoms.positions += rng.normal(size=(n, 3)) * 10 ** rng.uniform(-6, -1)
        symprec = 10 ** rng.uniform(-5, -0.3)
        try:
            found = symmetrize(atoms, symprec=symprec)
        except CrystalError:
            continue
        described += 1
        cell, positions = found.embedding.apply(found.crystal)
        moves = positions - atoms.get_scaled_positions(wrap=False) @ cell
        assert np.linalg.norm(moves, axis=1).max() <= 3 * symprec + 1e-5
        assert found.crystal.n_atoms * atoms.get_volume() == pytest.approx(
            n * found.crystal.volume, rel=max(1e-6, 10 * symprec)
        )
    assert described > 20


def test_the_input_is_left_alone():
    atoms = STRUCTURES["quartz"][0].copy()
    atoms.info["label"] = "mine"
    before = atoms.copy()
    found = symmetrize(atoms)
    assert atoms == before
    assert atoms.info == before.info
    assert found.crystal.info == {"label": "mine"}
