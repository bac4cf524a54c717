"""What a crystal is before any energy: its motif, its net, its loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ase import Atoms

from asexlatent.screening.duplicates import reduced_formula
from asexlatent.screening.store import pack_crystal
from asexlatent.symmetry import CrystalError, SymmetricCrystal
from asexlatent.topology import identify_net

if TYPE_CHECKING:
    from asexlatent.descriptor import LocalEnvironment

FOUND_SYMPREC = 1e-2
"""Å, tolerance at which the symmetry of a relaxed crystal is looked at again."""

GRAMS_PER_CM3 = 1.66053906660  # of one atomic mass unit per Å^3
MOLECULES = "its atoms form separate molecules"


def describe_candidates(
    candidates: Sequence[Atoms | SymmetricCrystal],
    environment: LocalEnvironment,
    symprec: float = 1e-2,
) -> list[dict[str, Any]]:
    """Judge candidates: the motif rule, and of those that obey it symmetry, net and loss.

    Parameters
    ----------
    candidates : sequence of Atoms or SymmetricCrystal
    environment : LocalEnvironment
    symprec : float
        Å, tolerance of the symmetry detection for `Atoms`.

    Returns
    -------
    list of dict
        As JSON can hold it: ``status`` ("failed", "invalid" or "valid") with a ``reason``; for a
        valid one also ``crystal`` (`pack_crystal`), ``loss`` (Eq. 1 of the method) and what
        `describe_crystal` gives.
    """
    found = [_describe(candidate, environment, symprec) for candidate in candidates]
    good = [(record, crystal) for record, crystal in found if crystal is not None]
    losses = descriptor_losses([crystal for _, crystal in good], environment)
    for (record, crystal), loss in zip(good, losses, strict=True):
        record |= {"crystal": pack_crystal(crystal), "loss": loss}
    return [record for record, _ in found]


def describe_crystal(crystal: SymmetricCrystal, environment: LocalEnvironment) -> dict[str, Any]:
    """Motif and net of a crystal.

    Returns
    -------
    dict
        ``valid`` (the motif rule holds and there are no molecules), ``problem`` (why not),
        ``net`` (its label), ``net_key``, ``net_exact``, ``dimension``, ``density`` (g/cm^3),
        ``composition``, ``space_group_found`` (by spglib at `FOUND_SYMPREC`).
    """
    atoms = crystal.to_atoms()
    report = environment.check(atoms)
    net = identify_net(atoms, dict(environment.rule.cutoffs))
    molecular = any(part.dimension == 0 for part in net.components)
    problem = report.problems[0] if report.problems else MOLECULES if molecular else ""
    return {
        "valid": report.valid and not molecular,
        "problem": problem,
        "net": net.label,
        "net_key": net.key,
        "net_exact": net.exact,
        "dimension": net.dimension,
        "density": float(atoms.get_masses().sum() / atoms.get_volume()) * GRAMS_PER_CM3,
        "composition": reduced_formula(atoms),
        "space_group_found": _space_group(atoms),
    }


def descriptor_losses(
    crystals: Sequence[SymmetricCrystal], environment: LocalEnvironment
) -> list[float]:
    """Eq. 1 of the method for each crystal; NaN where it cannot be computed."""
    import torch

    from asexlatent.optimize import CrystalBatch, DescriptorLoss

    if not crystals:
        return []
    try:
        batch = CrystalBatch.from_crystals(list(crystals))
        with torch.no_grad():
            loss, _ = DescriptorLoss(environment).bind(batch).value(batch.variables)
        return loss.tolist()
    except Exception:  # one crystal must not cost the others their loss
        if len(crystals) == 1:
            return [math.nan]
        return [descriptor_losses([crystal], environment)[0] for crystal in crystals]


def _describe(
    candidate: Atoms | SymmetricCrystal, environment: LocalEnvironment, symprec: float
) -> tuple[dict[str, Any], SymmetricCrystal | None]:
    """Record, and the crystal of a valid one; no candidate stops the others."""
    try:
        atoms = candidate.to_atoms() if isinstance(candidate, SymmetricCrystal) else candidate
        if not len(atoms):
            raise CrystalError("there are no atoms")
        import torch

        environment.check_species(torch.as_tensor(atoms.numbers))
        if not atoms.pbc.all():
            raise CrystalError("not periodic in three directions: a crystal with pbc=True is due")
        report = environment.check(atoms)
        if not report.valid:
            return {"status": "invalid", "reason": report.problems[0]}, None
        if isinstance(candidate, SymmetricCrystal):
            crystal = candidate
        else:
            crystal = SymmetricCrystal.from_atoms(candidate, symprec=symprec)
        record = describe_crystal(crystal, environment)
    except Exception as error:  # libraries raise whatever they like over a strange crystal
        return {"status": "failed", "reason": one_line(error)}, None
    status = "valid" if record["valid"] else "invalid"
    record = {"status": status, "reason": record["problem"], **record}
    return record, crystal if record["valid"] else None


def one_line(error: BaseException) -> str:
    """One line that says what went wrong; the kind of error where its text is short."""
    words = " ".join(str(error).split())
    return words if len(words) > 12 else f"{type(error).__name__}: {words}".rstrip(": ")


def _space_group(atoms: Atoms) -> int | None:
    import spglib

    cell = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
    try:
        found = spglib.get_symmetry_dataset(cell, symprec=FOUND_SYMPREC)
    except Exception:  # spglib versions differ in what they raise
        return None
    return None if found is None else int(found.number)
