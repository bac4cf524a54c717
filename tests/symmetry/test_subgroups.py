from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import spglib
from ase.data import atomic_numbers
from pymatgen.analysis.structure_matcher import StructureMatcher

from asexlatent.symmetry import (
    CrystalError,
    RandomCrystals,
    SymmetricCrystal,
    lattice_variables,
    wyckoff_positions,
)
from asexlatent.symmetry.augmentation import Augmentation, augment
from asexlatent.symmetry.canonical import describe
from asexlatent.symmetry.descriptions import random_description
from asexlatent.symmetry.group_relations import maximal_subgroups, subgroups
from asexlatent.symmetry.lattice import parameters_from_cell
from asexlatent.symmetry.settings import subgroup_settings
from asexlatent.symmetry.site_splitting import count_sites, split_site
from asexlatent.symmetry.subgroups import MANY_ATOMS, MANY_SITES, Original, subgroup_crystals
from asexlatent.topology import identify_net

KNOWN = {
    "graphite": SymmetricCrystal.build(194, [2.46, 6.7], [("C", "2b", []), ("C", "2c", [])]),
    "diamond": SymmetricCrystal.build(227, [3.567], [("C", "8a", [])]),
    "K4": SymmetricCrystal.build(214, [4.1], [("C", "8a", [])]),
    "quartz": SymmetricCrystal.build(
        152, [4.913, 5.405], [("Si", "3a", [0.4697]), ("O", "6c", [0.4135, 0.2669, 0.1191])]
    ),
    "rutile": SymmetricCrystal.build(
        136, [4.594, 2.959], [("Ti", "2a", []), ("O", "4f", [0.3048])]
    ),
    "bct": SymmetricCrystal.build(139, [4.33, 2.46], [("C", "8h", [0.18])]),
    "monoclinic": SymmetricCrystal.build(
        12, [9.0, 2.52, 4.1, 1.7], [("C", "4i", [0.06, 0.34]), ("C", "4i", [0.21, 0.15])]
    ),
}


def same_structure(one: SymmetricCrystal, other: SymmetricCrystal) -> bool:
    matcher = StructureMatcher(
        ltol=1e-3, stol=1e-3, angle_tol=0.1, primitive_cell=True, scale=False
    )
    return matcher.fit(one.to_structure(), other.to_structure())


def canonical(crystal: SymmetricCrystal) -> SymmetricCrystal:
    numbers = np.array([atomic_numbers[site.species] for site in crystal.sites])
    multiplicity = np.array([site.position.multiplicity for site in crystal.sites])
    points = np.array([site.position.representative(site.free) for site in crystal.sites])
    found = describe(crystal.space_group, crystal.cell, numbers, multiplicity, points)
    cell = np.linalg.solve(found.matrix.T, crystal.cell)
    free = lattice_variables(crystal.space_group).project(parameters_from_cell(cell))
    species = [crystal.sites[i].species for i in found.order]
    sites = zip(species, (p.index for p in found.positions), found.free, strict=True)
    return SymmetricCrystal.build(crystal.space_group, free, sites)


def same_description(one: SymmetricCrystal, other: SymmetricCrystal) -> bool:
    if (one.space_group, one.wyckoffs) != (other.space_group, other.wyckoffs):
        return False
    if [s.species for s in one.sites] != [s.species for s in other.sites]:
        return False
    difference = np.abs(one.free_variables - other.free_variables)
    n_cell = len(one.cell_free)
    difference[n_cell:] = np.abs(difference[n_cell:] - np.rint(difference[n_cell:]))
    return bool(difference.max() < 1e-3)


# ---------------------------------------------------------------------- groups alone


def test_sublattices_of_p1():
    """Sublattices of index n in three dimensions: 1, 7, 13, 35 (OEIS A001001)."""
    found = Counter(relation.index for relation in subgroups(1, 4))
    assert found == {2: 7, 3: 13, 4: 35}


def test_subgroups_of_p_minus_1():
    # t: P1. k of index 2: 7 sublattices, each with 2 choices of the inversion centres left, which
    # translations of the group relate; so 7 classes of P-1 and the P1 of the same cell.
    found = Counter((r.index, r.space_group) for r in subgroups(2, 2))
    assert found == {(2, 1): 1, (2, 2): 14}


