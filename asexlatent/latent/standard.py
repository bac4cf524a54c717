"""One description of a crystal for each condition, and one condition for all equivalent ones.

The same crystal can be written in the same space-group setting with other origins and axes, which
permute Wyckoff letters, with other representatives of each orbit and other orders of the sites. A
model that had to learn all of them would spend its capacity on bookkeeping. So the models here
live in *standard* descriptions only:

* the condition: among all that the affine normaliser of the group makes of it, the one whose
  sorted list of (species, letter) is smallest;
* the crystal: among the descriptions with that condition, the one with the shortest lengths
  first (orthorhombic groups, where axes may be exchanged) and then the smallest coordinates,
  each site at its smallest representative, the origin along polar axes at an atom.

The way back to the description that was asked for is affine in the free variables, and the same
for all crystals of a condition: `StandardForm`. In triclinic and monoclinic groups the linear
part of the normaliser is infinite; there only the origin is standardised.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from asexlatent.latent.conditions import Condition
from asexlatent.symmetry import (
    SymmetricCrystal,
    WyckoffPosition,
    lattice_variables,
    wyckoff_positions,
)
from asexlatent.symmetry.normalizer import UNIT, Normalizer, fit, normalizer, operations

_DIGITS = 6  # decimals of fractional coordinates and relative lengths that count in comparisons
_GENERIC = np.array([0.1371, 0.2839, 0.4127])  # free coordinates without any special relation


@dataclass(frozen=True, eq=False)
class StandardForm:
    """The standard condition of a condition and the way back; S sites.

    Attributes
    ----------
    condition : Condition
        The standard one.
    order : (S,) int
        Site s of the standard condition is site ``order[s]`` of the given one.
    lengths : (3,) int
        Cell length k of the given description is length ``lengths[k]`` of the standard one.
    matrices, constants : (S, 3, 3) and (S, 3)
        Free coordinates of given site ``order[s]`` = ``matrices[s] @ free + constants[s]``, with
        the standard ``free`` padded to three by zeros; rows beyond the free ones are zero.
    """

    condition: Condition
    order: NDArray[np.int64]
    lengths: NDArray[np.int64]
    matrices: NDArray[np.float64]
    constants: NDArray[np.float64]


@lru_cache(maxsize=65536)
def standard_form(condition: Condition) -> StandardForm:
    """Standard condition of a condition, and how to come back from it."""
    ways, labels = _relabelled(condition)
    best = _smallest(np.sort(labels, axis=1))[0]
    order = np.argsort(labels[best], kind="stable")
    last = len(wyckoff_positions(condition.space_group)) - 1
    letters = last - labels[best] % 32
    standard = Condition(
        condition.space_group,
        tuple((condition.sites[i][0], int(letters[i])) for i in order),
    )
    rotation, translation = ways.rotations[best], ways.translations[best]
    back = [
        _site_map(standard.positions[s], condition.positions[i], rotation, translation)
        for s, i in enumerate(order)
    ]
    return StandardForm(
        standard,
        order,
        _lengths(condition.space_group, rotation[None])[0],
        np.array([matrix for matrix, _ in back]),
        np.array([constant for _, constant in back]),
    )


def standardize(crystal: SymmetricCrystal) -> SymmetricCrystal:
    """Return the standard description of a crystal (or of its mirror image: never).

    Its condition is that of `standard_form`; the space group is not detected anew.
    """
    condition = Condition.from_crystal(crystal)
    ways, labels = _relabelled(condition)
    keep = _smallest(np.sort(labels, axis=1))
    lengths = _lengths(condition.space_group, ways.rotations[keep])
    # inverse permutation: the standard length l is the given length that points at it
    given = np.argsort(lengths, axis=1)
    cells = crystal.cell_parameters[:3][given]
    shortest = _smallest(np.round(cells / cells.max(), _DIGITS))
    keep, cell = keep[shortest], crystal.cell_parameters.copy()
    cell[:3] = cells[shortest[0]]
    points = np.array([site.position.representative(site.free) for site in crystal.sites])
    standard = standard_form(condition).condition
    order = np.argsort(labels[keep], axis=1, kind="stable")
    moved = points @ ways.rotations[keep].transpose(0, 2, 1) + ways.translations[keep][:, None]
    moved = np.take_along_axis(moved, order[..., None], axis=1)
    free = _coordinates(standard, _with_origins(standard, moved))
    best = free[_smallest(np.round(free.reshape(len(free), -1), _DIGITS))[0]]
    sites = [
        (species, index, values[: position.dof])
        for (species, index), position, values in zip(
            standard.sites, standard.positions, best, strict=True
        )
    ]
    free_cell = lattice_variables(crystal.space_group).project(cell)
    return SymmetricCrystal.build(crystal.space_group, free_cell, sites, dict(crystal.info))


def _relabelled(condition: Condition) -> tuple[Normalizer, NDArray[np.int64]]:
    """Ways (k) to describe crystals of a condition anew; species and letter (k, S) as integers."""
    ways = _ways(condition.space_group)
    last = len(wyckoff_positions(condition.space_group)) - 1
    numbers = np.array([atomic_numbers[species] for species, _ in condition.sites])
    index = np.array([index for _, index in condition.sites])
    return ways, numbers * 32 + (last - ways.positions[:, index])


@cache
def _ways(space_group: int) -> Normalizer:
    if space_group < 16:
        return normalizer(space_group, ((1, 0, 0, 0, 1, 0, 0, 0, 1),))
    return normalizer(space_group)


def _lengths(space_group: int, rotations: NDArray[np.float64]) -> NDArray[np.int64]:
    """(k, 3) which new length each given length becomes, for linear parts (k, 3, 3)."""
    if lattice_variables(space_group).system != "orthorhombic":
        return np.tile(np.arange(3), (len(rotations), 1))
    return np.abs(rotations).argmax(axis=1)


def _site_map(
    standard: WyckoffPosition,
    given: WyckoffPosition,
    rotation: NDArray[np.float64],
    translation: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Affine map (3, 3), (3,) from free coordinates of a standard site to those of the given."""
    matrix, constant = np.zeros((3, 3)), np.zeros(3)
    d = given.dof
    if not d:
        return matrix, constant
    group = operations(given.space_group)
    inverse = np.linalg.inv(rotation)
    turns = group.rotations @ inverse @ standard.linear[0]  # (n, 3, d) of every image
    origin = inverse @ (standard.translations[0] - translation)
    shifts = group.rotations @ origin + group.translations / UNIT
    across = fit(given, turns @ _GENERIC[:d] + shifts)[1]
    k = int(np.abs(across - np.rint(across)).max(axis=-1, initial=0.0).argmin())
    start = fit(given, shifts[k])[0]
    columns = [fit(given, shifts[k] + column)[0] - start for column in turns[k].T]
    matrix[:d, :d] = np.rint(np.array(columns).T)
    constant[:d] = np.round(start * 2 * UNIT) / (2 * UNIT)
    return matrix, constant


