"""One description among all equivalent ones.

The same crystal can be described in the same space-group setting in many ways: other origins
and axes (the affine normaliser of the group, in triclinic and monoclinic groups also any other
cell), other representative atoms of an orbit, other orders of the sites. The one taken here is
the smallest, comparing in this order:

1. the cell: reduced in triclinic groups (shortest vectors, angles all acute or none), shortest
   a and c with obtuse beta in monoclinic ones, a <= b <= c where an orthorhombic group allows;
2. the species (by atomic number) with the Wyckoff letters of its sites, a before b;
3. where the origin is not fixed by symmetry: an atom of the rarest kind of site at zero, the one
   after the largest gap;
4. the free coordinates, each site represented by its smallest point with coordinates from 0 up
   to 1.

Numbers closer than :data:`TOLERANCE` are equal. Two descriptions that differ by less are the
same one for this purpose; when a crystal sits within numerical noise of such an edge the choice
can still flip, which changes the description and never the crystal. Mirror images are different
crystals and stay so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import spglib
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from asexlatent.symmetry.normalizer import (
    UNIT,
    Normalizer,
    fit,
    normalizer,
    operations,
    shifts,
)
from asexlatent.symmetry.settings import ask_spglib
from asexlatent.symmetry.wyckoff import CrystalError, WyckoffPosition, wyckoff_positions

TOLERANCE = 1e-5
"""Fractional coordinates, cosines and relative lengths closer than this are equal."""


@dataclass(frozen=True, eq=False)
class Description:
    """A canonical description and the way to it.

    ``x @ matrix.T + shift`` leads from the given fractional coordinates to the canonical ones,
    in the cell ``inv(matrix.T) @ cell``. Site ``i`` is the given orbit ``order[i]``, at Wyckoff
    position ``positions[i]`` with the free coordinates ``free[i]``.
    """

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]
    order: NDArray[np.int64]
    positions: list[WyckoffPosition]
    free: list[NDArray[np.float64]]


def describe(
    space_group: int,
    cell: NDArray[np.float64],
    numbers: NDArray[np.int64],
    multiplicity: NDArray[np.int64],
    points: NDArray[np.float64],
) -> Description:
    """Find the canonical description of a crystal.

    Parameters
    ----------
    space_group : 1 to 230.
    cell : (3, 3) conventional cell in the setting of the group, rows, Å.
    numbers, multiplicity : (n,) atomic number and atoms in the conventional cell, per orbit.
    points : (n, 3) one atom of each orbit, fractional, exactly on its special position.

    Raises
    ------
    CrystalError
        When an orbit fits no Wyckoff position of that multiplicity.
    """
    zeros = _different_origins(space_group, cell, numbers, points)
    base, ways = _choices(space_group, cell)
    points = points @ base.T
    index = _wyckoff_indices(space_group, multiplicity, points)
    last = len(wyckoff_positions(space_group)) - 1
    # (k, n) species and letter of every orbit in every description, as one integer.
    labels = numbers * 32 + (last - ways.positions[:, index])
    keep = _smallest_rows(np.sort(labels, axis=1))
    matrices, vectors, labels = ways.rotations[keep], ways.translations[keep], labels[keep]
    if ways.free_axes:
        which, vectors = _origins(space_group, labels, matrices, vectors, points, zeros)
        matrices, labels = matrices[which], labels[which]
    values = _all_values(space_group, labels, matrices, vectors, points)
    best, order = _smallest_values(labels, values)
    letters = last - labels[best, order] % 32
    positions = [wyckoff_positions(space_group)[i] for i in letters]
    chosen = np.where(np.abs(values[best]) < 1e-12, 0.0, values[best])
    free = [chosen[i, : p.dof] for i, p in zip(order, positions, strict=True)]
    return Description(matrices[best] @ base, vectors[best], order, positions, free)


def _choices(space_group: int, cell: NDArray[np.float64]) -> tuple[NDArray, Normalizer]:
    """A matrix to apply first (it needs no shift), and what to try after it."""
    if space_group <= 2:
        base, linear = _triclinic(cell)
        return base, normalizer(space_group, linear)
    if space_group <= 15:
        return np.eye(3), normalizer(space_group, _monoclinic(space_group, cell))
    ways = normalizer(space_group)
    if space_group <= 74:
        cells = np.linalg.inv(ways.rotations.transpose(0, 2, 1)) @ cell
        lengths = np.linalg.norm(cells, axis=-1)
        keep = _smallest_floats(lengths, TOLERANCE * lengths.max())
        ways = Normalizer(
            ways.rotations[keep], ways.translations[keep], ways.positions[keep], ways.free_axes
        )
    return np.eye(3), ways


# ------------------------------------------------------------------------------- cells


def _triclinic(cell: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple]:
    """Matrix Q to a reduced cell, and the Q from it to all equally good reduced cells."""
    reduced = ask_spglib(spglib.niggli_reduce, cell)
    if reduced is None:
        reduced = minkowski_reduce(cell)[0]
    change = np.rint(np.linalg.solve(cell.T, np.asarray(reduced).T).T)
    change *= np.sign(np.linalg.det(change))
    choices = _unimodular()
    cells = choices @ (change @ cell)
    keep = _best_reduced(cells)
    chosen = choices[keep]
    # Take one of them as the base, so that the identity is among those that remain.
    base = chosen[0] @ change
    others = np.rint(chosen @ np.linalg.inv(chosen[0]))
    return np.linalg.inv(base).T.round(), _as_linear_parts(others)


def _best_reduced(cells: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the best reduced cells among (k, 3, 3)."""
    lengths = np.linalg.norm(cells, axis=-1)
    keep = _smallest_floats(lengths, TOLERANCE * lengths.min())
    a, b, c = np.moveaxis(cells[keep] / lengths[keep][..., None], 1, 0)
    cosines = np.stack([(b * c).sum(-1), (a * c).sum(-1), (a * b).sum(-1)], axis=1)
    acute = (cosines > TOLERANCE).all(axis=1)
    good = acute if acute.any() else (cosines <= TOLERANCE).all(axis=1)
    keep, cosines = keep[good], np.abs(cosines[good])
    key = np.column_stack([cosines.sum(axis=1), cosines])
    return keep[_smallest_floats(key, TOLERANCE)]


