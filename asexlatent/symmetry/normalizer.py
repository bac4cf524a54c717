"""Affine normalisers: every way to describe one crystal in the same space-group setting.

An element ``(Q, q)`` of the normaliser of a space group G turns fractional coordinates ``x``
into ``Q x + q`` and the cell ``C`` (rows) into ``inv(Q.T) @ C``: the same crystal, described by
the same group in the same setting, with other Wyckoff letters and other coordinates. Elements
of G itself change nothing, so only one element per coset of G is kept, and only proper ones
(det Q = 1): a description of the mirror image would be another crystal. Where G holds improper
operations nothing is lost by that.

Translations are held as integers in units of 1/24. This is enough for every group: in the
standard settings translations of G are multiples of 1/4 or 1/6 and the equations below divide
them by 2, 3 or 4 (the test compares the outcome with the tables that PyXtal ships).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from asexlatent.symmetry.wyckoff import WyckoffPosition, wyckoff_positions

UNIT = 24
"""Translations are integers in units of 1/UNIT."""

_GENERIC = np.array([0.1371, 0.2839, 0.4127])  # free coordinates without any special relation


@dataclass(frozen=True, eq=False)
class Operations:
    """The operations of a space group in the conventional cell (from the general position).

    Attributes
    ----------
    rotations, translations : (n, 3, 3) integers and (n, 3) in units of 1/24, all of them.
    coset : (p,) indices of one operation per point-group element, identity first.
    centring : (c, 3) lattice translations of the conventional cell, in units of 1/24.
    free_axes : axes along which the origin is not fixed by symmetry.
    """

    rotations: NDArray[np.int64]
    translations: NDArray[np.int64]
    coset: NDArray[np.int64]
    centring: NDArray[np.int64]
    free_axes: tuple[int, ...]


@cache
def operations(space_group: int) -> Operations:
    """Operations of a space group (1 to 230) as integers."""
    general = wyckoff_positions(space_group)[0]
    rotations = np.rint(general.rotations).astype(np.int64)
    translations = np.rint(general.translations * UNIT).astype(np.int64) % UNIT
    _, first = np.unique(rotations.reshape(-1, 9), axis=0, return_index=True)
    coset = np.sort(first)
    centring = translations[(rotations == np.eye(3)).all(axis=(1, 2))]
    invariant = (rotations == np.eye(3)).all(axis=0).all(axis=0)
    return Operations(
        rotations, translations, coset, centring, tuple(map(int, np.flatnonzero(invariant)))
    )


@cache
def primitive_basis(space_group: int) -> NDArray[np.float64]:
    """Rows: three vectors (conventional fractional coordinates) that span all translations."""
    vectors = operations(space_group).centring
    candidates = [*np.vstack([vectors, vectors - UNIT * (vectors > 0)]), *(UNIT * np.eye(3))]
    candidates = [row for row in np.unique(candidates, axis=0) if row.any()]
    candidates.sort(key=lambda row: (row @ row, *(-row)))
    wanted = UNIT**3 / len(vectors)
    best = next(
        np.array([first, second, third])
        for third in candidates
        for second in candidates
        for first in candidates
        if abs(np.linalg.det([first, second, third]) - wanted) < 0.5
    )
    return best / UNIT


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Coset representatives of a space group in (part of) its affine normaliser.

    Attributes
    ----------
    rotations : (k, 3, 3) integer-valued matrices Q, identity first.
    translations : (k, 3) fractional vectors q; zero along the free axes.
    positions : (k, n) index of the Wyckoff position that each of the n positions becomes.
    free_axes : axes along which any further translation is allowed.
    """

    rotations: NDArray[np.float64]
    translations: NDArray[np.float64]
    positions: NDArray[np.int64]
    free_axes: tuple[int, ...]


