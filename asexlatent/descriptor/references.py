"""Reference structures behind the named environments, and the settings that suit them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Reference:
    """A structure and what is to be taken from it.

    Attributes
    ----------
    build : callable
        Makes the `Atoms`.
    rcut : float
        Cutoff of the descriptor in Å: beyond the first shell, before or barely into the second.
    source : str
        Where the numbers come from.
    rule : dict
        Parts of the motif rule that are stated instead of derived: cutoffs, shortest.
    """

    build: Callable[[], Atoms]
    rcut: float
    source: str
    rule: dict[str, Any] = field(default_factory=dict)


def graphite() -> Atoms:
    """Graphite, P6_3/mmc, a 2.46, c 6.70 Å."""
    return _crystal("C4", _hexagonal(2.46, 6.70), [*_layers(2 / 3), (0, 0, 0.25), (0, 0, 0.75)])


def diamond() -> Atoms:
    """Diamond, Fd-3m, a 3.567 Å, primitive cell."""
    half = 0.5 * 3.567
    cell = [(0, half, half), (half, 0, half), (half, half, 0)]
    return _crystal("C2", cell, [(0, 0, 0), (0.25, 0.25, 0.25)])


def carbyne() -> Atoms:
    """One straight chain of equal double bonds of 1.282 Å (cumulene), 10 Å from the next."""
    return _crystal("C", [10.0, 10.0, 1.282], [(0, 0, 0)])


def quartz() -> Atoms:
    """Alpha-quartz, one of its two hands, with silicon on the twofold axis through the origin."""
    u, x, y, z = 0.4698, 0.4145, 0.2662, 0.1189
    third, two_thirds = 1 / 3, 2 / 3
    silicon = [(u, 0, 0), (0, u, two_thirds), (-u, -u, third)]
    oxygen = [
        (x, y, z),
        (-y, x - y, z + two_thirds),
        (y - x, -x, z + third),
        (y, x, two_thirds - z),
        (x - y, -y, -z),
        (-x, y - x, third - z),
    ]
    return _crystal("Si3O6", _hexagonal(4.9134, 5.4052), silicon + oxygen)


def periclase() -> Atoms:
    """MgO, rock salt, a 4.212 Å, primitive cell."""
    half = 0.5 * 4.212
    cell = [(0, half, half), (half, 0, half), (half, half, 0)]
    return _crystal("MgO", cell, [(0, 0, 0), (0.5, 0.5, 0.5)])


def rutile() -> Atoms:
    """TiO2, P4_2/mnm."""
    a, c, u = 4.593659, 2.958682, 0.30479
    oxygen = [(u, u, 0), (-u, -u, 0), (0.5 - u, 0.5 + u, 0.5), (0.5 + u, 0.5 - u, 0.5)]
    return _crystal("Ti2O4", [a, a, c], [(0, 0, 0), (0.5, 0.5, 0.5), *oxygen])


def boron_nitride() -> Atoms:
    """Hexagonal BN, P6_3/mmc, boron above nitrogen."""
    return _crystal("B2N2", _hexagonal(2.5039, 6.6612), [*_layers(2 / 3), *_layers(1 / 3)])


def _layers(y: float) -> list[tuple[float, float, float]]:
    """Positions 2c (y = 2/3) or 2d (y = 1/3) of P6_3/mmc."""
    return [(1 - y, y, 0.25), (y, 1 - y, 0.75)]


def _hexagonal(a: float, c: float) -> list[float]:
    return [a, a, c, 90, 90, 120]


def _crystal(formula: str, cell: Any, scaled: list[tuple[float, float, float]]) -> Atoms:
    from ase import Atoms

    return Atoms(formula, cell=cell, scaled_positions=scaled, pbc=True)


_CARBON = {"cutoffs": {"C-C": 1.85}, "shortest": {"C-C": 1.15}}

REFERENCES: dict[str, Reference] = {
    "sp2": Reference(graphite, 2.1, "graphite; Trucano & Chen, Nature 258, 136 (1975)", _CARBON),
    "sp3": Reference(diamond, 2.1, "diamond; Straumanis & Aka, JACS 73, 5643 (1951)", _CARBON),
    "sp": Reference(carbyne, 2.1, "cumulene; Liu et al., ACS Nano 7, 10075 (2013)", _CARBON),
    "SiO4": Reference(quartz, 2.4, "alpha-quartz; Smith & Alexander, Acta Cryst. 16, 462 (1963)"),
    "MgO6": Reference(periclase, 2.9, "periclase; Hazen, Am. Mineral. 61, 266 (1976)"),
    "TiO6": Reference(rutile, 2.8, "rutile; Abrahams & Bernstein, J. Chem. Phys. 55, 3206 (1971)"),
    "BN": Reference(boron_nitride, 2.1, "hexagonal BN; Pease, Acta Cryst. 5, 356 (1952)"),
}
