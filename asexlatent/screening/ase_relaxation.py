"""Relaxation under symmetry with ASE, one crystal after the other: for any calculator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from asexlatent.screening.relaxed import Relaxation, Reporter
from asexlatent.symmetry import CrystalError, SymmetricCrystal, parameters_from_cell
from asexlatent.symmetry.normalizer import primitive_basis

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

_SAME = 1e-6  # fractional: atoms that a lattice translation brings together
_SYMPREC = 1e-5  # Å: the crystals are exact
_DRIFT = 1e-3
"""Å an atom may have left its Wyckoff position by, over a whole relaxation."""


class ReducedCell(NamedTuple):
    """A crystal in a cell of ASE, and the way back.

    Attributes
    ----------
    atoms : Atoms
    basis : ndarray, shape (3, 3)
        Its lattice vectors (rows) in units of those of the conventional cell.
    members : ndarray, shape (n,)
        Which atoms of the conventional cell it has; the first of each site is among them.
    """

    atoms: Atoms
    basis: NDArray[np.float64]
    members: NDArray[np.int64]


def reduced_cell(crystal: SymmetricCrystal, primitive: bool = True) -> ReducedCell:
    """Primitive cell of a crystal, or its conventional one."""
    basis = primitive_basis(crystal.space_group) if primitive else np.eye(3)
    scaled = crystal.scaled_positions() @ np.linalg.inv(basis)
    members, start = [], 0
    for site in crystal.sites:
        kept: list[int] = []
        for k in range(start, start + site.position.multiplicity):
            apart = scaled[kept] - scaled[k]
            if not (np.abs(apart - np.rint(apart)).max(axis=1, initial=0.0) < _SAME).any():
                kept.append(k)
        members += kept
        start += site.position.multiplicity
    atoms = Atoms(
        [crystal.symbols[k] for k in members],
        scaled_positions=scaled[members],
        cell=basis @ crystal.cell,
        pbc=True,
    )
    return ReducedCell(atoms, basis, np.array(members))


def crystal_from_cell(crystal: SymmetricCrystal, reduced: ReducedCell) -> SymmetricCrystal:
    """Read the free variables of `crystal` back from its cell after a relaxation.

    Raises
    ------
    CrystalError
        When the atoms or the cell are no longer on the Wyckoff positions or of the lattice of
        the crystal.
    """
    atoms, basis, members = reduced
    cell = np.linalg.solve(basis, atoms.cell.array)
    scaled = np.linalg.solve(atoms.cell.array.T, atoms.positions.T).T @ basis
    lattice = crystal.lattice
    values = [lattice.project(parameters_from_cell(cell))]
    first = 0
    for site in crystal.sites:
        position = site.position
        row = scaled[np.searchsorted(members, first)] - position.translations[0]
        values.append(np.linalg.lstsq(position.linear[0], row, rcond=None)[0])
        first += position.multiplicity
    result = crystal.with_free_variables(np.concatenate(values))
    # lengths and angles of the cell, and places of the atoms in it, as distances
    drift = np.abs(cell @ cell.T - result.cell @ result.cell.T).max() / np.abs(cell).max()
    apart = (scaled - result.scaled_positions()[members]) @ result.cell
    apart -= apart.mean(axis=0)  # along polar axes the origin is free
    drift = max(drift, np.linalg.norm(apart, axis=1).max())
    if not drift < _DRIFT:
        raise CrystalError(
            f"space group {crystal.space_group} was lost: an atom or a lattice vector is "
            f"{drift:.2g} Å from where the group has it"
        )
    return result


def relax_with_calculator(
    crystals: Sequence[SymmetricCrystal],
    calculator: Calculator,
    *,
    fmax: float = 0.02,
    smax: float | None = None,
    steps: int = 300,
    optimizer: type | None = None,
    primitive: bool = True,
    progress: bool | Callable[[int, int], None] = False,
) -> list[Relaxation]:
    """Relax crystals within their space groups with any ASE calculator, one after the other.

    ``FrechetCellFilter`` and ``FixSymmetry`` of ASE under one of its optimizers. For MACE models
    `relax` gives the same many times faster.

    Parameters
    ----------
    crystals : sequence of SymmetricCrystal
    calculator : ase.calculators.calculator.Calculator
        With forces and stress.
    fmax, smax, steps, progress
        As in `relax`; a step limit is that of the optimizer.
    optimizer : type, optional
        Class of an ASE optimizer. Default: ``BFGS``.
    primitive : bool
        Compute in the primitive cell, not the conventional one.

    Returns
    -------
    list of Relaxation
        One per crystal, in order. An exception in the calculator, values that are no numbers
        and a lost space group are a "failed" status with the reason.
    """
    results = []
    with Reporter(progress, len(crystals)) as report:
        for crystal in crystals:
            result = Relaxation(crystal)
            try:
                result = _relax_one(result, calculator, (fmax, smax, steps), optimizer, primitive)
            except Exception as error:  # whatever a calculator may raise
                result.reason = f"{type(error).__name__}: {error}" if str(error) else repr(error)
            results.append(result)
            report(1)
    return results


def _relax_one(
    result: Relaxation,
    calculator: Calculator,
    limits: tuple[float, float | None, int],
    optimizer: Any,
    primitive: bool,
) -> Relaxation:
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    fmax, smax, steps = limits
    reduced = reduced_cell(result.crystal, primitive)
    atoms = reduced.atoms
    atoms.calc = calculator
    atoms.set_constraint(FixSymmetry(atoms, symprec=_SYMPREC))
    result.initial_energy = atoms.get_potential_energy() / len(atoms)
    run = (optimizer or BFGS)(FrechetCellFilter(atoms), logfile=None)
    status = "step_limit"
    for _ in run.irun(fmax=0.0, steps=steps):
        force, stress = _norms(atoms)
        if not math.isfinite(force + stress):
            raise CrystalError("a force or stress is not a finite number")
        on_cell = stress * atoms.get_volume() / len(atoms)
        if force < fmax and (on_cell < fmax if smax is None else stress < smax):
            status = "converged"
            break
    crystal = crystal_from_cell(result.crystal, reduced)
    energy = atoms.get_potential_energy() / len(atoms)
    return replace(
        result,
        crystal=crystal,
        energy=energy,
        status=status,
        steps=run.nsteps,
        fmax=force,
        smax=stress,
    )


def _norms(atoms: Atoms) -> tuple[float, float]:
    """Largest force (eV/Å) and largest row of the stress (eV/Å^3)."""
    force = np.linalg.norm(atoms.get_forces(), axis=1).max()
    return float(force), float(np.linalg.norm(atoms.get_stress(voigt=False), axis=1).max())
