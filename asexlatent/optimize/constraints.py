"""What ASE filters and constraints mean for the free variables of a symmetric crystal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from ase import Atoms
from ase.constraints import FixAtoms
from ase.filters import Filter, FrechetCellFilter, StrainFilter, UnitCellFilter
from torch import Tensor

from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.metric import Metric
from asexlatent.symmetry import CrystalError

if TYPE_CHECKING:
    from asexlatent.symmetry.detect import Embedding

# Voigt order, as in the masks of ASE's filters.
_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")


class Freedom:
    """Which motions of one crystal the caller allows.

    Parameters
    ----------
    strain_mask : array of bool, shape (6,)
        Strain components (Voigt order, in the axes of the caller's cell) that may change.
    sites : bool
        Whether fractional coordinates may change.
    """

    def __init__(self, strain_mask: np.ndarray | None = None, sites: bool = True):
        self.strain_mask = np.ones(6, bool) if strain_mask is None else strain_mask
        self.sites = sites


def unwrap(target: Atoms | Filter, fix_cell: bool = False) -> tuple[Atoms, Freedom]:
    """Take an ASE filter off its atoms and say what it leaves free.

    Without a filter cell and positions are free; `fix_cell` holds the cell.

    Raises
    ------
    CrystalError
        For filters, or options of them, that have no meaning here, by name.
    """
    if isinstance(target, Atoms):
        return target, Freedom(np.zeros(6, bool) if fix_cell else None)
    name = type(target).__name__
    if not isinstance(target, StrainFilter | UnitCellFilter | FrechetCellFilter):
        raise CrystalError(
            f"{name} is not supported: give the Atoms, or a FrechetCellFilter, UnitCellFilter "
            "or StrainFilter"
        )
    if not isinstance(target.atoms, Atoms):
        raise CrystalError(f"a filter around a filter ({name}) is not supported: use one")
    for option in ("hydrostatic_strain", "constant_volume", "scalar_pressure"):
        if getattr(target, option, False):
            raise CrystalError(
                f"{name}({option}=...) is not supported: the descriptor loss knows no pressure; "
                "use mask= to choose which strains relax, or fix_cell=True"
            )
    mask = _voigt_mask(target.mask) & (not fix_cell)
    return target.atoms, Freedom(mask, sites=not isinstance(target, StrainFilter))


def movable(
    batch: CrystalBatch, b: int, freedom: Freedom, atoms: Atoms, embedding: Embedding
) -> Tensor:
    """Free variables of crystal `b` that may change, bool, shape (variables of b,).

    Raises
    ------
    CrystalError
        When a strain mask separates what the space group ties together, when `FixAtoms` holds
        a part of an orbit, or for any other constraint.
    """
    variables = (batch.variable_crystal == b).nonzero().ravel()
    start, n_cell = int(batch.first_variable[b]), int(batch.n_cell_variables[b])
    allowed = torch.full(variables.shape, freedom.sites, device=variables.device)
    strain = Metric.at(batch, batch.variables).cell_strain[b, :n_cell].cpu().numpy()
    # The crystal's own axes turned into those of the caller's cell.
    strain = embedding.rotation.T @ strain @ embedding.rotation
    allowed[:n_cell] = torch.as_tensor(_cell_allowed(strain, freedom.strain_mask))
    sites = (batch.site_crystal == b).nonzero().ravel()
    for k in _fixed_sites(atoms, embedding):
        index = batch.site_index[sites[k]]
        allowed[index[index < batch.n_variables] - start] = False
    return allowed


def _cell_allowed(strain: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Which cell parameters, with strains of shape (n, 3, 3), a Voigt mask leaves free."""
    voigt = np.array([[abs(s[i, j]) for i, j in _VOIGT] for s in strain]).reshape(-1, 6)
    used = voigt > 1e-6 * voigt.max(axis=1, initial=1e-12, keepdims=True)
    blocked = (used & ~mask).any(axis=1)
    if mask.any():
        split = blocked & (used & mask).any(axis=1)
        if split.any():
            k = int(np.argmax(split))
            tied = ", ".join(n for n, u in zip(_NAMES, used[k], strict=True) if u)
            raise CrystalError(
                f"the strain mask separates {tied}, which change together in this space group: "
                "free or hold them all"
            )
    return ~blocked


def _fixed_sites(atoms: Atoms, embedding: Embedding) -> list[int]:
    """Sites whose orbits `FixAtoms` holds as a whole."""
    fixed = np.zeros(len(atoms), bool)
    for constraint in atoms.constraints:
        name = type(constraint).__name__
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
        elif name != "FixSymmetry":
            raise CrystalError(
                f"the constraint {name} is not supported: only FixAtoms on whole orbits and "
                "FixSymmetry are; remove it from atoms.constraints"
            )
    held = []
    for site in range(int(embedding.site.max()) + 1):
        orbit = embedding.site == site
        if fixed[orbit].all():
            held.append(site)
        elif fixed[orbit].any():
            raise CrystalError(
                f"FixAtoms holds {int(fixed[orbit].sum())} of the {int(orbit.sum())} atoms of an "
                f"orbit (atoms {np.flatnonzero(orbit).tolist()}): symmetry moves them together; "
                "fix all of them or lower the space group"
            )
    return held


def _voigt_mask(mask: np.ndarray) -> np.ndarray:
    """ASE keeps masks as 6 numbers (StrainFilter) or as a symmetric 3x3 matrix."""
    mask = np.asarray(mask)
    if mask.shape == (3, 3):
        return np.array([mask[i, j] for i, j in _VOIGT]) > 0
    return mask.ravel() > 0
