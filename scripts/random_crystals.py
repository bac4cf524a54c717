"""Random symmetric crystals, as hard as they come: nothing keeps atoms apart."""

from __future__ import annotations

import numpy as np

from asexlatent.symmetry import (
    SymmetricCrystal,
    cell_from_parameters,
    lattice_variables,
    wyckoff_positions,
)

MAX_ATOMS, MAX_SITES = 200, 8


def random_candidate(rng: np.random.Generator) -> SymmetricCrystal:
    """Draw a random group, up to eight Wyckoff positions with at most 200 atoms, and the rest."""
    while True:
        group = int(rng.integers(2, 231))
        positions = [p for p in wyckoff_positions(group) if p.multiplicity <= MAX_ATOMS]
        sites, left, used = [], MAX_ATOMS, set()
        for _ in range(int(rng.integers(1, MAX_SITES + 1))):
            open_ones = [p for p in positions if p.multiplicity <= left and p.index not in used]
            if not open_ones:
                break
            position = open_ones[int(rng.integers(len(open_ones)))]
            if not position.dof:
                used.add(position.index)
            sites.append(("C", position.index, rng.random(position.dof)))
            left -= position.multiplicity
        if any(len(free) for _, _, free in sites):
            cell = random_cell(group, (MAX_ATOMS - left) * rng.uniform(6.0, 12.0), rng)
            return SymmetricCrystal.build(group, cell, sites)


def random_cell(group: int, volume: float, rng: np.random.Generator) -> np.ndarray:
    """Free cell parameters (Å, radians) of a random, not too flat cell of this volume (Å^3)."""
    lattice = lattice_variables(group)
    edges = np.array([len(name) == 1 for name in lattice.names])
    while True:
        angles = np.radians(rng.uniform(60, 120, len(edges)))
        free = np.where(edges, rng.uniform(0.5, 2.0, len(edges)), angles)
        parameters = lattice.parameters(free)
        shape = np.linalg.det(cell_from_parameters(parameters))
        if shape > 0.3 * np.prod(parameters[:3]):
            return np.where(edges, free * (volume / shape) ** (1 / 3), free)


def randomized(crystal: SymmetricCrystal, rng: np.random.Generator) -> SymmetricCrystal:
    """Same space group and Wyckoff positions, everything else drawn anew."""
    cell = random_cell(crystal.space_group, crystal.n_atoms * rng.uniform(6.0, 12.0), rng)
    free = rng.random(len(crystal.free_variables) - len(cell))
    return crystal.with_free_variables(np.concatenate([cell, free]))
