"""The motif rule: the yes-or-no test of a local environment, beside the smooth loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from asexlatent.descriptor.neighbors import (
    neighbor_pairs,
    pair_vectors,
    usable_crystals,
)

if TYPE_CHECKING:
    from ase import Atoms

_TABLE = 120  # atomic numbers are below this


@dataclass(frozen=True)
class MotifRule:
    """Coordination and distances that every site must have.

    A crystal obeys the rule when each of its sites has an allowed number of bonded neighbours and
    no neighbour of any kind that is too near. Every periodic image counts as a neighbour of its
    own.

    Attributes
    ----------
    coordination : dict of str to tuple of int
        Allowed numbers of bonded neighbours of each centre species; a plain int is taken as the
        only one.
    cutoffs : dict of str to float
        Two atoms are bonded when nearer than this, in Å. Keys are pairs such as "Si-O" (stored in
        alphabetical order, "O-Si"). Pairs that are not listed are never bonded.
    shortest : dict of str to float
        Distances in Å that no such pair may fall below, whether it can be bonded or not.

    Raises
    ------
    ValueError
        For a malformed pair, a species that is no element, or a number that is not positive.
    """

    coordination: Mapping[str, int | Sequence[int]]
    cutoffs: Mapping[str, float]
    shortest: Mapping[str, float]

    def __post_init__(self) -> None:
        allowed = {}
        for symbol, counts in self.coordination.items():
            _number(symbol)
            counts = (counts,) if isinstance(counts, int) else counts
            allowed[symbol] = tuple(sorted({int(count) for count in counts}))
            if not allowed[symbol] or allowed[symbol][0] < 0:
                raise ValueError(
                    f"coordination of {symbol} is {counts}; give numbers of neighbours"
                )
        object.__setattr__(self, "coordination", allowed)
        for name in ("cutoffs", "shortest"):
            lengths = {pair_key(*_split(k)): float(v) for k, v in getattr(self, name).items()}
            bad = [key for key, length in lengths.items() if not length > 0]
            if bad:
                raise ValueError(f"{name} of {bad[0]} is {lengths[bad[0]]} Å; it must be positive")
            object.__setattr__(self, name, lengths)

    @property
    def reach(self) -> float:
        """Longest distance in Å that the rule looks at."""
        return max([*self.cutoffs.values(), *self.shortest.values()], default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; ``MotifRule(**d)`` reads it back."""
        return {
            "coordination": {k: list(v) for k, v in self.coordination.items()},
            "cutoffs": dict(self.cutoffs),
            "shortest": dict(self.shortest),
        }

    def sites_obey(
        self,
        distances: Tensor,
        centers: Tensor,
        neighbor_numbers: Tensor,
        center_numbers: Tensor,
    ) -> Tensor:
        """Which centres obey the rule, from any pair list that reaches at least `reach`.

        Parameters
        ----------
        distances
            (P,) in Å.
        centers
            (P,) long, index into the centres.
        neighbor_numbers
            (P,) long, atomic numbers of the neighbours.
        center_numbers
            (M,) long, atomic numbers of the centres.

        Returns
        -------
        Tensor
            (M,) bool. A centre of a species without a coordination rule does not obey.
        """
        counts, too_near = self.count(distances, centers, neighbor_numbers, center_numbers)
        width = max((max(v) for v in self.coordination.values()), default=0) + 1
        allowed = torch.zeros(_TABLE, width + 1, dtype=torch.bool)
        for symbol, numbers in self.coordination.items():
            allowed[_number(symbol), list(numbers)] = True
        allowed = allowed.to(distances.device)
        return allowed[center_numbers, counts.clamp(max=width)] & (too_near == 0)

    def count(
        self,
        distances: Tensor,
        centers: Tensor,
        neighbor_numbers: Tensor,
        center_numbers: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Numbers of bonded and of too near neighbours, each (M,) long; see `sites_obey`."""
        bonded = self._table(self.cutoffs, distances)
        nearest = self._table(self.shortest, distances)
        key = (center_numbers[centers], neighbor_numbers)
        zeros = torch.zeros(len(center_numbers), dtype=torch.long, device=distances.device)
        counts = zeros.index_add(0, centers, (distances < bonded[key]).long())
        return counts, zeros.index_add(0, centers, (distances < nearest[key]).long())

    def bonded(self, distances: Tensor, numbers: Tensor, other_numbers: Tensor) -> Tensor:
        """Which pairs (P,) of atoms, with these distances and atomic numbers, are bonded."""
        return distances < self._table(self.cutoffs, distances)[numbers, other_numbers]

    def valid(
        self,
        scaled: Tensor,
        cells: Tensor,
        crystal: Tensor,
        center_atoms: Tensor,
        numbers: Tensor,
    ) -> Tensor:
        """Which of many crystals obey the rule at every given centre.

        Parameters
        ----------
        scaled, cells, crystal, center_atoms
            As in `asexlatent.descriptor.neighbor_pairs`.
        numbers
            (N,) long, atomic number of every atom.

        Returns
        -------
        Tensor
            (B,) bool. False for a crystal without centres, without volume or with a coordinate that
            is no number.
        """
        usable = usable_crystals(scaled, cells, crystal)
        good = usable.clone()
        good &= torch.bincount(crystal[center_atoms], minlength=len(cells)) > 0
        keep = usable[crystal[center_atoms]]
        centers = center_atoms[keep]
        if not bool(usable.all()):  # keep what cannot be searched out of the search
            cells = torch.where(usable[:, None, None], cells, torch.eye(3).to(cells))
            scaled = torch.where(usable[crystal][:, None], scaled, torch.zeros_like(scaled))
        pairs = neighbor_pairs(scaled, cells, crystal, centers, self.reach)
        with torch.no_grad():
            distances = pair_vectors(scaled, cells, crystal, centers, pairs).norm(dim=1)
            obey = self.sites_obey(
                distances, pairs.centers, numbers[pairs.neighbors], numbers[centers]
            )
        good[crystal[centers[~obey]]] = False
        return good

    def check(self, atoms: Atoms) -> MotifReport:
        """Judge every atom of one structure, in words (no images without ``pbc``)."""
        geometry = atoms_geometry(atoms, self.reach)
        scaled, cells, crystal, centers, numbers = geometry
        pairs = neighbor_pairs(scaled, cells, crystal, centers, self.reach)
        distances = pair_vectors(scaled, cells, crystal, centers, pairs).norm(dim=1)
        flat = (distances, pairs.centers, numbers[pairs.neighbors], numbers)
        counts, _ = self.count(*flat)
        obey = self.sites_obey(*flat)
        nearest = torch.full((len(atoms),), float("inf"), dtype=distances.dtype)
        nearest = nearest.scatter_reduce(0, pairs.centers, distances, "amin")
        problems = []
        for i in range(len(atoms)):
            if not obey[i]:
                mine = pairs.centers == i
                near = zip(flat[2][mine].tolist(), distances[mine].tolist(), strict=True)
                problems.append(self._problem(i, int(numbers[i]), int(counts[i]), list(near)))
        return MotifReport(
            valid=len(atoms) > 0 and not problems,
            coordination=tuple(counts.tolist()),
            nearest=tuple(nearest.tolist()),
            problems=tuple(problems),
        )

    def _problem(self, index: int, number: int, count: int, near: list[tuple[int, float]]) -> str:
        symbol = _symbol(number)
        wrong = []
        if symbol not in self.coordination:
            wrong.append(f"the rule has no coordination for {symbol}")
        elif count not in self.coordination[symbol]:
            wanted = " or ".join(str(n) for n in self.coordination[symbol])
            wrong.append(f"has {count} bonded neighbours, not {wanted}")
        for other, distance in near:
            key = pair_key(symbol, _symbol(other))
            if distance < self.shortest.get(key, 0.0):
                wrong.append(f"{key} at {distance:.3f} Å, below {self.shortest[key]:.3f} Å")
        return f"atom {index} ({symbol}): " + "; ".join(wrong)

    @staticmethod
    def _table(lengths: Mapping[str, float], like: Tensor) -> Tensor:
        """(120, 120) lengths by atomic numbers, 0 where there is none."""
        table = torch.zeros(_TABLE, _TABLE, dtype=like.dtype)
        for key, length in lengths.items():
            a, b = (_number(symbol) for symbol in _split(key))
            table[a, b] = table[b, a] = length
        return table.to(like.device)


@dataclass(frozen=True)
class MotifReport:
    """What `MotifRule.check` found; ``print`` it.

    Attributes
    ----------
    valid : bool
    coordination : tuple of int
        Bonded neighbours of each atom.
    nearest : tuple of float
        Distance in Å to the nearest neighbour of each atom; inf when none is within the reach of
        the rule.
    problems : tuple of str
        One line for each atom that does not obey.
    """

    valid: bool
    coordination: tuple[int, ...]
    nearest: tuple[float, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.coordination)
        if self.valid:
            return f"valid: all {total} atoms obey the motif rule"
        head = f"not valid: {len(self.problems)} of {total} atoms do not obey the motif rule"
        return "\n".join([head, *("  " + line for line in self.problems)])


def pair_key(first: str, second: str) -> str:
    """Name of a pair of species, "O-Si", whichever way round it is given."""
    return "-".join(sorted((first, second)))


def all_pairs(species: Sequence[str]) -> list[str]:
    """Names of all pairs that can be made of the species, like ones included."""
    return [pair_key(a, b) for a, b in combinations_with_replacement(sorted(set(species)), 2)]


def atoms_geometry(atoms: Atoms, reach: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One `Atoms` as the flat arrays of `neighbor_pairs`: scaled, cells, crystal, center_atoms,
    numbers.

    Directions without ``pbc`` are given an empty gap wider than ``reach`` (Å), so that no image is
    a neighbour. All atoms are centres; float64 on the CPU.
    """
    cell = atoms.cell.copy()
    cell[~atoms.pbc] = 0.0
    if (cell.lengths()[atoms.pbc] == 0).any():
        raise ValueError("the structure is periodic along a direction without a lattice vector")
    cell = cell.complete()
    for axis in (~atoms.pbc).nonzero()[
        0
    ]:  # these vectors are now of unit length, normal to the rest
        height = atoms.positions @ cell[axis]
        extent = float(height.max() - height.min()) if len(atoms) else 0.0
        cell[axis] *= extent + 1.5 * reach + 1.0
    scaled = torch.tensor(cell.scaled_positions(atoms.positions), dtype=torch.float64)
    cells = torch.tensor(cell.array, dtype=torch.float64)[None]
    crystal = torch.zeros(len(atoms), dtype=torch.long)
    numbers = torch.tensor(atoms.numbers, dtype=torch.long)
    return scaled, cells, crystal, torch.arange(len(atoms)), numbers


def _split(key: str) -> tuple[str, str]:
    parts = key.split("-")
    if len(parts) != 2:
        raise ValueError(f"{key!r} is not a pair of species; write it as 'Si-O'")
    for symbol in parts:
        _number(symbol)
    return parts[0], parts[1]


def _number(symbol: str) -> int:
    from ase.data import atomic_numbers

    if symbol not in atomic_numbers:
        raise ValueError(f"{symbol!r} is not a chemical symbol")
    return atomic_numbers[symbol]


def _symbol(number: int) -> str:
    from ase.data import chemical_symbols

    return chemical_symbols[number]
