"""Local environments: SO(3) power spectra, neighbour pairs, and the targets to steer to."""

from __future__ import annotations

from asexlatent.descriptor.neighbors import (
    NeighborPairs,
    neighbor_pairs,
    pair_vectors,
    plane_spacings,
)
from asexlatent.descriptor.power_spectrum import PowerSpectrum

__all__ = [
    "NeighborPairs",
    "PowerSpectrum",
    "neighbor_pairs",
    "pair_vectors",
    "plane_spacings",
]