def normalizer(
    space_group: int, rotations: tuple[tuple[int, ...], ...] | None = None
) -> Normalizer:
    """Proper affine normaliser modulo the group and modulo its continuous translations.

    Parameters
    ----------
    space_group : 1 to 230.
    rotations : the linear parts Q to consider, each as nine integers with determinant 1. By
        default all that exist; triclinic and monoclinic groups (below 16) have infinitely many
        and need a choice. Those that do not keep the setting are left out.
    """
    if rotations is None:
        if space_group < 16:
            raise ValueError(f"the normaliser of space group {space_group} is infinite: choose Q")
        rotations = _linear_parts(space_group >= 143 and space_group < 195)
    return _normalizer(space_group, rotations)


@lru_cache(maxsize=2048)
def _normalizer(space_group: int, linear: tuple[tuple[int, ...], ...]) -> Normalizer:
    elements: dict[tuple[int, ...], tuple[NDArray, NDArray]] = {}
    for row in linear:
        matrix = np.array(row, dtype=np.int64).reshape(3, 3)
        for shift in shifts(space_group, row):
            elements.setdefault(_coset_key(space_group, matrix, shift), (matrix, shift))
    # The identity stands for its own coset, so that a canonical crystal stays as it is.
    identity = (np.eye(3, dtype=np.int64), np.zeros(3, dtype=np.int64))
    if _coset_key(space_group, *identity) in elements:
        key = _coset_key(space_group, *identity)
        elements = {key: identity, **{k: v for k, v in elements.items() if k != key}}
    matrices = np.array([m for m, _ in elements.values()], dtype=float).reshape(-1, 3, 3)
    vectors = np.array([s for _, s in elements.values()], dtype=float).reshape(-1, 3) / UNIT
    letters = _position_map(space_group, matrices, vectors)
    return Normalizer(matrices, vectors, letters, operations(space_group).free_axes)


@lru_cache(maxsize=8192)
def shifts(space_group: int, rotation: tuple[int, ...]) -> NDArray[np.int64]:
    """All q (n, 3), in 1/24, with which the linear part Q normalises the group; (0, 3) if none.

    For every operation (W, w) there must be an operation (W', w') with W' = Q W Q^-1 and
    (W' - 1) q = Q w - w' modulo the lattice translations. Tried on the grid of 1/24, one
    operation after the other; one q per class modulo the lattice, zero along the free axes.
    """
    group = operations(space_group)
    matrix = np.array(rotation, dtype=np.int64).reshape(3, 3)
    inverse = np.rint(np.linalg.inv(matrix)).astype(np.int64)
    lattice = set(_codes(group.centring))
    if not lattice.issuperset(_codes(group.centring @ matrix.T % UNIT)):
        return np.empty((0, 3), dtype=np.int64)
    partner = {
        tuple(group.rotations[i].ravel()): group.translations[i] for i in reversed(group.coset)
    }
    found = np.arange(len(_grid(group.free_axes)))
    for i in group.coset[1:]:
        image = tuple((matrix @ group.rotations[i] @ inverse).ravel().tolist())
        translation = partner.get(image)
        if translation is None:
            return np.empty((0, 3), dtype=np.int64)
        needed = matrix @ group.translations[i] - translation
        allowed = np.zeros(UNIT**3, dtype=bool)
        allowed[_codes((needed + group.centring) % UNIT)] = True
        found = found[allowed[_changes(group.free_axes, image)[found]]]
    grid = _grid(group.free_axes)[found]
    if len(group.centring) == 1 or not len(grid):
        return grid
    equivalents = (grid[:, None, :] + group.centring) % UNIT
    equivalents[..., list(group.free_axes)] = 0
    _, first = np.unique(_codes(equivalents).min(axis=1), return_index=True)
    return grid[np.sort(first)]


@cache
def _grid(free_axes: tuple[int, ...]) -> NDArray[np.int64]:
    axes = [range(1) if axis in free_axes else range(UNIT) for axis in range(3)]
    return np.array(list(product(*axes)), dtype=np.int64)


@cache
def _changes(free_axes: tuple[int, ...], rotation: tuple[int, ...]) -> NDArray[np.int64]:
    """Codes of (W - 1) q for every q of the grid."""
    change = np.array(rotation, dtype=np.int64).reshape(3, 3) - np.eye(3, dtype=np.int64)
    return _codes(_grid(free_axes) @ change.T % UNIT)


