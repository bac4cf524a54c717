"""Memory of a batch, known before it is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asexlatent.descriptor import LocalEnvironment
from asexlatent.descriptor.images import chunk_size
from asexlatent.optimize.registry import SECOND_ORDER_LIMIT
from asexlatent.optimize.starts import Restarts
from asexlatent.parallel import on_accelerator
from asexlatent.symmetry import CrystalError, SymmetricCrystal

GIB = 2.0**30
# Neighbours per Å^3 that a batch must be ready for on average; diamond has 0.18.
_DENSITY = 0.2
# A candidate with less room than this is no crystal, and its neighbours would fill the memory.
_ROOM = 0.01  # Å^3 per atom
_SPACING = 0.02  # Å between lattice planes
# What is alive at once: copies of a pair's tangents, and of the site Jacobians and curvatures.
_TANGENTS, _JACOBIANS, _CURVATURES = 3.0, 4.0, 12.0
# Crystals of a batch beyond this gain nothing: the arithmetic dwarfs the overhead of a step.
_LARGEST = 2048
# Inequivalent sites up to which attempts that may turn out superfluous cost less than steps of
# their own: some hundred crystals on a CPU, and on an accelerator all that makes it busy.
_ABREAST, _ACCELERATOR_ABREAST = 512, 32768


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
    crystal: SymmetricCrystal,
    environment: LocalEnvironment,
    dtype: torch.dtype,
    device: torch.device | str | None = None,
) -> float:
    """Upper estimate of the memory (bytes) that one crystal needs in a batch."""
    size = torch.finfo(dtype).bits // 8
    # The widest neighbour list is that of the approach of a search, with its skin.
    rcut = environment.descriptor["rcut"] * Restarts().approach_factor + 0.3
    density = max(_DENSITY, crystal.n_atoms / crystal.volume)
    pairs = crystal.n_sites * density * 4 / 3 * math.pi * rcut**3
    columns = crystal.free_variables.size + 6
    second_order = columns <= SECOND_ORDER_LIMIT + 6
    length = environment.spectra.shape[1]
    per_pair = (3 * columns * _TANGENTS * second_order + 60) * size
    jacobian = crystal.n_sites * length * columns * _JACOBIANS * second_order
    curvature = columns**2 * _CURVATURES * second_order
    # every atom is a candidate neighbour of every site, a few images included; so many at a time
    at_once = chunk_size(device) + crystal.n_atoms
    candidates = min(crystal.n_sites * crystal.n_atoms, at_once) * 250
    maps = crystal.n_atoms * (30 * size + 48)
    return pairs * per_pair + (jacobian + curvature) * size + candidates + maps


def check_memory(
    crystal: SymmetricCrystal,
    environment: LocalEnvironment,
    memory: float,
    dtype: torch.dtype,
    device: torch.device | str | None = None,
) -> None:
    """Refuse a crystal that is too large for the budget (GiB) even when it is alone.

    Raises
    ------
    CrystalError
    """
    need = crystal_bytes(crystal, environment, dtype, device) / GIB
    if need > memory:
        raise CrystalError(
            f"{crystal.n_sites} sites with {crystal.free_variables.size} free variables need "
            f"{need:.2g} GiB, more than the budget of {memory:g}: raise it (--memory) or impose "
            "more symmetry"
        )


@dataclass(frozen=True)
class Abreast:
    """How many attempts at some crystals of a batch are worth making side by side.

    Parameters
    ----------
    needs : sequence of float
        What each crystal of the batch needs, bytes (`crystal_bytes`).
    sites : sequence of int
        How many inequivalent sites it has.
    memory : float
        Budget, GiB.
    device
        Of the computation.
    largest : int or "auto"
        Copies of crystals at most, as the size of a batch.
    """

    needs: Sequence[float]
    sites: Sequence[int]
    memory: float
    device: torch.device | str | None = None
    largest: int | str = "auto"

    def __call__(self, places: Sequence[int]) -> int:
        """Attempts, at least one, at the crystals in these places of the batch."""
        most = _ACCELERATOR_ABREAST if on_accelerator(self.device) else _ABREAST
        limits = [
            most // sum(self.sites[k] for k in places),
            int(self.memory * GIB / sum(self.needs[k] for k in places)),
        ]
        if self.largest != "auto":
            limits.append(int(self.largest) // len(places))
        return max(1, min(limits))


_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory, of the machine or of an accelerator, has run out."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _WORDS)


def plan_batches(
    crystals: Sequence[SymmetricCrystal],
    environment: LocalEnvironment,
    batch_size: int | str = "auto",
    memory: float = 2.0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> list[list[int]]:
    """Cut crystals, in order, into batches.

    Parameters
    ----------
    batch_size : int or "auto"
        Crystals per batch; "auto" takes as many as `memory` holds, on a CPU at most 2048.
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
    largest = math.inf if on_accelerator(device) else _LARGEST
    for k, crystal in enumerate(crystals):
        need = crystal_bytes(crystal, environment, dtype, device)
        if used + need > memory * GIB or len(batches[-1]) >= largest:
            batches.append([])
            used = 0.0
        batches[-1].append(k)
        used += need
    return batches
