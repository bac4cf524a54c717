"""Physical lengths of steps and gradients in the space of free variables.

Free variables mix Å, radians and fractions. What a step *does* is measured by how far it moves
the atom of each site (Å, in Cartesian space) and by the symmetric strain of the cell
(dimensionless). Both are linear in small steps, so each is a small Gram matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asexlatent.descriptor.neighbors import inverse_cells
from asexlatent.optimize.batch import CrystalBatch, Subset, padded


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
        unused = batch.cell_slots == batch.n_variables
        cell_gram = torch.bmm(flat, flat.transpose(1, 2)) + torch.diag_embed(unused.to(flat))

        displacement = torch.bmm(batch.site_rotation.transpose(1, 2), cells[batch.site_crystal])
        site_gram = torch.bmm(displacement, displacement.transpose(1, 2))
        return cls(site_gram + torch.diag_embed((~batch.site_free).to(flat)), cell_gram, strain)

    def gradient_norm(self, batch: CrystalBatch, gradient: Tensor) -> Tensor:
        """Generalised gradient (B,) of a gradient (V,); see `generalized_gradient`."""
        return torch.maximum(*self.gradient_norms(batch, gradient))

    def gradient_norms(self, batch: CrystalBatch, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Both parts of the generalised gradient: on atoms and on the cell, each of shape (B,).

        Of an energy per atom they are the largest force (eV/Å), and the largest row of the stress
        times the volume per atom (eV).
        """
        extended = padded(gradient)
        per_site = extended[batch.site_index]
        # g^T Gram^-1 g is the squared norm of the Cartesian gradient within the site's freedom.
        natural = torch.linalg.solve_ex(self.site_gram, per_site).result
        squared = torch.bmm(per_site[:, None, :], natural[:, :, None])[:, 0, 0]
        site_norm = torch.sqrt(torch.clamp(squared, min=0)) / batch.site_share

        weights = torch.linalg.solve_ex(self.cell_gram, extended[batch.cell_slots]).result
        strain_gradient = torch.bmm(weights[:, None, :], self.cell_strain.flatten(2))
        cell_norm = strain_gradient.view(-1, 3, 3).norm(dim=2).amax(dim=1)
        on_atoms = torch.zeros_like(cell_norm)
        return on_atoms.scatter_reduce(0, batch.site_crystal, site_norm, "amax"), cell_norm

    def step_lengths(self, batch: CrystalBatch, step: Tensor) -> tuple[Tensor, Tensor]:
        """How far a small step in the free variables, shape (V,), moves each crystal.

        Returns
        -------
        displacement : Tensor, shape (B,)
            Largest movement of any site's atom at fixed cell, Å.
        strain : Tensor, shape (B,)
            Norm of the symmetric strain of the cell.
        """
        extended = padded(step)
        per_site = extended[batch.site_index]
        moved = _norm2(self.site_gram, per_site)
        displacement = moved.new_zeros(batch.n_crystals)
        displacement = displacement.scatter_reduce(0, batch.site_crystal, moved, "amax")
        per_cell = extended[batch.cell_slots]
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
    axis = torch.arange(3, device=lengths.device)
    # angle k lies between the two vectors i, j that are not vector k
    between = (axis[:, None, None] + axis[:, None] + axis == 3) & (axis[:, None] != axis)
    between = between.to(lengths)
    cosines = (torch.cos(angles) @ between.flatten(1)).view(-1, 3, 3)
    cosines = cosines + torch.eye(3, dtype=lengths.dtype, device=lengths.device)
    # G_ij = l_i l_j cos_ij: both factors give a term to the derivative for a length
    one = torch.diag_embed((cosines * lengths[:, None]).transpose(1, 2)).permute(0, 2, 3, 1)
    sines = torch.sin(angles)[:, :, None, None] * between
    by_angle = -sines * (lengths[:, :, None] * lengths[:, None])[:, None]
    d_metric = torch.cat((one + one.transpose(2, 3), by_angle), dim=1)
    # Parameters that symmetry ties together (a = b) act through one free variable.
    tied = torch.bmm(batch.cell_tie, d_metric.flatten(2)).unflatten(2, (3, 3))
    inverse = inverse_cells(cells)[:, None]
    return 0.5 * inverse @ tied @ inverse.transpose(2, 3)
