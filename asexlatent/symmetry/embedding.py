"""How a user's own ``Atoms`` sits on a :class:`SymmetricCrystal`, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from asexlatent.symmetry.canonical import Description, describe
from asexlatent.symmetry.crystal import Site, SymmetricCrystal
from asexlatent.symmetry.lattice import lattice_variables, parameters_from_cell
from asexlatent.symmetry.orbits import Orbits, find_orbits
from asexlatent.symmetry.settings import Frame, Setting, symbol
from asexlatent.symmetry.wyckoff import CrystalError


@dataclass(frozen=True, eq=False)
class Embedding:
    """A user's cell and atoms, in any order and orientation, laid on the conventional crystal.

    The user's cell may be primitive, conventional, a supercell, left-handed, rotated or shifted,
    and its atoms need not be wrapped: all of that is kept.

    Attributes
    ----------
    transformation : (3, 3) ``user_cell = transformation @ crystal.cell @ rotation``.
    rotation : (3, 3) proper rotation.
    origin : (3,) where the user's origin is, in fractional coordinates of the crystal.
    site : (n,) site of every atom.
    operation : (n,) which atom of the site's orbit it is, as in ``WyckoffPosition.expand``.
    shift : (n, 3) integers, the lattice vector of the crystal added to that atom.
    """

    transformation: NDArray[np.float64]
    rotation: NDArray[np.float64]
    origin: NDArray[np.float64]
    site: NDArray[np.int64]
    operation: NDArray[np.int64]
    shift: NDArray[np.int64]

    def apply(self, crystal: SymmetricCrystal) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Cell (3, 3) and positions (n, 3) in Å of the user's atoms, for ``crystal``.

        ``crystal`` has the sites of the embedded one, with any values of its free variables.
        Exact: no search, no wrapping; atoms move continuously with the free variables.
        """
        frame = crystal.cell @ self.rotation
        scaled = np.empty((len(self.site), 3))
        for number, site in enumerate(crystal.sites):
            atoms = self.site == number
            scaled[atoms] = site.expand()[self.operation[atoms]]
        return self.transformation @ frame, (scaled + self.shift - self.origin) @ frame

    def write_back(self, atoms: Atoms, crystal: SymmetricCrystal) -> None:
        """Set cell and positions of ``atoms`` in place, and nothing else.

        Constraints are neither applied nor changed; tags, momenta, info, periodicity and
        calculator stay as they are.

        Raises
        ------
        CrystalError
            When ``atoms`` has another number of atoms or other species than were embedded.
        """
        if len(atoms) != len(self.site):
            raise CrystalError(f"{len(self.site)} atoms were embedded, not {len(atoms)}")
        species = [site.species for site in crystal.sites]
        if [species[i] for i in self.site] != atoms.get_chemical_symbols():
            raise CrystalError("the atoms are not those that were embedded: the species differ")
        cell, positions = self.apply(crystal)
        atoms.set_cell(cell, scale_atoms=False, apply_constraint=False)
        atoms.set_positions(positions, apply_constraint=False)


@dataclass(frozen=True, eq=False)
class SymmetrizedAtoms:
    """What :func:`~asexlatent.symmetry.detect.symmetrize` returns.

    Attributes
    ----------
    crystal : the crystal, exactly symmetric, in its canonical description.
    embedding : the way back to the cell and atoms that were given.
    displacement : largest movement of an atom by the symmetrisation in Å, the cell following
        the fractional coordinates.
    cell_change : largest movement of the end of a lattice vector (of the conventional cell), Å.
    """

    crystal: SymmetricCrystal
    embedding: Embedding
    displacement: float
    cell_change: float


