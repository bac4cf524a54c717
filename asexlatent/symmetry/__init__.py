"""Crystals as space group, Wyckoff sites and free variables, and back."""

from __future__ import annotations

from asexlatent.symmetry.crystal import CrystalError, Site, SymmetricCrystal
from asexlatent.symmetry.lattice import (
    LatticeVariables,
    cell_from_parameters,
    lattice_variables,
    parameters_from_cell,
)
from asexlatent.symmetry.rows import TABLE_COLUMNS, RowProjection, from_row, to_row
from asexlatent.symmetry.table import TableRow, read_table
from asexlatent.symmetry.wyckoff import (
    Projection,
    WyckoffPosition,
    hall_number,
    wyckoff_positions,
)

__all__ = [
    "TABLE_COLUMNS",
    "CrystalError",
    "LatticeVariables",
    "Projection",
    "RowProjection",
    "Site",
    "SymmetricCrystal",
    "TableRow",
    "WyckoffPosition",
    "cell_from_parameters",
    "from_row",
    "hall_number",
    "lattice_variables",
    "parameters_from_cell",
    "read_table",
    "to_row",
    "wyckoff_positions",
]
