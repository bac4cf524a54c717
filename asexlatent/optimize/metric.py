"""Physical lengths of steps and gradients in the space of free variables.

Free variables mix Å, radians and fractions. What a step *does* is measured by how far it moves
the atom of each site (Å, in Cartesian space) and by the symmetric strain of the cell
(dimensionless). Both are linear in small steps, so each is a small Gram matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asexlatent.optimize.batch import CrystalBatch, Subset


@dataclass(frozen=True, eq=False)
class Metric:
    """Gram matrices of the free variables at one geometry.

    Attributes
    ----------
    site_gram : Tensor, shape (S, 3, 3)
        Scalar products (Å^2) of the displacements of the site's atom per unit of x, y, z;
        the unit matrix in rows and columns that are not free.
    cell_gram : Tensor, shape (B, 6, 6)
        Scalar products of the strains per unit of each free cell parameter, padded likewise.
    cell_strain : Tensor, shape (B, 6, 3, 3)
        Those strains, symmetric, zero for padding.
    """

    site_gram: Tensor
    cell_gram: Tensor
    cell_strain: Tensor

    @classmethod
    def at(cls, batch: CrystalBatch, variables: Tensor) -> Metric:
        """Gram matrices at `variables`, shape (V,)."""
        cells = batch.cells(variables)
        strain = _cell_strain(batch, variables, cells)
        flat = strain.flatten(2)
        cell_gram = flat @ flat.transpose(1, 2)
        slot = torch.arange(6, device=variables.device)
        used = slot < batch.n_cell_variables[:, None]
        cell_gram = cell_gram + torch.diag_embed((~used).to(variables.dtype))

        free = batch.site_index < batch.n_variables
        rotation = batch.atom_rotation[batch.site_atom] * free[:, None, :]
        displacement = rotation.transpose(1, 2) @ cells[batch.site_crystal]
        site_gram = displacement @ displacement.transpose(1, 2)
        site_gram = site_gram + torch.diag_embed((~free).to(variables.dtype))
        return cls(site_gram, cell_gram, strain)

    def gradient_norm(self, batch: CrystalBatch, gradient: Tensor) -> Tensor:
        """Generalised gradient (B,) of a gradient (V,); see `generalized_gradient`."""
        padded = torch.cat((gradient, gradient.new_zeros(1)))
        per_site = padded[batch.site_index]
        # g^T Gram^-1 g is the squared norm of the Cartesian gradient within the site's freedom.
        squared = (per_site * torch.linalg.solve(self.site_gram, per_site)).sum(1)
        # in the precision of the gradient: a quotient of integers would be float32
        n_atoms = torch.bincount(batch.atom_crystal, minlength=batch.n_crystals).to(gradient)
        share = n_atoms[batch.site_crystal] / batch.multiplicity
        site_norm = share * torch.sqrt(torch.clamp(squared, min=0))

        per_cell = padded[cell_slots(batch)]
        weights = torch.linalg.solve(self.cell_gram, per_cell)
        strain_gradient = (weights[:, :, None, None] * self.cell_strain).sum(1)
        cell_norm = strain_gradient.norm(dim=2).amax(dim=1)
        return cell_norm.scatter_reduce(0, batch.site_crystal, site_norm, "amax")

    def step_lengths(self, batch: CrystalBatch, step: Tensor) -> tuple[Tensor, Tensor]:
        """How far a small step in the free variables, shape (V,), moves each crystal.

        Returns
        -------
        displacement : Tensor, shape (B,)
            Largest movement of any site's atom at fixed cell, Å.
        strain : Tensor, shape (B,)
            Norm of the symmetric strain of the cell.
        """
        padded = torch.cat((step, step.new_zeros(1)))
        per_site = padded[batch.site_index]
        moved = _norm2(self.site_gram, per_site)
        displacement = moved.new_zeros(batch.n_crystals)
        displacement = displacement.scatter_reduce(0, batch.site_crystal, moved, "amax")
        per_cell = padded[cell_slots(batch)]
        strain = _norm2(self.cell_gram, per_cell)
        return torch.sqrt(displacement.clamp(min=0)), torch.sqrt(strain.clamp(min=0))

    def where(self, mask: Subset, other: Metric) -> Metric:
        """Return this metric for the crystals of `mask`, `other` for the rest."""
        crystal = mask.crystals[:, None, None]
        return Metric(
            torch.where(mask.sites[:, None, None], self.site_gram, other.site_gram),
            torch.where(crystal, self.cell_gram, other.cell_gram),
            torch.where(crystal[..., None], self.cell_strain, other.cell_strain),
        )

    def select(self, mask: Subset) -> Metric:
        """Return the part of the crystals of `mask`."""
        return Metric(
            self.site_gram[mask.sites],
            self.cell_gram[mask.crystals],
            self.cell_strain[mask.crystals],
        )

    def put(self, mask: Subset, part: Metric) -> None:
        """Write `part`, made by `select` with the same mask, back in place."""
        self.site_gram[mask.sites] = part.site_gram
        self.cell_gram[mask.crystals] = part.cell_gram
        self.cell_strain[mask.crystals] = part.cell_strain

    def clone(self) -> Metric:
        """Return a copy that shares no memory."""
        return Metric(self.site_gram.clone(), self.cell_gram.clone(), self.cell_strain.clone())


def cell_slots(batch: CrystalBatch) -> Tensor:
    """Variable index of each crystal's free cell parameters, V where unused, shape (B, 6)."""
    slot = torch.arange(6, device=batch.first_variable.device)
    used = slot < batch.n_cell_variables[:, None]
    index = batch.first_variable[:, None] + slot
    return torch.where(used, index, torch.full_like(index, batch.n_variables))


