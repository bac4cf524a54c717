"""Derivatives of the spectra with respect to the free variables, assembled pair by pair.

A spectrum depends on its pairs' vectors only, so its derivative with respect to any free
variable is a sum over pairs of (d spectrum / d vector) . (d vector / d variable). The second
factor is linear algebra: a coordinate of the neighbour's site moves the neighbour by a row of
its affine map times the cell, a coordinate of the centre's own site moves the centre, and a
cell parameter strains the vector (rotations of the cell do not matter to a power spectrum).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asexlatent.descriptor.neighbors import NeighborPairs
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.metric import Metric


@dataclass(frozen=True, eq=False)
class SlotMap:
    """Where the derivatives of a batch go: slots of the variables within their own crystal.

    Attributes
    ----------
    n : int
        Slots per crystal: at least the largest number of free variables of any crystal.
    site : Tensor, shape (S, 3)
        Slot behind x, y, z of each site; n where the coordinate is not free.
    flat : Tensor, shape (V,)
        Place of each variable in a padded array (B, n), flattened.
    """

    n: int
    site: Tensor
    flat: Tensor

    @classmethod
    def of(cls, batch: CrystalBatch, n: int) -> SlotMap:
        """Slots of `batch`."""
        free = batch.site_index < batch.n_variables
        slot = batch.site_index - batch.first_variable[batch.site_crystal][:, None]
        site = torch.where(free, slot, torch.full_like(slot, n))
        return cls(n, site, batch.variable_crystal * n + batch.slot)

    def pad(self, per_variable: Tensor, n_crystals: int) -> Tensor:
        """Spread (V,) to (B, n), zeros elsewhere."""
        padded = per_variable.new_zeros(n_crystals * self.n)
        padded[self.flat] = per_variable
        return padded.view(n_crystals, self.n)

    def unpad(self, padded: Tensor) -> Tensor:
        """Gather (B, n) to (V,)."""
        return padded.reshape(-1)[self.flat]


def pair_tangents(
    batch: CrystalBatch,
    slots: SlotMap,
    metric: Metric,
    cells: Tensor,
    pairs: NeighborPairs,
    vectors: Tensor,
) -> Tensor:
    """Derivative of each pair's vector with respect to its crystal's free variables.

    Parameters
    ----------
    metric : Metric
        At the same geometry; its strains are the derivatives of the cell.
    cells : Tensor, shape (B, 3, 3)
    pairs, vectors : NeighborPairs and Tensor, shape (P, 3)

    Returns
    -------
    Tensor, shape (P, 3, n)
    """
    crystal = batch.site_crystal[pairs.centers]
    turn = cells.transpose(1, 2)
    tangents = vectors.new_zeros(len(vectors), 3, slots.n + 1)
    # a coordinate of the neighbour's site moves the neighbour
    moved = turn[crystal] @ batch.atom_rotation[pairs.neighbors]  # (P, Cartesian, xyz)
    slot = slots.site[batch.atom_site[pairs.neighbors]][:, None, :].expand_as(moved)
    tangents.scatter_add_(2, slot, moved)
    # a coordinate of the centre's own site moves the centre
    moved = -(turn[batch.site_crystal] @ batch.atom_rotation[batch.site_atom])[pairs.centers]
    slot = slots.site[pairs.centers][:, None, :].expand_as(moved)
    tangents.scatter_add_(2, slot, moved)
    # a cell parameter strains the vector; cell parameters come first among the slots
    n_cell = min(6, slots.n)
    strain = metric.cell_strain.transpose(1, 2)[crystal]  # (P, Cartesian, 6, Cartesian)
    tangents[:, :, :n_cell] += (strain @ vectors[:, None, :, None])[:, :, :n_cell, 0]
    return tangents[:, :, : slots.n]
