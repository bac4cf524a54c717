"""The same crystal in a subgroup of its space group: fewer operations, more sites to move.

Lowering the symmetry on purpose opens free variables that the full group holds fixed, and is the
augmentation of the method (section 3.1): each known crystal becomes many rows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from asexlatent.symmetry.canonical import describe
from asexlatent.symmetry.crystal import Site, SymmetricCrystal
from asexlatent.symmetry.group_relations import GroupRelation, subgroups
from asexlatent.symmetry.lattice import lattice_variables, parameters_from_cell
from asexlatent.symmetry.normalizer import operations, primitive_basis
from asexlatent.symmetry.rows import MAX_SITES
from asexlatent.symmetry.site_splitting import SplitSite, count_sites, split_site
from asexlatent.symmetry.wyckoff import CrystalError

TOLERANCE = 1e-4
"""Å within which an atom of a child must coincide with an atom of its parent."""

_EQUAL = 1e-4  # free variables (Å, radians, fractions) of two equal descriptions

MANY_SITES, MANY_ATOMS = "more sites than allowed", "more atoms than allowed"
DUPLICATE, MISMATCH = "same description as another", "not the same crystal"


@dataclass(frozen=True, eq=False)
class SubgroupCrystals:
    """What :func:`subgroup_crystals` returns.

    Attributes
    ----------
    crystals : descriptions of the parent in subgroups, each different from all others.
    relations : the subgroup of each.
    skipped : reason -> number of classes of subgroups that are not among them.
    """

    crystals: tuple[SymmetricCrystal, ...] = ()
    relations: tuple[GroupRelation, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)


def subgroup_crystals(
    crystal: SymmetricCrystal,
    max_index: int = 4,
    max_atoms: int = 400,
    max_sites: int = MAX_SITES,
    kinds: str = "tk",
) -> SubgroupCrystals:
    """Describe a crystal in the subgroups of its space group.

    One subgroup of each class of conjugate ones is taken (others give the same), of all that
    chains of maximal subgroups in PyXtal's tables lead to: every translationengleiche one, and
    klassengleiche ones with steps of index 2, 3, 4 and, where the tables have them, 5, 7 and 9.
    Descriptions are canonical, in the standard setting of the subgroup; each is rebuilt and
    compared with the parent.

    Parameters
    ----------
    crystal : the parent; the group itself is not among the results.
    max_index : largest index of a subgroup.
    max_atoms : largest number of atoms in the conventional cell.
    max_sites : largest number of sites (a table row holds eight).
    kinds : steps allowed: ``"t"`` (same translations), ``"k"`` (same rotations) or ``"tk"``.

    Raises
    ------
    CrystalError
        For settings that make no sense.
    """
    if not kinds or set(kinds) - set("tk"):
        raise CrystalError(f"kinds must be 't', 'k' or 'tk', not {kinds!r}")
    if max_index < 1 or max_atoms < 1 or max_sites < 1:
        raise CrystalError("max_index, max_atoms and max_sites must be at least 1")
    skipped: Counter[str] = Counter()
    found: dict[tuple, list[SymmetricCrystal]] = {}
    crystals, relations = [], []
    original = Original(crystal)
    for relation in subgroups(crystal.space_group, max_index, kinds):
        if round(crystal.n_atoms * relation.cell_ratio) > max_atoms:
            skipped[MANY_ATOMS] += 1
            continue
        split = _split_sites(crystal, relation, max_sites)
        if split is None:
            skipped[MANY_SITES] += 1
            continue
        child, matrix, shift = _describe(crystal, relation, split)
        alike = found.setdefault(_label(child), [])
        if any(_equal(child, other) for other in alike):
            skipped[DUPLICATE] += 1
        elif not original.is_same(child, matrix, shift):
            skipped[MISMATCH] += 1
        else:
            alike.append(child)
            crystals.append(child)
            relations.append(relation)
    return SubgroupCrystals(tuple(crystals), tuple(relations), skipped)


def _split_sites(
    crystal: SymmetricCrystal, relation: GroupRelation, max_sites: int
) -> list[tuple[Site, SplitSite]] | None:
    """Parent site and what it becomes, of all new sites; None when there are too many."""
    indices = [site.position.index for site in crystal.sites]
    if sum(count_sites(relation, index) for index in indices) > max_sites:
        return None
    pairs = []
    for site, index in zip(crystal.sites, indices, strict=True):
        pairs += [(site, part) for part in split_site(relation, index)]
        if len(pairs) > max_sites:
            return None
    return pairs


def _describe(
    crystal: SymmetricCrystal, relation: GroupRelation, split: list[tuple[Site, SplitSite]]
) -> tuple[SymmetricCrystal, NDArray, NDArray]:
    """Canonical crystal, and ``x_parent = matrix @ x_child + shift``."""
    group = relation.space_group
    cell = np.linalg.cholesky(relation.matrix.T @ crystal.cell @ crystal.cell.T @ relation.matrix)
    points = [
        part.position.representative(part.matrix @ site.free + part.constants)
        for site, part in split
    ]
    numbers = np.array([atomic_numbers[site.species] for site, _ in split])
    multiplicity = np.array([part.position.multiplicity for _, part in split])
    canonical = describe(group, cell, numbers, multiplicity, np.array(points))
    cell = np.linalg.solve(canonical.matrix.T, cell)
    free = lattice_variables(group).project(parameters_from_cell(cell))
    species = [split[i][0].species for i in canonical.order]
    sites = zip(species, canonical.positions, canonical.free, strict=True)
    child = SymmetricCrystal(group, free, tuple(Site(*s) for s in sites), dict(crystal.info))
    matrix = relation.matrix @ np.linalg.inv(canonical.matrix)
    return child, matrix, relation.origin - matrix @ canonical.shift


class Original:
    """A crystal to compare others with: the atoms of its primitive cell."""

    def __init__(self, crystal: SymmetricCrystal):
        self.metric = crystal.cell @ crystal.cell.T
        basis = primitive_basis(crystal.space_group)
        self.to_basis = np.linalg.inv(basis)
        self.n_centring = len(operations(crystal.space_group).centring)
        self.longest = float(np.linalg.norm(basis @ crystal.cell, axis=1).sum())
        points = self._primitive(crystal.scaled_positions())
        self.tree = cKDTree(points, boxsize=1.0)
        self.symbols = np.array(crystal.symbols)

    def is_same(self, child: SymmetricCrystal, matrix: NDArray, shift: NDArray) -> bool:
        """Whether a child, taken back with ``matrix @ x + shift``, is this crystal, rebuilt whole.

        Every atom must fall on one of the same species, each as often as the cell is larger, and
        the cell must be the one that the matrix makes.
        """
        metric = matrix.T @ self.metric @ matrix
        size = float(np.sqrt(np.diag(metric).max()))
        if np.abs(child.cell @ child.cell.T - metric).max() > TOLERANCE * size:
            return False
        points = self._primitive(child.scaled_positions() @ matrix.T + shift)
        # Atoms of the parent coincide here as often as its cell is centred; count all of them.
        near = self.tree.query_ball_point(points, TOLERANCE / self.longest)
        hits = np.bincount(np.concatenate(near).astype(int), minlength=len(self.symbols))
        alike = all(
            len(atoms) == self.n_centring and (self.symbols[atoms] == symbol).all()
            for atoms, symbol in zip(near, child.symbols, strict=True)
        )
        expected = np.linalg.det(matrix) * self.n_centring
        return alike and bool((np.abs(hits - expected) < 1e-6).all())

    def _primitive(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points in coordinates of the primitive basis, wrapped."""
        wrapped = (points @ self.to_basis) % 1.0
        return np.where(wrapped >= 1.0, 0.0, wrapped)


def _label(crystal: SymmetricCrystal) -> tuple:
    return crystal.space_group, *((site.species, site.position.index) for site in crystal.sites)


def _equal(first: SymmetricCrystal, second: SymmetricCrystal) -> bool:
    """Whether two canonical descriptions with the same labels are equal."""
    n_cell = len(first.cell_free)
    difference = np.abs(first.free_variables - second.free_variables)
    difference[n_cell:] = np.abs(difference[n_cell:] - np.rint(difference[n_cell:]))
    return bool(difference.max() < _EQUAL)