@pytest.mark.parametrize("group", [12, 36, 62, 63, 88, 123, 139, 148, 166, 182, 194, 198, 214, 221])
def test_t_subgroups_against_the_point_group(group):
    """Classes of translationengleiche subgroups, found there from the operations alone."""
    order = wyckoff_positions(group)[0].multiplicity
    ours = Counter(r.space_group for r in subgroups(group, order, "t"))
    theirs = {n: len(subgroup_settings(group, n)) for n in range(1, group)}
    assert ours == {n: count for n, count in theirs.items() if count}


@pytest.mark.parametrize("group", [2, 15, 62, 141, 166, 194, 206])
def test_cells_and_indices_fit(group):
    for relation in subgroups(group, 4):
        order = [len(wyckoff_positions(g)[0].rotations) for g in (group, relation.space_group)]
        # Operations per volume: the index, whatever the centring.
        assert order[0] / order[1] * relation.cell_ratio == pytest.approx(relation.index)
        steps = [step[0] for step in relation.path]
        assert np.prod(steps) == relation.index
        assert relation.path[-1][2] == relation.space_group


@pytest.mark.slow
def test_every_entry_of_the_tables():
    assert sum(len(maximal_subgroups(group)) for group in range(1, 231)) > 8000


def test_atoms_are_shared_out():
    for group in (63, 136, 166, 194, 227):
        for relation in subgroups(group, 4):
            for position in wyckoff_positions(group):
                parts = split_site(relation, position.index)
                atoms = sum(part.position.multiplicity for part in parts)
                assert atoms == round(position.multiplicity * relation.cell_ratio)
                assert len(parts) >= count_sites(relation, position.index)


# -------------------------------------------------------------------------- crystals


