"""What is known about one candidate of a screening."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from asexlatent.screening.energies import usable
from asexlatent.screening.store import unpack_crystal
from asexlatent.symmetry import SymmetricCrystal

RANKED, DUPLICATE, INVALID, FAILED, PENDING = (
    "ranked",
    "duplicate",
    "invalid",
    "failed",
    "pending",
)
STATUSES = (RANKED, DUPLICATE, INVALID, FAILED, PENDING)
"""What can become of a candidate; pending is one that an interrupted run has not come to."""


@dataclass(eq=False)
class ScreenRow:
    """What became of one candidate. Energies in eV per atom, densities in g/cm^3.

    Attributes
    ----------
    index : int
        Place in the input, from 0.
    source : str
        File and place it came from, where known.
    status, reason : str
        One of `STATUSES`, and why it failed or is not valid.
    valid : bool
        The motif rule holds, and there are no molecules.
    loss : float
        Eq. 1 of the method.
    composition, n_atoms, space_group, wyckoffs
        Reduced formula, atoms in the conventional cell, the group that is kept exactly, its sites.
    net, net_key, net_exact, density
        Of the candidate.
    dimension : int or None
        Of its net.
    round, path
        How the refinement reached it, where the candidate says so.
    relax_status, relax_reason, relax_steps, force_max, stress_max
        How its relaxation ended, thresholds in eV/Å and eV/Å^3.
    energy, above_reference : float
        Energy per atom after relaxation, and above the reference of its composition.
    valid_relaxed, net_relaxed, net_key_relaxed, net_exact_relaxed, dimension_relaxed,
    density_relaxed
        The same after relaxation.
    space_group_found : int
        Group that spglib finds after relaxation; it may have more symmetry than was imposed.
    rank : int
        From 1, of a ranked crystal.
    duplicate_of, duplicate_by
        Index of the candidate that stands for it; "net" or "structure".
    duplicates : int
        How many candidates it stands for beside itself.
    crystal, relaxed : SymmetricCrystal or None
    """

    index: int
    source: str = ""
    status: str = PENDING
    reason: str = ""
    rank: int | None = None
    energy: float = math.nan
    above_reference: float = math.nan
    valid: bool = False
    valid_relaxed: bool | None = None
    loss: float = math.nan
    composition: str = ""
    n_atoms: int = 0
    space_group: int | None = None
    space_group_found: int | None = None
    wyckoffs: str = ""
    net: str = ""
    net_relaxed: str = ""
    dimension: int | None = None
    dimension_relaxed: int | None = None
    density: float = math.nan
    density_relaxed: float = math.nan
    round: int | None = None
    path: str = ""
    duplicates: int = 0
    duplicate_of: int | None = None
    duplicate_by: str = ""
    relax_status: str = ""
    relax_reason: str = ""
    relax_steps: int | None = None
    force_max: float = math.nan
    stress_max: float = math.nan
    net_exact: bool | None = None
    net_exact_relaxed: bool | None = None
    net_key: str = ""
    net_key_relaxed: str = ""
    crystal: SymmetricCrystal | None = field(default=None, repr=False)
    relaxed: SymmetricCrystal | None = field(default=None, repr=False)

    def values(self) -> dict[str, Any]:
        """Everything that says something, by name; without the crystals."""
        pairs = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in pairs if name in COLUMNS and _says(value)}


COLUMNS = tuple(f.name for f in fields(ScreenRow) if f.name not in ("crystal", "relaxed"))


def make_row(index: int, candidate: object) -> ScreenRow:
    """Row with what the candidate says about itself."""
    info = getattr(candidate, "info", {})
    number = info.get("asx_round")
    return ScreenRow(
        index,
        source=str(info.get("asx_source", "")),
        round=None if number is None else int(number),
        path=str(info.get("asx_path", "")),
    )


def take_description(row: ScreenRow, record: Mapping[str, Any]) -> None:
    """What `describe_candidates` found."""
    row.valid = record["status"] == "valid"
    row.status = PENDING if row.valid else record["status"]
    row.reason = record["reason"]
    for name in ("net", "net_key", "net_exact", "dimension", "density", "composition"):
        if name in record:
            setattr(row, name, record[name])
    if row.valid:
        row.crystal = unpack_crystal(record["crystal"])
        row.loss = record["loss"]
        row.n_atoms = row.crystal.n_atoms
        row.space_group = row.crystal.space_group
        row.wyckoffs = " ".join(row.crystal.wyckoffs)


def take_relaxation(row: ScreenRow, record: Mapping[str, Any]) -> None:
    """What `Relaxer.records` and the second look at motif and net found."""
    row.relax_status, row.relax_reason = record["relax_status"], record["relax_reason"]
    if not usable(record):
        row.status, row.reason = FAILED, f"relaxation: {row.relax_reason}"
        return
    for name in ("energy", "relax_steps", "force_max", "stress_max"):
        setattr(row, name, record[name])
    after = record["after"]
    for name in ("valid", "net", "net_key", "net_exact", "dimension", "density"):
        setattr(row, f"{name}_relaxed", after[name])
    row.space_group_found = after["space_group_found"]
    row.relaxed = unpack_crystal(record["crystal"])
    row.relaxed.info.update(row.crystal.info)


def _says(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is not None and value != ""
