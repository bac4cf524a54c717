"""What is written about one candidate: info keys of a frame, columns of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

    from asexlatent.cli.inputs import Entry
    from asexlatent.optimize import Refinement
    from asexlatent.symmetry import SymmetricCrystal

PREFIX = "asx_"
KEYS = (
    "index",
    "source",
    "status",
    "reason",
    "valid",
    "path",
    "round",
    "loss_initial",
    "loss",
    "gradient",
    "steps",
    "space_group_number",
    "space_group_found",
    "wyckoffs",
    "species",
    "displacement",
    "notes",
)
"""What is said about each candidate, in frames and in the table, after `PREFIX`."""

FOUND_SYMPREC = 1e-3
"""Tolerance (Å) at which the symmetry of a refined crystal is looked at again."""


def table_columns() -> list[str]:
    """Columns of ``table.csv`` before those that are carried along."""
    from asexlatent.symmetry import TABLE_COLUMNS

    return [*TABLE_COLUMNS, *(PREFIX + key for key in KEYS)]


def carried_columns(extras: Sequence[str]) -> list[str]:
    """Columns of the input tables that are carried along: no record of an earlier run."""
    own = table_columns()
    return [name for name in extras if name not in own]


def record(entry: Entry, result: Refinement) -> dict[str, Any]:
    """Values by the names of `KEYS`; what there is nothing to say about is left out."""
    crystal = result.crystal
    values: dict[str, Any] = {
        "index": entry.index,
        "source": entry.source,
        "status": str(result.status),
        "reason": result.reason,
        "valid": bool(result.valid),
        "path": result.path,
        "loss_initial": result.loss_initial,
        "loss": result.loss,
        "gradient": result.gradient,
        "notes": "; ".join(entry.notes),
    }
    if crystal is not None:
        values |= {
            "round": result.round,
            "steps": result.steps,
            "space_group_number": crystal.space_group,
            "wyckoffs": " ".join(crystal.wyckoffs),
            "species": " ".join(site.species for site in crystal.sites),
            "displacement": _displacement(result),
        }
        if refined(result):
            values["space_group_found"] = higher_space_group(crystal)
    return {k: values[k] for k in KEYS if k in values and _says_something(values[k])}


def refined(result: Refinement) -> bool:
    """Whether the candidate was understood, worked on, and came out as a crystal."""
    failed = str(result.status) == "failed"
    return result.crystal is not None and math.isfinite(result.loss) and not failed


def frame(entry: Entry, result: Refinement, values: dict[str, Any]) -> Atoms:
    """Structure to write, with the record in ``info`` under `PREFIX`.

    What could not be refined is as it came in; what is no structure at all has no atoms.
    """
    from ase import Atoms

    source = result.source
    if refined(result):
        atoms = result.to_atoms()
    elif isinstance(source, Atoms):
        atoms = source.copy()
    else:
        atoms = Atoms() if isinstance(source, Exception) else source.to_atoms()
    own = {PREFIX + key for key in KEYS}
    info = {key: _parsed(text) for key, text in entry.extra.items()} | atoms.info
    atoms.info = {key: value for key, value in info.items() if key not in own}
    atoms.info |= {PREFIX + key: value for key, value in values.items()}
    atoms.calc = getattr(source, "calc", None)  # whose results the writer judges
    return atoms


def table_row(result: Refinement, values: dict[str, Any]) -> dict[str, Any]:
    """The 39 columns, blank with a reason where there are none, and the record."""
    from asexlatent.symmetry import CrystalError

    values = dict(values)
    columns: dict[str, Any] = {}
    if result.crystal is not None and str(result.status) != "failed":
        try:
            columns = result.crystal.to_row()
        except CrystalError as error:
            values["reason"] = "; ".join(filter(None, (values.get("reason"), str(error))))
    return columns | {PREFIX + key: value for key, value in values.items()}


def higher_space_group(crystal: SymmetricCrystal) -> int | None:
    """Number of the space group that spglib finds, if it has more symmetry than the imposed one.

    More symmetry means more operations in the same cell: another group (or the same one with a
    smaller cell, which has no other number and is not reported).
    """
    import numpy as np
    import spglib
    from ase.data import atomic_numbers

    from asexlatent.symmetry import wyckoff_positions

    kinds = np.array([atomic_numbers[symbol] for symbol in crystal.symbols])
    cell = (crystal.cell, crystal.scaled_positions() % 1.0, kinds)
    try:
        found = spglib.get_symmetry_dataset(cell, symprec=FOUND_SYMPREC)
    except Exception:  # spglib versions differ in what they raise, e.g. for coincident atoms
        return None
    if found is None or int(found.number) == crystal.space_group:
        return None
    imposed = wyckoff_positions(crystal.space_group)[0].multiplicity
    return int(found.number) if len(found.rotations) > imposed else None


def _displacement(result: Refinement) -> float:
    """How far atoms were moved to make the candidate symmetric, Å."""
    projection = getattr(result.source, "projection", None)
    return float(result.displacement if projection is None else projection.max_distance)


def _parsed(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _says_something(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is not None and value != ""
