from __future__ import annotations

from collections import Counter
from itertools import combinations_with_replacement, islice

import numpy as np
import pytest
import spglib
from ase.formula import Formula
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from asexlatent.symmetry import CrystalError, RandomCrystals, SymmetricCrystal, wyckoff_positions
from asexlatent.symmetry.occupations import occupations
from asexlatent.symmetry.random_crystals import any_nearer, random_cell, usual_volume
from asexlatent.symmetry.site_symmetry import can_have_neighbors


@settings(max_examples=40, deadline=None)
@given(
    composition=st.sampled_from(["C", "SiO2", "BN", "Si2O4", "CaTiO3"]),
    groups=st.lists(st.integers(1, 230), min_size=1, max_size=6),
    max_sites=st.integers(3, 9),
    max_atoms=st.integers(60, 200),
    seed=st.integers(0, 2**40),
)
def test_limits_are_kept(composition, groups, max_sites, max_atoms, seed):
    source = RandomCrystals(
        composition, groups, max_sites=max_sites, max_atoms=max_atoms, seed=seed
    )
    low, high = source.volume_range
    try:
        crystals = list(source.crystals(4))
    except CrystalError:
        return  # tested below
    for crystal in crystals:
        assert crystal.space_group in groups
        assert crystal.n_sites <= max_sites
        assert crystal.n_atoms <= max_atoms
        assert low * 0.999 <= crystal.volume / crystal.n_atoms <= high * 1.001
        counts = Counter(crystal.symbols)
        units = {counts[s] / n for s, n in Formula(composition).count().items()}
        assert len(units) == 1
        assert units.pop() % 1 == 0
        fixed = [site.position for site in crystal.sites if not site.position.dof]
        assert len(fixed) == len(set(fixed))
        assert all(((site.free >= 0) & (site.free < 1)).all() for site in crystal.sites)


def test_symmetry_is_there():
    for crystal in RandomCrystals(min_distance=0.8, max_atoms=60, max_sites=4).crystals(30):
        cell = (crystal.cell, crystal.scaled_positions(), [6] * crystal.n_atoms)
        found = spglib.get_symmetry(cell, symprec=1e-4)
        order = wyckoff_positions(crystal.space_group)[0].multiplicity
        assert len(found["rotations"]) % order == 0


def test_pyxtal_builds_the_same():
    source = RandomCrystals("SiO2", max_atoms=48, min_distance=1.0, seed=3)
    for crystal in source.crystals(8):
        theirs = crystal.to_pyxtal()
        assert theirs.group.number == crystal.space_group
        assert len(theirs.to_ase()) == crystal.n_atoms
        assert theirs.lattice.volume == pytest.approx(crystal.volume)


def test_a_crystal_depends_on_seed_and_index_alone():
    source = RandomCrystals(seed=5)
    backwards = [source.crystal(index) for index in reversed(range(6))][::-1]
    for one, other in zip(source.crystals(6), backwards, strict=True):
        assert repr(one) == repr(other)
    assert repr(next(source.crystals(1, first=4))) == repr(backwards[4])
    assert repr(RandomCrystals(seed=6).crystal(0)) != repr(backwards[0])


@pytest.mark.parametrize("distance", [0.7, 1.4])
def test_distances_are_kept(distance):
    source = RandomCrystals(min_distance=distance, max_atoms=24, max_sites=3)
    for crystal in source.crystals(30):
        assert not len(neighbor_list("i", crystal.to_atoms(), distance))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), distance=st.floats(0.3, 4.0))
def test_any_nearer_against_ase(seed, distance):
    rng = np.random.default_rng(seed)
    crystal = RandomCrystals(max_atoms=16, max_sites=3, seed=seed).crystal(0)
    if seed % 2:  # a skewed cell and unwrapped atoms
        cell = np.eye(3) * rng.uniform(1.5, 5) + np.tril(rng.normal(0, 2, (3, 3)), -1)
        sites = [("C", 0, rng.normal(0, 2, 3)) for _ in range(3)]
        values = SymmetricCrystal.build(1, [3, 3, 3, 1.5, 1.5, 1.5], sites)
        orbits = [site.expand() for site in values.sites]
        atoms = values.to_atoms()
        atoms.set_cell(cell, scale_atoms=True)
    else:
        cell, atoms = crystal.cell, crystal.to_atoms()
        orbits = [site.expand() for site in crystal.sites]
    assert any_nearer(orbits, cell, distance) == bool(len(neighbor_list("i", atoms, distance)))


