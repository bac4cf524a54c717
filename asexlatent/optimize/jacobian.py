"""Derivatives of the spectra with respect to the free variables, assembled pair by pair.

A spectrum depends on its pairs' vectors only, so its derivative with respect to any free
variable is a sum over pairs of (d spectrum / d vector) . (d vector / d variable). The second
factor is linear algebra: a coordinate of the neighbour's site moves the neighbour by a row of
its affine map times the cell, a coordinate of the centre's own site moves the centre, and a
cell parameter strains the vector (rotations of the cell do not matter to a power spectrum).
Strains are kept in one basis for all cells until the sums over pairs are done.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asexlatent.descriptor.neighbors import NeighborPairs
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.metric import Metric

# The symmetric strains that span all others, Voigt order: (row, column) set to one.
_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


@dataclass(frozen=True, eq=False)
class SlotMap:
    """Where the derivatives of a batch go.

    Attributes
    ----------
    n : int
        Slots per crystal: at least the largest number of free variables of any crystal.
    flat : Tensor, shape (V,)
        Place of each variable in a padded array (B, n), flattened.
    site : Tensor, shape (S, 3)
        Slot behind x, y, z of each site; n where the coordinate is not free.
    column : Tensor, shape (S, 3)
        The same among the columns of `pair_tangents`.
    n_columns : int
        Six strains, then the free coordinates of the crystal with most of them.
    order : Tensor, shape (B, n)
        Column, after strains have become cell parameters, that each slot is; n_columns for none.
    """

    n: int
    flat: Tensor
    site: Tensor
    column: Tensor
    n_columns: int
    order: Tensor

    @classmethod
    def of(cls, batch: CrystalBatch, n: int) -> SlotMap:
        """Slots of `batch`, n for each crystal."""
        free = batch.site_index < batch.n_variables
        slot = batch.site_index - batch.first_variable[batch.site_crystal][:, None]
        site = torch.where(free, slot, torch.full_like(slot, n))
        n_cell = batch.n_cell_variables[:, None]
        # n is known without asking the device; at least one cell parameter is free
        n_columns = 6 + n - 1
        column = slot - n_cell[batch.site_crystal] + 6
        column = torch.where(free, column, torch.full_like(column, n_columns))
        index = torch.arange(n, device=slot.device).expand(batch.n_crystals, n)
        order = torch.where(index < n_cell, index, index - n_cell + 6)
        used = index < batch.variables_per_crystal()[:, None]
        order = torch.where(used, order, torch.full_like(order, n_columns))
        flat = batch.variable_crystal * n + batch.slot
        return cls(n, flat, site, column, n_columns, order)

    def pad(self, per_variable: Tensor, n_crystals: int) -> Tensor:
        """Spread (V,) to (B, n), zeros elsewhere."""
        padded = per_variable.new_zeros(n_crystals * self.n)
        padded[self.flat] = per_variable
        return padded.view(n_crystals, self.n)

    def unpad(self, padded: Tensor) -> Tensor:
        """Gather (B, n) to (V,)."""
        return padded.reshape(-1)[self.flat]


def pair_tangents(
    batch: CrystalBatch, slots: SlotMap, cells: Tensor, pairs: NeighborPairs, vectors: Tensor
) -> Tensor:
    """Derivative of each pair's vector for six strains and the free coordinates of its crystal.

    Parameters
    ----------
    cells : Tensor, shape (B, 3, 3)
    pairs, vectors : NeighborPairs and Tensor, shape (P, 3)

    Returns
    -------
    Tensor, shape (P, 3, n_columns)
    """
    tangents = vectors.new_zeros(len(vectors), 3, slots.n_columns + 1)
    for column, (i, j) in enumerate(_VOIGT):
        tangents[:, i, column] = vectors[:, j]
        tangents[:, j, column] = vectors[:, i]
    # a coordinate of the neighbour's site moves the neighbour: (Cartesian, xyz) of every atom
    turned = torch.bmm(cells.transpose(1, 2)[batch.atom_crystal], batch.atom_rotation)
    site = batch.atom_site.index_select(0, pairs.neighbors)
    column = slots.column.index_select(0, site)[:, None, :].expand(-1, 3, -1)
    tangents.scatter_add_(2, column, turned.index_select(0, pairs.neighbors))
    # a coordinate of the centre's own site moves the centre
    own = turned[batch.site_atom].neg_().index_select(0, pairs.centers)
    column = slots.column.index_select(0, pairs.centers)[:, None, :].expand(-1, 3, -1)
    tangents.scatter_add_(2, column, own)
    return tangents[:, :, : slots.n_columns]


def to_variables(batch: CrystalBatch, slots: SlotMap, metric: Metric, jacobian: Tensor) -> Tensor:
    """Turn derivatives for the columns of `pair_tangents` into those for free variables.

    Parameters
    ----------
    metric : Metric
        Its strains are the derivatives of the cell.
    jacobian : Tensor, shape (S, L, n_columns)

    Returns
    -------
    Tensor, shape (S, L, n)
    """
    strain = torch.stack([metric.cell_strain[:, :, i, j] for i, j in _VOIGT], dim=1)
    cell = torch.bmm(jacobian[:, :, :6], strain[batch.site_crystal])
    empty = jacobian.new_zeros(*jacobian.shape[:2], 1)
    both = torch.cat((cell, jacobian[:, :, 6:], empty), dim=2)
    order = slots.order[batch.site_crystal][:, None, :].expand(-1, jacobian.shape[1], -1)
    return both.gather(2, order)
