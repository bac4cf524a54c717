"""Where a crystal's cell stands in the standard setting of its space group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import spglib
from numpy.typing import NDArray

from asexlatent.symmetry.lattice import cell_from_parameters, lattice_variables
from asexlatent.symmetry.normalizer import UNIT, operations, primitive_basis
from asexlatent.symmetry.wyckoff import CrystalError, hall_number

_SPGLIB_ERROR = getattr(spglib, "SpglibError", ValueError)  # not in all versions
_DENOMINATOR = 12  # lattice vectors have conventional coordinates in halves and thirds


@dataclass(frozen=True, eq=False)
class Frame:
    """The bare facts of an ``Atoms``: ``cell`` (3, 3) Å, ``scaled`` (n, 3), ``numbers`` (n,).

    ``scaled`` are fractional coordinates as they are, not wrapped.
    """

    cell: NDArray[np.float64]
    scaled: NDArray[np.float64]
    numbers: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Setting:
    """A space group laid over a cell.

    ``cell = transformation @ conventional_cell`` (rows, same orientation), and fractional
    coordinates become ``scaled @ transformation + origin`` in the conventional cell.
    """

    space_group: int
    transformation: NDArray[np.float64]
    origin: NDArray[np.float64]

    def then(self, space_group: int, matrix: NDArray, origin: NDArray) -> Setting:
        """Follow with ``x @ matrix + origin`` into the setting of another group."""
        transformation = _rational(self.transformation @ matrix)
        return Setting(space_group, transformation, self.origin @ matrix + origin)


@cache
def symbol(space_group: int) -> str:
    """Number and short Hermann-Mauguin symbol, such as ``225 (Fm-3m)``, for messages."""
    name = spglib.get_spacegroup_type(hall_number(space_group)).international_short
    return f"{space_group} ({name})"


def find_setting(frame: Frame, symprec: float, angle_tolerance: float = -1.0) -> Setting:
    """Space group found by spglib, in the setting of :func:`hall_number`.

    Raises
    ------
    CrystalError
        When spglib finds nothing at this tolerance.
    """
    cell = (frame.cell, frame.scaled, frame.numbers)
    dataset = ask_spglib(spglib.get_symmetry_dataset, cell, symprec, angle_tolerance)
    if dataset is not None and dataset.hall_number != hall_number(dataset.number):
        hall = hall_number(dataset.number)
        dataset = ask_spglib(spglib.get_symmetry_dataset, cell, symprec, angle_tolerance, hall)
    if dataset is None:
        raise CrystalError(
            f"spglib finds no space group with symprec={symprec:g} Å; atoms may be too close "
            "to each other for this tolerance: try a smaller symprec, or space_group=1"
        )
    transformation = _rational(dataset.transformation_matrix.T)
    return Setting(int(dataset.number), transformation, np.array(dataset.origin_shift))


def ask_spglib(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of spglib; None where it fails, whichever way its version says so."""
    try:
        return function(*arguments)
    except _SPGLIB_ERROR:
        return None


