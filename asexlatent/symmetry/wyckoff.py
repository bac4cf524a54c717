"""Wyckoff positions of the 230 space groups as affine maps.

The tables are those of PyXtal (``pyxtal/database/wyckoff_list.csv``, after the International
Tables): unique axis b, hexagonal axes for rhombohedral groups, origin choice 2. The file is
read directly, so that nothing here waits for ``import pyxtal``.
"""

from __future__ import annotations

import ast
import csv
import importlib.util
import re
import string
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property, lru_cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.geometry import minkowski_reduce
from numpy.typing import ArrayLike, NDArray

_TERM = re.compile(r"([+-]?)(\d+/\d+|\d+)?([xyz]?)")
_TIE = 1e-9  # Å: two operations nearer than this are equally near, the first one is taken


class CrystalError(ValueError):
    """A crystal that cannot be built; the message is the whole reason, fit for a user."""


class Projection(NamedTuple):
    """The point of a Wyckoff position nearest to a given point.

    ``position.expand(free)[operation] + shift`` is that nearest point (fractional).
    """

    free: NDArray[np.float64]
    """(d,) free coordinates, not wrapped."""
    distance: float
    """Distance moved in Å."""
    operation: int
    """Which of the operations of the position is nearest."""
    shift: NDArray[np.int64]
    """(3,) lattice vector added to that operation."""


