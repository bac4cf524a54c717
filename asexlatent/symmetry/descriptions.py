"""Other descriptions of a crystal in the same setting of its space group.

The same crystal has many: other origins and axes (the affine normaliser of the group), and any atom
of an orbit may represent its site. :mod:`canonical` picks one; here one is drawn at random, for
those who want to train on all of them (the augmentation of the method, section 3.1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asexlatent.symmetry.crystal import Site, SymmetricCrystal
from asexlatent.symmetry.lattice import lattice_variables, parameters_from_cell
from asexlatent.symmetry.normalizer import UNIT, Normalizer, fit, normalizer, operations
from asexlatent.symmetry.rows import wrap
from asexlatent.symmetry.wyckoff import WyckoffPosition, wyckoff_positions

_SAME = 1e-6


class OtherDescription(NamedTuple):
    """A crystal described anew: ``x = matrix @ x_new + shift`` leads back to the old one."""

    crystal: SymmetricCrystal
    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]


def random_description(crystal: SymmetricCrystal, rng: np.random.Generator) -> OtherDescription:
    """Draw another description of a crystal.

    All origins and axes that keep the setting are as likely (in triclinic and monoclinic groups the
    axes stay, only origins change), any origin along axes where symmetry does not fix it, and all
    atoms that can represent a site. The order of the sites is kept.
    """
    ways = _ways(crystal.space_group)
    k = int(rng.integers(len(ways.rotations)))
    rotation, vector = ways.rotations[k], ways.translations[k].copy()
    vector[list(ways.free_axes)] += rng.random(len(ways.free_axes))
    cell = np.linalg.solve(rotation.T, crystal.cell)
    free = lattice_variables(crystal.space_group).project(parameters_from_cell(cell))
    positions = wyckoff_positions(crystal.space_group)
    sites = []
    for site in crystal.sites:
        position = positions[ways.positions[k, site.position.index]]
        point = rotation @ site.position.representative(site.free) + vector
        sites.append(Site(site.species, position, _represented(position, point, rng)))
    made = SymmetricCrystal(crystal.space_group, free, tuple(sites), dict(crystal.info))
    back = np.linalg.inv(rotation)
    return OtherDescription(made, back, -back @ vector)


def _ways(space_group: int) -> Normalizer:
    if space_group < 16:  # infinitely many axes to choose from
        return normalizer(space_group, ((1, 0, 0, 0, 1, 0, 0, 0, 1),))
    return normalizer(space_group)


def _represented(
    position: WyckoffPosition, point: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Free coordinates (d,) in [0, 1) by any of the atoms of the orbit of `point` that allow it."""
    group = operations(position.space_group)
    images = group.rotations @ point + group.translations / UNIT
    along, across = fit(position, images)
    possible = np.flatnonzero(np.abs(across - np.rint(across)).max(axis=1, initial=0.0) < _SAME)
    return wrap(along[possible[int(rng.integers(len(possible)))]])