def _codes(translations: NDArray[np.int64]) -> NDArray[np.int64]:
    return translations @ np.array([UNIT * UNIT, UNIT, 1])


@cache
def _linear_parts(hexagonal: bool) -> tuple[tuple[int, ...], ...]:
    """Proper rotations of the cube, or of the hexagonal prism in hexagonal axes.

    A linear part of the normaliser permutes the axes of the group and keeps its lattice, which
    leaves only these (orthorhombic, tetragonal, cubic; trigonal, hexagonal).
    """
    if hexagonal:
        six, two = np.array([[1, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([[0, 1, 0], [1, 0, 0]])
        two = np.vstack([two, [0, 0, -1]])
        found = [np.linalg.matrix_power(six, n) for n in range(6)]
        found += [matrix @ two for matrix in found]
    else:
        found = [
            np.eye(3, dtype=int)[list(order)] * np.array(signs)[:, None]
            for order in permutations(range(3))
            for signs in product((1, -1), repeat=3)
        ]
        found = [matrix for matrix in found if np.linalg.det(matrix) > 0]
    return tuple(tuple(int(v) for v in matrix.ravel()) for matrix in found)


def _coset_key(
    space_group: int, matrix: NDArray[np.int64], shift: NDArray[np.int64]
) -> tuple[int, ...]:
    """Same key for (Q, q) and g (Q, q), whatever g of the group and whatever free translation."""
    group = operations(space_group)
    proper = np.rint(np.linalg.det(group.rotations.astype(float))) > 0
    products = (group.rotations[proper] @ matrix).reshape(-1, 9)
    vectors = (group.rotations[proper] @ shift + group.translations[proper]) % UNIT
    vectors[:, list(group.free_axes)] = 0
    rows = np.column_stack([products, vectors])
    return tuple(int(value) for value in rows[np.lexsort(rows.T[::-1])[0]])


def _position_map(
    space_group: int, matrices: NDArray[np.float64], vectors: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(k, n): where each element sends each Wyckoff position."""
    positions = wyckoff_positions(space_group)
    group = operations(space_group)
    table = np.zeros((len(matrices), len(positions)), dtype=np.int64)
    for position in positions[1:]:
        point = position.representative(_GENERIC[: position.dof])
        images = matrices @ point + vectors  # (k, 3)
        orbits = images @ group.rotations.transpose(0, 2, 1) + group.translations[:, None] / UNIT
        table[:, position.index] = -1
        for other in positions[1:]:
            if (other.multiplicity, other.dof) != (position.multiplicity, position.dof):
                continue
            across = fit(other, orbits)[1]
            misfit = np.abs(across - np.rint(across)).max(axis=-1, initial=0.0).min(axis=0)
            table[misfit < 1e-6, position.index] = other.index
    if (table < 0).any():
        raise RuntimeError(f"space group {space_group}: a normaliser element loses a position")
    return table


def fit(
    position: WyckoffPosition, points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of points in the frame of atom 0 of a Wyckoff position.

    Parameters
    ----------
    position : the Wyckoff position, with d free coordinates.
    points : (..., 3) fractional.

    Returns
    -------
    along, across : (..., d) and (..., 3 - d). A point is where atom 0 can be, give or take a
        lattice vector, exactly when ``across`` is a vector of integers; its free coordinates
        are then ``along`` (any of which may be shifted by an integer).
    """
    inverse = _frame(position)
    coordinates = (points - position.translations[0]) @ inverse
    return coordinates[..., : position.dof], coordinates[..., position.dof :]


@cache
def _frame(position: WyckoffPosition) -> NDArray[np.float64]:
    """Inverse of the unimodular matrix of the d directions of atom 0 and 3 - d unit vectors."""
    directions = position.linear[0].T  # (d, 3)
    for axes in product((0, 1), repeat=3):
        if sum(axes) == 3 - position.dof:
            frame = np.vstack([directions, np.eye(3)[np.flatnonzero(axes)]])
            if abs(abs(np.linalg.det(frame)) - 1.0) < 1e-6:
                return np.rint(np.linalg.inv(frame))
    raise RuntimeError(f"{position!r}: no unimodular frame; please report this")