@dataclass(frozen=True, eq=False)
class WyckoffPosition:
    """One Wyckoff position; get it from :func:`wyckoff_positions`, never build it by hand.

    Atom ``k`` of the orbit sits at ``rotations[k] @ xyz + translations[k]`` (fractional, of the
    conventional cell), where ``xyz`` is the (x, y, z) of the tables.

    Attributes
    ----------
    space_group : 1 to 230.
    index : 0 is the general position, as in PyXtal.
    letter : Wyckoff letter.
    multiplicity : atoms in the conventional cell.
    rotations : (m, 3, 3), integers held as floats.
    translations : (m, 3).
    variables : (d,) which of x, y, z are the free coordinates: the pivot columns of the first
        rotation. No operation of the position uses any other (checked when parsed).
    """

    space_group: int
    index: int
    letter: str
    multiplicity: int
    rotations: NDArray[np.float64]
    translations: NDArray[np.float64]
    variables: NDArray[np.int64]

    @property
    def dof(self) -> int:
        """Number of free coordinates, 0 to 3."""
        return len(self.variables)

    @property
    def label(self) -> str:
        """Multiplicity and letter, as in ``6c``."""
        return f"{self.multiplicity}{self.letter}"

    def __repr__(self) -> str:
        return f"<WyckoffPosition {self.label} of space group {self.space_group}>"

    def __reduce__(self) -> tuple:
        # The same object after unpickling: positions may be compared by identity.
        return _position, (self.space_group, self.index)

    def __deepcopy__(self, memo: dict) -> WyckoffPosition:
        return self

    @cached_property
    def linear(self) -> NDArray[np.float64]:
        """(m, 3, d) the columns of ``rotations`` that belong to the free coordinates."""
        return _frozen(self.rotations[:, :, self.variables])

    def expand(self, free: ArrayLike) -> NDArray[np.float64]:
        """All atoms of the orbit, (m, 3) fractional, not wrapped, from ``free`` (d,)."""
        return self.linear @ np.asarray(free, dtype=float) + self.translations

    def representative(self, free: ArrayLike) -> NDArray[np.float64]:
        """Atom 0 of the orbit, (3,) fractional, from ``free`` (d,)."""
        return self.linear[0] @ np.asarray(free, dtype=float) + self.translations[0]

    @cached_property
    def _frames(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Per operation: unit vectors that complete its directions to a lattice basis.

        Returns the axes ``A`` (m, 3 - d) and the inverse (m, 3, 3) of the integer matrix whose
        rows are the d directions and the unit vectors of ``A``. Its determinant is +-1, so the
        lattice seen along the directions (projected) has the vectors of ``A`` as a basis.
        """
        axes, inverse = [], []
        for directions in self.linear.transpose(0, 2, 1):
            for choice in combinations(range(3), 3 - self.dof):
                frame = np.vstack([directions, np.eye(3)[list(choice)]])
                if abs(abs(np.linalg.det(frame)) - 1.0) < 1e-6:
                    break
            else:
                raise RuntimeError(f"{self!r}: no unimodular frame; please report this")
            axes.append(choice)
            inverse.append(np.rint(np.linalg.inv(frame)))
        shape = (self.multiplicity, 3 - self.dof)
        return _frozen(np.array(axes, dtype=np.int64).reshape(shape)), _frozen(np.array(inverse))

    def project(self, position: ArrayLike, cell: ArrayLike) -> Projection:
        """Nearest point of this Wyckoff position, over all operations and lattice shifts.

        Exact for any cell: the shifts searched are all those that could beat the best one found
        by rounding (distance between lattice planes), not a fixed range of images.

        Parameters
        ----------
        position : (3,) fractional coordinates of any atom of the orbit.
        cell : (3, 3) conventional cell, lattice vectors as rows, Å.
        """
        position = np.asarray(position, dtype=float)
        if self.dof == 3:
            return Projection(position.copy(), 0.0, 0, np.zeros(3, dtype=np.int64))
        cell = np.asarray(cell, dtype=float)
        basis = np.eye(3)
        if self.space_group < 16 and self.dof < 2:
            # Only here can a cell be badly skewed; a reduced basis keeps the search short. The
            # unique axis b, along which a line of points runs, is left alone.
            cell, basis = minkowski_reduce(cell, pbc=[True, self.space_group < 3, True])
        points = (position - self.translations) @ np.rint(np.linalg.inv(basis))
        free, distance, operation, shift = self._nearest(points, cell)
        return Projection(free, distance, operation, np.rint(shift @ basis).astype(np.int64))

    def _nearest(
        self, points: NDArray[np.float64], cell: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float, int, NDArray[np.float64]]:
        """Nearest (free, distance, operation, shift); ``points`` (m, 3): less translations."""
        d = self.dof
        axes, inverse = self._frames
        # Coordinates of the points along the directions (d of them) and the axes (3 - d).
        along_across = (points[:, None, :] @ inverse)[:, 0]
        along, across = along_across[:, :d], along_across[:, d:]
        directions = self.linear.transpose(0, 2, 1) @ cell  # (m, d, 3) Å
        solve = directions.transpose(0, 2, 1) @ np.linalg.inv(
            directions @ directions.transpose(0, 2, 1)
        )  # (m, 3, d): least squares onto the directions
        axis_vectors = cell[axes]  # (m, 3 - d, 3)
        lattice = axis_vectors - (axis_vectors @ solve) @ directions  # seen along the directions
        # Longest axis last: it is enumerated first and leaves little room for the short ones.
        order = np.argsort((lattice**2).sum(axis=2), axis=1)
        axes, across = (np.take_along_axis(values, order, axis=1) for values in (axes, across))
        axis_vectors, lattice = (
            np.take_along_axis(values, order[:, :, None], axis=1)
            for values in (axis_vectors, lattice)
        )
        rounded = np.rint(across)
        residual = ((across - rounded)[:, None, :] @ lattice)[:, 0]
        bound = np.sqrt((residual**2).sum(axis=1).min()) * (1 + 1e-9) + _TIE
        # (across - m) @ triangle has the length of the move, and its last component, the last
        # of m only: the integers worth trying are few, axis after axis.
        triangle = np.linalg.cholesky(lattice @ lattice.transpose(0, 2, 1))
        k, m = _integers_within(across, triangle, bound)
        offset = across[k] - m
        distances = np.linalg.norm((offset[:, None, :] @ lattice[k])[:, 0], axis=1)
        best = int(np.argmax(distances <= distances.min() + _TIE))
        operation = int(k[best])
        free = along[operation] + (offset[best] @ axis_vectors[operation]) @ solve[operation]
        shift = np.zeros(3)
        shift[axes[operation]] = m[best]
        return free, float(distances[best]), operation, shift


def _integers_within(
    centers: NDArray[np.float64], triangle: NDArray[np.float64], bound: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """All integer vectors m with ``|(centers[k] - m) @ triangle[k]| <= bound``, as (k, m).

    ``centers`` is (M, r) and ``triangle`` (M, r, r), lower triangular; ``k`` (P,) is sorted and
    ``m`` is (P, r). (Enumeration of Fincke and Pohst, Math. Comp. 44, 463, 1985.)
    """
    rank = centers.shape[1]
    k = np.arange(len(centers))
    offset = np.zeros_like(centers)  # centers - m, filled from the last axis on
    room = np.full(len(centers), bound**2)
    for axis in reversed(range(rank)):
        scale = triangle[k, axis, axis]
        # Where the component along this axis vanishes, given the integers chosen so far.
        middle = centers[k, axis] + (offset * triangle[k, :, axis]).sum(axis=1) / scale
        reach = np.sqrt(np.maximum(room, 0.0)) / scale
        low = np.ceil(middle - reach)
        counts = np.maximum(np.floor(middle + reach) - low + 1, 0).astype(np.int64)
        parent = np.repeat(np.arange(len(k)), counts)
        m = low[parent] + np.arange(len(parent)) - np.repeat(np.cumsum(counts) - counts, counts)
        room = room[parent] - ((middle[parent] - m) * scale[parent]) ** 2
        k, offset = k[parent], offset[parent]
        offset[:, axis] = centers[k, axis] - m
    return k, np.rint(centers[k] - offset)


@cache
def wyckoff_positions(space_group: int) -> tuple[WyckoffPosition, ...]:
    """All Wyckoff positions of a space group, general position first (PyXtal's order)."""
    check_space_group(space_group)
    orbits = ast.literal_eval(_table()[space_group])
    return tuple(_parse(space_group, i, len(orbits), orbit) for i, orbit in enumerate(orbits))


def check_space_group(space_group: int) -> None:
    """Raise :class:`CrystalError` unless ``space_group`` is an integer from 1 to 230."""
    if isinstance(space_group, bool) or not isinstance(space_group, int | np.integer):
        raise CrystalError(f"space group {space_group!r} is not an integer from 1 to 230")
    if not 1 <= space_group <= 230:
        raise CrystalError(f"space group {space_group} does not exist: it must be 1 to 230")


def operation_strings(space_group: int) -> tuple[str, ...]:
    """Operations of the group as in ``-x+1/2, -y, z+1/2``, centring translations included."""
    check_space_group(space_group)
    return tuple(ast.literal_eval(_table()[space_group])[0])


@cache
def hall_number(space_group: int) -> int:
    """Hall number (1 to 530) of PyXtal's setting of a space group.

    The first Hall number that spglib lists, except where the group has two origin choices (24
    groups): then the first with origin choice 2.
    """
    check_space_group(space_group)
    return _settings()[space_group][0]


def hermann_mauguin(space_group: int) -> str:
    """Hermann-Mauguin symbol of the setting, such as ``F d -3 m :2``."""
    check_space_group(space_group)
    return _settings()[space_group][1].replace(":", " :")


@lru_cache(maxsize=1)
def _settings() -> dict[int, tuple[int, str]]:
    """Space group -> (Hall number, symbol) of the first setting with the axes of the tables."""
    settings: dict[int, tuple[int, str]] = {}
    with open(database_folder() / "HM_Full.csv", newline="") as handle:
        for line in csv.DictReader(handle):
            if line["P"] == "a,b,c":
                symbol = line["Symbol"].strip()
                for misprint, right in (("P 42 1 2", "P 4 21 2"), ("R 32:", "R 3 2:")):
                    symbol = symbol.replace(misprint, right)
                settings.setdefault(int(line["Spg_num"]), (int(line["Hall"]), symbol))
    return settings


def _position(space_group: int, index: int) -> WyckoffPosition:
    return wyckoff_positions(space_group)[index]


def _frozen(array: NDArray) -> NDArray:
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array


@lru_cache(maxsize=1)
def _table() -> dict[int, str]:
    """PyXtal's file: space group number -> its orbits, as a Python literal."""
    with open(database_folder() / "wyckoff_list.csv", newline="") as handle:
        return {int(row[0]): row[1] for row in csv.reader(handle) if row and row[0] > "0"}


def database_folder() -> Path:
    """Folder of the tables that PyXtal ships."""
    package = importlib.util.find_spec("pyxtal")
    if package is None or package.origin is None:
        raise ImportError("the tables of Wyckoff positions come with pyxtal: pip install pyxtal")
    return Path(package.origin).parent / "database"


def _parse(space_group: int, index: int, n_positions: int, orbit: list[str]) -> WyckoffPosition:
    maps = [[_component(part) for part in operation.split(",")] for operation in orbit]
    rotations = np.array([[row[0] for row in operation] for operation in maps], dtype=float)
    translations = np.array([[row[1] for row in operation] for operation in maps], dtype=float)
    variables = _pivot_columns(rotations[0])
    others = [column for column in range(3) if column not in variables]
    if rotations[:, :, others].any():
        raise RuntimeError(f"space group {space_group}, position {index}: unexpected free variable")
    letters = string.ascii_lowercase + "A"  # Pmmm has 27 positions, the 27th is called A
    return WyckoffPosition(
        space_group=int(space_group),
        index=index,
        letter=letters[n_positions - 1 - index],
        multiplicity=len(orbit),
        rotations=_frozen(rotations),
        translations=_frozen(translations),
        variables=_frozen(np.array(variables, dtype=np.int64)),
    )


@cache
def _component(text: str) -> tuple[tuple[int, int, int], float]:
    """Turn ``-x+y+1/3`` into ((-1, 1, 0), 0.333...)."""
    row, constant = [0, 0, 0], Fraction(0)
    for sign, number, variable in _TERM.findall(text.replace(" ", "")):
        if not (number or variable):
            continue
        value = Fraction(number or 1) * (-1 if sign == "-" else 1)
        if variable:
            row["xyz".index(variable)] += int(value)
        else:
            constant += value
    return (row[0], row[1], row[2]), float(constant)


def _pivot_columns(matrix: NDArray[np.float64]) -> list[int]:
    """Columns that raise the rank when added from left to right."""
    pivots: list[int] = []
    for column in range(3):
        if np.linalg.matrix_rank(matrix[:, [*pivots, column]]) > len(pivots):
            pivots.append(column)
    return pivots