def _rational(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    exact = np.rint(matrix * _DENOMINATOR) / _DENOMINATOR
    if np.abs(exact - matrix).max() > 0.02:
        raise CrystalError(
            "spglib's conventional cell does not fit the lattice of the atoms: the symmetry is "
            "ambiguous at this tolerance, try a smaller symprec"
        )
    return exact


def reduced_basis(basis: NDArray[np.float64], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Short vectors spanning the same lattice as the rows of ``basis`` (fractional in ``cell``).

    In such a basis rounding fractional differences finds the nearest image of near points.
    """
    reduced = ask_spglib(spglib.delaunay_reduce, basis @ cell)
    if reduced is None:
        return basis
    return np.rint(np.linalg.solve((basis @ cell).T, np.asarray(reduced).T).T) @ basis


# ------------------------------------------------------------- settings from operations


def setting_from_operations(
    cell: NDArray[np.float64], rotations: NDArray, translations: NDArray
) -> Setting:
    """Setting of the space group that a list of operations makes.

    Parameters
    ----------
    cell : (3, 3) any cell of the crystal, rows, Å. Its metric need not obey the operations
        exactly: what they make of it is used.
    rotations, translations : (n, 3, 3) integers and (n, 3): x -> R x + t (fractional, of
        ``cell``), pure translations of a supercell included, as spglib and
        ``ase.constraints.FixSymmetry`` give them. Inexact translations are made exact.

    Raises
    ------
    CrystalError
        When the operations do not make a group.
    """
    rotations = np.rint(rotations).astype(np.int64)
    translations = np.asarray(translations, dtype=float)
    metric = average_metric(cell @ cell.T, rotations)
    cell = np.linalg.cholesky(metric)
    basis = reduced_basis(_translation_basis(rotations, translations), cell)
    to_basis = np.linalg.inv(basis)
    # Columns: x = basis.T u, so that R x + t reads (basis.T^-1 R basis.T) u + basis.T^-1 t.
    inner = to_basis.T @ rotations @ basis.T
    exact = np.rint(inner)
    if np.abs(inner - exact).max() > 1e-3:
        raise CrystalError("the symmetry operations do not keep the lattice of the atoms")
    _, first = np.unique(exact.reshape(-1, 9), axis=0, return_index=True)
    chosen = np.sort(first)
    exact, shift = exact[chosen].astype(np.int64), (translations @ to_basis)[chosen]
    shift = _exact_translations(exact, shift)
    number, matrix, origin = _standard_setting(basis @ cell, exact, shift)
    return Setting(number, _rational(to_basis @ matrix), origin)


def average_metric(metric: NDArray[np.float64], rotations: NDArray) -> NDArray[np.float64]:
    """Mean of R^T G R: the nearest metric that all rotations keep."""
    return (rotations.transpose(0, 2, 1) @ metric @ rotations).mean(axis=0)


def _translation_basis(rotations: NDArray, translations: NDArray) -> NDArray[np.float64]:
    """Rows spanning the lattice of the unit cell and the pure translations among operations."""
    pure = translations[(rotations == np.eye(3)).all(axis=(1, 2))]
    n = max(len(pure), 1)
    # The pure translations modulo the cell are a group of n elements: n times each is a lattice
    # vector of the cell.
    rows = [[int(v) for v in row] for row in np.rint(pure * n)]
    rows += [[n * (i == j) for j in range(3)] for i in range(3)]
    basis = np.array(_echelon(rows), dtype=float) / n
    if abs(abs(np.linalg.det(basis)) * n - 1) > 1e-6:
        raise CrystalError("the pure translations among the symmetry operations make no group")
    return basis


def _echelon(rows: list[list[int]]) -> list[list[int]]:
    """Three rows spanning the same integer lattice (Hermite elimination)."""
    result = []
    for column in range(3):
        while sum(1 for row in rows if row[column]) > 1:
            rows.sort(key=lambda row: (row[column] == 0, abs(row[column])))
            pivot = rows[0]
            for row in rows[1:]:
                factor = row[column] // pivot[column]
                row[:] = [value - factor * other for value, other in zip(row, pivot, strict=True)]
        rows.sort(key=lambda row: row[column] == 0)
        result.append(rows.pop(0))
    return result


def _exact_translations(
    rotations: NDArray[np.int64], translations: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Translations that satisfy the group law exactly, near the given inexact ones.

    The misfit c(k, l) = w_kl - W_k w_l - w_k (modulo the lattice) is a cocycle of a finite
    group; adding its mean over l to w_k removes it.
    """
    index = {tuple(matrix.ravel()): i for i, matrix in enumerate(rotations)}
    products = (rotations[:, None] @ rotations[None]).reshape(-1, 9)
    try:
        table = np.array([index[tuple(row)] for row in products]).reshape(len(rotations), -1)
    except KeyError:
        raise CrystalError("the symmetry operations make no group: some are missing") from None
    images = np.einsum("kij,lj->kli", rotations, translations) + translations[:, None]
    misfit = translations[table] - images
    misfit -= np.rint(misfit)
    if np.abs(misfit).max() > 0.1:
        raise CrystalError("the translations of the symmetry operations contradict each other")
    return translations + misfit.mean(axis=1)


def _space_group_type(
    rotations: NDArray[np.int64], translations: NDArray[np.float64], cell: NDArray[np.float64]
) -> spglib.SpaceGroupType | None:
    function = spglib.get_spacegroup_type_from_symmetry
    return ask_spglib(function, rotations, translations, cell, 1e-4)


# Two atoms (of different species) in general position, for several tries.
_SEEDS = (
    ((0.1131, 0.2717, 0.3919), (0.3373, 0.0971, 0.1607)),
    ((0.0713, 0.1291, 0.4337), (0.2239, 0.4111, 0.0817)),
    ((0.2129, 0.3331, 0.0947), (0.0577, 0.1949, 0.2903)),
)


def _standard_setting(
    cell: NDArray[np.float64], rotations: NDArray[np.int64], translations: NDArray[np.float64]
) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Group number and ``x @ matrix + origin`` into its setting, from operations of ``cell``.

    spglib gives the transformation for atoms, not for operations. So a dummy crystal is made
    that has these operations and no others: the orbits of two atoms in general position.
    ``cell`` is primitive and the operations are one per point-group element.
    """
    kind = _space_group_type(rotations, translations, cell)
    for seeds in _SEEDS:
        points = [rotations @ np.array(seed) + translations for seed in seeds]
        numbers = np.repeat([1, 2], len(rotations))
        dummy = Frame(cell, np.concatenate(points), numbers)
        try:
            setting = find_setting(dummy, 1e-4)
        except CrystalError:
            continue
        if kind is None or setting.space_group == kind.number:
            if operations(setting.space_group).coset.size != len(rotations):
                continue
            return setting.space_group, setting.transformation, setting.origin
    raise CrystalError("spglib cannot name the space group of the symmetry operations")


# ------------------------------------------------------------- translationengleiche subgroups


@cache
def subgroup_settings(
    space_group: int, number: int
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]:
    """Subgroups of type ``number`` with all the translations of ``space_group``.

    Returns ``(matrix, origin)`` for one subgroup of each class of subgroups conjugate in
    ``space_group``: ``x @ matrix + origin`` leads from the setting of the group to that of the
    subgroup. Empty when there is none.
    """
    group = operations(space_group)
    order = operations(number).coset.size
    if group.coset.size % order:
        return ()
    cell = _generic_cell(space_group)
    basis = primitive_basis(space_group)
    to_basis = np.linalg.inv(basis)
    rotations = np.rint(to_basis.T @ group.rotations[group.coset] @ basis.T).astype(np.int64)
    translations = group.translations[group.coset] / UNIT @ to_basis
    found = []
    for members in _subgroups(space_group):
        if len(members) != order:
            continue
        chosen = list(members)
        kind = _space_group_type(rotations[chosen], translations[chosen], basis @ cell)
        if kind is None or kind.number != number:
            continue
        _, matrix, origin = _standard_setting(basis @ cell, rotations[chosen], translations[chosen])
        found.append((_rational(to_basis @ matrix), origin))
    return tuple(found)


def _generic_cell(space_group: int) -> NDArray[np.float64]:
    lattice = lattice_variables(space_group)
    parameters = np.array([7.0, 8.3, 9.9, 1.48, 1.71, 1.62])
    return cell_from_parameters(lattice.parameters(lattice.project(parameters)))


@cache
def _subgroups(space_group: int) -> tuple[tuple[int, ...], ...]:
    """Subgroups of the point group, one per conjugacy class, as indices into ``coset``."""
    group = operations(space_group)
    rotations = group.rotations[group.coset]
    index = {tuple(matrix.ravel()): i for i, matrix in enumerate(rotations)}
    products = (rotations[:, None] @ rotations[None]).reshape(-1, 9)
    table = np.array([index[tuple(row)] for row in products]).reshape(len(rotations), -1)
    inverse = [int(np.flatnonzero(row == 0)[0]) for row in table]
    found = {frozenset([0])}
    todo = [frozenset([0])]
    while todo:
        small = todo.pop()
        for element in range(len(rotations)):
            larger = _closure(small | {element}, table)
            if larger not in found:
                found.add(larger)
                todo.append(larger)
    classes = {}
    for members in sorted(found, key=lambda m: (len(m), sorted(m))):
        conjugates = {
            tuple(sorted(int(table[table[g, m], inverse[g]]) for m in members))
            for g in range(len(rotations))
        }
        classes.setdefault(min(conjugates), None)
    return tuple(classes)


def _closure(members: frozenset[int], table: NDArray[np.int64]) -> frozenset[int]:
    mask = np.zeros(len(table), dtype=bool)
    mask[list(members)] = True
    while True:
        chosen = np.flatnonzero(mask)
        before = chosen.size
        mask[table[np.ix_(chosen, chosen)]] = True
        if np.count_nonzero(mask) == before:
            return frozenset(int(i) for i in chosen)