def assemble(
    frame: Frame, setting: Setting, limit: float, info: dict[str, Any] | None = None
) -> SymmetrizedAtoms:
    """Symmetrise a frame in a given setting, describe it, embed it and check the result.

    Parameters
    ----------
    frame : the user's cell and atoms.
    setting : the space group and where it lies.
    limit : largest displacement allowed, Å.
    info : provenance for the crystal.

    Raises
    ------
    CrystalError
        When the atoms do not fit the group, or move by more than ``limit``.
    """
    orbits = find_orbits(frame, setting)
    description = describe(
        setting.space_group, orbits.cell, orbits.numbers, orbits.multiplicity, orbits.points
    )
    crystal = _crystal(setting.space_group, orbits, description, info)
    transformation = orbits.setting.transformation @ description.matrix.T
    origin = orbits.setting.origin @ description.matrix.T + description.shift
    given_cell = np.linalg.solve(transformation, frame.cell)
    rotation = _rotation(crystal.cell, given_cell)
    points = frame.scaled @ transformation + origin
    rank = np.argsort(description.order)
    site = rank[orbits.orbit]
    operation, shift, moves = _place(crystal, site, points)
    embedding = Embedding(transformation, rotation, origin, site, operation, shift)
    displacement = float(moves.max())
    cell_change = float(np.linalg.norm(crystal.cell @ rotation - given_cell, axis=1).max())
    _check(frame, crystal, embedding, limit, max(displacement, cell_change))
    return SymmetrizedAtoms(crystal, embedding, displacement, cell_change)


def _crystal(
    space_group: int, orbits: Orbits, description: Description, info: dict[str, Any] | None
) -> SymmetricCrystal:
    cell = np.linalg.solve(description.matrix.T, orbits.cell)
    free = lattice_variables(space_group).project(parameters_from_cell(cell))
    species = [chemical_symbols[orbits.numbers[i]] for i in description.order]
    sites = zip(species, description.positions, description.free, strict=True)
    return SymmetricCrystal(space_group, free, tuple(Site(*s) for s in sites), dict(info or {}))


def _rotation(cell: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation R for which ``cell @ R`` is nearest to ``target`` (polar decomposition)."""
    left, _, right = np.linalg.svd(np.linalg.solve(cell, target))
    if np.linalg.det(left @ right) < 0:
        raise CrystalError("the conventional cell found is left-handed; please report this crystal")
    return left @ right


def _place(
    crystal: SymmetricCrystal, site: NDArray[np.int64], points: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Operation, lattice shift and distance (Å) of the orbit atom nearest to every point."""
    operation = np.empty(len(points), dtype=np.int64)
    shift = np.empty((len(points), 3), dtype=np.int64)
    distance = np.empty(len(points))
    for number, one in enumerate(crystal.sites):
        atoms = np.flatnonzero(site == number)
        differences = points[atoms, None] - one.expand()
        shifts = np.rint(differences)
        distances = np.linalg.norm((differences - shifts) @ crystal.cell, axis=-1)
        nearest = distances.argmin(axis=1)
        each = np.arange(len(atoms))
        operation[atoms] = nearest
        shift[atoms] = shifts[each, nearest]
        distance[atoms] = distances[each, nearest]
    return operation, shift, distance


def _check(
    frame: Frame, crystal: SymmetricCrystal, embedding: Embedding, limit: float, moved: float
) -> None:
    """Rebuild the user's atoms from the crystal and compare: a mismatch is an error."""
    group = symbol(crystal.space_group)
    if moved > limit:
        raise CrystalError(
            f"space group {group} moves atoms or lattice vectors by {moved:.3g} Å, more than the "
            f"{limit:.3g} Å allowed: raise max_displacement, or choose another space_group or "
            "symprec"
        )
    cell, positions = embedding.apply(crystal)
    copies = abs(np.linalg.det(embedding.transformation))
    # What is left after moving with the cell; a supercell's own vectors move more than its atoms.
    distances = np.linalg.norm(positions - frame.scaled @ cell, axis=1)
    scale = max(1.0, float(np.abs(embedding.transformation).sum(axis=1).max()))
    strain = np.linalg.norm(cell - frame.cell, axis=1)
    taken = np.column_stack([embedding.site, embedding.operation, embedding.shift])
    if (
        abs(crystal.n_atoms * copies - len(frame.scaled)) > 1e-3
        or distances.max() > limit + 1e-6
        or strain.max() > (limit + 1e-6) * scale
        or len(np.unique(taken, axis=0)) != len(taken)
    ):
        raise CrystalError(
            f"the crystal rebuilt in space group {group} is not the one given "
            f"({len(frame.scaled)} atoms): try another symprec, or space_group=1"
        )
