"""Crystals as the texts that commands write: rows of tables and frames of extended XYZ."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asexlatent.symmetry import SymmetricCrystal

SPECIES = "species"
"""Column with the element of each used site, as the readers of tables understand it."""


def is_table_name(path: Path) -> bool:
    """Whether a name is that of a table; otherwise it is one of extended XYZ."""
    return path.name.lower().endswith((".csv", ".csv.gz"))


def table_head(extras: Sequence[str]) -> str:
    """First line of a table, with the names of further columns."""
    from asexlatent.symmetry import TABLE_COLUMNS

    return rows_text([[*TABLE_COLUMNS, SPECIES, *extras]])


def rows_text(rows: Iterable[Sequence[str]]) -> str:
    """Lines of a table."""
    sheet = io.StringIO()
    csv.writer(sheet, lineterminator="\n").writerows(rows)
    return sheet.getvalue()


def crystal_text(crystal: SymmetricCrystal, table: bool, extras: Sequence[str]) -> str:
    """One crystal as a line of a table, or as the frame of its conventional cell.

    Parameters
    ----------
    extras
        Names of further columns, taken from ``info``; they are in frames too.

    Raises
    ------
    CrystalError
        The crystal has more sites than a row holds.
    """
    if table:
        return rows_text([table_texts(crystal, extras)])
    from ase.io import write

    atoms = crystal.to_atoms()
    atoms.info = frame_info(crystal, extras)
    sheet = io.StringIO()
    write(sheet, atoms, format="extxyz")
    return sheet.getvalue()


def table_texts(crystal: SymmetricCrystal, extras: Sequence[str]) -> list[str]:
    """The 39 columns, the species and the extras of a crystal, as text.

    Raises
    ------
    CrystalError
        The crystal has more sites than a row holds.
    """
    values = [_number(value) for value in crystal.to_row().values()]
    species = " ".join(site.species for site in crystal.sites)
    return [*values, species, *(_text(crystal.info, name) for name in extras)]


def frame_info(crystal: SymmetricCrystal, extras: Sequence[str]) -> dict[str, Any]:
    """Entries of the comment line of a frame."""
    own = {
        "space_group_number": crystal.space_group,
        "wyckoffs": " ".join(crystal.wyckoffs),
    }
    return own | {name: crystal.info[name] for name in extras if name in crystal.info}


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.10g}"


def _text(info: Mapping[str, Any], name: str) -> str:
    value = info.get(name, "")
    return f"{value:.10g}" if isinstance(value, float) else str(value)
