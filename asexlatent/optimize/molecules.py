"""Which crystals fall apart into molecules."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from torch import Tensor

from asexlatent.descriptor import MotifRule
from asexlatent.descriptor.neighbors import neighbor_pairs, pair_vectors
from asexlatent.optimize.batch import CrystalBatch


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
    first, second = pairs.centers[bonded].cpu().numpy(), pairs.neighbors[bonded].cpu().numpy()
    label, finite = finite_components(
        len(part.numbers), first, second, pairs.shifts[bonded].cpu().numpy()
    )
    owner = part.atom_crystal.cpu().numpy()
    molecules = np.bincount(owner, weights=finite[label], minlength=part.n_crystals) > 0
    found[ask] = torch.as_tensor(molecules, device=ask.device)
    return found


def finite_components(
    n: int, first: NDArray, second: NDArray, shifts: NDArray
) -> tuple[NDArray, NDArray]:
    """Which components of a periodic graph end within themselves.

    Parameters
    ----------
    n : int
        Vertices.
    first, second, shifts : arrays, shape (E,), (E,) and (E, 3)
        Edges, each in both directions; the second vertex lies ``shifts`` cells away.

    Returns
    -------
    label : array of int, shape (n,)
        Component of each vertex.
    finite : array of bool, shape (components,)
    """
    ones = np.ones(len(first), dtype=np.int32)
    count, label = connected_components(coo_array((ones, (first, second)), (n, n)), directed=False)
    # One tree for all: a root that is bonded to some vertex of each component.
    _, entry = np.unique(label, return_index=True)
    rows = np.concatenate((first, np.full(count, n)))
    columns = np.concatenate((second, entry))
    tree = coo_array((np.ones(len(rows), dtype=np.int32), (rows, columns)), (n + 1, n + 1)).tocsr()
    _, parent = breadth_first_order(tree, n, directed=True, return_predecessors=True)
    parent[n] = n
    # Cell of each vertex along the tree, all ways from the root doubled in length at a time.
    key, order = np.unique(first * (n + 1) + second, return_index=True)
    inner = np.flatnonzero(parent < n)
    cell = np.zeros((n + 1, 3), dtype=np.int64)
    cell[inner] = shifts[order[np.searchsorted(key, parent[inner] * (n + 1) + inner)]]
    while (parent != n).any():
        cell += cell[parent]
        parent = parent[parent]
    # A ring that does not close in the cell where it began goes on for ever.
    open_ring = (cell[first] + shifts != cell[second]).any(1)
    finite = np.ones(count, dtype=bool)
    finite[label[first[open_ring]]] = False
    return label, finite
