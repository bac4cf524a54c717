"""How Wyckoff positions split when symmetry is lowered.

The atoms of one site of a group G become the atoms of one or several sites of a subgroup H. Which
ones, and how the free coordinates of the new sites follow from those of the old one, depends on the
groups alone: it is worked out once, from a point in general position, and then is an affine map.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from asexlatent.symmetry.group_relations import GroupRelation, lattice_translations
from asexlatent.symmetry.normalizer import UNIT, fit, operations, primitive_basis
from asexlatent.symmetry.wyckoff import WyckoffPosition, wyckoff_positions

# Free coordinates without any special relation, to many digits: see _GRID.
_GENERIC = np.array([0.13712918374651, 0.28391827364519, 0.41271928374659])
# Fractional coordinates are compared on a grid of 2^8 3^4 5 7 points, on which the special ones
# (halves, thirds, ... of the cell of a group, divided by an index) fall exactly.
_GRID = 725760
_SAME = 1e-5


@dataclass(frozen=True, eq=False)
class SplitSite:
    """One site of the subgroup: ``free = matrix @ parent_free + constants``.

    Attributes
    ----------
    position : Wyckoff position of the subgroup, with d free coordinates.
    matrix, constants : (d, d_parent) and (d,).
    """

    position: WyckoffPosition
    matrix: NDArray[np.float64]
    constants: NDArray[np.float64]


@lru_cache(maxsize=65536)
def split_site(relation: GroupRelation, index: int) -> tuple[SplitSite, ...]:
    """Sites of the subgroup that Wyckoff position `index` of its parent becomes."""
    parent = wyckoff_positions(relation.parent)[index]
    starts = _parent_points(relation, parent)
    generic = _GENERIC[: parent.dof]
    # Coordinates in H at a generic point, and how they change with each free coordinate.
    inverse = np.linalg.inv(relation.matrix).T
    points = (starts.at(generic) - relation.origin) @ inverse  # (n, 3)
    slopes = np.einsum("ij,njd->nid", inverse.T, starts.slopes)  # (n, 3, d_parent)
    return tuple(
        _split(relation.space_group, points[first], slopes[first], generic, size)
        for first, size in _orbits(relation.space_group, points)
    )


def count_sites(relation: GroupRelation, index: int) -> int:
    """Least number of sites that Wyckoff position `index` can become (quick to know)."""
    parent, sub = operations(relation.parent), operations(relation.space_group)
    position = wyckoff_positions(relation.parent)[index]
    atoms = position.multiplicity // len(parent.centring) * relation.translation_index
    return -(-atoms // len(sub.coset))


@dataclass(frozen=True, eq=False)
class _Points:
    """Affine functions (n, 3) of the free coordinates of the parent site."""

    slopes: NDArray[np.float64]
    constants: NDArray[np.float64]

    def at(self, free: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.slopes @ free + self.constants


def _parent_points(relation: GroupRelation, position: WyckoffPosition) -> _Points:
    """The atoms of a site of G in one primitive cell of H."""
    chosen = _primitive(position)
    taus = lattice_translations(relation) / UNIT
    slopes = np.repeat(position.linear[chosen], len(taus), axis=0)
    constants = position.translations[chosen][:, None] + taus
    return _Points(slopes, constants.reshape(-1, 3))


@lru_cache(maxsize=2048)
def _primitive(position: WyckoffPosition) -> NDArray[np.int64]:
    """Indices of the atoms of the orbit that no lattice translation relates."""
    points = position.expand(_GENERIC[: position.dof])
    codes = _codes(points, position.space_group)
    _, first = np.unique(codes, return_index=True)
    return np.sort(first)


def _codes(points: NDArray[np.float64], space_group: int) -> NDArray[np.int64]:
    """One integer per point (..., 3), equal for points that a lattice translation relates."""
    reduced = points @ np.linalg.inv(primitive_basis(space_group))
    grid = np.rint(reduced * _GRID).astype(np.int64) % _GRID
    return (grid[..., 0] * _GRID + grid[..., 1]) * _GRID + grid[..., 2]


def _orbits(space_group: int, points: NDArray[np.float64]) -> list[tuple[int, int]]:
    """First point of every orbit of H, and the atoms of the orbit in the conventional cell."""
    group = operations(space_group)
    own = _codes(points, space_group)
    place = {code: i for i, code in enumerate(own.tolist())}
    rotations, vectors = group.rotations[group.coset], group.translations[group.coset] / UNIT
    images = np.einsum("gij,nj->ngi", rotations, points) + vectors
    codes = _codes(images, space_group).tolist()
    taken = np.zeros(len(points), dtype=bool)
    found = []
    for i in range(len(points)):
        if taken[i]:
            continue
        members = {place[code] for code in codes[i]}
        taken[list(members)] = True
        found.append((i, len(members) * len(group.centring)))
    return found


def _split(
    space_group: int,
    point: NDArray[np.float64],
    slope: NDArray[np.float64],
    generic: NDArray[np.float64],
    size: int,
) -> SplitSite:
    """The position that the orbit of a point occupies, and its free coordinates."""
    group = operations(space_group)
    for position in wyckoff_positions(space_group):
        if position.multiplicity != size:
            continue
        images = group.rotations @ point + group.translations / UNIT
        along, across = fit(position, images)
        turned = (group.rotations @ slope).transpose(0, 2, 1)  # (g, d_parent, 3)
        moved = fit(position, turned + images[:, None])
        steps, leaving = moved[0] - along[:, None], moved[1] - across[:, None]
        good = np.abs(across - np.rint(across)).max(axis=1, initial=0) < _SAME
        good &= np.abs(leaving).max(axis=(1, 2), initial=0) < _SAME
        if good.any():
            k = int(good.argmax())
            matrix = steps[k].T
            return SplitSite(position, matrix, along[k] - matrix @ generic)
    raise RuntimeError(f"an orbit of {size} atoms fits no position of space group {space_group}")