@pytest.mark.parametrize("name", KNOWN)
def test_children_are_the_parent(name):
    parent = KNOWN[name]
    found = subgroup_crystals(parent, max_index=6, max_atoms=64)
    assert len(found.crystals) >= 5
    every = found.crystals[:: max(1, len(found.crystals) // 12)]
    for child in every:
        assert same_structure(parent, child), child
        cell = (child.cell, child.scaled_positions(), [atomic_numbers[s] for s in child.symbols])
        order = wyckoff_positions(child.space_group)[0].multiplicity
        operations = spglib.get_symmetry(cell, symprec=1e-4)["rotations"]
        assert len(operations) % order == 0
        assert spglib.get_symmetry_dataset(cell, symprec=1e-4).number == parent.space_group


@pytest.mark.parametrize("name", ["graphite", "K4", "bct", "monoclinic"])
def test_nets_stay(name):
    parent = KNOWN[name]
    key = identify_net(parent.to_atoms(), cutoff=1.85).key
    for child in subgroup_crystals(parent, max_index=4).crystals[::3]:
        assert identify_net(child.to_atoms(), cutoff=1.85).key == key


@pytest.mark.parametrize("name", KNOWN)
def test_children_differ_and_are_canonical(name):
    found = subgroup_crystals(KNOWN[name], max_index=6, max_atoms=64)
    for number, child in enumerate(found.crystals):
        assert not any(same_description(child, other) for other in found.crystals[:number])
    for child in found.crystals[::5]:
        assert same_description(canonical(child), child)


@pytest.mark.parametrize("name", ["graphite", "quartz", "rutile", "K4", "monoclinic"])
@pytest.mark.parametrize("kind", ["t", "k"])
def test_pyxtal_finds_nothing_else(name, kind):
    parent = KNOWN[name]
    theirs = parent.to_pyxtal().subgroup(eps=0, group_type=kind, max_cell=4)
    assert theirs
    ours = subgroup_crystals(parent, max_index=4, max_atoms=10**4, max_sites=99, kinds=kind)
    for child in theirs:
        crystal = SymmetricCrystal.from_pyxtal(child)
        assert same_structure(parent, crystal)
        found = canonical(crystal)
        assert any(same_description(found, child) for child in ours.crystals), found


@pytest.mark.parametrize("index", range(12))
def test_random_parents(index):
    parent = RandomCrystals("SiO2", max_sites=4, max_atoms=48, min_distance=0.8).crystal(index)
    found = subgroup_crystals(parent, max_index=3, max_sites=10)
    assert not found.skipped["not the same crystal"]
    for child in found.crystals[:4]:
        assert same_structure(parent, child)


def test_limits_and_counts():
    parent = KNOWN["graphite"]
    everything = subgroup_crystals(parent, 6, max_atoms=10**6, max_sites=10**6)
    assert not everything.skipped
    assert len(everything.crystals) == len(subgroups(194, 6))
    limited = subgroup_crystals(parent, 6, max_atoms=12, max_sites=4)
    assert all(c.n_atoms <= 12 and c.n_sites <= 4 for c in limited.crystals)
    assert limited.skipped[MANY_ATOMS] > 0
    assert limited.skipped[MANY_SITES] > 0
    assert len(limited.crystals) + limited.skipped.total() == len(everything.crystals)
    fitting = [c for c in everything.crystals if c.n_atoms <= 12 and c.n_sites <= 4]
    assert list(map(repr, limited.crystals)) == list(map(repr, fitting))


def test_information_is_carried_along():
    parent = SymmetricCrystal.build(227, [3.567], [("C", "8a", [])], info={"name": "diamond"})
    assert subgroup_crystals(parent, 2).crystals[0].info == {"name": "diamond"}


@pytest.mark.parametrize("options", [{"kinds": ""}, {"kinds": "x"}, {"max_index": 0}])
def test_settings_that_cannot_be(options):
    with pytest.raises(CrystalError):
        subgroup_crystals(KNOWN["diamond"], **options)


def test_another_crystal_is_recognised():
    original = Original(KNOWN["quartz"])
    free = KNOWN["quartz"].free_variables
    eye, zero = np.eye(3), np.zeros(3)
    assert original.is_same(KNOWN["quartz"], eye, zero)
    for number in range(len(free)):
        moved = KNOWN["quartz"].with_free_variables(free + 0.01 * (np.arange(len(free)) == number))
        assert not original.is_same(moved, eye, zero)
    swapped = SymmetricCrystal.build(
        152, [4.913, 5.405], [("O", "3a", [0.4697]), ("Si", "6c", [0.4135, 0.2669, 0.1191])]
    )
    assert not original.is_same(swapped, eye, zero)


# ------------------------------------------------------------------------ descriptions


@pytest.mark.parametrize("index", range(20))
def test_other_descriptions(index):
    crystal = RandomCrystals("SiO2", max_atoms=48, max_sites=4, min_distance=0.8).crystal(index)
    rng = np.random.default_rng(index)
    for _ in range(3):
        other, matrix, shift = random_description(crystal, rng)
        assert Original(crystal).is_same(other, matrix, shift)
        assert other.space_group == crystal.space_group
        assert same_structure(crystal, other)
        assert same_description(canonical(other), canonical(crystal))


def test_augmented_rows():
    settings = Augmentation(max_index=4, max_atoms=40, descriptions=3, seed=1)
    found = augment(KNOWN["quartz"], settings, 5, "quartz")
    plain = augment(KNOWN["quartz"], Augmentation(max_index=4, max_atoms=40), 5, "quartz")
    assert len(plain.crystals) < len(found.crystals) <= 4 * len(plain.crystals)
    assert {c.info["asx_parent"] for c in found.crystals} == {"quartz"}
    assert found.crystals[0].info["asx_subgroup"] == "152"
    assert any(c.info["asx_subgroup"] == "152 t3 5" for c in found.crystals)
    again = augment(KNOWN["quartz"], settings, 5, "quartz")
    assert list(map(repr, again.crystals)) == list(map(repr, found.crystals))
    assert all(same_structure(KNOWN["quartz"], c) for c in found.crystals[::10])


def test_a_parent_too_large_for_a_row_is_counted():
    sites = [("C", "8f", np.random.default_rng(k).random(3)) for k in range(9)]
    parent = SymmetricCrystal.build(15, [9, 10, 11, 1.7], sites)
    found = augment(parent, Augmentation(max_index=2))
    assert found.crystals == []
    assert found.skipped[MANY_SITES] == 1 + len(subgroups(15, 2))
