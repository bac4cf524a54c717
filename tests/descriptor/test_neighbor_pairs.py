"""Neighbour pairs against ASE's, on cells of any shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from asexlatent.descriptor import images, neighbor_pairs, pair_vectors, usable_crystals


def random_crystals(seed: int, count: int = 10):
    """Skewed and tiny cells, unwrapped atoms, some of them at one place."""
    generator = np.random.default_rng(seed)
    cells, scaled, crystal, cutoffs = [], [], [], []
    for b in range(count):
        cell = generator.normal(size=(3, 3)) * generator.uniform(0.6, 4)
        # ASE needs minutes where lattice planes are closer than this
        while (
            abs(np.linalg.det(cell)) < 1.0 or np.linalg.norm(np.linalg.inv(cell), axis=0).max() > 2
        ):
            cell += generator.normal(scale=0.5, size=(3, 3))
        atoms = generator.normal(size=(generator.integers(1, 6), 3)) * 2
        if len(atoms) > 2:
            atoms[1] = atoms[0] + generator.integers(-2, 3, 3)  # coincident, another image
        if len(atoms) > 3:
            atoms[3] = atoms[2]  # coincident, same image
        cells.append(cell)
        scaled.append(atoms)
        crystal += [b] * len(atoms)
        cutoffs.append(generator.uniform(0.5, 4.0))
    arrays = np.concatenate(scaled), np.array(cells), np.array(crystal), np.array(cutoffs)
    return tuple(torch.tensor(array) for array in arrays)


def from_ase(scaled, cells, crystal, cutoffs):
    """Set of (centre, neighbour, shift)."""
    found = set()
    for b in range(len(cells)):
        members = np.flatnonzero(crystal.numpy() == b)
        cell = cells[b].numpy()
        i, j, shifts = primitive_neighbor_list(
            "ijS", [True] * 3, cell, scaled[members].numpy() @ cell, float(cutoffs[b])
        )
        found |= {
            (int(members[a]), int(members[c]), *map(int, s))
            for a, c, s in zip(i, j, shifts, strict=True)
        }
    return found


def as_list(pairs, center_atoms):
    columns = (center_atoms[pairs.centers], pairs.neighbors, *pairs.shifts.T)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_same_pairs_as_ase(seed):
    scaled, cells, crystal, cutoffs = random_crystals(seed)
    centers = torch.arange(len(scaled))
    pairs = as_list(neighbor_pairs(scaled, cells, crystal, centers, cutoffs), centers)
    assert len(set(pairs)) == len(pairs)
    assert pairs == sorted(pairs, key=lambda p: (p[:2], p[:1:-1]))
    assert set(pairs) == from_ase(scaled, cells, crystal, cutoffs)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), chunk=st.sampled_from([1, 7, 100]))
def test_order_choice_and_parts_change_nothing(seed, chunk):
    """Atoms of the crystals mixed, some centres only, candidates in parts of any size."""
    scaled, cells, crystal, cutoffs = random_crystals(seed, 8)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(scaled), generator=generator)
    scaled, crystal = scaled[order], crystal[order]
    centers = torch.randperm(len(scaled), generator=generator)[: len(scaled) // 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "CHUNK", chunk)
        pairs = neighbor_pairs(scaled, cells, crystal, centers, cutoffs)
    chosen = set(centers.tolist())
    expected = {p for p in from_ase(scaled, cells, crystal, cutoffs) if p[0] in chosen}
    assert set(as_list(pairs, centers)) == expected
    assert (pairs.centers[1:] >= pairs.centers[:-1]).all()


def test_a_cell_skewed_beyond_reason_has_the_pairs_of_the_compact_one():
    generator = np.random.default_rng(0)
    compact = np.eye(3) * 2 + generator.normal(scale=0.2, size=(3, 3))
    shear = np.array([[1, 0, 0], [17, 1, 0], [-13, 24, 1]]) @ np.array(
        [[1, 2, 0], [0, 1, -3], [0, 0, 1]]
    )
    positions = generator.normal(size=(4, 3)) * 5
    crystal = torch.zeros(4, dtype=torch.long)
    centers = torch.arange(4)
    found = []
    for cell in (compact, shear @ compact):
        scaled = torch.tensor(positions @ np.linalg.inv(cell))
        cells = torch.tensor(cell)[None]
        pairs = neighbor_pairs(scaled, cells, crystal, centers, 5.0)
        vectors = pair_vectors(scaled, cells, crystal, centers, pairs)
        rows = torch.cat((pairs.centers[:, None], pairs.neighbors[:, None], vectors), 1)
        found.append(sorted(tuple(row) for row in (rows * 1e6).round().tolist()))
    assert len(found[0]) > 1000
    np.testing.assert_allclose(found[0], found[1], atol=2)


def test_vectors_have_the_right_length_and_float32_agrees():
    scaled, cells, crystal, _ = random_crystals(3)
    centers = torch.arange(len(scaled))
    pairs = neighbor_pairs(scaled, cells, crystal, centers, 2.5)
    lengths = pair_vectors(scaled, cells, crystal, centers, pairs).norm(dim=1)
    assert lengths.max() < 2.5
    single = neighbor_pairs(scaled.float(), cells.float(), crystal, centers, 2.5)
    both = set(as_list(single, centers)) ^ set(as_list(pairs, centers))
    assert len(both) <= 2  # only what lies at the cutoff within rounding


def test_no_atoms_no_centres_no_neighbours():
    cell = 5.0 * torch.eye(3, dtype=torch.float64)[None]
    atom = torch.zeros(1, 3, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.long)
    assert len(neighbor_pairs(atom, cell, zero, zero, 2.0).centers) == 0
    none = neighbor_pairs(atom, cell, zero, zero[:0], 6.0)
    assert none.shifts.shape == (0, 3)
    assert len(neighbor_pairs(atom, cell, zero, zero, 5.1).centers) == 6
    assert len(neighbor_pairs(atom[:0], cell[:0], zero[:0], zero[:0], 5.1).centers) == 0


@pytest.mark.parametrize("what", ["flat", "nan", "huge"])
def test_a_crystal_that_cannot_be_searched_is_named(what):
    cells = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1) * 3
    scaled = torch.rand(3, 3, dtype=torch.float64)
    if what == "flat":
        cells[1, 2] = cells[1, 0] + cells[1, 1]
    elif what == "nan":
        scaled[1, 0] = float("nan")
    else:
        cells[1] = float("inf")
    crystal = torch.arange(3)
    assert usable_crystals(scaled, cells, crystal).tolist() == [True, False, True]
    with pytest.raises(ValueError, match="crystal 1 of the batch"):
        neighbor_pairs(scaled, cells, crystal, crystal, 2.0)
