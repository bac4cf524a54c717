"""Which Wyckoff positions can hold a given number of atoms, drawn so that each way is as likely.

A way to place ``n`` atoms of one element on ``s`` sites is a multiset of Wyckoff positions, in
which a position without free coordinates occurs at most once. Positions of the same multiplicity
count alike, so the ways are counted class by class and one of them is drawn backwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

from asexlatent.symmetry.site_symmetry import can_have_neighbors
from asexlatent.symmetry.wyckoff import WyckoffPosition, wyckoff_positions


@dataclass(frozen=True, eq=False)
class _Class:
    """Wyckoff positions of one multiplicity, all with free coordinates or all without."""

    multiplicity: int
    fixed: bool
    members: tuple[WyckoffPosition, ...]

    def ways(self, count: int) -> int:
        """Number of ways to choose `count` of them."""
        if self.fixed:
            return comb(len(self.members), count)
        return comb(len(self.members) + count - 1, count)

    def draw(self, count: int, rng: np.random.Generator) -> list[WyckoffPosition]:
        """One of these ways."""
        size = len(self.members) if self.fixed else len(self.members) + count - 1
        chosen = np.sort(rng.permutation(size)[:count])
        if not self.fixed:  # a multiset as a set: stars and bars
            chosen -= np.arange(count)
        return [self.members[i] for i in chosen]


@dataclass(frozen=True, eq=False)
class Occupations:
    """Ways to place atoms of one element in a space group.

    Attributes
    ----------
    counts : (max_sites + 1, max_atoms + 1), ``counts[s, n]`` ways to place n atoms on s sites (as
        floating-point numbers: they grow beyond any integer type).
    """

    counts: NDArray[np.float64]
    _classes: tuple[_Class, ...]
    _partial: NDArray[np.float64]  # (len(_classes) + 1, ...): ways with the classes from i on

    def draw(self, sites: int, atoms: int, rng: np.random.Generator) -> list[WyckoffPosition]:
        """One way, each with the same probability; ``counts[sites, atoms]`` must not be 0."""
        found: list[WyckoffPosition] = []
        for i, one in enumerate(self._classes):
            most = min(sites, atoms // one.multiplicity)
            rest = self._partial[i + 1]
            weights = [
                one.ways(count) * rest[sites - count, atoms - count * one.multiplicity]
                for count in range(most + 1)
            ]
            count = weighted(weights, rng)
            if count:
                found += one.draw(count, rng)
                sites, atoms = sites - count, atoms - count * one.multiplicity
            if not sites:
                break
        return found


def weighted(weights: Sequence[float], rng: np.random.Generator) -> int:
    """Index drawn with these weights, one of which at least is above zero."""
    if len(weights) == 1:
        return 0
    total = np.cumsum(weights)
    return int(np.searchsorted(total, rng.random() * total[-1], side="right"))


@lru_cache(maxsize=1024)
def occupations(
    space_group: int, max_sites: int, max_atoms: int, neighbors: tuple[int, ...] | None = None
) -> Occupations:
    """Ways to place atoms of one element in a space group.

    Parameters
    ----------
    space_group : 1 to 230.
    max_sites, max_atoms : largest numbers asked for; atoms of the conventional cell.
    neighbors : leave out positions whose site symmetry allows none of these numbers of neighbours.
    """
    kinds: dict[tuple[int, bool], list[WyckoffPosition]] = {}
    for position in wyckoff_positions(space_group):
        if neighbors is None or any(can_have_neighbors(position, n) for n in neighbors):
            kinds.setdefault((position.multiplicity, not position.dof), []).append(position)
    classes = tuple(_Class(m, fixed, tuple(p)) for (m, fixed), p in sorted(kinds.items()))
    partial = np.zeros((len(classes) + 1, max_sites + 1, max_atoms + 1))
    partial[-1, 0, 0] = 1
    for i in reversed(range(len(classes))):
        one = classes[i]
        for count in range(max_sites + 1):
            shift = count * one.multiplicity
            if shift > max_atoms or not one.ways(count):
                break
            rest = partial[i + 1, : max_sites + 1 - count, : max_atoms + 1 - shift]
            partial[i, count:, shift:] += one.ways(count) * rest
    partial.setflags(write=False)
    return Occupations(partial[0], classes, partial)
