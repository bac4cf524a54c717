"""Files that commands write crystals to, one after the other: tables and extended XYZ."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from asexlatent.cli.settings import UsageError

if TYPE_CHECKING:
    from asexlatent.symmetry import SymmetricCrystal

SPECIES = "species"
"""Column with the element of each used site, as the readers of tables understand it."""


def check_output(path: Path, overwrite: bool, suffixes: Sequence[str]) -> None:
    """Refuse, before any work, a name that no writer is for and a file that is there already.

    Raises
    ------
    UsageError
    """
    if not path.name.lower().endswith(tuple(suffixes)):
        raise UsageError(f"-o {path}: the name must end in {', '.join(suffixes)}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists: choose another file (-o) or --overwrite")
    if not path.parent.is_dir():
        raise UsageError(f"-o {path}: there is no folder {path.parent}")


class CrystalWriter:
    """Write crystals to a file; the ending of its name decides how. A context manager.

    Parameters
    ----------
    path
        ``.csv`` or ``.csv.gz`` for a table, ``.extxyz`` or ``.xyz`` for conventional cells.
    extras
        Names of further columns of a table, taken from ``info``. They are in the frames of an
        extended XYZ file too.
    """

    def __init__(self, path: Path, extras: Sequence[str]):
        self.path, self.extras = path, list(extras)
        self.written = 0

    def __enter__(self) -> CrystalWriter:
        name = self.path.name.lower()
        self._is_table = name.endswith((".csv", ".csv.gz"))
        options: dict[str, Any] = {"encoding": "utf-8", "newline": "\n"}
        if name.endswith(".gz"):
            self._handle = gzip.open(self.path, "wt", **options)
        else:
            self._handle = open(self.path, "w", **options)
        if self._is_table:
            from asexlatent.symmetry import TABLE_COLUMNS

            self._columns = [*TABLE_COLUMNS, SPECIES, *self.extras]
            self._table = csv.writer(self._handle, lineterminator="\n")
            self._table.writerow(self._columns)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handle.close()

    def write(self, crystal: SymmetricCrystal) -> None:
        """Write one crystal."""
        if self._is_table:
            self._table.writerow(table_texts(crystal, self.extras))
        else:
            from ase.io import write

            atoms = crystal.to_atoms()
            atoms.info = frame_info(crystal, self.extras)
            write(self._handle, atoms, format="extxyz")
        self.written += 1

    def write_texts(self, rows: Sequence[Sequence[str]]) -> None:
        """Write rows of a table that `table_texts` has made."""
        self._table.writerows(rows)
        self.written += len(rows)


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
