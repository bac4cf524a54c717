"""Make the example that ships with the package: random symmetric carbon crystals.

    python scripts/make_example.py [-o FILE] [-n 60] [--seed 2024]

Each crystal takes a random space group other than P1, up to three Wyckoff positions that three
neighbours are possible on, with at most 48 atoms in the conventional cell, random free coordinates,
and a random cell of 7 to 11 Å^3 per atom in which no two atoms are nearer than 0.9 Å. The same seed
gives the same file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ase.io import write

from asexlatent.symmetry import RandomCrystals

DEFAULT = Path(__file__).parents[1] / "asexlatent" / "examples" / "random_sp2.extxyz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", type=Path, default=DEFAULT)
    parser.add_argument("-n", type=int, default=60)
    parser.add_argument("--seed", type=int, default=2024)
    options = parser.parse_args()
    source = RandomCrystals(
        "C",
        tuple(range(2, 231)),
        max_sites=3,
        max_atoms=48,
        volume=(7.0, 11.0),
        min_distance=0.9,
        neighbors=3,
        seed=options.seed,
    )
    frames = []
    for number, crystal in enumerate(source.crystals(options.n)):
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