def _with_origins(condition: Condition, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add every choice of the origin along polar axes to descriptions (k, S, 3)."""
    group = operations(condition.space_group)
    if not group.free_axes:
        return points
    kinds = Counter(condition.sites)
    sizes = {
        site: kinds[site] * position.multiplicity
        for site, position in zip(condition.sites, condition.positions, strict=True)
    }
    rarest = min(sizes, key=sizes.__getitem__)
    use = [s for s, site in enumerate(condition.sites) if site == rarest]
    axes = list(group.free_axes)
    made = []
    for description in points:
        origins = np.zeros((len(use) * len(group.rotations), 3))
        origins[:, axes] = _images(condition.space_group, description[use]).reshape(-1, 3)[:, axes]
        _, first = np.unique(np.round(origins % 1.0, _DIGITS), axis=0, return_index=True)
        made.append(description - origins[np.sort(first)][:, None])
    return np.concatenate(made)


def _coordinates(condition: Condition, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smallest free coordinates (k, S, 3) of sites at `points` (k, S, 3); equal sites sorted."""
    free, positions = np.zeros_like(points), condition.positions
    for index in {index for _, index in condition.sites}:
        sites = [s for s, (_, i) in enumerate(condition.sites) if i == index]
        position = positions[sites[0]]
        if position.dof:
            images = _images(condition.space_group, points[:, sites])
            free[:, sites, : position.dof] = _smallest_image(position, images)
    kinds = list(dict.fromkeys(condition.sites))  # standard sites come sorted
    labels = np.broadcast_to([kinds.index(site) for site in condition.sites], free.shape[:2])
    x, y, z = np.moveaxis(np.round(free, _DIGITS), 2, 0)
    order = np.lexsort((z, y, x, labels), axis=-1)  # its last key counts first
    return np.take_along_axis(free, order[..., None], axis=1)


def _images(space_group: int, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """All images (..., n, 3) of points (..., 3) under the group."""
    group = operations(space_group)
    turned = points @ group.rotations.reshape(-1, 3).T.astype(float)
    return turned.reshape(*points.shape[:-1], -1, 3) + group.translations / UNIT


def _smallest_image(position: WyckoffPosition, images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smallest free coordinates (..., d) in [0, 1) among images (..., n, 3) that atom 0 can be."""
    along, across = fit(position, images)
    off = np.abs(across - np.rint(across)).max(axis=-1, initial=0.0)
    # The nearest image counts even when a badly rounded crystal has none that fits.
    possible = off <= np.maximum(off.min(axis=-1, keepdims=True), 1e-4)
    along = along - np.floor(along + 10.0**-_DIGITS)  # just below 1 is just below 0
    for column in np.moveaxis(np.round(along, _DIGITS), -1, 0):
        values = np.where(possible, column, np.inf)
        possible &= values == values.min(axis=-1, keepdims=True)
    first = possible.argmax(axis=-1)
    return np.take_along_axis(along, first[..., None, None], axis=-2)[..., 0, :]


def _smallest(rows: NDArray) -> NDArray[np.int64]:
    """Indices of the lexicographically smallest rows (k, n), all of the equal ones."""
    keep = np.arange(len(rows))
    for column in rows.T:
        values = column[keep]
        keep = keep[values == values.min()]
    return keep
