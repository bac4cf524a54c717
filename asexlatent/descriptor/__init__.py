"""Local environments: SO(3) power spectra, neighbour pairs, and the targets to steer to."""

from __future__ import annotations

from asexlatent.descriptor.environment import LocalEnvironment
from asexlatent.descriptor.images import plane_spacings
from asexlatent.descriptor.motif import MotifReport, MotifRule
from asexlatent.descriptor.neighbors import (
    NeighborList,
    NeighborPairs,
    neighbor_pairs,
    pair_vectors,
    usable_crystals,
)
from asexlatent.descriptor.power_spectrum import PowerSpectrum

__all__ = [
    "LocalEnvironment",
    "MotifReport",
    "MotifRule",
    "NeighborList",
    "NeighborPairs",
    "PowerSpectrum",
    "neighbor_pairs",
    "pair_vectors",
    "plane_spacings",
    "usable_crystals",
]
