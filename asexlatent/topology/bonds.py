"""From atoms to a bonded graph, and how clearly the bonds stand out from the other distances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import spglib
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from ase.neighborlist import primitive_neighbor_list

from asexlatent.topology.graph import PeriodicGraph

#: Å; carbon-carbon bonds are at most this long, the cutoff of the sp2 motif rule.
CARBON_CUTOFF = 1.85
#: All other pairs: this times the sum of the covalent radii of ASE (Cordero et al., Dalton Trans.
#: 2832, 2008).
RADII_FACTOR = 1.2
#: Å; a gap between the longest bond and the shortest non-bond below this is flagged as narrow.
NARROW_GAP = 0.2
# Å beyond the longest cutoff in which the shortest non-bond is looked for.
_LOOK_BEYOND = 1.0
# Å within which atoms must repeat for the primitive cell to be taken.
_PRIMITIVE_TOLERANCE = 1e-3

Cutoff = float | Mapping[object, float] | None


@dataclass(frozen=True)
class BondGap:
    """How clearly bonds and other distances are told apart.

    For several species the figures are of the pair with the smallest gap.

    Attributes
    ----------
    pair : str
        Species, such as ``C-C``; empty when nothing is bonded.
    cutoff : float
        Å, the longest distance of this pair that counts as a bond.
    longest_bond : float or None
        Å; None when nothing is bonded.
    shortest_nonbond : float or None
        Å; None when there is none up to ``searched``.
    searched : float
        Å, how far the search went.
    """

    pair: str
    cutoff: float
    longest_bond: float | None
    shortest_nonbond: float | None
    searched: float

    @property
    def width(self) -> float | None:
        """Å between the longest bond and the shortest non-bond; a lower bound if none was found."""
        if self.longest_bond is None:
            return None
        beyond = self.searched if self.shortest_nonbond is None else self.shortest_nonbond
        return beyond - self.longest_bond

    @property
    def narrow(self) -> bool:
        """Whether the gap is below ``NARROW_GAP``: another cutoff could give another net."""
        return self.width is not None and self.width < NARROW_GAP


@dataclass(frozen=True, eq=False)
class BondedGraph:
    """The bonds of a crystal.

    Attributes
    ----------
    graph : PeriodicGraph
        In the primitive cell if the crystal has one, of rank 3; a vertex is an atom of that cell.
    vertex : (n_atoms,) int array
        Which vertex each of the user's atoms is.
    gap : BondGap
    """

    graph: PeriodicGraph
    vertex: np.ndarray
    gap: BondGap


def bonded_graph(atoms: Atoms, cutoff: Cutoff = None) -> BondedGraph:
    """Find the bonds of a crystal, in any cell, wrapped or not.

    Parameters
    ----------
    atoms : Atoms
        Only directions with ``pbc`` repeat.
    cutoff : float, mapping or None
        Longest bond in Å. A mapping has pairs as keys, ``("C", "H")`` or ``"C-H"`` in any order;
        pairs it does not name get the default. Default: 1.85 for carbon with carbon, 1.2 times the
        sum of the covalent radii for everything else.

    Returns
    -------
    BondedGraph

    Raises
    ------
    ValueError
        For no atoms, positions or a cell that are no numbers, a periodic direction without a cell
        vector, or a cutoff that is not positive or names no pair of species.
    """
    _check(atoms)
    limits = pair_cutoffs(set(atoms.numbers.tolist()), cutoff)
    reduced, vertex = _primitive(atoms)
    searched = max(limits.values()) + _LOOK_BEYOND
    i, j, shift, distance = primitive_neighbor_list(
        "ijSd", reduced.pbc, reduced.cell.complete()[:], reduced.positions, cutoff=searched
    )
    numbers = reduced.numbers
    table = np.zeros((len(chemical_symbols),) * 2)
    for (a, b), value in limits.items():
        table[a, b] = table[b, a] = value
    bonded = distance <= table[numbers[i], numbers[j]]
    graph = PeriodicGraph.build(
        len(reduced), np.stack([i, j], axis=1)[bonded], np.asarray(shift)[bonded]
    )
    gap = _gap(limits, numbers[i], numbers[j], distance, bonded, searched)
    return BondedGraph(graph, vertex, gap)


def pair_cutoffs(species: set[int], cutoff: Cutoff = None) -> dict[tuple[int, int], float]:
    """Longest bond in Å for every pair of atomic numbers (smaller number first).

    Raises
    ------
    ValueError
        As :func:`bonded_graph`.
    """
    limits = {}
    for a, b in combinations_with_replacement(sorted(species), 2):
        limits[a, b] = RADII_FACTOR * (covalent_radii[a] + covalent_radii[b])
    if (6, 6) in limits:
        limits[6, 6] = CARBON_CUTOFF
    if isinstance(cutoff, Mapping):
        named = {_pair(key): value for key, value in cutoff.items()}
        limits.update({pair: float(v) for pair, v in named.items() if pair in limits})
    elif cutoff is not None:
        limits = dict.fromkeys(limits, float(cutoff))
    if not all(0 < value < np.inf for value in limits.values()):
        raise ValueError(f"a bond cutoff must be a positive length in Å, not {cutoff!r}")
    return limits


def _pair(key: object) -> tuple[int, int]:
    names = key.split("-") if isinstance(key, str) else list(key)  # type: ignore[call-overload]
    try:
        first, last = (atomic_numbers.get(x, x) for x in (names[0], names[-1]))
        a, b = sorted((int(first), int(last)))
    except (ValueError, TypeError, IndexError):
        raise ValueError(f"no pair of species: {key!r}; write 'C-H' or ('C', 'H')") from None
    return a, b


def _check(atoms: Atoms) -> None:
    if len(atoms) == 0:
        raise ValueError("there are no atoms: nothing to identify")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()):
        raise ValueError("positions or cell contain values that are no numbers")
    for axis, (periodic, length) in enumerate(zip(atoms.pbc, atoms.cell.lengths(), strict=True)):
        if periodic and length < 1e-6:
            raise ValueError(
                f"direction {axis + 1} is periodic but has no cell vector:"
                " set atoms.cell or atoms.pbc"
            )
    periodic_cell = atoms.cell[:][atoms.pbc]
    if np.linalg.matrix_rank(periodic_cell, tol=1e-6) < len(periodic_cell):
        raise ValueError("the periodic cell vectors are not independent: the cell has no volume")


def _primitive(atoms: Atoms) -> tuple[Atoms, np.ndarray]:
    """One atom of each translation orbit in the primitive cell, and the orbit of every atom.

    The net does not need it (the minimal image is exact), but it makes everything after it smaller,
    and it is what counts of layers, chains and molecules refer to. When spglib finds nothing, or
    what it finds does not fit the cell, the crystal stays as it is.
    """
    unchanged = atoms, np.arange(len(atoms))
    if len(atoms) == 1 or not atoms.pbc.all():
        return unchanged
    try:
        dataset = spglib.get_symmetry_dataset(
            (atoms.cell[:], atoms.get_scaled_positions(wrap=False), atoms.numbers),
            symprec=_PRIMITIVE_TOLERANCE,
        )
    except Exception:  # spglib's error classes differ between versions; all mean: none found
        return unchanged
    if dataset is None:
        return unchanged
    orbit = np.asarray(dataset.mapping_to_primitive)
    orbits, first = np.unique(orbit, return_index=True)
    lattice = np.asarray(dataset.primitive_lattice)
    multiple = atoms.cell[:] @ np.linalg.inv(lattice)
    fits = np.abs(multiple - np.rint(multiple)).max() < 1e-3
    if not fits or round(abs(np.linalg.det(multiple))) * len(orbits) != len(atoms):
        return unchanged
    if len(orbits) == len(atoms):
        return unchanged
    reduced = Atoms(
        numbers=atoms.numbers[first], positions=atoms.positions[first], cell=lattice, pbc=True
    )
    return reduced, np.searchsorted(orbits, orbit)


def _gap(
    limits: dict[tuple[int, int], float],
    a: np.ndarray,
    b: np.ndarray,
    distance: np.ndarray,
    bonded: np.ndarray,
    searched: float,
) -> BondGap:
    gaps = []
    for (x, y), cutoff in limits.items():
        mine = (np.minimum(a, b) == x) & (np.maximum(a, b) == y)
        bonds, others = distance[mine & bonded], distance[mine & ~bonded]
        if len(bonds):
            name = f"{chemical_symbols[x]}-{chemical_symbols[y]}"
            beyond = float(others.min()) if len(others) else None
            gaps.append(BondGap(name, cutoff, float(bonds.max()), beyond, searched))
    if gaps:
        return min(gaps, key=lambda g: g.width or 0.0)
    beyond = float(distance.min()) if len(distance) else None
    return BondGap("", max(limits.values()), None, beyond, searched)
