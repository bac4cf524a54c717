"""Crystals as space group, Wyckoff sites and free variables, and back."""

from __future__ import annotations

import importlib
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
    from asexlatent.symmetry.group_relations import GroupRelation
    from asexlatent.symmetry.subgroups import SubgroupCrystals, subgroup_crystals

__all__ = [
    "TABLE_COLUMNS",
    "CrystalError",
    "Embedding",
    "GroupRelation",
    "LatticeVariables",
    "Projection",
    "RandomCrystals",
    "RowProjection",
    "Site",
    "SubgroupCrystals",
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
    "subgroup_crystals",
    "symmetrize",
    "to_row",
    "wyckoff_positions",
]


_LATER = {
    # Detection needs ase.spacegroup, which takes longer to import than all the rest together;
    # subgroups need SciPy.
    "Embedding": "detect",
    "SymmetrizedAtoms": "detect",
    "symmetrize": "detect",
    "GroupRelation": "group_relations",
    "SubgroupCrystals": "subgroups",
    "subgroup_crystals": "subgroups",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
