"""From ``Atoms`` to :class:`SymmetricCrystal`: find or impose a space group."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.spacegroup import Spacegroup

from asexlatent.symmetry.embedding import Embedding, SymmetrizedAtoms, assemble
from asexlatent.symmetry.impose import declared_group, impose
from asexlatent.symmetry.settings import Frame, find_setting
from asexlatent.symmetry.wyckoff import CrystalError

__all__ = ["Embedding", "SymmetrizedAtoms", "symmetrize"]


def symmetrize(
    atoms: Atoms,
    symprec: float = 1e-2,
    angle_tolerance: float = -1.0,
    space_group: int | str | Spacegroup | None = None,
    max_displacement: float = 0.5,
) -> SymmetrizedAtoms:
    """Describe a periodic crystal by space group, Wyckoff sites and free variables.

    The description is canonical (see :mod:`asexlatent.symmetry.canonical`): primitive,
    conventional, supercell, rotated, shifted or unwrapped input of one crystal gives one and the
    same :class:`SymmetricCrystal`. Atoms differ by their species only (tags, magnetic moments
    and charges are ignored). The result is verified by rebuilding the given atoms from it.

    Parameters
    ----------
    atoms : periodic in all three directions; not changed.
    symprec : tolerance in Å with which spglib looks for symmetry. Where atoms are nearer to each
        other than that, a third of their distance is taken (see :func:`fitting_tolerance`).
    angle_tolerance : spglib's, in degrees; -1 leaves angles to ``symprec``.
    space_group : impose this group, a number, a Hermann-Mauguin symbol or an ASE ``Spacegroup``,
        projecting the atoms onto it. Possible are groups that the atoms have approximately
        (within ``max_displacement``), and their subgroups with the same translations; 1 makes
        every atom of the given cell free. Other subgroups (with fewer translations) only where
        the given cell is the conventional one of the group, or with an ASE ``Spacegroup`` whose
        operations hold in the given cell. By default a group that the atoms declare is imposed:
        the operations of an ``ase.constraints.FixSymmetry``, else an ASE ``Spacegroup`` in
        ``atoms.info["spacegroup"]`` (except P1, which file formats write for "not known"). When
        there is none, the group is detected. ``"detect"`` ignores what the atoms declare.
    max_displacement : largest movement in Å, of an atom or of the end of a conventional lattice
        vector, by which a group may be imposed. A detected group may move them by three times
        ``symprec``.

    Returns
    -------
    SymmetrizedAtoms

    Raises
    ------
    CrystalError
        With one line that says what is wrong and what to do about it.
    """
    frame = _frame(atoms, symprec)
    symprec = _tolerance(frame, symprec)
    declared = declared_group(atoms, space_group)
    # The crystal knows its own group; a stale one must not be imposed later.
    info = {key: value for key, value in atoms.info.items() if key != "spacegroup"}
    if declared is not None:
        return impose(frame, declared, symprec, angle_tolerance, max_displacement, info)
    setting = find_setting(frame, symprec, angle_tolerance)
    return assemble(frame, setting, 3 * symprec + 1e-6, info)


def _frame(atoms: Atoms, symprec: float) -> Frame:
    """Cell, fractional coordinates and species, or a CrystalError."""
    if len(atoms) == 0:
        raise CrystalError("there are no atoms")
    cell = np.array(atoms.cell.array)
    if not (np.isfinite(cell).all() and np.isfinite(atoms.positions).all()):
        raise CrystalError(
            "the cell or the positions hold numbers that are not finite: repair it or leave it out"
        )
    if not atoms.pbc.all():
        axes = ", ".join(name for name, yes in zip("abc", atoms.pbc, strict=True) if not yes)
        raise CrystalError(
            f"the atoms are not periodic along {axes}: a crystal with a cell and pbc=True is needed"
        )
    lengths = np.linalg.norm(cell, axis=1)
    if lengths.min() < 1e-3 or abs(np.linalg.det(cell / lengths[:, None])) < 1e-6:
        raise CrystalError("the cell has no volume: three independent lattice vectors are needed")
    if not (np.isfinite(symprec) and symprec > 0):
        raise CrystalError(f"symprec must be a positive length in Å, not {symprec!r}")
    return Frame(cell, np.linalg.solve(cell.T, atoms.positions.T).T, atoms.numbers.copy())


def fitting_tolerance(atoms: Atoms, symprec: float) -> float:
    """Tolerance in Å with which the symmetry of atoms is looked for.

    ``symprec``, or less where atoms are nearer to each other than that.

    Raises
    ------
    CrystalError
        Where :func:`symmetrize` raises one for what the atoms are.
    """
    return _tolerance(_frame(atoms, symprec), symprec)


_COINCIDENT = 1e-4  # Å, nearer than which atoms cannot be told apart


def _tolerance(frame: Frame, symprec: float) -> float:
    from scipy.spatial import cKDTree

    # A distance d changes a fractional coordinate by at most d over the spacing of the planes.
    reach = symprec * np.linalg.norm(np.linalg.inv(frame.cell), axis=0).max()
    wrapped = frame.scaled % 1.0
    wrapped[wrapped >= 1.0] = 0.0
    pairs = cKDTree(wrapped, boxsize=1.0).query_pairs(min(reach, 0.5), p=np.inf)
    nearest = symprec
    for i, j in sorted(pairs):
        difference = wrapped[i] - wrapped[j]
        distance = float(np.linalg.norm((difference - np.rint(difference)) @ frame.cell))
        nearest = min(nearest, distance)
        if distance <= min(symprec, _COINCIDENT):
            names = [f"{k} ({chemical_symbols[frame.numbers[k]]})" for k in (i, j)]
            raise CrystalError(
                f"atoms {names[0]} and {names[1]} are {distance:.2g} Å apart, closer than "
                f"symprec={symprec:g} Å: remove one of them or move them apart"
            )
    return symprec if nearest == symprec else nearest / 3