def generalized_gradient(
    batch: CrystalBatch, variables: Tensor, gradient: Tensor, movable: Tensor | None = None
) -> Tensor:
    """Largest component of the generalised gradient of each crystal, shape (B,).

    It is what ASE's ``FrechetCellFilter`` shows for the extensive quantity N * loss (N atoms in
    the cell): the norm of the gradient on any atom, in 1/Å times the unit of the loss, and the
    norm of any row of the strain gradient, divided by N, in the unit of the loss. The
    extensive form makes the threshold mean the same for 8 atoms and for 800.

    Parameters
    ----------
    variables, gradient : Tensor, shape (V,)
        Where, and the gradient of the loss with respect to the free variables there.
    movable : Tensor of bool, shape (V,), optional
        Variables that may change; the others count as zero.
    """
    if movable is not None:
        gradient = gradient * movable
    return Metric.at(batch, variables).gradient_norm(batch, gradient)


def _norm2(gram: Tensor, vector: Tensor) -> Tensor:
    """Squared lengths (K,) of vectors (K, n) with Gram matrices (K, n, n)."""
    column = vector[:, :, None]
    return torch.bmm(column.transpose(1, 2), torch.bmm(gram, column))[:, 0, 0]


def _cell_strain(batch: CrystalBatch, variables: Tensor, cells: Tensor) -> Tensor:
    """Symmetric strain per unit of each free cell parameter, shape (B, 6, 3, 3).

    With the metric tensor G = C C^T of a cell C (rows), a change dG is the strain
    1/2 C^-1 dG C^-T; dG is elementary in lengths and angles.
    """
    lengths, angles = batch.cell_parameters(variables).split(3, dim=1)
    d_metric = lengths.new_zeros(batch.n_crystals, 6, 3, 3)
    cosines = torch.cos(angles)
    # angle k lies between the two vectors that are not vector k
    for k, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        for p, q in ((i, j), (j, i)):
            d_metric[:, p, p, q] = lengths[:, q] * cosines[:, k]
            d_metric[:, q, p, q] = lengths[:, p] * cosines[:, k]
            d_metric[:, 3 + k, p, q] = -lengths[:, p] * lengths[:, q] * torch.sin(angles[:, k])
        d_metric[:, k, k, k] = 2 * lengths[:, k]
    inverse = torch.linalg.inv(cells)[:, None]
    strain = 0.5 * inverse @ d_metric @ inverse.transpose(2, 3)
    # Parameters that symmetry ties together (a = b) act through one free variable.
    slot = batch.cell_index - batch.first_variable[:, None]
    slot = torch.where(batch.cell_index < batch.n_variables, slot, torch.full_like(slot, 6))
    gathered = strain.new_zeros(batch.n_crystals, 7, 3, 3)
    gathered.scatter_add_(1, slot[:, :, None, None].expand_as(strain), strain)
    return gathered[:, :6]