def _monoclinic(space_group: int, cell: NDArray[np.float64]) -> tuple:
    """The Q to the best cells: shortest a and c the setting allows, beta obtuse, a < c."""
    plane = cell[[0, 2]]
    change = np.eye(2)
    while True:  # Lagrange's reduction of a and c
        a, c = change @ plane
        if a @ a > c @ c * (1 + 1e-12):
            change = change[::-1]
            continue
        times = np.rint(a @ c / (a @ a))
        if times == 0 or abs(abs(a @ c / (a @ a)) - 0.5) < 1e-12:
            break
        change[1] -= times * change[0]
    pairs = _unimodular_pairs() @ change  # every basis that can be shortest in its class
    vectors = pairs @ plane
    squares = (vectors**2).sum(axis=-1)
    total = squares.sum(axis=1)
    bases = np.zeros((len(pairs), 3, 3))
    bases[:, 0, [0, 2]], bases[:, 2, [0, 2]] = pairs[:, 0], pairs[:, 1]
    bases[:, 1, 1] = np.rint(np.linalg.det(pairs))
    allowed: list[int] = []
    for i in np.argsort(total, kind="stable"):
        if allowed and total[i] > total[allowed[0]] * (1 + TOLERANCE):
            break
        if len(shifts(space_group, _as_linear_parts(bases[i : i + 1])[0])):
            allowed.append(int(i))
    chosen = np.array(allowed)
    lengths = np.sqrt(squares[chosen])
    cosine = (vectors[chosen, 0] * vectors[chosen, 1]).sum(-1) / lengths.prod(axis=1)
    sharp = cosine > TOLERANCE  # obtuse (or right) first
    key = np.column_stack([sharp, lengths / lengths.min()])
    return _as_linear_parts(bases[chosen[_smallest_floats(key, TOLERANCE)]])


def _as_linear_parts(changes: NDArray[np.float64]) -> tuple[tuple[int, ...], ...]:
    """Changes of basis (rows of the new cell in the old one) as the Q that act on coordinates."""
    matrices = np.rint(np.linalg.inv(changes).transpose(0, 2, 1))
    return tuple(tuple(int(v) for v in matrix.ravel()) for matrix in matrices)


