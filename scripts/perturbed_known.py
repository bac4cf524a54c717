"""Perturb known structures along their free variables, refine, and count those that come back.

    python scripts/perturbed_known.py CRYSTALS [--amounts 0.1 0.2 0.4 0.8] [--restarts 5]
        [--alone 5] [-o DIR]

An amount d (Å) moves every site by Gaussian noise of standard deviation d along each of its free
coordinates, scales free lattice parameters by 1 + N(0, d / 10 Å) and turns free angles by
N(0, d / 10 Å) radians. A crystal has come back when it is valid and its net is the one it had.
With --alone N, the N crystals with the most atoms are refined one by one, by one descent from the
second amount, and timed. With -o, the perturbed crystals are written to DIR/perturbed-D.extxyz,
for asexlatent-refine.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: times are of one core

import numpy as np
from ase import Atoms
from ase.io import read, write
from machine import describe_machine

from asexlatent import LocalEnvironment, SymmetricCrystal, identify_net, refine
from asexlatent.optimize import Refinement
from asexlatent.symmetry import CrystalError

COLUMNS = "descent", "perturbed", "fresh"


def perturbed(crystal: SymmetricCrystal, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Free variables after noise of `amount` Å."""
    lattice = crystal.lattice
    noise = []
    for name, value in zip(lattice.names, crystal.cell_free, strict=True):
        scale = value if len(name) == 1 else 1.0  # an angle has a longer name
        noise.append(rng.normal(0, amount / 10) * scale)
    for site in crystal.sites:
        position = site.position
        moved = position.rotations[0].T @ crystal.cell  # Å per unit of x, y, z, in rows
        lengths = np.linalg.norm(moved[position.variables], axis=1)
        noise.extend(rng.normal(0, amount, len(lengths)) / lengths)
    return crystal.free_variables + np.array(noise)


def candidate(crystal: SymmetricCrystal, amount: float, seed: tuple) -> SymmetricCrystal:
    """Perturbed crystal; noise that makes an impossible cell is drawn again."""
    rng = np.random.default_rng(seed)
    while True:
        try:
            return crystal.with_free_variables(perturbed(crystal, amount, rng))
        except CrystalError:
            continue


def compare(result: Refinement, key: str) -> str:
    """What has become of one crystal."""
    if not result.valid:
        return "not valid"
    same = identify_net(result.crystal.to_atoms()).key == key
    return "same net" if same else "other net"


def check_order(results: list[Refinement], crystals: list[SymmetricCrystal]) -> None:
    """Every input out, in its place."""
    given = [(c.space_group, c.wyckoffs) for c in crystals]
    out = [(r.crystal.space_group, r.crystal.wyckoffs) for r in results]
    if given != out:
        raise SystemExit("the results are not the inputs in order")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="known crystals, anything ASE reads")
    parser.add_argument("--amounts", type=float, nargs="+", default=[0.1, 0.2, 0.4, 0.8])
    parser.add_argument("--target", default="sp2")
    parser.add_argument("--solver", default="lm")
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", type=int, default=0, help="largest crystals to time")
    parser.add_argument("-o", type=Path, help="folder for the perturbed crystals")
    options = parser.parse_args()

    known: list[Atoms] = read(options.file, index=":")
    crystals = [SymmetricCrystal.from_atoms(atoms) for atoms in known]
    keys = [identify_net(crystal.to_atoms()).key for crystal in crystals]
    environment = LocalEnvironment.named(options.target)
    n_valid = sum(environment.is_valid(atoms) for atoms in known)
    print(
        f"{len(known)} known crystals, {n_valid} of them valid as they are; {describe_machine(1)}"
    )
    print("refined from perturbed free variables, number of crystals:")
    print(f"{'Å':>5} {'valid':>6} {'same net':>9} | same net by " + " ".join(COLUMNS) + " | s")
    for amount in options.amounts:
        moved = [candidate(c, amount, (options.seed, k)) for k, c in enumerate(crystals)]
        if options.o is not None:
            options.o.mkdir(parents=True, exist_ok=True)
            write(options.o / f"perturbed-{amount:g}.extxyz", [c.to_atoms() for c in moved])
        start = time.process_time()
        results = refine(
            moved, environment, solver=options.solver, restarts=options.restarts, seed=options.seed
        )
        seconds = time.process_time() - start
        check_order(results, crystals)
        fate = [compare(result, key) for result, key in zip(results, keys, strict=True)]
        back = [r.path for r, f in zip(results, fate, strict=True) if f == "same net"]
        paths = " ".join(f"{back.count(path):{len(path)}d}" for path in COLUMNS)
        valid = len(fate) - fate.count("not valid")
        print(f"{amount:5g} {valid:6d} {len(back):9d} |             {paths} | {seconds:.1f}")
    if options.alone:
        time_alone(crystals, options, environment)


def time_alone(
    crystals: list[SymmetricCrystal], options: argparse.Namespace, environment: LocalEnvironment
) -> None:
    """Print the time of one descent for each of the largest crystals."""
    amount = options.amounts[min(1, len(options.amounts) - 1)]
    order = sorted(range(len(crystals)), key=lambda k: -crystals[k].n_atoms)[: options.alone]
    print(f"\none descent from {amount:g} Å, each alone:")
    print(f"{'atoms':>6} {'free':>5} {'group':>6} {'steps':>6} {'loss':>9} {'s':>6}")
    for k in order:
        moved = candidate(crystals[k], amount, (options.seed, k))
        refine([moved], environment, solver=options.solver, steps=1)  # tables are start-up
        start = time.process_time()
        (result,) = refine([moved], environment, solver=options.solver)
        seconds = time.process_time() - start
        crystal = result.crystal
        print(
            f"{crystal.n_atoms:6d} {crystal.free_variables.size:5d} {crystal.space_group:6d} "
            f"{result.steps:6d} {result.loss:9.2g} {seconds:6.2f} {result.status}"
        )


if __name__ == "__main__":
    sys.exit(main())
