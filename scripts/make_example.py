"""Make the example that ships with the package: random symmetric carbon crystals.

    python scripts/make_example.py [-o FILE] [-n 60] [--seed 2024]

Each crystal takes a random space group, up to three random Wyckoff positions with at most 48 atoms
in the conventional cell, random free coordinates, and a random cell of 7 to 11 Å^3 per atom in
which no two atoms are nearer than 0.9 Å. The same seed gives the same file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

from asexlatent.symmetry import (
    SymmetricCrystal,
    cell_from_parameters,
    lattice_variables,
    wyckoff_positions,
)

DEFAULT = Path(__file__).parents[1] / "asexlatent" / "examples" / "random_sp2.extxyz"
MAX_ATOMS, MAX_SITES, NEAREST = 48, 3, 0.9


def random_cell(group: int, volume: float, rng: np.random.Generator) -> np.ndarray:
    """Free cell parameters (Å, radians) of a random, not too flat cell of this volume (Å^3)."""
    lattice = lattice_variables(group)
    while True:
        free = [
            rng.uniform(0.5, 2.0) if len(name) == 1 else np.radians(rng.uniform(70, 110))
            for name in lattice.names
        ]
        parameters = lattice.parameters(np.array(free))
        shape = np.linalg.det(cell_from_parameters(parameters))
        edges = np.array([len(name) == 1 for name in lattice.names])
        if shape > 0.3 * np.prod(parameters[:3]):
            return np.where(edges, np.array(free) * (volume / shape) ** (1 / 3), free)


def random_sites(group: int, rng: np.random.Generator) -> list[tuple[str, int, np.ndarray]]:
    """Random Wyckoff positions, one without free coordinates at most once."""
    positions = wyckoff_positions(group)
    fitting = [p for p in positions if p.multiplicity <= MAX_ATOMS]
    sites, left, used = [], MAX_ATOMS, set()
    for _ in range(int(rng.integers(1, MAX_SITES + 1))):
        open_ones = [p for p in fitting if p.multiplicity <= left and p.index not in used]
        if not open_ones:
            break
        position = open_ones[int(rng.integers(len(open_ones)))]
        if not position.dof:
            used.add(position.index)
        sites.append(("C", position.index, rng.random(position.dof)))
        left -= position.multiplicity
    return sites


def nearest(atoms: Atoms) -> float:
    """Shortest distance between two atoms, images included (Å)."""
    from ase.neighborlist import neighbor_list

    return float(min(neighbor_list("d", atoms, 2.0), default=2.0))


def random_crystal(rng: np.random.Generator, attempts: int = 200) -> SymmetricCrystal:
    """One crystal; groups and positions for which no cell works are given up."""
    while True:
        group = int(rng.integers(2, 231))
        sites = random_sites(group, rng)
        positions = wyckoff_positions(group)
        n_atoms = sum(positions[index].multiplicity for _, index, _ in sites)
        if sum(len(free) for _, _, free in sites) == 0:
            continue
        for _ in range(attempts):
            cell = random_cell(group, n_atoms * rng.uniform(7.0, 11.0), rng)
            moved = [(s, index, rng.random(len(free))) for s, index, free in sites]
            crystal = SymmetricCrystal.build(group, cell, moved)
            if nearest(crystal.to_atoms()) > NEAREST:
                return crystal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", type=Path, default=DEFAULT)
    parser.add_argument("-n", type=int, default=60)
    parser.add_argument("--seed", type=int, default=2024)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    frames = []
    for number in range(options.n):
        crystal = random_crystal(rng)
        atoms = crystal.to_atoms()
        atoms.wrap()
        atoms.info = {
            "name": f"random-{number:03d}",
            "space_group_number": crystal.space_group,
            "wyckoffs": " ".join(crystal.wyckoffs),
        }
        frames.append(atoms)
    options.o.parent.mkdir(parents=True, exist_ok=True)
    write(options.o, frames, format="extxyz")
    print(f"{len(frames)} crystals, {sum(map(len, frames))} atoms: {options.o}")


if __name__ == "__main__":
    main()