@cache
def _unimodular() -> NDArray[np.float64]:
    """All (3480) 3 x 3 matrices of -1, 0, 1 with determinant 1, the identity first."""
    rows = np.array(list(product((-1, 0, 1), repeat=3)), dtype=float)
    cross = np.cross(rows[:, None], rows[None])
    determinants = np.einsum("ijk,lk->ijl", cross, rows)
    i, j, k = np.nonzero(np.abs(determinants - 1) < 0.5)
    matrices = np.stack([rows[i], rows[j], rows[k]], axis=1)
    return matrices[np.argsort(np.abs(matrices - np.eye(3)).sum(axis=(1, 2)), kind="stable")]


@cache
def _unimodular_pairs() -> NDArray[np.float64]:
    rows = np.array(list(product((0, 1, -1), repeat=4)), dtype=float).reshape(-1, 2, 2)
    return rows[np.abs(np.abs(np.linalg.det(rows)) - 1) < 0.5]


# ------------------------------------------------------------------------------- sites


def _wyckoff_indices(
    space_group: int, multiplicity: NDArray[np.int64], points: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Wyckoff position (n,) of every orbit."""
    positions = wyckoff_positions(space_group)
    index = np.full(len(points), -1)
    index[multiplicity == positions[0].multiplicity] = 0
    for m in np.unique(multiplicity[index < 0]):
        which = np.flatnonzero(multiplicity == m)
        images = _images(space_group, points[which])
        misfits = []
        fitting = [p for p in positions if p.multiplicity == m]
        for position in fitting:
            across = fit(position, images)[1]
            misfits.append(np.abs(across - np.rint(across)).max(axis=-1).min(axis=-1))
        if not fitting or np.min(misfits, axis=0).max() > TOLERANCE:
            raise CrystalError(
                f"atoms of space group {space_group} fit no Wyckoff position of multiplicity {m}: "
                "the symmetry is ambiguous at this tolerance, try another symprec"
            )
        index[which] = np.array([p.index for p in fitting])[np.argmin(misfits, axis=0)]
    return index


def _images(space_group: int, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """All images (..., n_operations, 3) of points (..., 3)."""
    group = operations(space_group)
    turned = points[..., None, :] @ group.rotations.reshape(-1, 3).T.astype(float)
    return turned.reshape(*points.shape[:-1], -1, 3) + group.translations / UNIT


def _all_values(
    space_group: int,
    labels: NDArray[np.int64],
    matrices: NDArray[np.float64],
    vectors: NDArray[np.float64],
    points: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Free coordinates (k, n, 3) of all orbits in all descriptions; zero where there are fewer."""
    positions = wyckoff_positions(space_group)
    moved = points @ matrices.transpose(0, 2, 1) + vectors[:, None]  # (k, n, 3)
    index = len(positions) - 1 - labels % 32
    values = np.zeros_like(moved)
    for i in np.unique(index):
        position = positions[i]
        if position.dof:
            where = index == i
            images = _images(space_group, moved[where])
            values[where, : position.dof] = _smallest_free(position, images)
    return values


def _smallest_free(position: WyckoffPosition, images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smallest free coordinates (..., d) among the images (..., m, 3) that atom 0 can be."""
    along, across = fit(position, images)
    possible = (np.abs(across - np.rint(across)) < 10 * TOLERANCE).all(axis=-1)
    along = wrap(along)
    for column in np.moveaxis(along, -1, 0):
        values = np.where(possible, column, np.inf)
        possible &= values <= values.min(axis=-1, keepdims=True) + TOLERANCE
    first = possible.argmax(axis=-1)
    return np.take_along_axis(along, first[..., None, None], axis=-2)[..., 0, :]


def wrap(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wrap into [0, 1), where what is just below 1 counts as just below 0."""
    return (values + TOLERANCE) % 1.0 - TOLERANCE


def _origins(
    space_group: int,
    labels: NDArray[np.int64],
    matrices: NDArray[np.float64],
    vectors: NDArray[np.float64],
    points: NDArray[np.float64],
    zeros: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Fix the origin along the free axes: (which description, its q), one or more per (Q, q).

    Atoms of the rarest kind of site (species and letter) are candidates for the zero, if their
    orbit is among ``zeros`` (n,); those stay that follow the largest gap along the first free
    axis, then along the next.
    """
    kinds, counts = np.unique(labels[0], return_counts=True)
    multiplicity = np.array(
        [p.multiplicity for p in reversed(wyckoff_positions(space_group))], dtype=int
    )
    rarest = kinds[np.argmin(counts * multiplicity[kinds % 32])]
    axes = list(operations(space_group).free_axes)
    which, origins = [], []
    for k, (matrix, vector) in enumerate(zip(matrices, vectors, strict=True)):
        rare = labels[k] == rarest
        images = _images(space_group, points[rare] @ matrix.T + vector)
        atoms = wrap(images[..., axes].reshape(-1, len(axes)))
        candidates = np.flatnonzero(np.repeat(zeros[rare], images.shape[1]))
        for column in atoms.T:
            gaps = _gaps(column)[candidates]
            candidates = candidates[gaps >= gaps.max() - TOLERANCE]
        _, first = np.unique(np.rint(atoms[candidates] / TOLERANCE), axis=0, return_index=True)
        for zero in atoms[candidates[first]]:
            moved = vector.copy()
            moved[axes] -= zero
            which.append(k)
            origins.append(moved)
    return np.array(which), np.array(origins)


def _different_origins(
    space_group: int,
    cell: NDArray[np.float64],
    numbers: NDArray[np.int64],
    points: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Orbits (n,) that stand for all: the others are copies of these by a translation.

    Only a crystal forced into P1 has such copies (a supercell of a smaller one), and then so
    many that trying each of them would take long; the descriptions they give are the same.
    """
    zeros = np.ones(len(points), dtype=bool)
    if space_group == 1 and len(points) > 16:
        dataset = ask_spglib(spglib.get_symmetry_dataset, (cell, points, numbers), 1e-5)
        if dataset is not None:
            zeros[:] = False
            zeros[np.unique(dataset.mapping_to_primitive, return_index=True)[1]] = True
    return zeros


def _gaps(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance from each value (n,) down to the next different one, around the circle."""
    ranks = _ranks(values)
    levels = np.zeros(ranks.max() + 1)
    levels[ranks] = values
    return (levels - np.roll(levels, 1) + (np.arange(len(levels)) == 0))[ranks]


# ------------------------------------------------------------------------- comparisons


def _smallest_values(
    labels: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[int, NDArray[np.int64]]:
    """Which description (of k) is smallest, and the order (n,) of its orbits."""
    keep = np.arange(len(labels))
    for axis in range(3):  # cheap first: the sorted coordinates of all sites, one axis alone
        if len(keep) > 1:
            column = np.sort(values[keep, :, axis], axis=1)
            keep = keep[_smallest_floats(column, TOLERANCE)]
    ranks = [_ranks(values[keep, :, axis]) for axis in range(3)]
    code = labels[keep]
    for rank in ranks:
        code = np.unique(code * (rank.max() + 1) + rank, return_inverse=True)[1]
        code = code.reshape(rank.shape)
    best = _smallest_rows(np.sort(code, axis=1))[0]
    return int(keep[best]), np.argsort(code[best], kind="stable")


def _ranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rank of every value among all, equal for those without a gap between them."""
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    steps = np.diff(flat[order], prepend=flat[order[:1]]) > TOLERANCE
    ranks = np.empty(len(flat), dtype=np.int64)
    ranks[order] = np.cumsum(steps)
    return ranks.reshape(values.shape)


def _smallest_floats(rows: NDArray[np.float64], tolerance: float) -> NDArray[np.int64]:
    """Indices of the lexicographically smallest rows (k, n), within a tolerance per column."""
    keep = np.arange(len(rows))
    for column in rows.T:
        if len(keep) == 1:
            break
        values = column[keep]
        keep = keep[values <= values.min() + tolerance]
    return keep


def _smallest_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of the lexicographically smallest rows (k, n) of integers."""
    return _smallest_floats(rows, 0)
