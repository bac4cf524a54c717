"""Which crystals are the same: by their nets first, by their atoms after relaxation."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

PRIMITIVE_TOLERANCE = 0.1
"""Å within which atoms must repeat for the primitive cell to be taken.

Far below what the matcher forgives (0.3 of the mean spacing, 0.6 Å in graphite), and above what a
relaxation leaves between atoms that should be images of each other.
"""

VOLUME_WINDOW = 0.1
"""Crystals of different nets are compared if their volumes per atom differ by less than this share.

The bonds of one and the same crystal are told differently only when a distance lies at the cutoff,
and then nothing else differs.
"""


@dataclass(frozen=True)
class MatchTolerances:
    """Tolerances of pymatgen's ``StructureMatcher``; the defaults are the published ones.

    Attributes
    ----------
    ltol : float
        Share by which lattice lengths may differ.
    stol : float
        Largest root mean square distance of matched sites, in units of the mean atomic spacing
        (V/N)^(1/3): with 0.3 that is 0.62 Å in graphite.
    angle_tol : float
        Degrees by which lattice angles may differ.
    scale : bool
        Whether crystals are brought to one volume before they are compared. False here (pymatgen:
        True): volumes after a relaxation mean something, and scaling would take a crystal and any
        swollen copy of it for the same.
    """

    ltol: float = 0.2
    stol: float = 0.3
    angle_tol: float = 5.0
    scale: bool = False


def best_of_each(keys: Sequence[Hashable], values: Sequence[float]) -> list[int]:
    """For every item the one of its key that has the lowest value.

    Parameters
    ----------
    keys : (n,) hashable
    values : (n,) float
        NaN counts as the highest; equal values leave the earlier item.

    Returns
    -------
    list of int
        (n,) place of the representative, its own for a representative.
    """
    best: dict[Hashable, int] = {}
    for place in _ascending(values):
        best.setdefault(keys[place], place)
    return [best[key] for key in keys]


def structure_duplicates(
    crystals: Sequence[Atoms],
    nets: Sequence[str],
    energies: Sequence[float],
    tolerances: MatchTolerances | None = None,
) -> list[int]:
    """Find crystals that are the same by pymatgen's ``StructureMatcher``.

    Crystals are taken in the order of their energy. Each is compared with those kept so far that
    have the same composition and as many atoms in the primitive cell, those of the same net first,
    then across nets those of nearly the same density (`VOLUME_WINDOW`); the first that matches is
    its representative.

    Parameters
    ----------
    crystals : (n,) Atoms
        Periodic, any cell.
    nets : (n,) str
        Keys of their nets.
    energies : (n,) float
        eV per atom; of crystals that are the same the lowest stays.
    tolerances : MatchTolerances, optional

    Returns
    -------
    list of int
        (n,) place of the representative, its own for a crystal that stays.
    """
    found = list(range(len(crystals)))
    for place, kept in iterate_duplicates(crystals, nets, energies, tolerances):
        found[place] = kept
    return found


def iterate_duplicates(
    crystals: Sequence[Atoms],
    nets: Sequence[str],
    energies: Sequence[float],
    tolerances: MatchTolerances | None = None,
) -> Iterator[tuple[int, int]]:
    """As `structure_duplicates`, yielding (place, place of its representative) one by one."""
    kept = _Kept(tolerances or MatchTolerances())
    for place in _ascending(energies):
        yield place, kept.place_of(place, crystals[place], nets[place])


def primitive_cell(atoms: Atoms, symprec: float = PRIMITIVE_TOLERANCE) -> Atoms:
    """Primitive cell of a crystal, not idealised; the crystal as it is where there is none.

    Parameters
    ----------
    atoms : Atoms
    symprec : float
        Å, tolerance of spglib.
    """
    import spglib

    cell = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
    try:
        found = spglib.standardize_cell(cell, to_primitive=True, no_idealize=True, symprec=symprec)
    except Exception:  # spglib's error classes differ between versions; all mean: none found
        found = None
    if found is None or len(atoms) % len(found[2]):
        found = cell
    lattice, scaled, numbers = found
    return Atoms(numbers=numbers, scaled_positions=scaled, cell=lattice, pbc=True)


def reduced_formula(atoms: Atoms) -> str:
    """Composition in smallest whole numbers in Hill order, such as ``O2Si``."""
    return str(atoms.symbols.formula.reduce()[0].convert("hill"))


@dataclass(eq=False)
class _Crystal:
    """A crystal that was kept, as the matcher takes it."""

    place: int
    structure: Structure
    net: str
    volume: float  # per atom


@dataclass(eq=False)
class _Kept:
    """Crystals known to be different, by what no two copies of a crystal can differ in."""

    tolerances: MatchTolerances
    groups: dict[tuple[str, int], list[_Crystal]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.matcher = _matcher(self.tolerances)

    def place_of(self, place: int, atoms: Atoms, net: str) -> int:
        """Place of the crystal it is the same as; its own if it is new, and then kept."""
        cell = primitive_cell(atoms)
        known = self.groups.setdefault((reduced_formula(cell), len(cell)), [])
        new = _Crystal(place, _structure(cell), net, cell.get_volume() / len(cell))
        for other in self._worth_comparing(new, known):
            # Reduced they are; pymatgen's cache of that takes longer than a comparison does.
            if self.matcher.fit(new.structure, other.structure, skip_structure_reduction=True):
                return other.place
        known.append(new)
        return place

    def _worth_comparing(self, new: _Crystal, known: list[_Crystal]) -> Iterator[_Crystal]:
        # Without scaling no two crystals match whose lengths differ by more than ltol.
        widest = math.inf if self.tolerances.scale else 3 * math.log1p(self.tolerances.ltol)
        away = [abs(math.log(new.volume / other.volume)) for other in known]
        for other, distance in zip(known, away, strict=True):
            if other.net == new.net and distance <= widest:
                yield other
        for other, distance in zip(known, away, strict=True):
            if other.net != new.net and distance <= VOLUME_WINDOW:
                yield other


def _matcher(tolerances: MatchTolerances) -> StructureMatcher:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(
        ltol=tolerances.ltol,
        stol=tolerances.stol,
        angle_tol=tolerances.angle_tol,
        scale=tolerances.scale,
        primitive_cell=False,  # they are primitive, and counted as such
    )


def _structure(cell: Atoms) -> Structure:
    """Niggli-reduced here, once: the matcher would do it for every comparison."""
    from pymatgen.core import Lattice, Structure

    structure = Structure(
        Lattice(cell.cell[:]), list(cell.symbols), cell.get_scaled_positions(wrap=True)
    )
    return structure.get_reduced_structure(reduction_algo="niggli")


def _ascending(values: Sequence[float]) -> list[int]:
    """Places by value, NaN last, equal ones in order."""
    return np.argsort(np.asarray(values, dtype=float), kind="stable").tolist()
