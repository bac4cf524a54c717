"""The table form of a crystal: 39 columns, one row per crystal.

``spg, a, b, c, alpha, beta, gamma, (wp, x, y, z) x 8``: lengths in Å, angles in radians, ``wp`` the
index of the Wyckoff position (0 = general, as in PyXtal), (x, y, z) any atom of the site. ``wp``
-1 marks an unused site, whose coordinates (-1 as well) mean nothing. The species is not in it.

Rows often come from generative models, so nothing in them is believed: a cell is brought to its
lattice system, coordinates to the nearest point of their Wyckoff position, how far is kept in
:class:`RowProjection`, and what cannot be a crystal is a :class:`CrystalError` with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from asexlatent.symmetry.crystal import Site, SymmetricCrystal
from asexlatent.symmetry.lattice import (
    PARAMETERS,
    cell_from_parameters,
    cell_problem,
    lattice_variables,
)
from asexlatent.symmetry.wyckoff import CrystalError, check_space_group, wyckoff_positions

MAX_SITES = 8
"""Sites that fit into one row."""

UNUSED = -1
"""Wyckoff index (and coordinates) of an unused site."""

TABLE_COLUMNS: tuple[str, ...] = (
    "spg",
    *PARAMETERS,
    *(f"{name}{slot}" for slot in range(MAX_SITES) for name in ("wp", "x", "y", "z")),
)
"""The 39 columns in order."""

SLOT_COLUMN = re.compile(r"(wp|x|y|z)(\d+)")
"""Names of the columns of a site."""

_FARTHEST = 1e6  # cells away from the origin; beyond, a coordinate has lost its decimals
_UNUSED_WIDTH = 0.1  # models write the mark as -0.99.. or -0.93; real coordinates are in [0, 1)


@dataclass(frozen=True)
class RowProjection:
    """How far a row was from the symmetry that it claims.

    Attributes
    ----------
    distances : per site of the crystal, how far its coordinates were moved, in Å.
    slots : per site of the crystal, its number in the row (``wp0`` is 0).
    cell_change : change of the cell parameters that the lattice system does not leave as they
        were (Å, radians); parameters that did not change are not in it.
    dropped : (number in the row, reason) of the sites left out (only ``bad_sites="drop"``).
    """

    distances: tuple[float, ...]
    slots: tuple[int, ...]
    cell_change: dict[str, float] = field(default_factory=dict)
    dropped: tuple[tuple[int, str], ...] = ()

    @property
    def max_distance(self) -> float:
        """Largest of ``distances`` in Å, 0 without sites."""
        return max(self.distances, default=0.0)


def from_row(
    row: Mapping[str, Any],
    species: str | Iterable[str] = "C",
    bad_sites: str = "fail",
    degrees: bool = False,
) -> SymmetricCrystal:
    """Build the crystal of one row.

    Parameters
    ----------
    row : column name -> number or text (a dict, a pandas Series). Needs ``spg``, the six cell
        parameters and at least one site; any number of sites is read, and columns of other names
        are ignored.
    species : one symbol for all sites, or one for each used site, in the order of the row.
    bad_sites : ``"fail"`` (an error) or ``"drop"`` (leave the site out and list it) for a site
        whose Wyckoff index does not exist, whose coordinates are missing, not numbers or the mark
        of an unused site, or that sits on a fixed point which another site has taken. Sites that
        merely clash are kept: their coordinates can part them.
    degrees : the angles of the row are in degrees.

    Returns
    -------
    SymmetricCrystal
        With free coordinates wrapped into [0, 1) and ``projection`` set.

    Raises
    ------
    CrystalError
        The row is no crystal; the message says why.
    """
    if bad_sites not in ("fail", "drop"):
        raise ValueError(f"bad_sites must be 'fail' or 'drop', not {bad_sites!r}")
    row = dict(row)
    space_group = _integer(row, "spg")
    check_space_group(space_group)
    cell_free, cell_change = _cell(row, space_group, degrees)
    lattice = lattice_variables(space_group)
    cell = cell_from_parameters(lattice.parameters(cell_free))

    numbers, dropped = _used_slots(row), []
    symbols = _species_of(species, len(numbers))
    sites: dict[int, Site] = {}
    distances = []
    for number, symbol in zip(numbers, symbols, strict=True):
        try:
            site, distance = _site(row, number, space_group, symbol, cell)
            _refuse_same_point(site, number, sites)
        except CrystalError as problem:
            if bad_sites == "fail":
                raise
            dropped.append((number, str(problem)))
        else:
            sites[number] = site
            distances.append(distance)
    if not sites:
        reasons = "; ".join(reason for _, reason in dropped)
        raise CrystalError(f"no site is left: {reasons}" if reasons else "the row has no site")
    projection = RowProjection(tuple(distances), tuple(sites), cell_change, tuple(dropped))
    return SymmetricCrystal(space_group, cell_free, tuple(sites.values()), projection=projection)


def to_row(crystal: SymmetricCrystal) -> dict[str, float]:
    """Write a crystal as the 39 columns; coordinates in [0, 1), unused sites -1.

    Raises
    ------
    CrystalError
        The crystal has more than eight sites.
    """
    if crystal.n_sites > MAX_SITES:
        raise CrystalError(
            f"the crystal has {crystal.n_sites} inequivalent sites and a table row holds at most "
            f"{MAX_SITES}; keep it in another form (extxyz, CIF)"
        )
    row: dict[str, float] = {"spg": crystal.space_group}
    row.update(zip(PARAMETERS, crystal.cell_parameters.tolist(), strict=True))
    for slot in range(MAX_SITES):
        wp: int = UNUSED
        xyz = [float(UNUSED)] * 3
        if slot < crystal.n_sites:
            site = crystal.sites[slot]
            wp = site.position.index
            xyz = wrap(site.position.representative(site.free)).tolist()
        row.update(
            zip((f"{name}{slot}" for name in ("wp", "x", "y", "z")), [wp, *xyz], strict=True)
        )
    return row


def wrap(fractional: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fractional coordinates in [0, 1), rounding of tiny negative ones to 1.0 excluded."""
    wrapped = fractional - np.floor(fractional)
    return np.where(wrapped >= 1.0, 0.0, wrapped)


