"""Random symmetric crystals: candidates that no model and no database is needed for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import pi

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from asexlatent.symmetry.crystal import Site, SymmetricCrystal
from asexlatent.symmetry.lattice import (
    cell_from_parameters,
    lattice_variables,
    relative_volume,
)
from asexlatent.symmetry.occupations import occupations, weighted
from asexlatent.symmetry.wyckoff import CrystalError, WyckoffPosition, check_space_group

_ROUNDS = 1000  # choices of group and positions before giving up
_TOO_NEAR = 100  # those of them in which no draw has kept atoms apart, before giving up
_LOOSENESS = (3.3, 6.5)  # volume in units of the spheres of the covalent radii; C: 6 to 12 Å^3

Neighbors = int | tuple[int, ...]
Choice = list[tuple[str, WyckoffPosition]]
"""Species and Wyckoff position of every site."""


@dataclass(frozen=True)
class RandomCrystals:
    """Random crystals of any composition, each determined by ``seed`` and its index alone.

    A space group is drawn, then the number of formula units, of sites, and one of all ways to place
    them on Wyckoff positions, each time with equal probabilities for all that is possible; then
    free coordinates between 0 and 1 and a cell that is not too flat (see :func:`random_cell`).
    Positions without free coordinates are taken at most once. Nothing else keeps atoms apart
    unless ``min_distance`` does.

    Attributes
    ----------
    composition : formula unit, such as ``C``, ``SiO2`` or ``Si2O4`` (taken as it stands).
    space_groups : those to draw from, repeated ones more often; all 230 by default.
    max_sites, max_atoms : limits, the latter for the conventional cell.
    formula_units : numbers of formula units per conventional cell to draw from; by default any.
    volume : smallest and largest volume per atom in Å^3; by default 3.3 to 6.5 times the volume
        of spheres with ASE's covalent radii (carbon: 6 to 12 Å^3).
    min_distance : redraw coordinates and cell until no two atoms are nearer than this (Å).
    neighbors : leave out Wyckoff positions whose site symmetry does not allow so many neighbours
        in different directions (or any of several numbers): for all elements, or for each of some
        (others are left alone).
    seed : of the random numbers.

    Raises
    ------
    CrystalError
        For settings that contradict themselves.
    """

    composition: str = "C"
    space_groups: Sequence[int] = tuple(range(1, 231))
    max_sites: int = 8
    max_atoms: int = 200
    formula_units: Sequence[int] | None = None
    volume: tuple[float, float] | None = None
    min_distance: float = 0.0
    neighbors: Neighbors | Mapping[str, Neighbors] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.space_groups:
            raise CrystalError("no space group to draw from")
        for group in self.space_groups:
            check_space_group(group)
        if self.max_sites < 1 or self.max_atoms < 1:
            raise CrystalError("max_sites and max_atoms must be at least 1")
        if self.formula_units is not None and min(self.formula_units, default=0) < 1:
            raise CrystalError("formula_units must be whole numbers of at least 1")
        if self.seed < 0 or self.min_distance < 0:
            raise CrystalError("seed and min_distance must not be negative")
        low, high = self.volume_range
        if not 0 < low <= high < float("inf"):
            raise CrystalError(f"volume per atom from {low:g} to {high:g} Å^3 is no range")
        for species in self.neighbors if isinstance(self.neighbors, Mapping) else ():
            if species not in self.formula:
                raise CrystalError(f"neighbors are given for {species}, not in {self.composition}")

    @cached_property
    def formula(self) -> dict[str, int]:
        """Atoms of each element in a formula unit."""
        from ase.formula import Formula

        try:
            counts = Formula(self.composition).count()
        except ValueError:
            counts = {}
        if not counts or any(symbol not in atomic_numbers for symbol in counts):
            raise CrystalError(f"composition {self.composition!r} is no formula such as C or SiO2")
        return counts

    @cached_property
    def volume_range(self) -> tuple[float, float]:
        """Smallest and largest volume per atom, Å^3."""
        return usual_volume(self.formula) if self.volume is None else self.volume

    def crystal(self, index: int) -> SymmetricCrystal:
        """Return the crystal of this index (0 or more).

        Raises
        ------
        CrystalError
            When none that obeys the limits is found in many attempts.
        """
        rng, too_near = self._rng(index), 0
        for _ in range(_ROUNDS):
            group = int(self.space_groups[int(rng.integers(len(self.space_groups)))])
            choice = self._choice(group, rng)
            if choice is None:
                continue
            crystal = draw(group, choice, rng, self.volume_range, self.min_distance)
            if crystal is not None:
                return crystal
            too_near += 1
            if too_near == _TOO_NEAR:
                break
        raise CrystalError(self._why_none())

    def crystals(self, number: int, first: int = 0) -> Iterator[SymmetricCrystal]:
        """Yield the crystals of the indices from `first` on."""
        return (self.crystal(index) for index in range(first, first + number))

    def redrawn(self, crystal: SymmetricCrystal, index: int) -> SymmetricCrystal:
        """Another crystal under the condition of `crystal`: same group, positions and species.

        Provenance (``info``) is taken over; everything else as in :meth:`under`.
        """
        sites = [(site.species, site.position) for site in crystal.sites]
        return self.under(crystal.space_group, sites, index, crystal.info)

    def under(
        self, space_group: int, sites: Choice, index: int, info: Mapping | None = None
    ) -> SymmetricCrystal:
        """Return a crystal with given sites; cell and coordinates come from ``(seed, index)``.

        Of the settings only ``volume`` and ``min_distance`` have a part in it. Without ``volume``
        it is the usual one of the species of the sites.

        Raises
        ------
        CrystalError
            When atoms cannot be kept ``min_distance`` apart in 1000 attempts.
        """
        counts: dict[str, int] = {}
        for species, position in sites:
            counts[species] = counts.get(species, 0) + position.multiplicity
        volume = usual_volume(counts) if self.volume is None else self.volume
        rng = self._rng(index)
        made = draw(space_group, sites, rng, volume, self.min_distance, _ROUNDS, info)
        if made is None:
            labels = " ".join(position.label for _, position in sites)
            raise CrystalError(
                f"no crystal with {labels} in space group {space_group} keeps atoms "
                f"{self.min_distance:g} Å apart: allow more volume or less distance"
            )
        return made

    def _rng(self, index: int) -> np.random.Generator:
        if index < 0:
            raise CrystalError(f"the index of a random crystal must not be negative, not {index}")
        # A counter-based stream: every index has its own, whatever was drawn before.
        return np.random.Generator(np.random.Philox(key=np.array([self.seed, index], np.uint64)))

    def _choice(self, group: int, rng: np.random.Generator) -> Choice | None:
        """Sites of one crystal; None when the elements ask for the same fixed point."""
        ways = _ways(group, self._key)
        if not ways.units:
            return None
        atoms, totals = ways.units[int(rng.integers(len(ways.units)))]
        possible = np.flatnonzero(totals[-1])
        left = int(possible[int(rng.integers(len(possible)))])
        choice: Choice = []
        for i in reversed(range(len(atoms))):
            # How many of the sites are of this element; the elements before it get the rest.
            own = ways.elements[i].counts[: left + 1, atoms[i]]
            n_sites = weighted(own * totals[i][left::-1], rng)
            positions = ways.elements[i].draw(n_sites, atoms[i], rng)
            choice = [*((self._symbols[i], p) for p in positions), *choice]
            left -= n_sites
        fixed = [position for _, position in choice if not position.dof]
        return choice if len(set(map(id, fixed))) == len(fixed) else None

    @cached_property
    def _symbols(self) -> list[str]:
        return list(self.formula)

    @cached_property
    def _key(self) -> tuple:
        """What the ways of placing the atoms depend on, apart from the group."""
        wanted = self.neighbors
        if not isinstance(wanted, Mapping):
            wanted = dict.fromkeys(self.formula, wanted)
        elements = tuple((n, _several(wanted.get(symbol))) for symbol, n in self.formula.items())
        units = None if self.formula_units is None else tuple(sorted(set(self.formula_units)))
        return elements, units, self.max_sites, self.max_atoms

    def _why_none(self) -> str:
        groups = ", ".join(map(str, self.space_groups[:5])) + ", ..." * (len(self.space_groups) > 5)
        units = "any number of"
        if self.formula_units is not None:
            units = " or ".join(map(str, self.formula_units))
        apart = f", {self.min_distance:g} Å apart" if self.min_distance else ""
        return (
            f"no crystal of {self.composition} was found in many attempts with space group "
            f"{groups}, {units} formula units, at most {self.max_sites} sites and "
            f"{self.max_atoms} atoms{apart}: relax one of these"
        )


def _several(neighbors: Neighbors | None) -> tuple[int, ...] | None:
    return (neighbors,) if isinstance(neighbors, int) else neighbors


@dataclass(frozen=True, eq=False)
class _Ways:
    """Ways to place formula units in a space group.

    ``units`` lists for each possible number of formula units the atoms of each element, and the
    numbers of ways (max_sites + 1,) to place the elements before the first, second, ... on so many
    sites together (before: the elements with lower index), all of them last.
    """

    elements: tuple
    units: list[tuple[tuple[int, ...], list[NDArray[np.float64]]]]


@lru_cache(maxsize=1024)
def _ways(group: int, key: tuple) -> _Ways:
    elements, wanted, max_sites, max_atoms = key
    tables = tuple(occupations(group, max_sites, max_atoms, n) for _, n in elements)
    unit = sum(count for count, _ in elements)
    possible = range(1, max_atoms // unit + 1)
    units = []
    for n_units in possible if wanted is None else [n for n in wanted if n in possible]:
        atoms = tuple(n_units * count for count, _ in elements)
        totals = [np.eye(1, max_sites + 1)[0]]
        for table, n in zip(tables, atoms, strict=True):
            totals.append(np.convolve(totals[-1], table.counts[:, n])[: max_sites + 1])
        if totals[-1].any():
            units.append((atoms, totals))
    return _Ways(tables, units)


def usual_volume(counts: Mapping[str, int]) -> tuple[float, float]:
    """Smallest and largest volume per atom (Å^3) for a composition, by covalent radii."""
    total = sum(n * covalent_radii[atomic_numbers[symbol]] ** 3 for symbol, n in counts.items())
    mean = float(total / sum(counts.values()) * 4 / 3 * pi)
    return _LOOSENESS[0] * mean, _LOOSENESS[1] * mean


def draw(
    space_group: int,
    sites: Choice,
    rng: np.random.Generator,
    volume: tuple[float, float],
    min_distance: float = 0.0,
    attempts: int = 100,
    info: Mapping | None = None,
) -> SymmetricCrystal | None:
    """Draw cell and coordinates for given sites.

    Parameters
    ----------
    space_group : 1 to 230.
    sites : species and Wyckoff position of every site.
    rng : random numbers.
    volume : smallest and largest volume per atom, Å^3.
    min_distance : no two atoms may be nearer (Å); 0 asks for nothing.
    attempts : number of draws when they may not be too near.
    info : provenance of the crystal.

    Returns
    -------
    SymmetricCrystal, or None when every attempt had atoms too near to each other.
    """
    n_atoms = sum(position.multiplicity for _, position in sites)
    lattice = lattice_variables(space_group)
    for _ in range(attempts):
        cell = random_cell(space_group, n_atoms * rng.uniform(*volume), rng)
        free = [rng.random(position.dof) for _, position in sites]
        if min_distance > 0:
            matrix = cell_from_parameters(lattice.parameters(cell))
            orbits = [p.expand(f) for (_, p), f in zip(sites, free, strict=True)]
            if any_nearer(orbits, matrix, min_distance):
                continue
        made = tuple(Site(s, p, f) for (s, p), f in zip(sites, free, strict=True))
        return SymmetricCrystal(space_group, cell, made, dict(info or {}))
    return None


def random_cell(space_group: int, volume: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Free cell parameters (Å, radians) of a random cell of this volume (Å^3).

    Edges that are not tied to each other have ratios of up to 4, free angles lie between 60 and
    120 degrees, and cells with less than 0.3 of the volume of a box with their edges are redrawn.
    """
    lattice = lattice_variables(space_group)
    edges = np.array([len(name) == 1 for name in lattice.names])
    n_edges = int(edges.sum())
    while True:
        free = np.concatenate(
            [rng.uniform(0.5, 2.0, n_edges), np.radians(rng.uniform(60, 120, len(edges) - n_edges))]
        )
        parameters = lattice.parameters(free)
        shape = relative_volume(parameters[3:])
        if shape > 0.3:
            whole = shape * float(parameters[0] * parameters[1] * parameters[2])
            return np.where(edges, free * (volume / whole) ** (1 / 3), free)


def any_nearer(orbits: Sequence[NDArray], cell: NDArray[np.float64], distance: float) -> bool:
    """Whether two atoms, images included, are nearer than `distance` (Å).

    Parameters
    ----------
    orbits : the atoms of every site, (m, 3) fractional each; distances are taken from the first
        of each, which is enough.
    cell : (3, 3) Å, rows.
    """
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.floor(distance / heights + 0.5).astype(int)  # differences are within half a cell
    axes = [np.arange(-n, n + 1.0) for n in reach]
    images = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3) @ cell
    atoms = np.concatenate(orbits)
    for orbit in orbits:
        difference = atoms - orbit[0]
        vectors = ((difference - np.rint(difference)) @ cell)[:, None] + images
        near = (vectors * vectors).sum(axis=2) < distance**2
        if np.count_nonzero(near) > 1:  # itself is one
            return True
    return False
