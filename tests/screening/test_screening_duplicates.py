from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.io.ase import AseAtomsAdaptor

from asexlatent.screening.duplicates import (
    MatchTolerances,
    best_of_each,
    primitive_cell,
    reduced_formula,
    structure_duplicates,
)
from asexlatent.symmetry import SymmetricCrystal
from asexlatent.topology import identify_net


def crystal(group: int, cell: tuple, *sites: tuple) -> Atoms:
    return SymmetricCrystal.build(group, cell, [("C", *site) for site in sites]).to_atoms()


GRAPHITE = crystal(194, (2.46, 6.7), ("b", []), ("c", []))
AA = crystal(191, (2.46, 3.5), ("c", []))
RHOMBOHEDRAL = crystal(166, (2.46, 10.05), ("c", [1 / 6]))
DIAMOND = bulk("C", "diamond", 3.567, cubic=True)
LONSDALEITE = crystal(194, (2.52, 4.12), ("f", [0.0625]))
SRS = crystal(214, (4.1,), ("a", []))
THS = crystal(141, (2.46, 9.0), ("e", [0.08]))  # 3-connected, cis- and trans-chains
POLYMORPHS = [GRAPHITE, AA, RHOMBOHEDRAL, DIAMOND, LONSDALEITE, SRS, THS]


def disguised(atoms: Atoms, seed: int) -> Atoms:
    """The same crystal in another cell, another orientation, shifted and shuffled."""
    rng = np.random.default_rng(seed)
    while True:
        matrix = rng.integers(-1, 3, (3, 3))
        if 1 <= round(np.linalg.det(matrix)) <= 3:
            break
    copy = make_supercell(atoms, matrix)
    axis = rng.normal(size=3)
    copy.rotate(rng.uniform(0, 360), axis / np.linalg.norm(axis), rotate_cell=True)
    copy.positions += rng.normal(size=3)
    copy = copy[rng.permutation(len(copy))]
    copy.positions += rng.normal(scale=1e-3, size=copy.positions.shape)
    return copy


def nets(crystals: list[Atoms]) -> list[str]:
    return [identify_net(atoms).key for atoms in crystals]


def test_polymorphs_stay_and_their_copies_go():
    crystals = [*POLYMORPHS, *(disguised(a, k) for k, a in enumerate(POLYMORPHS))]
    n = len(POLYMORPHS)
    energies = [0.1 * k for k in range(n)] + [0.1 * k + 0.05 for k in range(n)]
    found = structure_duplicates(crystals, ["net"] * len(crystals), energies)
    assert found == [*range(n), *range(n)]


def test_agrees_with_pymatgen_on_every_pair():
    """The groups by invariants and the cells made here lose nothing that pymatgen finds."""
    crystals = [a for k, p in enumerate(POLYMORPHS) for a in (p, disguised(p, 10 + k))]
    matcher = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5, scale=False)
    adapt = AseAtomsAdaptor.get_structure
    for i, first in enumerate(crystals):
        for second in crystals[:i]:
            mine = structure_duplicates([first, second], ["", ""], [0.0, 1.0]) == [0, 0]
            assert mine == matcher.fit(adapt(first), adapt(second))


def test_lowest_energy_stays():
    found = structure_duplicates(
        [disguised(SRS, 1), DIAMOND, disguised(SRS, 2), SRS], ["n"] * 4, [0.3, -1.0, 0.1, math.nan]
    )
    assert found == [2, 1, 2, 2]


def test_across_nets_only_at_nearly_the_same_density():
    near, far = GRAPHITE.copy(), GRAPHITE.copy()
    near.set_cell(near.cell * [1, 1, 1.05], scale_atoms=True)
    far.set_cell(far.cell * [1, 1, 1.15], scale_atoms=True)
    crystals = [GRAPHITE, near, far]
    assert structure_duplicates(crystals, ["a", "a", "a"], [0, 1, 2]) == [0, 0, 0]
    assert structure_duplicates(crystals, ["a", "b", "c"], [0, 1, 2]) == [0, 0, 2]


@pytest.mark.parametrize(("factor", "same"), [(1.02, True), (1.3, False), (2.0, False)])
def test_a_swollen_copy_is_another_crystal(factor, same):
    swollen = GRAPHITE.copy()
    swollen.set_cell(swollen.cell * factor, scale_atoms=True)
    found = structure_duplicates([GRAPHITE, swollen], ["n", "n"], [0, 1])
    assert (found == [0, 0]) is same
    # what pymatgen does by default, and why scale is off
    scaled = structure_duplicates(
        [GRAPHITE, swollen], ["n", "n"], [0, 1], MatchTolerances(scale=True)
    )
    assert scaled == [0, 0]


def test_species_count():
    zincblende = bulk("BN", "zincblende", 3.6)
    assert structure_duplicates([zincblende, primitive_cell(DIAMOND)], ["n", "n"], [0, 1]) == [0, 1]
    assert reduced_formula(zincblende) == "BN"
    assert reduced_formula(DIAMOND) == "C"
    assert reduced_formula(Atoms("O4Si2")) == "O2Si"


def test_best_of_each_key():
    keys = [("a", 3), ("b", 2), ("a", 3), ("a", 3), ("c", 1)]
    assert best_of_each(keys, [0.2, math.nan, 0.1, 0.1, math.nan]) == [2, 1, 2, 2, 4]
    assert best_of_each([], []) == []


@pytest.mark.parametrize("atoms", POLYMORPHS, ids=range(len(POLYMORPHS)))
def test_primitive_cell_keeps_the_crystal(atoms):
    from spglib import find_primitive

    cell = primitive_cell(disguised(atoms, 3))
    expected = find_primitive((atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers))
    assert len(cell) == len(expected[2])
    density = len(cell) / cell.get_volume()
    assert density == pytest.approx(len(atoms) / atoms.get_volume(), rel=1e-2)