def _cell(
    row: Mapping[str, Any], space_group: int, degrees: bool
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Free cell parameters nearest to those of the row, and what that changed."""
    given = np.array([_number(row, name) for name in PARAMETERS])
    if degrees:
        given[3:] = np.radians(given[3:])
    lattice = lattice_variables(space_group)
    free = lattice.project(given)
    used = lattice.parameters(free)
    problem = cell_problem(given) or cell_problem(used)
    if problem:
        raise CrystalError(problem)
    change = {
        name: float(new - old)
        for name, new, old in zip(PARAMETERS, used, given, strict=True)
        if abs(new - old) > 1e-12
    }
    return free, change


def _used_slots(row: Mapping[str, Any]) -> list[int]:
    numbers = sorted(
        int(match[2])
        for match in map(SLOT_COLUMN.fullmatch, map(str, row))
        if match and match[1] == "wp"
    )
    used = []
    for number in numbers:
        names = [f"{name}{number}" for name in ("wp", "x", "y", "z")]
        if all(_blank(row.get(name)) for name in names):
            continue
        if _integer(row, names[0]) != UNUSED:
            used.append(number)
    return used


def _species_of(species: str | Iterable[str], n_sites: int) -> Sequence[str]:
    symbols = [species] * n_sites if isinstance(species, str) else list(species)
    if len(symbols) != n_sites:
        raise CrystalError(f"{len(symbols)} species were given for a row of {n_sites} used sites")
    for symbol in symbols:
        if symbol not in atomic_numbers:
            raise CrystalError(f"unknown chemical symbol {symbol!r}")
    return symbols


def _site(
    row: Mapping[str, Any], number: int, space_group: int, species: str, cell: NDArray
) -> tuple[Site, float]:
    """Site of one slot and the distance it was moved (Å)."""
    positions = wyckoff_positions(space_group)
    index = _integer(row, f"wp{number}")
    if not 0 <= index < len(positions):
        raise CrystalError(
            f"site {number} has Wyckoff index {index}; space group {space_group} has "
            f"0 to {len(positions) - 1}"
        )
    xyz = np.array([_number(row, f"{name}{number}") for name in "xyz"])
    if (np.abs(xyz - UNUSED) < _UNUSED_WIDTH).any():
        shown = ", ".join(f"{value:g}" for value in xyz)
        raise CrystalError(
            f"site {number} is in use (Wyckoff index {index}) but has the coordinate -1 of an "
            f"unused one: {shown}"
        )
    if np.abs(xyz).max() > _FARTHEST:
        raise CrystalError(
            f"site {number} has the coordinate {xyz[np.abs(xyz).argmax()]:g}, which is not a "
            "fractional coordinate"
        )
    projection = positions[index].project(xyz, cell)
    return Site(species, positions[index], wrap(projection.free)), projection.distance


def _refuse_same_point(site: Site, number: int, others: Mapping[int, Site]) -> None:
    for other, taken in others.items():
        if site.position is taken.position and not site.position.dof:
            raise CrystalError(
                f"sites {other} and {number} both sit on {site.position.label} of space group "
                f"{site.position.space_group}, which has no free coordinate to part them"
            )


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    if _blank(value):
        raise CrystalError(f"column {name} is {'empty' if name in row else 'missing'}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise CrystalError(f"column {name} is not a number: {value!r}") from None
    if not math.isfinite(number):
        raise CrystalError(f"column {name} is {number}")
    return number


def _integer(row: Mapping[str, Any], name: str) -> int:
    number = _number(row, name)
    if number != int(number):
        raise CrystalError(f"column {name} is not a whole number: {number:g}")
    return int(number)
