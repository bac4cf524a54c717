"""Random symmetric crystals, as hard as they come: nothing keeps atoms apart."""

from __future__ import annotations

import numpy as np

from asexlatent.symmetry import RandomCrystals, SymmetricCrystal

ALL_BUT_P1 = tuple(range(2, 231))


def random_candidate(rng: np.random.Generator) -> SymmetricCrystal:
    """Draw a random group, up to eight Wyckoff positions with at most 200 atoms, and the rest."""
    source = _source(rng)
    index = 0
    while True:
        crystal = source.crystal(index)
        if any(site.position.dof for site in crystal.sites):
            return crystal
        index += 1


def randomized(crystal: SymmetricCrystal, rng: np.random.Generator) -> SymmetricCrystal:
    """Same space group and Wyckoff positions, everything else drawn anew."""
    return _source(rng).redrawn(crystal, 0)


def _source(rng: np.random.Generator) -> RandomCrystals:
    seed = int(rng.integers(2**63))
    return RandomCrystals("C", ALL_BUT_P1, volume=(6.0, 12.0), seed=seed)
