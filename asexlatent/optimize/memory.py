"""Memory of a batch, known before it is made."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from asexlatent.descriptor import LocalEnvironment
from asexlatent.symmetry import CrystalError, SymmetricCrystal

GIB = 2.0**30
# Neighbours per Å^3 that a batch must be ready for at least; diamond has 0.18, the densest
# trial cell that `CellBounds` admits 1.
_DENSITY = 0.5
# A candidate with less room than this is no crystal, and its neighbours would fill the memory.
_ROOM = 0.01  # Å^3 per atom
_SPACING = 0.02  # Å between lattice planes
# Tensors alive at once per pair, in multiples of the size of its harmonics times its radial
# functions (forward products, their gradients, and the temporaries of both).
_LIVE = 6.0
# Crystals beyond this gain nothing: the arithmetic dwarfs the overhead of a step.
_LARGEST = 2048


def check_room(crystal: SymmetricCrystal) -> None:
    """Refuse a cell in which neighbours cannot be counted.

    Raises
    ------
    CrystalError
        When the lattice planes nearly coincide, or the atoms have next to no volume.
    """
    spacing = 1 / np.linalg.norm(np.linalg.inv(crystal.cell), axis=0).max()
    room = crystal.volume / max(crystal.n_atoms, 1)
    if spacing < _SPACING or room < _ROOM:
        raise CrystalError(
            f"impossible cell: lattice planes {spacing:.3g} Å apart and {room:.3g} Å^3 per atom "
            f"(at least {_SPACING:g} and {_ROOM:g} are needed; diamond has 5.7 Å^3)"
        )


def crystal_bytes(
    crystal: SymmetricCrystal, environment: LocalEnvironment, dtype: torch.dtype
) -> float:
    """Upper estimate of the memory (bytes) that one crystal needs in a batch."""
    settings = environment.descriptor
    size = torch.finfo(dtype).bits // 8
    rcut = settings["rcut"] + 0.6
    density = max(_DENSITY, crystal.n_atoms / crystal.volume)
    pairs = crystal.n_sites * density * 4 / 3 * math.pi * rcut**3
    # A cell that is smaller than the cutoff sphere has few atoms but as many images.
    per_pair = settings["nmax"] * (settings["lmax"] + 1) ** 2 * size * _LIVE + 200
    candidates = crystal.n_sites * crystal.n_atoms * 120
    maps = crystal.n_atoms * (12 * size + 24) * 2
    return pairs * per_pair + candidates + maps


def plan_batches(
    crystals: Sequence[SymmetricCrystal],
    environment: LocalEnvironment,
    batch_size: int | str = "auto",
    memory: float = 2.0,
    dtype: torch.dtype = torch.float64,
) -> list[list[int]]:
    """Cut crystals, in order, into batches.

    Parameters
    ----------
    batch_size : int or "auto"
        Crystals per batch; "auto" takes as many as `memory` holds, at most 2048.
    memory : float
        GiB.

    Returns
    -------
    list of list of int
        Indices into `crystals`. A crystal too large for the budget gets a batch of its own.
    """
    if batch_size != "auto":
        if int(batch_size) < 1:
            raise ValueError(f"batch_size must be 'auto' or at least 1, not {batch_size}")
        size = int(batch_size)
        return [list(range(k, min(k + size, len(crystals)))) for k in range(0, len(crystals), size)]
    batches: list[list[int]] = []
    used = math.inf
    for k, crystal in enumerate(crystals):
        need = crystal_bytes(crystal, environment, dtype)
        if used + need > memory * GIB or len(batches[-1]) >= _LARGEST:
            batches.append([])
            used = 0.0
        batches[-1].append(k)
        used += need
    return batches
