"""A force field for the curvature alone: what second-order steps on an energy start from.

Springs between near atoms whose strength falls off with the distance, in the manner of
Lindh, Bernhardsson, Karlstrom and Malmqvist (Chem. Phys. Lett. 241, 423, 1995), stiff along the
vector of a pair and soft across it. Its forces are not used, only its second derivative: it makes
a bad first guess of the Hessian (a number times the unit matrix) into one that knows which free
variables stretch bonds, which bend them, and which only move layers.
"""

from __future__ import annotations

import torch
from ase.data import covalent_radii
from torch import Tensor

from asexlatent.descriptor.neighbors import NeighborPairs
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.jacobian import neighbor_maps
from asexlatent.optimize.metric import Metric
from asexlatent.optimize.slot_map import SlotMap

# Force constants (eV/Å^2) of a pair at the sum of its covalent radii, and how fast they fall with
# the square of the distance relative to that sum. Values of graphite: 23 and 10 for bonds, 5.5
# along the second neighbours.
_ALONG, _ACROSS = 21.0, 6.0
_DECAY_ALONG, _DECAY_ACROSS = 0.82, 2.3
_REACH = 2.1  # of the sum of the covalent radii
# Resistance of every atom (eV/Å^2) and strain (eV per atom) against what no spring feels.
_FLOOR_ATOM, _FLOOR_STRAIN = 0.5, 1.0
_LARGEST = 2**24  # numbers in one temporary array


class BondModel:
    """Second derivative of a spring energy per atom in the free variables of a batch.

    Parameters
    ----------
    batch : CrystalBatch
    n_slots : int, optional
        Free variables there is room for. Default: the largest number in the batch.
    """

    def __init__(self, batch: CrystalBatch, n_slots: int | None = None):
        self.batch = batch
        if n_slots is None:
            n_slots = int(batch.variables_per_crystal().max())
        self.slots: SlotMap = batch.slot_map(n_slots)
        radii = torch.as_tensor(covalent_radii).to(batch.variables)
        self._radius = radii.index_select(0, batch.numbers)
        self._share = batch.site_share

    def relative_lengths(self, pairs: NeighborPairs, vectors: Tensor) -> Tensor:
        """Distances (P,) in units of the sum of the covalent radii."""
        return vectors.norm(dim=1) / self._sum_of_radii(pairs)

    def curvature(
        self, cells: Tensor, metric: Metric, pairs: NeighborPairs, vectors: Tensor
    ) -> Tensor:
        """Positive definite second derivative (B, n, n), unit where slots are empty."""
        batch, n = self.batch, self.slots.n
        ratio2 = self.relative_lengths(pairs, vectors) ** 2
        near = (ratio2 < _REACH**2).nonzero().ravel()
        pairs = NeighborPairs(*(column.index_select(0, near) for column in pairs))
        vectors, ratio2 = vectors.index_select(0, near), ratio2.index_select(0, near)
        weight = 0.5 * self._share.index_select(0, pairs.centers)
        across = weight * _ACROSS * torch.exp(_DECAY_ACROSS * (1 - ratio2))
        along = weight * _ALONG * torch.exp(_DECAY_ALONG * (1 - ratio2))
        total = vectors.new_zeros(batch.n_crystals, n, n)
        step = max(1, _LARGEST // (n * n))
        owner = batch.site_crystal.index_select(0, pairs.centers)
        # k_across |dv|^2 + (k_along - k_across) (u . dv)^2 as squares of rows; a spring is never
        # softer along than across, so that the square roots exist
        extra = torch.sqrt((along - across).clamp(min=0))
        unit = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-3)
        root = torch.sqrt(across)
        for start in range(0, len(near), step):
            part = slice(start, start + step)
            chosen = NeighborPairs(*(column[part] for column in pairs))
            moved = self._motion(cells, metric, chosen, vectors[part])  # (p, 3, n)
            stretch = torch.bmm(unit[part, None], moved) * extra[part, None, None]
            rows = torch.cat((moved * root[part, None, None], stretch), dim=1)
            total.index_add_(0, owner[part], torch.bmm(rows.transpose(1, 2), rows))
        return total + self._floor(metric)

    def _motion(
        self, cells: Tensor, metric: Metric, pairs: NeighborPairs, vectors: Tensor
    ) -> Tensor:
        """Change of each vector (Å) per free variable of its crystal, shape (P, 3, n)."""
        batch, slots = self.batch, self.slots
        owner = batch.site_crystal.index_select(0, pairs.centers)
        cell = cells.index_select(0, owner)
        strained = torch.matmul(
            metric.cell_strain.index_select(0, owner), vectors[:, None, :, None]
        )
        own = torch.bmm(batch.site_rotation[pairs.centers].transpose(1, 2), cell)
        other = neighbor_maps(batch, cells, pairs).transpose(1, 2)
        site = batch.atom_site.index_select(0, pairs.neighbors)
        rows = torch.cat((strained[..., 0], -own, other), dim=1)  # (P, 12, 3)
        places = torch.cat(
            (slots.cell[owner], slots.site[pairs.centers], slots.site[site]), dim=1
        )  # (P, 12); n where nothing is free
        result = vectors.new_zeros(len(vectors), slots.n + 1, 3)
        result.scatter_add_(1, places[..., None].expand_as(rows), rows)
        return result[:, : slots.n].transpose(1, 2)

    def _floor(self, metric: Metric) -> Tensor:
        """A little resistance against every motion, as a matrix (B, n, n)."""
        batch, slots, n = self.batch, self.slots, self.slots.n
        gram = _FLOOR_ATOM * self._share[:, None, None] * metric.site_gram
        free = batch.site_free
        gram = gram * (free[:, :, None] & free[:, None, :])
        total = gram.new_zeros(batch.n_crystals * (n + 1) * (n + 1))
        total.index_add_(0, slots.pair.reshape(-1), gram.reshape(-1))
        total = total.view(batch.n_crystals, n + 1, n + 1)[:, :n, :n]
        total = total + torch.diag_embed((~slots.used).to(total))
        m = min(6, n)
        in_cell = slots.cell[:, :m] < n
        in_cell = in_cell[:, :, None] & in_cell[:, None, :]
        total[:, :m, :m] += _FLOOR_STRAIN * metric.cell_gram[:, :m, :m] * in_cell
        return total

    def _sum_of_radii(self, pairs: NeighborPairs) -> Tensor:
        center = self.batch.site_atom.index_select(0, pairs.centers)
        return self._radius.index_select(0, center) + self._radius.index_select(0, pairs.neighbors)
