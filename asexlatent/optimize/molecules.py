"""Which crystals fall apart into molecules."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from asexlatent.descriptor import MotifRule
from asexlatent.descriptor.neighbors import neighbor_pairs, pair_vectors
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.topology.components import connected_components
from asexlatent.topology.graph import PeriodicGraph


def molecular(rule: MotifRule, batch: CrystalBatch, variables: Tensor, ask: Tensor) -> Tensor:
    """Whether a bonded component of a crystal is finite.

    Parameters
    ----------
    rule : MotifRule
        Its cutoffs say what is bonded.
    batch, variables : CrystalBatch and Tensor, shape (V,)
    ask : Tensor of bool, shape (B,)
        Crystals to look at; the others are False.

    Returns
    -------
    Tensor of bool, shape (B,)
    """
    found = torch.zeros_like(ask)
    if not bool(ask.any()):
        return found
    part = batch.select(ask)
    cells, scaled = part.geometry(variables[batch.subset(ask).variables])
    atoms = torch.arange(len(part.numbers), device=variables.device)
    pairs = neighbor_pairs(scaled, cells, part.atom_crystal, atoms, rule.reach)
    length = pair_vectors(scaled, cells, part.atom_crystal, atoms, pairs).norm(dim=1)
    bonded = rule.bonded(length, part.numbers[pairs.centers], part.numbers[pairs.neighbors])
    edges = torch.stack((pairs.centers, pairs.neighbors), 1)[bonded].cpu().numpy()
    shifts = pairs.shifts[bonded].cpu().numpy()
    owner = part.atom_crystal.cpu().numpy()
    sizes = np.bincount(owner, minlength=part.n_crystals)
    first = np.cumsum(sizes) - sizes
    cuts = np.searchsorted(owner[edges[:, 0]], np.arange(1, part.n_crystals))
    finite = []
    for start, size, bonds, hops in zip(
        first, sizes, np.split(edges, cuts), np.split(shifts, cuts), strict=True
    ):
        graph = PeriodicGraph.build(int(size), bonds - start, hops)
        finite.append(any(c.graph.dimension == 0 for c in connected_components(graph)))
    found[ask] = torch.tensor(finite, device=ask.device)
    return found
