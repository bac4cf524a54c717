"""Derivatives of the spectra with respect to the free variables, assembled pair by pair.

A spectrum depends on its pairs' vectors only, so its derivative with respect to any free
variable is a sum over pairs of (d spectrum / d vector) . (d vector / d variable). The second
factor is linear algebra: a coordinate of the neighbour's site moves the neighbour by a row of
its affine map times the cell, a coordinate of the centre's own site moves the centre, and a
cell parameter strains the vector (rotations of the cell do not matter to a power spectrum).
Nothing is larger than (pairs, components, 3), and each row belongs to one crystal.
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


def site_jacobian(
    batch: CrystalBatch,
    slots: SlotMap,
    metric: Metric,
    cells: Tensor,
    pairs: NeighborPairs,
    vectors: Tensor,
    pair_jacobian: Tensor,
) -> Tensor:
    """Derivative of each site's spectrum with respect to its crystal's variables.

    Parameters
    ----------
    metric : Metric
        At the same geometry; its strains are the derivatives of the cell.
    cells : Tensor, shape (B, 3, 3)
    pairs, vectors : NeighborPairs and Tensor, shape (P, 3)
    pair_jacobian : Tensor, shape (P, L, 3)
        Derivative of the centre's spectrum with respect to each vector.

    Returns
    -------
    Tensor, shape (S, n, L)
    """
    n_sites, length = batch.n_sites, pair_jacobian.shape[1]
    total = vectors.new_zeros(n_sites * (slots.n + 1), length)

    # coordinates of the neighbour's site
    crystal = batch.site_crystal[pairs.centers]
    rotation = batch.atom_rotation[pairs.neighbors]
    to_xyz = cells[crystal].transpose(1, 2) @ rotation  # (P, Cartesian, xyz)
    moved = (pair_jacobian @ to_xyz).transpose(1, 2).reshape(-1, length)
    slot = slots.site[batch.atom_site[pairs.neighbors]]
    row = (pairs.centers[:, None] * (slots.n + 1) + slot).reshape(-1)
    total.index_add_(0, row, moved)

    # per centre: the sum over its pairs, and its moment with the vectors
    moment = pair_jacobian[:, :, :, None] * vectors[:, None, None, :]
    both = torch.cat((pair_jacobian, moment.flatten(2)), dim=2).flatten(1)
    summed = both.new_zeros(n_sites, length * 12).index_add_(0, pairs.centers, both)
    summed = summed.view(n_sites, length, 12)

    # coordinates of the centre's own site
    rotation = batch.atom_rotation[batch.site_atom]
    to_xyz = cells[batch.site_crystal].transpose(1, 2) @ rotation
    moved = -(summed[:, :, :3] @ to_xyz).transpose(1, 2).reshape(-1, length)
    first = torch.arange(n_sites, device=row.device)[:, None] * (slots.n + 1)
    total.index_add_(0, (first + slots.site).reshape(-1), moved)

    # cell parameters, which come first among the slots
    strain = metric.cell_strain[batch.site_crystal].flatten(2)
    cell = (summed[:, :, 3:] @ strain.transpose(1, 2)).transpose(1, 2)
    total = total.view(n_sites, slots.n + 1, length)
    n_cell = min(6, slots.n)
    total[:, :n_cell] += cell[:, :n_cell]
    return total[:, : slots.n]
