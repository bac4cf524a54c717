"""Shared by the descriptor tests."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms

from asexlatent.descriptor import PowerSpectrum, neighbor_pairs, pair_vectors


def flat(structures: list[Atoms]):
    """scaled, cells, crystal, numbers of several structures, unwrapped as they are."""
    scaled = [a.cell.scaled_positions(a.positions) for a in structures]
    crystal = np.repeat(np.arange(len(structures)), [len(a) for a in structures])
    return (
        torch.tensor(np.concatenate(scaled), dtype=torch.float64),
        torch.tensor(np.array([a.cell.array for a in structures]), dtype=torch.float64),
        torch.tensor(crystal),
        torch.tensor(np.concatenate([a.numbers for a in structures])),
    )


def spectra_of(atoms: Atoms, model: PowerSpectrum) -> np.ndarray:
    """Spectra of all atoms of one structure."""
    scaled, cells, crystal, numbers = flat([atoms])
    centers = torch.arange(len(atoms))
    pairs = neighbor_pairs(scaled, cells, crystal, centers, model.rcut)
    vectors = pair_vectors(scaled, cells, crystal, centers, pairs)
    return model(vectors, pairs.centers, numbers[pairs.neighbors], len(atoms)).numpy()


def random_pairs(seed: int, n_pairs=40, n_centers=6, dtype=torch.float64, elements=(1, 6, 8)):
    """Vectors up to beyond 2.1 Å, sorted centres (the last has none), numbers."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(n_pairs, 3, generator=generator, dtype=torch.float64)
    length = 2.4 * torch.rand(n_pairs, 1, generator=generator, dtype=torch.float64)
    vectors = vectors / vectors.norm(dim=1, keepdim=True) * length
    centers = torch.randint(0, n_centers - 1, (n_pairs,), generator=generator).sort().values
    chosen = torch.randint(0, len(elements), (n_pairs,), generator=generator)
    return vectors.to(dtype), centers, torch.tensor(elements)[chosen], n_centers


def graphite() -> Atoms:
    positions = [(1 / 3, 2 / 3, 0.25), (2 / 3, 1 / 3, 0.75), (0, 0, 0.25), (0, 0, 0.75)]
    cell = [2.46, 2.46, 6.70, 90, 90, 120]
    return Atoms("C4", cell=cell, scaled_positions=positions, pbc=True)