@pytest.mark.parametrize("group", [2, 62, 167, 216])
def test_ways_counted_one_by_one(group):
    ways = occupations(group, 3, 40)
    positions = wyckoff_positions(group)
    expected = np.zeros((4, 41))
    for n in range(4):
        for chosen in combinations_with_replacement(positions, n):
            fixed = [p for p in chosen if not p.dof]
            atoms = sum(p.multiplicity for p in chosen)
            if len(fixed) == len(set(fixed)) and atoms <= 40:
                expected[n, atoms] += 1
    np.testing.assert_array_equal(ways.counts, expected)


def test_ways_are_as_likely():
    ways = occupations(12, 3, 12)
    total = int(ways.counts[3, 12])
    rng = np.random.default_rng(0)
    found = Counter(tuple(p.index for p in ways.draw(3, 12, rng)) for _ in range(60 * total))
    assert len(found) == total
    counts = np.array(list(found.values()))
    chi2 = ((counts - 60) ** 2 / 60).sum()
    assert abs(chi2 - (total - 1)) < 5 * np.sqrt(2 * total)


def test_only_positions_with_room_for_the_neighbors():
    source = RandomCrystals("SiO2", max_atoms=90, neighbors={"Si": 4, "O": (2, 3)})
    for crystal in source.crystals(60):
        for site in crystal.sites:
            numbers = (4,) if site.species == "Si" else (2, 3)
            assert any(can_have_neighbors(site.position, n) for n in numbers)
    for crystal in RandomCrystals(neighbors=3).crystals(60):
        assert all(can_have_neighbors(site.position, 3) for site in crystal.sites)


def test_formula_units_and_repeated_groups():
    source = RandomCrystals("TiO2", [136, 136, 141], formula_units=[2, 4])
    drawn = list(source.crystals(60))
    assert {crystal.n_atoms for crystal in drawn} <= {6, 12}
    groups = Counter(crystal.space_group for crystal in drawn)
    assert groups[136] > groups[141]


def test_redrawn_keeps_the_condition():
    source = RandomCrystals(seed=2)
    crystal = SymmetricCrystal.build(
        166, [5, 9], [("Si", "6c", [0.1]), ("O", "18h", [0.3, 0.2])], info={"name": "x"}
    )
    other = source.redrawn(crystal, 7)
    assert other.wyckoffs == crystal.wyckoffs
    assert [s.species for s in other.sites] == ["Si", "O"]
    assert other.info == {"name": "x"}
    assert np.abs(other.free_variables - crystal.free_variables).min() > 0
    low, high = usual_volume({"Si": 6, "O": 18})
    assert low <= other.volume / other.n_atoms <= high
    assert repr(source.redrawn(crystal, 7)) == repr(other)


def test_carbon_is_as_dense_as_carbon():
    low, high = usual_volume({"C": 1})
    assert low == pytest.approx(6, abs=0.2)
    assert high == pytest.approx(12, abs=0.2)


@pytest.mark.parametrize("group", [1, 5, 20, 100, 150, 200])
def test_cells(group):
    rng = np.random.default_rng(group)
    for _ in range(20):
        volume = rng.uniform(5, 500)
        crystal = SymmetricCrystal.build(
            group, random_cell(group, volume, rng), [("C", 0, [0.1, 0.2, 0.3])]
        )
        assert crystal.volume == pytest.approx(volume)
        a, b, c, *angles = crystal.cell_parameters
        assert max(a, b, c) / min(a, b, c) <= 4.001
        assert (np.degrees(angles) > 59.9).all()
        assert (np.degrees(angles) < 120.1).all()
        assert volume > 0.299 * a * b * c


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"composition": "Xx"}, "no formula"),
        ({"composition": ""}, "no formula"),
        ({"space_groups": []}, "no space group"),
        ({"space_groups": [231]}, "231 does not exist"),
        ({"max_sites": 0}, "at least 1"),
        ({"volume": (5.0, 2.0)}, "no range"),
        ({"formula_units": [0]}, "at least 1"),
        ({"neighbors": {"Si": 4}}, "not in C"),
        ({"seed": -1}, "not be negative"),
    ],
)
def test_settings_that_cannot_be(options, words):
    with pytest.raises(CrystalError, match=words):
        RandomCrystals(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"composition": "SiO2", "space_groups": [227], "formula_units": [1]},
        {"composition": "ABC".replace("A", "Al"), "space_groups": [225], "formula_units": [4]},
        {"space_groups": [230], "max_atoms": 5},
        {"min_distance": 9.0, "max_atoms": 20},
    ],
)
def test_what_is_impossible_ends_with_a_reason(options):
    with pytest.raises(CrystalError, match="relax one of these"):
        RandomCrystals(**options).crystal(0)


def test_negative_index():
    with pytest.raises(CrystalError, match="index"):
        RandomCrystals().crystal(-1)


def test_endless_supply_is_lazy():
    assert len(list(islice(RandomCrystals().crystals(10**9), 3))) == 3
