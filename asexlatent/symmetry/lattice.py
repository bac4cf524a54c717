"""Cell parameters: which of them symmetry leaves free, and the cell matrix they make.

Lengths in Å and angles in radians everywhere in this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asexlatent.symmetry.wyckoff import check_space_group

PARAMETERS = ("a", "b", "c", "alpha", "beta", "gamma")

SHORTEST, LONGEST = 0.1, 1e4
"""Cell lengths (Å) outside these limits are refused: atoms would sit on their own images, or
searches over images would take for ever."""

_FREE = {
    # lattice system: the free parameter behind each of a, b, c, alpha, beta, gamma; "" = constant
    "triclinic": ("a", "b", "c", "alpha", "beta", "gamma"),
    "monoclinic": ("a", "b", "c", "", "beta", ""),
    "orthorhombic": ("a", "b", "c", "", "", ""),
    "tetragonal": ("a", "a", "c", "", "", ""),
    "hexagonal": ("a", "a", "c", "", "", ""),
    "cubic": ("a", "a", "a", "", "", ""),
}
_LAST = ((2, "triclinic"), (15, "monoclinic"), (74, "orthorhombic"), (142, "tetragonal"))
_LAST += ((194, "hexagonal"), (230, "cubic"))


@dataclass(frozen=True, eq=False)
class LatticeVariables:
    """The free cell parameters of a lattice system.

    Attributes
    ----------
    system : ``triclinic``, ``monoclinic`` (unique axis b), ``orthorhombic``, ``tetragonal``,
        ``hexagonal`` (trigonal groups too, rhombohedral ones in hexagonal axes) or ``cubic``.
    names : names of the free parameters, such as ``("a", "c")``.
    index : (6,) which free parameter each of a, b, c, alpha, beta, gamma is; -1 = constant.
    constants : (6,) value of the constant ones (radians; 0 where a parameter is free).
    """

    system: str
    names: tuple[str, ...]
    index: NDArray[np.int64]
    constants: NDArray[np.float64]

    def parameters(self, free: ArrayLike) -> NDArray[np.float64]:
        """All six parameters (Å, radians) from the free ones."""
        free = np.asarray(free, dtype=float)
        return np.where(self.index >= 0, free[self.index], self.constants)

    def project(self, parameters: ArrayLike) -> NDArray[np.float64]:
        """Free parameters nearest to six given ones: lengths tied by symmetry are averaged."""
        parameters = np.asarray(parameters, dtype=float)
        return np.array([parameters[self.index == i].mean() for i in range(len(self.names))])


@cache
def lattice_variables(space_group: int) -> LatticeVariables:
    """Free cell parameters of a space group (1 to 230) in the setting used here."""
    check_space_group(space_group)
    return _system(next(system for last, system in _LAST if space_group <= last))


@cache
def _system(system: str) -> LatticeVariables:
    owners = _FREE[system]
    names = tuple(dict.fromkeys(name for name in owners if name))
    index = np.array([names.index(name) if name else -1 for name in owners], dtype=np.int64)
    right = math.pi / 2
    gamma = 2 * math.pi / 3 if system == "hexagonal" else right
    constants = np.where(index >= 0, 0.0, [0.0, 0.0, 0.0, right, right, gamma])
    index.setflags(write=False)
    constants.setflags(write=False)
    return LatticeVariables(system, names, index, constants)


def cell_problem(parameters: ArrayLike) -> str | None:
    """Why six cell parameters (Å, radians) make no cell, or ``None`` when they do."""
    values = [float(value) for value in np.asarray(parameters, dtype=float)]
    for name, value in zip(PARAMETERS, values, strict=True):
        if not math.isfinite(value):
            return f"cell parameter {name} is {value}"
    for name, value in zip(PARAMETERS[:3], values[:3], strict=True):
        if value <= 0:
            return f"cell length {name} = {value:g} Å is not positive"
        if not SHORTEST <= value <= LONGEST:
            return (
                f"cell length {name} = {value:g} Å is not that of a crystal "
                f"({SHORTEST:g} to {LONGEST:g} Å)"
            )
    for name, value in zip(PARAMETERS[3:], values[3:], strict=True):
        if not 0 < value < math.pi:
            hint = "; are the angles in degrees?" if value > math.pi else ""
            return f"cell angle {name} = {value:g} rad is not between 0 and pi{hint}"
    if relative_volume(values[3:]) < 1e-6:
        angles = ", ".join(f"{math.degrees(value):g}" for value in values[3:])
        return f"the cell angles {angles} degrees cannot be those of a cell (no volume)"
    return None


def relative_volume(angles: ArrayLike) -> float:
    """Volume of a cell with unit lengths and three angles (radians); 0 when there is none."""
    alpha, beta, gamma = (float(angle) for angle in np.asarray(angles, dtype=float))
    half = (alpha + beta + gamma) / 2
    square = math.sin(half) * math.sin(half - alpha) * math.sin(half - beta)
    return 2 * math.sqrt(max(square * math.sin(half - gamma), 0.0))


def cell_from_parameters(parameters: ArrayLike) -> NDArray[np.float64]:
    """Cell matrix (3, 3) in Å, lattice vectors as rows: a along x, b in the xy plane.

    This is ASE's standard form (``ase.geometry.cellpar_to_cell``), with radians.
    """
    a, b, c, *angles = (float(value) for value in np.asarray(parameters, dtype=float))
    # cos(pi / 2) is 6e-17 in floating point; a right angle deserves an exact zero.
    cosines = [value if abs(value) > 1e-15 else 0.0 for value in map(math.cos, angles)]
    cos_alpha, cos_beta, cos_gamma = cosines
    sin_gamma = math.sin(angles[2])
    cx = cos_beta
    cy = (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    square = 1.0 - cx * cx - cy * cy
    # The difference is exact for right angles but cancels in a flat cell; the product does not.
    cz = math.sqrt(square) if square > 0.1 else relative_volume(angles) / sin_gamma
    return np.array([[a, 0.0, 0.0], [b * cos_gamma, b * sin_gamma, 0.0], [c * cx, c * cy, c * cz]])


def parameters_from_cell(cell: ArrayLike) -> NDArray[np.float64]:
    """Six parameters (Å, radians) of a cell matrix (3, 3) of any orientation."""
    cell = np.asarray(cell, dtype=float)
    lengths = np.linalg.norm(cell, axis=1)
    angles = []
    for i, j in ((1, 2), (0, 2), (0, 1)):
        # atan2 keeps full accuracy near 0 and pi, where arccos loses half of the digits.
        sine = np.linalg.norm(np.cross(cell[i], cell[j]))
        angles.append(math.atan2(sine, float(cell[i] @ cell[j])))
    return np.array([*lengths, *angles])
