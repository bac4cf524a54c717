"""Atoms laid onto a space group: which are equivalent, and where exact symmetry puts them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asexlatent.symmetry.normalizer import UNIT, Operations, operations, primitive_basis
from asexlatent.symmetry.settings import (
    Frame,
    Setting,
    average_metric,
    reduced_basis,
    symbol,
)
from asexlatent.symmetry.wyckoff import CrystalError


@dataclass(frozen=True, eq=False)
class Orbits:
    """Atoms of a frame grouped into orbits of a space group.

    Attributes
    ----------
    setting : with its origin moved to where the atoms move least.
    cell : (3, 3) conventional cell with the exact metric of the group, rows, Å; its
        orientation in space is arbitrary.
    orbit : (n_atoms,) which orbit every atom of the frame belongs to.
    numbers, multiplicity : (n_orbits,) atomic number, atoms in the conventional cell.
    points : (n_orbits, 3) one atom of each orbit, fractional, exactly symmetric.
    """

    setting: Setting
    cell: NDArray[np.float64]
    orbit: NDArray[np.int64]
    numbers: NDArray[np.int64]
    multiplicity: NDArray[np.int64]
    points: NDArray[np.float64]


def find_orbits(frame: Frame, setting: Setting) -> Orbits:
    """Group atoms into orbits and average each orbit over the operations.

    The position of an orbit is the mean over all operations g of g^-1 applied to the atom that
    g sends its first atom to: invariant under the site symmetry by construction, and the
    nearest symmetric arrangement in the sense of least squares.

    Raises
    ------
    CrystalError
        When the operations do not send atoms to atoms one to one.
    """
    group = operations(setting.space_group)
    cell = _symmetric_cell(frame, setting, group)
    basis = reduced_basis(primitive_basis(setting.space_group), cell)
    to_basis = np.linalg.inv(basis)
    points = frame.scaled @ setting.transformation + setting.origin
    volume = abs(np.linalg.det(setting.transformation))
    copies = round(volume * len(group.centring))
    lattice = _Lattice(to_basis, basis, basis @ cell)
    member, sites, numbers = _fold(points, frame.numbers, copies, lattice, setting)
    orbit, seeds, sizes, pulled = _orbits(sites, numbers, group, lattice, setting)
    back = np.linalg.inv(group.rotations[group.coset])
    shift = _best_origin(back, pulled, sizes, cell)
    centres = sites[seeds] + pulled.mean(axis=1) + back.mean(axis=0) @ shift
    moved = Setting(setting.space_group, setting.transformation, setting.origin + shift)
    multiplicity = sizes * len(group.centring)
    return Orbits(moved, cell, orbit[member], numbers[seeds], multiplicity, centres)


def _symmetric_cell(frame: Frame, setting: Setting, group: Operations) -> NDArray[np.float64]:
    cell = np.linalg.solve(setting.transformation, frame.cell)
    return np.linalg.cholesky(average_metric(cell @ cell.T, group.rotations[group.coset]))


@dataclass(frozen=True, eq=False)
class _Lattice:
    """All translations of the crystal, by a reduced primitive basis (rows)."""

    to_basis: NDArray[np.float64]
    basis: NDArray[np.float64]
    cell: NDArray[np.float64]

    def nearest(self, differences: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shortest images of fractional differences (..., 3), and their lengths in Å."""
        reduced = differences @ self.to_basis
        reduced -= np.rint(reduced)
        return reduced @ self.basis, np.linalg.norm(reduced @ self.cell, axis=-1)


def _fold(
    points: NDArray[np.float64],
    numbers: NDArray[np.int64],
    copies: int,
    lattice: _Lattice,
    setting: Setting,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Atoms of the primitive cell: member (n_atoms,), mean points (n, 3) and numbers (n,)."""
    if copies == 1:
        return np.arange(len(points)), points, numbers
    member = np.full(len(points), -1)
    sites, kinds = [], []
    while (member < 0).any():
        first = int(np.argmax(member < 0))
        others = np.flatnonzero((member < 0) & (numbers == numbers[first]))
        if len(others) < copies:
            raise _no_mapping(setting)
        vectors, distances = lattice.nearest(points[others] - points[first])
        chosen = np.argpartition(distances, copies - 1)[:copies]
        member[others[chosen]] = len(sites)
        sites.append(points[first] + vectors[chosen].mean(axis=0))
        kinds.append(numbers[first])
    return member, np.array(sites), np.array(kinds)


def _orbits(
    sites: NDArray[np.float64],
    numbers: NDArray[np.int64],
    group: Operations,
    lattice: _Lattice,
    setting: Setting,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Orbit of every site, first site and size of each orbit, deviations (n_orbits, p, 3).

    The deviation leads from the first site to the site that operation g sends it to, pulled
    back by g; it is zero where the symmetry is exact.
    """
    n, p = len(sites), len(group.coset)
    if p == 1:
        everything = np.arange(n)
        return everything, everything, np.ones(n, dtype=np.int64), np.zeros((n, 1, 3))
    rotations = group.rotations[group.coset]
    translations = group.translations[group.coset] / UNIT
    orbit = np.full(n, -1)
    back = np.linalg.inv(rotations)
    seeds, sizes, pulled = [], [], []
    for seed in range(n):
        if orbit[seed] >= 0:
            continue
        same = np.flatnonzero((numbers == numbers[seed]) & (orbit < 0))
        images = rotations @ sites[seed] + translations
        vectors, distances = lattice.nearest(sites[same] - images[:, None])
        hit = distances.argmin(axis=1)
        counts = np.bincount(hit, minlength=len(same))
        size = np.count_nonzero(counts)
        if (counts[counts > 0] * size != p).any():
            raise _no_mapping(setting)
        orbit[same[counts > 0]] = len(seeds)
        seeds.append(seed)
        sizes.append(size)
        pulled.append(np.einsum("gij,gj->gi", back, vectors[np.arange(p), hit]))
    return orbit, np.array(seeds), np.array(sizes), np.array(pulled)


def _best_origin(
    back: NDArray[np.float64],
    pulled: NDArray[np.float64],
    sizes: NDArray[np.int64],
    cell: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Shift of all atoms with which they are nearest to exact symmetry (least squares, Å).

    The atoms of an orbit, pulled back to its first atom, should coincide; how far each is from
    their mean is how far it has to move. A shift s of all atoms adds W_g^-1 s to the deviation of
    operation g. Along the free axes, where nothing changes, s is zero.
    """
    if np.abs(pulled).max() < 1e-12:
        return np.zeros(3)
    weights = sizes / sizes.sum()  # an operation counts once per atom, not per operation
    spread = np.einsum("s,sgi->gi", weights, pulled - pulled.mean(axis=1, keepdims=True))
    matrix = (cell.T @ (back - back.mean(axis=0))).reshape(-1, 3)
    return np.linalg.lstsq(matrix, -(spread @ cell).reshape(-1), rcond=1e-9)[0]


def _no_mapping(setting: Setting) -> CrystalError:
    return CrystalError(
        f"the operations of space group {symbol(setting.space_group)} do not send atoms to "
        "atoms one to one: the symmetry is ambiguous at this tolerance, try another symprec"
    )
