"""Random crystals and comparisons shared by the tests of this room."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from asexlatent.symmetry import SymmetricCrystal, lattice_variables, wyckoff_positions


def make_crystal(
    space_group: int, rng: np.random.Generator, n_sites: int = 3, min_distance: float = 0.3
) -> SymmetricCrystal:
    """Random crystal with random Wyckoff positions (special ones as often as others).

    Atoms are at least ``min_distance`` (Å) apart, so that no reader takes two for one.
    """
    lattice = lattice_variables(space_group)
    positions = wyckoff_positions(space_group)
    for _ in range(200):
        sites = []
        for number in range(n_sites):
            position = positions[rng.integers(len(positions))]
            species = ("C", "Si", "O")[number % 3]
            sites.append((species, position.index, rng.random(position.dof)))
        n_atoms = sum(positions[index].multiplicity for _, index, _ in sites)
        size = (25.0 * n_atoms) ** (1 / 3) + 2.5
        parameters = [*size * rng.uniform(0.8, 1.3, 3), *rng.uniform(1.3, 1.8, 3)]
        crystal = SymmetricCrystal.build(space_group, lattice.project(parameters), sites)
        if not len(neighbor_list("i", crystal.to_atoms(), min_distance)):
            return crystal
        n_sites = max(1, n_sites - (rng.random() < 0.2))
    raise AssertionError(f"no crystal without clashes in space group {space_group}")


def assert_same_atoms(ours: Atoms, theirs: Atoms, tolerance: float = 1e-6) -> None:
    """Same cell parameters and, species by species, the same points modulo the lattice (Å)."""
    assert len(ours) == len(theirs)
    assert ours.cell.cellpar() == pytest.approx(theirs.cell.cellpar(), abs=tolerance)
    for number in set(ours.numbers):
        a = ours.get_scaled_positions()[ours.numbers == number]
        b = theirs.get_scaled_positions()[theirs.numbers == number]
        assert len(a) == len(b)
        difference = a[:, None] - b[None]
        difference -= np.rint(difference)
        near = np.linalg.norm(difference @ ours.cell.array, axis=2) < tolerance
        assert (near.sum(axis=0) == 1).all()
        assert (near.sum(axis=1) == 1).all()


def assert_same_geometry(ours: Atoms, theirs: Atoms, tolerance: float = 1e-6) -> None:
    """Same volume per atom, composition and interatomic distances (Å), in any two cells."""
    assert len(theirs) * ours.get_volume() == pytest.approx(
        len(ours) * theirs.get_volume(), rel=tolerance
    )
    # A cutoff in the middle of the widest gap, so that rounding moves no distance across it.
    near = np.unique(neighbor_list("d", ours, 5.5).round(9))
    near = np.array([2.5, *near[near > 2.5], 5.5])
    gap = np.argmax(np.diff(near))
    cutoff = near[gap : gap + 2].mean()
    for a in set(ours.numbers):
        for b in set(ours.numbers):
            if a <= b:
                mine, other = (_distances(atoms, a, b, cutoff) for atoms in (ours, theirs))
                # as many copies as it takes to have the same number of atoms
                mine, other = np.repeat(mine, len(theirs)), np.repeat(other, len(ours))
                assert mine.shape == other.shape
                assert np.allclose(mine, other, rtol=0, atol=tolerance)


def _distances(atoms: Atoms, a: int, b: int, cutoff: float) -> np.ndarray:
    i, j, d = neighbor_list("ijd", atoms, cutoff)
    return np.sort(d[(atoms.numbers[i] == a) & (atoms.numbers[j] == b)])


def assert_same_description(
    ours: SymmetricCrystal, theirs: SymmetricCrystal, tolerance: float = 1e-6
) -> None:
    """Same group, sites and free variables (coordinates modulo 1)."""
    assert ours.space_group == theirs.space_group
    assert ours.hall_number == theirs.hall_number
    assert ours.wyckoffs == theirs.wyckoffs
    assert [site.species for site in ours.sites] == [site.species for site in theirs.sites]
    assert ours.cell_free == pytest.approx(theirs.cell_free, abs=tolerance)
    for mine, other in zip(ours.sites, theirs.sites, strict=True):
        difference = mine.free - other.free
        assert np.abs(difference - np.rint(difference)).max(initial=0) < tolerance


def sample(values: list, step: int) -> list:
    """Every ``step``-th value as it is, the others marked slow."""
    slow = pytest.mark.slow
    return [
        value if number % step == 0 else pytest.param(value, marks=slow)
        for number, value in enumerate(values)
    ]
