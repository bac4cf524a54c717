"""The same crystal in other clothes: cells, orders and orientations that users come with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import spglib
from ase import Atoms

from asexlatent.symmetry import SymmetricCrystal


def spglib_cell(atoms: Atoms) -> tuple:
    return atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers


def spglib_number(atoms: Atoms, symprec: float = 1e-4) -> int:
    return spglib.get_symmetry_dataset(spglib_cell(atoms), symprec).number


def primitive(atoms: Atoms) -> Atoms:
    cell, scaled, numbers = spglib.find_primitive(spglib_cell(atoms), 1e-4)
    return Atoms(numbers, scaled_positions=scaled, cell=cell, pbc=True)


def disguises(atoms: Atoms, rng: np.random.Generator) -> Iterator[tuple[str, Atoms]]:
    """Named variants of a crystal, all of them the same crystal."""
    yield "as it is", atoms.copy()
    yield "primitive", primitive(atoms)
    for name, matrix in (
        ("supercell", np.diag([2, 1, 2])),
        ("left-handed", np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])),
        ("skewed", np.array([[1, 2, 0], [0, 1, 0], [1, 0, 1]])),
    ):
        yield name, recut(atoms, matrix)
    yield "any", disguise(atoms, rng)


def disguise(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Random rotation, shift, order and unwrapped atoms, in a random cell."""
    matrix = np.eye(3, dtype=int)
    while (
        abs(np.linalg.det(matrix)) < 0.5
        or abs(np.linalg.det(matrix)) > 3.5
        or (np.array_equal(matrix, np.eye(3)))
    ):
        matrix = rng.integers(-1, 3, (3, 3))
    changed = recut(atoms, matrix)
    changed = changed[rng.permutation(len(changed))]
    changed.positions += rng.integers(-3, 4, (len(changed), 3)) @ changed.cell.array
    changed.translate(rng.uniform(-5, 5, 3))
    changed.rotate(rng.uniform(0, 180), rng.normal(size=3), rotate_cell=True)
    return changed


def recut(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    """The same crystal in the cell ``matrix @ cell``, of any handedness."""
    volume = round(abs(np.linalg.det(matrix)))
    cell = matrix @ atoms.cell.array
    reach = int(np.abs(matrix).sum()) + 1
    shifts = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3), axis=-1).reshape(-1, 3)
    # one lattice vector of each class modulo the new cell
    classes = shifts @ np.linalg.inv(matrix)
    classes = np.rint((classes - np.floor(classes + 1e-9)) * volume).astype(int)
    _, first = np.unique(classes, axis=0, return_index=True)
    assert len(first) == volume
    positions = (atoms.positions + (shifts[first] @ atoms.cell.array)[:, None]).reshape(-1, 3)
    return Atoms(np.tile(atoms.numbers, volume), positions=positions, cell=cell, pbc=True)


def assert_identical(ours: SymmetricCrystal, theirs: SymmetricCrystal, atol: float = 1e-6) -> None:
    """Same description to the last variable: no wrapping, no reordering."""
    assert ours.space_group == theirs.space_group
    assert ours.wyckoffs == theirs.wyckoffs
    assert [s.species for s in ours.sites] == [s.species for s in theirs.sites]
    np.testing.assert_allclose(ours.free_variables, theirs.free_variables, rtol=0, atol=atol)
