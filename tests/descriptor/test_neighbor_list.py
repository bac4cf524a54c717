"""Neighbour lists that are reused give the pairs of a fresh search."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asexlatent.descriptor import NeighborList, PowerSpectrum, neighbor_pairs, pair_vectors


def crystals(seed: int, count: int = 30):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 7, (count,), generator=generator)
    crystal = torch.repeat_interleave(sizes)
    crystal = crystal[torch.randperm(len(crystal), generator=generator)]
    cells = 3.5 * torch.eye(3, dtype=torch.float64)
    noise = torch.randn(count, 3, 3, generator=generator, dtype=torch.float64)
    scaled = torch.randn(len(crystal), 3, generator=generator, dtype=torch.float64)
    centers = torch.randperm(len(crystal), generator=generator)[: len(crystal) // 2]
    return scaled, cells + 0.6 * noise, crystal, centers, generator


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), skin=st.sampled_from([0.0, 0.2, 0.7]))
def test_same_pairs_as_a_fresh_search(seed, skin):
    scaled, cells, crystal, centers, generator = crystals(seed)
    neighbors = NeighborList(crystal, centers, 2.1, skin)

    def noise(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    for _ in range(12):
        expected = neighbor_pairs(scaled, cells, crystal, centers, 2.1)
        assert_same(neighbors.update(scaled, cells), expected)
        everything = neighbors.update(scaled, cells, within=False)
        assert len(everything.centers) >= len(expected.centers)
        lively = torch.rand(len(cells), generator=generator, dtype=torch.float64)
        scaled = scaled + 0.03 * lively[crystal, None] * noise(*scaled.shape)
        cells = cells + 0.05 * lively.flip(0)[:, None, None] * noise(*cells.shape)
        jump = torch.rand(len(scaled), generator=generator) < 0.1
        scaled[jump] += torch.randint(-2, 3, (int(jump.sum()), 3), generator=generator)


def test_only_crystals_that_moved_are_searched_again():
    scaled, cells, crystal, centers, _ = crystals(1)
    neighbors = NeighborList(crystal, centers, 2.1, 0.5)
    neighbors.update(scaled, cells)
    assert neighbors.searches == len(cells)
    neighbors.update(scaled + 7, cells)  # wrapped differently
    neighbors.update(scaled, cells * 1.01)
    assert neighbors.searches == len(cells)
    moved = scaled.clone()
    moved[crystal == 3] += torch.tensor([0.2, 0, 0]) * torch.rand(int((crystal == 3).sum()), 1)
    cells = cells.clone()
    cells[5] = cells[5] * 1.4
    assert_same(neighbors.update(moved, cells), neighbor_pairs(moved, cells, crystal, centers, 2.1))
    assert len(cells) < neighbors.searches <= len(cells) + 2
    steady = neighbors.searches
    neighbors.update(moved, cells)
    assert neighbors.searches == steady


def test_a_shear_that_moves_no_scaled_coordinate_is_noticed():
    """Atoms far apart in the cell come together by the cell alone."""
    scaled = torch.tensor([[0.0, 0, 0], [0.0, 0, 0.5]], dtype=torch.float64)
    cells = torch.diag(torch.tensor([20.0, 20.0, 6.0], dtype=torch.float64))[None]
    crystal = torch.zeros(2, dtype=torch.long)
    neighbors = NeighborList(crystal, torch.arange(2), 2.1, 0.5)
    assert len(neighbors.update(scaled, cells).centers) == 0
    for height in (5.5, 5.0, 4.5, 4.0):
        cells[0, 2, 2] = height
        found = neighbors.update(scaled, cells)
        assert_same(found, neighbor_pairs(scaled, cells, crystal, torch.arange(2), 2.1))
    assert len(found.centers) == 4


def test_selected_crystals_keep_their_pairs():
    scaled, cells, crystal, centers, generator = crystals(2)
    neighbors = NeighborList(crystal, centers, 2.1, 0.4)
    neighbors.update(scaled, cells)
    keep = torch.rand(len(cells), generator=generator) < 0.5
    atoms, chosen = keep[crystal], keep[crystal[centers]]
    number = torch.cumsum(atoms, 0) - 1
    fewer = neighbors.select(keep)
    crystal = (torch.cumsum(keep, 0) - 1)[crystal[atoms]]
    centers = number[centers[chosen]]
    scaled, cells = scaled[atoms] + 1e-3, cells[keep]
    expected = neighbor_pairs(scaled, cells, crystal, centers, 2.1)
    assert_same(fewer.update(scaled, cells), expected)
    assert fewer.searches == 0
    nothing = neighbors.select(torch.zeros_like(keep))
    assert len(nothing.update(scaled[:0], cells[:0]).centers) == 0


def test_pairs_in_the_skin_do_not_change_the_spectrum():
    scaled, cells, crystal, centers, _ = crystals(3)
    neighbors = NeighborList(crystal, centers, 2.1, 0.8)
    model = PowerSpectrum()

    def spectra(within):
        pairs = neighbors.update(scaled, cells, within=within)
        vectors = pair_vectors(scaled, cells, crystal, centers, pairs)
        return model(vectors, pairs.centers, pairs.neighbors * 0 + 6, len(centers))

    torch.testing.assert_close(spectra(True), spectra(False), rtol=1e-12, atol=1e-10)


def test_lost_numbers_are_refused_not_ignored():
    scaled, cells, crystal, centers, _ = crystals(4)
    neighbors = NeighborList(crystal, centers, 2.1, 0.8)
    neighbors.update(scaled, cells)
    scaled = scaled.clone()
    scaled[crystal == 7] = float("nan")
    with pytest.raises(ValueError, match="number"):
        neighbors.update(scaled, cells)
    with pytest.raises(ValueError, match="rcut"):
        NeighborList(crystal, centers, 0.0)
