"""Crystals, and a relaxer that needs no model, for the tests of the screening."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
from ase import Atoms
from ase.build import make_supercell

from asexlatent.screening.energies import Relaxer
from asexlatent.symmetry import SymmetricCrystal


def crystal(group: int, cell: tuple, *sites: tuple) -> SymmetricCrystal:
    return SymmetricCrystal.build(group, cell, [("C", *site) for site in sites])


GRAPHITE = crystal(194, (2.46, 6.7), ("b", []), ("c", []))  # 2 x hcb
AA = crystal(191, (2.46, 3.5), ("c", []))  # hcb
DIAMOND = crystal(227, (3.567,), ("a", []))
SRS = crystal(214, (4.1,), ("a", []))
BUILT = {"graphite": GRAPHITE, "aa": AA, "diamond": DIAMOND, "srs": SRS}


def swollen(made: SymmetricCrystal, factor: float) -> Atoms:
    atoms = made.to_atoms()
    atoms.set_cell(atoms.cell * factor, scale_atoms=True)
    return atoms


def disguised(atoms: Atoms, seed: int = 0) -> Atoms:
    """The same crystal in a supercell, rotated, shifted and shuffled."""
    rng = np.random.default_rng(seed)
    copy = make_supercell(atoms, [[2, 0, 0], [1, 1, 0], [0, 0, 1]])
    copy.rotate(rng.uniform(0, 360), [1, 2, 3], rotate_cell=True)
    copy.positions += rng.normal(size=3)
    return copy[rng.permutation(len(copy))]


def volume(made: SymmetricCrystal) -> float:
    return made.volume / made.n_atoms


def relaxation(made: SymmetricCrystal | None, energy: float, status: str = "converged", why=None):
    return SimpleNamespace(
        crystal=made, energy=energy, status=status, reason=why, steps=7, fmax=0.01, smax=1e-4
    )


@dataclass
class FakeRelaxer:
    """Leaves crystals alone; the energy is the volume per atom. Counts what it was asked."""

    broken: tuple[int, ...] = ()  # space groups that raise
    deadly: tuple[int, ...] = ()  # space groups that end the process
    failing: tuple[int, ...] = ()  # space groups that come back as failed
    turned: dict[int, SymmetricCrystal] = field(default_factory=dict)  # what groups relax to
    stop_after: int | None = None  # crystals, then Ctrl-C
    asked: list[SymmetricCrystal] = field(default_factory=list)
    name: str = "volume per atom"

    def __call__(self, crystals: Sequence[SymmetricCrystal]) -> list:
        groups = {made.space_group for made in crystals}
        if groups & set(self.deadly):
            os._exit(9)
        if groups & set(self.broken):
            raise RuntimeError("the calculator does not like this crystal")
        found = []
        for made in crystals:
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(made)
            if made.space_group in self.failing:
                found.append(relaxation(None, float("nan"), "failed", "exploded"))
                continue
            made = self.turned.get(made.space_group, made)
            found.append(relaxation(made, volume(made)))
        return found

    def relaxer(self) -> Relaxer:
        return Relaxer(self.name, self)
