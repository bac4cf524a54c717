"""Crystals as space group, Wyckoff sites and free variables, and back."""

from __future__ import annotations

from asexlatent.symmetry.crystal import CrystalError, Site, SymmetricCrystal
from asexlatent.symmetry.lattice import (
    LatticeVariables,
    cell_from_parameters,
    lattice_variables,
    parameters_from_cell,
)
from asexlatent.symmetry.wyckoff import (
    Projection,
    WyckoffPosition,
    hall_number,
    wyckoff_positions,
)

__all__ = [
    "CrystalError",
    "LatticeVariables",
    "Projection",
    "Site",
    "SymmetricCrystal",
    "WyckoffPosition",
    "cell_from_parameters",
    "hall_number",
    "lattice_variables",
    "parameters_from_cell",
    "wyckoff_positions",
]
