"""Zero of the energies, and the order of the crystals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from asexlatent.screening.result import Reference
from asexlatent.screening.rows import ScreenRow
from asexlatent.symmetry import SymmetricCrystal

AUTO, LOWEST = "auto", "lowest"
GRAPHITE = "graphite"
CARBON = "C"


def graphite() -> SymmetricCrystal:
    """Graphite, P6_3/mmc, a 2.46 Å and c 6.70 Å: where the relaxation of the reference begins."""
    return SymmetricCrystal.build(194, (2.46, 6.70), [("C", "b", []), ("C", "c", [])])


def check_reference(reference: str | float) -> None:
    """Raise ValueError for what is neither a kind of reference nor an energy."""
    if isinstance(reference, str) and reference in (AUTO, LOWEST):
        return
    number = isinstance(reference, int | float) and not isinstance(reference, bool)
    if number and math.isfinite(reference):
        return
    raise ValueError(
        "reference must be 'auto' (graphite for carbon, else the lowest), 'lowest' or an energy "
        f"in eV/atom, not {reference!r}"
    )


def find_references(
    rows: Iterable[ScreenRow],
    reference: str | float,
    graphite_energy: Callable[[], tuple[float, str]],
) -> dict[str, Reference]:
    """Reference energy of every composition.

    Parameters
    ----------
    rows : those with an energy.
    reference : "auto", "lowest" or an energy in eV/atom
    graphite_energy : callable
        Energy of graphite by the same calculator in eV/atom (NaN if there is none) and what went
        wrong. Asked only where it is needed.
    """
    lowest: dict[str, float] = {}
    for row in rows:
        lowest[row.composition] = min(row.energy, lowest.get(row.composition, math.inf))
    found = {}
    for composition, energy in sorted(lowest.items()):
        found[composition] = Reference(LOWEST, energy)
        if not isinstance(reference, str):
            found[composition] = Reference("given", float(reference))
        elif composition == CARBON and reference == AUTO:
            value, problem = graphite_energy()
            if math.isfinite(value):
                found[composition] = Reference(GRAPHITE, value)
            else:
                note = f"graphite could not be relaxed ({problem}): the lowest energy is the zero"
                found[composition] = Reference(LOWEST, energy, note)
    return found


def rank(rows: Sequence[ScreenRow]) -> None:
    """Give ranks from 1: first the crystals that kept the motif, by energy, then the others."""
    order = sorted(rows, key=lambda r: (not r.valid_relaxed, r.above_reference, r.index))
    for place, row in enumerate(order, 1):
        row.rank = place
