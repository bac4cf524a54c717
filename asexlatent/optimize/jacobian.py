"""Derivatives of the spectra with respect to the free variables.

A spectrum depends on its pairs' vectors only, so its derivative with respect to any free
variable is a sum over pairs of (d spectrum / d vector) . (d vector / d variable). The second
factor is linear algebra: a coordinate of the neighbour's site moves the neighbour by a row of
its affine map times the cell, a coordinate of the centre's own site moves the centre, and a
cell parameter strains the vector (rotations of the cell do not matter to a power spectrum).
The sums over the pairs of a centre and a neighbour's site come first (`PowerSpectrum.motions`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from asexlatent.descriptor.chunk import Motions
from asexlatent.descriptor.neighbors import NeighborPairs
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.metric import Metric
from asexlatent.optimize.slot_map import SlotMap


def neighbor_maps(batch: CrystalBatch, cells: Tensor, pairs: NeighborPairs) -> Tensor:
    """Movement of each pair's neighbour in Å along i per coordinate x of its site, (P, 3, 3).

    Parameters
    ----------
    cells : Tensor, shape (B, 3, 3)
    """
    owner = batch.site_crystal.index_select(0, pairs.centers)
    turned = cells.transpose(1, 2).contiguous().index_select(0, owner)
    return torch.bmm(turned, batch.atom_rotation.index_select(0, pairs.neighbors))


def site_jacobian(
    batch: CrystalBatch,
    slots: SlotMap,
    cells: Tensor,
    metric: Metric,
    part: Motions,
    center: Tensor,
    site: Tensor,
) -> Tensor:
    """Derivative of the spectra of some sites for the free variables of their crystals.

    Parameters
    ----------
    cells : Tensor, shape (B, 3, 3)
    metric : Metric
        Its strains are the derivatives of the cell.
    part : Motions
        Of m of the sites.
    center, site : Tensor, shape (s,)
        Site of the centre and of the neighbours, for each row of ``part.own``.

    Returns
    -------
    Tensor, shape (m, n, L)
    """
    own, stride, length = part.own, slots.n + 1, part.own.shape[2]
    owner = batch.site_crystal[part.centers]
    strain = metric.cell_strain.flatten(2).index_select(0, owner)
    moved = batch.site_rotation[part.centers].transpose(1, 2)
    moved = torch.bmm(moved, cells.index_select(0, owner))
    rows = (
        torch.bmm(strain, part.common[:, :3].flatten(1, 2)),
        -torch.bmm(moved, part.common[:, 3]),
        own,
    )
    first = torch.arange(len(owner), device=owner.device)[:, None] * stride
    places = (
        first + slots.cell.index_select(0, owner),
        first + slots.site[part.centers],
        (center - part.centers.start)[:, None] * stride + slots.site.index_select(0, site),
    )
    # place n of each centre collects what is not free
    result = own.new_zeros(len(owner) * stride, length)
    result.index_add_(
        0,
        torch.cat([place.reshape(-1) for place in places]),
        torch.cat([row.reshape(-1, length) for row in rows]),
    )
    return result.view(-1, stride, length)[:, : slots.n]
