"""Relaxation under symmetry: many crystals at once against ASE, one after the other.

    python scripts/benchmark_relaxation.py --crystals 100

Crystals are drawn from the nets that ship with the package, evenly over sizes up to ``--largest``
atoms of the conventional cell, as the refinement left them: never relaxed on an energy. Three
sides with the same MACE model in the same precision and the same thresholds on forces and stress:
`relax`; ``FrechetCellFilter``, ``FixSymmetry`` and ``BFGS`` of ASE on the primitive cell; the same
on the conventional cell. Times are processor time of this process, one thread.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import spglib
import torch
from machine import describe_machine

from asexlatent.screening import MACEEnergy, Relaxation, load_mace_model, relax
from asexlatent.screening.ase_relaxation import relax_with_calculator
from asexlatent.symmetry import SymmetricCrystal, read_table
from asexlatent.topology import identify_net

NETS = Path(__file__).parents[1] / "asexlatent/data/sp2_nets.csv.gz"


def main() -> None:
    options = _options()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    crystals = chosen(options.crystals, options.largest, options.seed)
    sizes = [crystal.n_atoms for crystal in crystals]
    groups = len({crystal.space_group for crystal in crystals})
    model = load_mace_model(options.model, dtype=getattr(torch, options.dtype))
    print(
        f"{len(crystals)} crystals of {groups} space groups, {min(sizes)} to {max(sizes)} atoms in "
        f"the conventional cell (mean {np.mean(sizes):.0f}), "
        f"{np.mean([c.free_variables.size for c in crystals]):.1f} free variables; "
        f"fmax {options.fmax}, {options.dtype}; {model.description}; {describe_machine(1)}"
    )
    energy = MACEEnergy(model, dtype=getattr(torch, options.dtype))
    calculator = model.calculator()
    limits = {"fmax": options.fmax, "steps": options.steps}
    first = crystals[:1]  # the first call of a model is not like the others
    relax(first, energy, **limits)
    relax_with_calculator(first, calculator, **limits)

    def by_ase(primitive: bool) -> Callable[[], list[Relaxation]]:
        return lambda: relax_with_calculator(crystals, calculator, primitive=primitive, **limits)

    ours, seconds = timed(lambda: relax(crystals, energy, **limits))
    print("| | s per crystal | times ours | steps | converged | stalled | step limit | failed |")
    print("|---|---|---|---|---|---|---|---|")
    print(_row("batched", ours, seconds, seconds), flush=True)
    reference = None
    for title, primitive in (("ASE, primitive cell", True), ("ASE, conventional cell", False)):
        if primitive or not options.primitive_only:
            reference, theirs = timed(by_ase(primitive))
            print(_row(title, reference, theirs, seconds), flush=True)
            print(comparison(crystals, ours, reference), flush=True)
    print(f"space group of the input found after the batched relaxation: {kept(ours)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crystals", type=int, default=100)
    parser.add_argument("--largest", type=int, default=96, help="atoms in the conventional cell")
    parser.add_argument("--model", help="as for load_mace_model; default the shipped one")
    parser.add_argument("--fmax", type=float, default=0.02)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--primitive-only", action="store_true")
    return parser.parse_args()


def chosen(number: int, largest: int, seed: int) -> list[SymmetricCrystal]:
    """Crystals of the shipped table, one of each of as many sizes as there are, then again."""
    rng = np.random.default_rng(seed)
    by_size: dict[int, list[SymmetricCrystal]] = {}
    for row in read_table(NETS):
        crystal = row.crystal()
        if crystal.n_atoms <= largest:
            by_size.setdefault(crystal.n_atoms, []).append(crystal)
    for same in by_size.values():
        rng.shuffle(same)
    found: list[SymmetricCrystal] = []
    while len(found) < number and by_size:
        for size in sorted(by_size):
            found.append(by_size[size].pop())
            if not by_size[size]:
                del by_size[size]
    rng.shuffle(found)
    return found[:number]


def timed(call: Callable[[], list[Relaxation]]) -> tuple[list[Relaxation], float]:
    """Result of a call and the processor time it took, s."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def _row(title: str, results: list[Relaxation], seconds: float, ours: float) -> str:
    statuses = [result.status for result in results]
    counts = [statuses.count(s) for s in ("converged", "stalled", "step_limit", "failed")]
    steps = np.mean([result.steps for result in results])
    each = f"{seconds / len(results):.3f} | {seconds / ours:.1f} | {steps:.0f}"
    return f"| {title} | {each} | " + " | ".join(map(str, counts)) + " |"


def comparison(
    crystals: list[SymmetricCrystal], ours: list[Relaxation], theirs: list[Relaxation]
) -> str:
    """How far energies differ where both converged and kept the net, and what else became."""
    gaps, other, unfinished = [], 0, 0
    for start, one, two in zip(crystals, ours, theirs, strict=True):
        if not one.status == two.status == "converged":
            unfinished += 1
        elif net(start) == net(one.crystal) == net(two.crystal):
            gaps.append(1e3 * (one.energy - two.energy))
        else:
            other += 1
    gap = np.array(gaps)
    return (
        f"  net unchanged on both sides: {len(gap)}, energies within 1 meV/atom in "
        f"{int((np.abs(gap) <= 1).sum())} of these (median {np.median(np.abs(gap)):.2f}), "
        f"lower by more in ours {int((gap < -1).sum())}, in ASE's {int((gap > 1).sum())}; "
        f"net changed on some side {other}; not converged on some side {unfinished}"
    )


def net(crystal: SymmetricCrystal) -> str:
    """Key of its net."""
    return identify_net(crystal.to_atoms()).key


def kept(results: list[Relaxation]) -> str:
    """Relaxed crystals in which spglib finds the group (or a supergroup: more operations)."""
    good, total = 0, 0
    for result in results:
        if result.status == "failed":
            continue
        total += 1
        atoms = result.crystal.to_atoms()
        cell = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
        found = spglib.get_symmetry_dataset(cell, symprec=1e-5)
        good += found.number == result.crystal.space_group or len(found.rotations) > len(
            spglib.get_symmetry_from_database(_hall(result.crystal.space_group))["rotations"]
        )
    return f"{good} of {total}"


def _hall(group: int) -> int:
    from asexlatent.symmetry import hall_number

    return hall_number(group)


if __name__ == "__main__":
    main()
