"""Space groups that a user declares: read them, and project the atoms onto them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import spglib
from ase import Atoms
from ase.constraints import FixSymmetry
from ase.spacegroup import Spacegroup
from numpy.typing import NDArray

from asexlatent.symmetry.embedding import SymmetrizedAtoms, assemble
from asexlatent.symmetry.normalizer import operations
from asexlatent.symmetry.settings import (
    Frame,
    Setting,
    find_setting,
    setting_from_operations,
    subgroup_settings,
    symbol,
)
from asexlatent.symmetry.wyckoff import CrystalError, check_space_group


@dataclass(frozen=True, eq=False)
class Declared:
    """A group that was asked for.

    Attributes
    ----------
    source : where it was found, for messages.
    number : 1 to 230, or None when only the operations are known.
    rotations, translations : operations in the user's cell, or None when only the number is.
    """

    source: str
    number: int | None
    rotations: NDArray | None = None
    translations: NDArray | None = None


def declared_group(atoms: Atoms, space_group: int | str | Spacegroup | None) -> Declared | None:
    """The group to impose on ``atoms``, or None when it is to be detected."""
    if isinstance(space_group, str) and space_group == "detect":
        return None
    if isinstance(space_group, Spacegroup):
        return _from_ase(space_group, "space_group")
    if space_group is not None:
        return Declared(f"space_group={space_group!r}", group_number(space_group))
    for constraint in atoms.constraints:
        if isinstance(constraint, FixSymmetry):
            return Declared(
                "FixSymmetry", None, np.array(constraint.rotations), constraint.translations
            )
    declared = atoms.info.get("spacegroup")
    # Files without symmetry say P1 for want of anything better; that declares nothing.
    if isinstance(declared, Spacegroup) and declared.no > 1:
        return _from_ase(declared, "atoms.info['spacegroup']")
    return None


def _from_ase(group: Spacegroup, source: str) -> Declared:
    rotations, translations = group.get_op()
    return Declared(source, int(group.no), np.rint(rotations).astype(int), translations)


def group_number(space_group: int | str) -> int:
    """Space-group number of a number or of a Hermann-Mauguin symbol (``"Fm-3m"``).

    Raises
    ------
    CrystalError
        When there is no such group.
    """
    if isinstance(space_group, str):
        if space_group.strip().isdigit():
            space_group = int(space_group)
        else:
            key = space_group.replace(" ", "").replace("_", "").lower()
            if key not in _symbols():
                raise CrystalError(
                    f"unknown space-group symbol {space_group!r}: give a number from 1 to 230 or a "
                    "symbol such as 'Fm-3m'"
                )
            return _symbols()[key]
    check_space_group(space_group)
    return int(space_group)


@cache
def _symbols() -> dict[str, int]:
    """Short and full Hermann-Mauguin symbols, lower case without blanks -> number."""
    names: dict[str, int] = {}
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        for name in (kind.international_short, *kind.international_full.split("=")):
            names.setdefault(name.replace(" ", "").replace("_", "").lower(), kind.number)
    return names


def impose(
    frame: Frame,
    declared: Declared,
    symprec: float,
    angle_tolerance: float,
    max_displacement: float,
    info: dict[str, Any] | None = None,
) -> SymmetrizedAtoms:
    """Project a frame onto a declared group.

    Operations, when known, are taken as they are; an ASE ``Spacegroup`` that does not fit the
    cell of the atoms as it stands (a primitive cell, another origin) falls back to its number.

    Raises
    ------
    CrystalError
        When the group cannot be imposed within ``max_displacement``.
    """
    if not (np.isfinite(max_displacement) and max_displacement > 0):
        raise CrystalError(f"max_displacement must be positive, not {max_displacement!r}")
    if declared.rotations is not None:
        try:
            setting = setting_from_operations(frame.cell, declared.rotations, declared.translations)
            return assemble(frame, setting, max_displacement, info)
        except CrystalError as error:
            if declared.number is None:
                raise CrystalError(
                    f"the symmetry of {declared.source} cannot be imposed: {error}"
                ) from None
    try:
        return _impose_number(
            frame, declared.number, symprec, angle_tolerance, max_displacement, info
        )
    except CrystalError as error:
        if declared.source.startswith("atoms.info"):
            raise CrystalError(
                f"{error}; or delete {declared.source}, or pass space_group='detect'"
            ) from None
        raise


def _impose_number(
    frame: Frame,
    number: int,
    symprec: float,
    angle_tolerance: float,
    max_displacement: float,
    info: dict[str, Any] | None,
) -> SymmetrizedAtoms:
    """Impose a group by its number.

    With a growing tolerance spglib finds the group itself, or a group that has it as a subgroup
    with the same translations. Where the first tolerance or all of them fail, the given cell may
    still be the conventional one of the group, with its origin, as other programs write it: atoms
    can have more translations than the group they are described in.
    """
    if number == 1:
        sign = np.sign(np.linalg.det(frame.cell))
        setting = Setting(1, sign * np.eye(3), np.zeros(3))
        return assemble(frame, setting, max_displacement, info)
    seen: dict[tuple[int, float], str] = {}
    as_given = [Setting(number, np.eye(3), np.zeros(3))]
    tolerance = symprec
    while tolerance <= max(2 * max_displacement, symprec):
        try:
            found = find_setting(frame, tolerance, angle_tolerance)
        except CrystalError:
            break  # a larger tolerance only makes it worse
        key = (found.space_group, round(abs(np.linalg.det(found.transformation)), 3))
        if key not in seen:
            seen[key] = symbol(found.space_group)
            results, reasons = _attempt(frame, _settings(found, number), max_displacement, info)
            if results:
                return min(results, key=_preference)
            seen[key] += "".join(f": {reason}" for reason in reasons[:1])
        if tolerance == symprec:
            results, _ = _attempt(frame, as_given, min(3 * symprec, max_displacement), info)
            if results:
                return results[0]
        tolerance *= 1.5
    results, _ = _attempt(frame, as_given, max_displacement, info)
    if results:
        return results[0]
    found_text = "; ".join(dict.fromkeys(seen.values())) or "none"
    raise CrystalError(
        f"space group {symbol(number)} cannot be imposed: it is neither the group of the atoms "
        f"within {max_displacement:g} Å nor a subgroup of it with the same translations (found "
        f"{found_text}); raise max_displacement, choose a subgroup of these, give an ASE "
        "Spacegroup whose operations hold in this cell, or space_group=1"
    )


def _attempt(
    frame: Frame, settings: list[Setting], limit: float, info: dict[str, Any] | None
) -> tuple[list[SymmetrizedAtoms], list[str]]:
    """What comes out of those settings that work, and why the others do not."""
    results, reasons = [], []
    for setting in settings:
        try:
            results.append(assemble(frame, setting, limit, info))
        except CrystalError as error:
            reasons.append(str(error))
    return results, reasons


def _settings(found: Setting, number: int) -> list[Setting]:
    if found.space_group == number:
        return [found]
    if operations(found.space_group).coset.size <= operations(number).coset.size:
        return []
    return [found.then(number, *way) for way in subgroup_settings(found.space_group, number)]


def _preference(result: SymmetrizedAtoms) -> tuple:
    """Least movement first; then by the description, so that the choice is always the same."""
    crystal = result.crystal
    moved = round(max(result.displacement, result.cell_change), 3)
    letters = [(site.species, -site.position.index) for site in crystal.sites]
    return (moved, len(crystal.free_variables), letters, *np.round(crystal.free_variables, 4))
