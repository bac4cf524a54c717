"""Site symmetry of Wyckoff positions, and what it says about the neighbours of an atom there."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from asexlatent.symmetry.wyckoff import WyckoffPosition, wyckoff_positions

_GENERIC = np.array([0.1371, 0.2839, 0.4127])  # free coordinates without any special relation


@cache
def site_symmetry(position: WyckoffPosition) -> NDArray[np.int64]:
    """Point group of atom 0 of a Wyckoff position.

    Returns
    -------
    (n, 3, 3) integers: the linear parts, in the conventional cell, of the operations of the space
    group that leave atom 0 where it is, for any values of its free coordinates.
    """
    general = wyckoff_positions(position.space_group)[0]
    point = position.representative(_GENERIC[: position.dof])
    moves = general.rotations @ point + general.translations - point
    stays = np.abs(moves - np.rint(moves)).max(axis=1) < 1e-6
    rotations = np.rint(general.rotations[stays]).astype(np.int64)
    rotations.setflags(write=False)
    return rotations


@cache
def orbit_operations(position: WyckoffPosition) -> NDArray[np.int64]:
    """Point operations that take atom 0 of a Wyckoff position to each atom of its orbit.

    Returns
    -------
    (m, 3, 3) integers: for each atom the linear part, in the conventional cell, of an operation of
    the space group that moves atom 0 onto it, for any values of the free coordinates. Where the
    site symmetry offers several, atoms that differ by a lattice translation get the same one, and
    the identity is taken where it is among them.
    """
    general = wyckoff_positions(position.space_group)[0]
    turned = general.rotations @ position.rotations[0]  # (G, 3, 3)
    moved = general.rotations @ position.translations[0] + general.translations
    same = (turned[:, None] == position.rotations).all(axis=(2, 3))
    moves = moved[:, None] - position.translations
    same &= np.abs(moves - np.rint(moves)).max(axis=2) < 1e-6
    # a fixed order of the point operations, identity first, makes the choice one of cosets
    rotations = np.rint(general.rotations).astype(np.int64)
    codes = (rotations.reshape(-1, 9) + 1) @ 3 ** np.arange(9)
    codes[(rotations == np.eye(3)).all(axis=(1, 2))] = -1
    order = np.argsort(codes, kind="stable")
    chosen = rotations[order[same[order].argmax(axis=0)]]
    if not same.any(axis=0).all():
        raise RuntimeError(f"{position!r}: an atom that no operation makes; please report this")
    chosen.setflags(write=False)
    return chosen


@cache
def can_have_neighbors(position: WyckoffPosition, count: int) -> bool:
    """Whether an atom at a Wyckoff position can have `count` neighbours, all in other directions.

    The neighbours are permuted by the site symmetry, so their number is a sum of sizes of orbits
    of directions: one orbit for each axis that has directions of its own, any number of orbits
    within a mirror plane and in general directions. An atom on an inversion centre, for instance,
    has no odd number of neighbours. Necessary, not sufficient: nothing is said about distances.
    """
    once, often = _orbit_sizes(site_symmetry(position))
    sums = {0}
    for size in once:
        sums |= {total + size for total in sums if total + size <= count}
    for size in often:
        sums |= {total + n * size for total in sums for n in range((count - total) // size + 1)}
    return count in sums


def _orbit_sizes(group: NDArray[np.int64]) -> tuple[list[int], set[int]]:
    """Sizes of the orbits of directions: those that exist once, those that exist in any number."""
    axes: list[NDArray[np.float64]] = []
    often = {len(group)}
    for rotation in group:
        fixed = _fixed_space(rotation)
        if len(fixed) == 1:
            axes += [fixed[0], -fixed[0]]
        elif len(fixed) == 2:
            often.add(len(_orbit(group, fixed[0] + 0.3717 * fixed[1])))
    orbits = {tuple(map(tuple, _orbit(group, axis))) for axis in axes}
    # A direction within a mirror plane can be an axis too: that orbit exists once, and is found.
    return [len(orbit) for orbit in orbits], often


def _fixed_space(rotation: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows spanning the vectors that stay: 3 for the identity, 2 for a mirror, 1 for an axis."""
    _, values, rows = np.linalg.svd(rotation - np.eye(3))
    fixed = rows[values < 1e-9]
    if len(fixed) == 1:  # the same vector for every operation about this axis
        fixed = fixed * np.sign(fixed[0, np.abs(fixed[0]).argmax()])
    return fixed


def _orbit(group: NDArray[np.int64], vector: NDArray[np.float64]) -> NDArray[np.float64]:
    images = np.round(group @ vector, 6) + 0.0  # no negative zeros
    return np.unique(images, axis=0)
