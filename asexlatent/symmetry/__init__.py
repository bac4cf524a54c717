"""Crystals as space group, Wyckoff sites and free variables, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asexlatent.symmetry.crystal import CrystalError, Site, SymmetricCrystal
from asexlatent.symmetry.lattice import (
    LatticeVariables,
    cell_from_parameters,
    lattice_variables,
    parameters_from_cell,
)
from asexlatent.symmetry.random_crystals import RandomCrystals
from asexlatent.symmetry.rows import TABLE_COLUMNS, RowProjection, from_row, to_row
from asexlatent.symmetry.table import TableRow, read_table
from asexlatent.symmetry.wyckoff import (
    Projection,
    WyckoffPosition,
    hall_number,
    wyckoff_positions,
)

if TYPE_CHECKING:
    from asexlatent.symmetry.detect import Embedding, SymmetrizedAtoms, symmetrize

__all__ = [
    "TABLE_COLUMNS",
    "CrystalError",
    "Embedding",
    "LatticeVariables",
    "Projection",
    "RandomCrystals",
    "RowProjection",
    "Site",
    "SymmetricCrystal",
    "SymmetrizedAtoms",
    "TableRow",
    "WyckoffPosition",
    "cell_from_parameters",
    "from_row",
    "hall_number",
    "lattice_variables",
    "parameters_from_cell",
    "read_table",
    "symmetrize",
    "to_row",
    "wyckoff_positions",
]


def __getattr__(name: str) -> Any:
    # Detection needs ase.spacegroup, which takes longer to import than all the rest together.
    if name in ("Embedding", "SymmetrizedAtoms", "symmetrize"):
        from asexlatent.symmetry import detect

        return getattr(detect, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
