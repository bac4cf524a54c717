"""What a condition looks like to a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asexlatent.latent.conditions import Condition, Vocabulary
from asexlatent.symmetry import lattice_variables, wyckoff_positions

SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "hexagonal", "cubic")
_GLOBAL = 3 + len(SYSTEMS)
_PER_SITE = 18


def condition_width(vocabulary: Vocabulary) -> int:
    """Length U of the vectors of `condition_vectors`."""
    return vocabulary.width + _GLOBAL + _PER_SITE * vocabulary.max_sites


def condition_vectors(vocabulary: Vocabulary, conditions: Sequence[Condition]) -> Tensor:
    """One-hot condition (`Vocabulary.one_hot`) and its geometry, shape (B, U), float32.

    The one-hot vector says which group and which positions; that index 3 of group 166 and index 5
    of group 194 are alike, a model would have to find out from examples. The geometry says it:
    size of the cell, lattice system, and for each site its share of the atoms and the affine map
    from its free coordinates to its first atom.
    """
    one_hot = vocabulary.one_hot(conditions)
    geometry = np.stack([_geometry(c, vocabulary.max_sites) for c in conditions])
    return torch.as_tensor(np.concatenate((one_hot, geometry), axis=1))


@lru_cache(maxsize=65536)
def _geometry(condition: Condition, max_sites: int) -> NDArray[np.float32]:
    order = wyckoff_positions(condition.space_group)[0].multiplicity
    system = lattice_variables(condition.space_group).system
    made = np.zeros(_GLOBAL + _PER_SITE * max_sites, dtype=np.float32)
    made[:3] = math.log(condition.n_atoms) / 5, condition.n_sites / max_sites, math.log(order) / 5
    made[3 + SYSTEMS.index(system)] = 1
    for slot, position in enumerate(condition.positions):
        start = _GLOBAL + _PER_SITE * slot
        site = made[start : start + _PER_SITE]
        site[:3] = 1, position.multiplicity / condition.n_atoms, position.dof / 3
        directions = np.zeros((3, 3))
        directions[:, position.variables] = position.linear[0]
        site[3:12], site[12:15] = directions.ravel(), position.translations[0]
        site[15 + position.variables] = 1
    return made
