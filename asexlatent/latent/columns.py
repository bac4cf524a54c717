"""The continuous columns of a crystal: what the models learn, and the way back to free variables.

For crystals of up to M sites there are 6 + 3 M columns: the cell as

    log(volume per atom / Å^3), log(b / a), log(c / a), alpha, beta, gamma (radians)

and x, y, z of the Wyckoff table for each site of the standard description (`standard`). The
volume per atom is nearly the same for all crystals of one bonding motif, whatever the cell; a, b
and c of the published table are not. A column *means* something only where its condition leaves
it free: that is the mask. Everything else is 0 and without consequence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asexlatent.latent.conditions import Condition
from asexlatent.latent.standard import standard_form
from asexlatent.symmetry import SymmetricCrystal, lattice_variables

CELL_COLUMNS = ("log_volume", "log_b_a", "log_c_a", "alpha", "beta", "gamma")
N_CELL = len(CELL_COLUMNS)


def column_names(max_sites: int) -> tuple[str, ...]:
    """Names of the columns for rows of up to `max_sites` sites."""
    return CELL_COLUMNS + tuple(f"{axis}{slot}" for slot in range(max_sites) for axis in "xyz")


@cache
def _free_cell_columns(system: str, index: tuple[int, ...]) -> tuple[bool, ...]:
    """Which of the cell columns a lattice system leaves free."""
    b_free, c_free = index[1] != index[0], index[2] != index[0]
    return (True, b_free, c_free, *(k >= 0 for k in index[3:]))


def free_columns(condition: Condition, max_sites: int) -> NDArray[np.bool_]:
    """Mask (6 + 3 max_sites,) of the columns that a standard condition leaves free."""
    lattice = lattice_variables(condition.space_group)
    mask = np.zeros(N_CELL + 3 * max_sites, dtype=bool)
    mask[:N_CELL] = _free_cell_columns(lattice.system, tuple(lattice.index.tolist()))
    for slot, position in enumerate(condition.positions):
        mask[N_CELL + 3 * slot + position.variables] = True
    return mask


def to_columns(crystal: SymmetricCrystal, max_sites: int) -> NDArray[np.float64]:
    """Columns (6 + 3 max_sites,) of a crystal in its standard description; 0 where not free."""
    values = np.zeros(N_CELL + 3 * max_sites)
    a, b, c, *angles = crystal.cell_parameters
    values[:3] = math.log(crystal.volume / crystal.n_atoms), math.log(b / a), math.log(c / a)
    values[3:N_CELL] = angles
    for slot, site in enumerate(crystal.sites):
        values[N_CELL + 3 * slot + site.position.variables] = site.free
    return np.where(free_columns(Condition.from_crystal(crystal), max_sites), values, 0.0)


def from_columns(condition: Condition, columns: NDArray[np.float64]) -> SymmetricCrystal:
    """Build the crystal of these columns (C,), slot k being site k of `condition` as it is.

    The inverse of `to_columns`. Columns that the condition does not leave free are not looked at.

    Raises
    ------
    CrystalError
        The cell cannot be one.
    """
    lattice = lattice_variables(condition.space_group)
    free = free_columns(condition, (len(columns) - N_CELL) // 3)
    angles = torch.as_tensor(np.where(free[3:N_CELL], columns[3:N_CELL], lattice.constants[3:]))
    ratios = np.exp(np.where(free[:3], [0.0, *columns[1:3]], 0.0))
    volume = condition.n_atoms * math.exp(columns[0]) / float(_relative_volume(angles[None]))
    lengths = np.cbrt(volume / ratios.prod()) * ratios
    cell = lattice.project([*lengths, *angles.tolist()])
    sites = [
        (species, index, columns[N_CELL + 3 * slot + position.variables])
        for slot, ((species, index), position) in enumerate(
            zip(condition.sites, condition.positions, strict=True)
        )
    ]
    return SymmetricCrystal.build(condition.space_group, cell, sites)


@dataclass(frozen=True, eq=False)
class FreeVariableMap:
    """Index maps from columns to the free variables of crystals with given conditions.

    B crystals, V free variables in the order of `CrystalBatch`, C columns. Built once; applying
    it is a handful of tensor operations without a loop over crystals, differentiable.

    Attributes
    ----------
    n_atoms : (B,) atoms in the conventional cell.
    same_as_a : (B, 3) bool, which of a, b, c equal a by symmetry.
    fixed_angles : (B, 3) radians; NaN where the angle is free.
    crystal, source : (V,) crystal of each free variable and its place among the 6 cell
        parameters (of the standard description) or, from 6 on, the coordinates of its site:
        the first column of the site.
    weights, constant : (V, 3) and (V,)
        Coordinates: ``weights @ (x, y, z of the site) + constant``. Zero for cell parameters.
    """

    n_atoms: Tensor
    same_as_a: Tensor
    fixed_angles: Tensor
    crystal: Tensor
    source: Tensor
    weights: Tensor
    constant: Tensor

    @classmethod
    def of(cls, conditions: Sequence[Condition]) -> FreeVariableMap:
        """Build the maps for conditions as they are asked for, standard or not."""
        parts = [_maps(condition) for condition in conditions]
        owner = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
        source, weights, constant = (np.concatenate(column) for column in zip(*parts, strict=True))
        lattices = [lattice_variables(condition.space_group) for condition in conditions]
        index = np.array([lattice.index for lattice in lattices])
        angles = np.array([lattice.constants[3:] for lattice in lattices])
        atoms = np.array([condition.n_atoms for condition in conditions], dtype=float)
        return cls(
            torch.as_tensor(atoms),
            torch.as_tensor(index[:, :3] == index[:, :1]),
            torch.as_tensor(np.where(index[:, 3:] < 0, angles, np.nan)),
            torch.as_tensor(owner),
            torch.as_tensor(source),
            torch.as_tensor(weights),
            torch.as_tensor(constant),
        )

    def to(self, device: torch.device | str) -> FreeVariableMap:
        """Return the same maps on another device."""
        return FreeVariableMap(*(getattr(self, f.name).to(device) for f in fields(self)))

    def cell_parameters(self, columns: Tensor) -> Tensor:
        """a, b, c (Å), alpha, beta, gamma (radians) of the standard descriptions, (B, 6)."""
        ratios = torch.where(
            self.same_as_a,
            0.0,
            torch.cat((torch.zeros_like(columns[:, :1]), columns[:, 1:3]), dim=1),
        )
        fixed = ~torch.isnan(self.fixed_angles)
        angles = torch.where(fixed, torch.nan_to_num(self.fixed_angles), columns[:, 3:N_CELL])
        volume = torch.log(self.n_atoms) + columns[:, 0] - torch.log(_relative_volume(angles))
        log_a = (volume - ratios.sum(dim=1)) / 3
        return torch.cat((torch.exp(log_a[:, None] + ratios), angles), dim=1)

    def __call__(self, columns: Tensor) -> Tensor:
        """Free variables (V,) in Å, radians and fractions from columns (B, C), float64."""
        columns = columns.to(torch.float64)
        cell = self.cell_parameters(columns)
        is_cell = self.source < N_CELL
        lengths_angles = cell[self.crystal, torch.where(is_cell, self.source, 0)]
        first = torch.where(is_cell, N_CELL, self.source)
        xyz = columns[self.crystal[:, None], first[:, None] + torch.arange(3, device=first.device)]
        return torch.where(is_cell, lengths_angles, (self.weights * xyz).sum(1) + self.constant)


def _maps(condition: Condition) -> tuple[NDArray, NDArray, NDArray]:
    """Source (v,), weights (v, 3) and constant (v,) of the free variables of one crystal."""
    form = standard_form(condition)
    lattice = lattice_variables(condition.space_group)
    first = [int(np.argmax(lattice.index == k)) for k in range(len(lattice.names))]
    source = [int(form.lengths[k]) if k < 3 else k for k in first]
    weights, constant = [np.zeros((len(source), 3))], [np.zeros(len(source))]
    slot_of = np.argsort(form.order)
    for given, position in enumerate(condition.positions):
        slot, d = int(slot_of[given]), position.dof
        source += [N_CELL + 3 * slot] * d
        # The standard site has its free coordinates in the columns of its own table variables.
        own = form.condition.positions[slot].variables
        rows = np.zeros((d, 3))
        rows[:, own] = form.matrices[slot, :d, :d]
        weights.append(rows)
        constant.append(form.constants[slot, :d])
    return np.array(source, dtype=np.int64), np.concatenate(weights), np.concatenate(constant)


def _relative_volume(angles: Tensor) -> Tensor:
    """Volume of cells with unit lengths, (B,), from angles (B, 3); at least 0.05.

    The floor is met only by angles that make no cell; it keeps a wild iterate finite.
    """
    cosine = torch.cos(angles)
    square = 1 - (cosine**2).sum(dim=1) + 2 * cosine.prod(dim=1)
    return torch.sqrt(torch.clamp(square, min=0.0025))
