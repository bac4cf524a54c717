"""Yield, speed and memory of every solver on the same candidates; what each idea buys.

    python scripts/benchmark_refine.py --candidates table.csv [-n 1000] [--json FILE]
    python scripts/benchmark_refine.py --candidates random --runs lm-9 lm-9-float32 --seed 1
    python scripts/benchmark_refine.py --candidates table.csv --ablation
    python scripts/benchmark_refine.py --candidates random --profile lm-9
    python scripts/benchmark_refine.py --candidates table.csv --device cuda --memory 20

Candidates: a CSV table of rows; any structure file, of which the space groups and Wyckoff
positions are taken and all free variables drawn anew; or "random": random groups, positions and
free variables. Fewer than -n are repeated with Gaussian noise of 0.1 Å on the free coordinates,
which is said. Every run is a process of its own on one core, or on an accelerator and one core.

Valid is judged apart from the program: every atom of the whole cell has three neighbours within
1.85 Å and none within 1.15 Å (ase.neighborlist), as many sites as the candidate, and the operations
of its space group found by spglib at 1e-3. Nets are counted by their exact keys.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: times are of one core

import numpy as np
import torch
from machine import describe_machine, peak_memory
from random_crystals import random_candidate, randomized

from asexlatent.optimize import BASELINES, RefinementRun, Restarts
from asexlatent.symmetry import CrystalError, SymmetricCrystal, wyckoff_positions

# name: (solver, restarts, steps, dtype, share of the candidates that is run, further settings)
RUNS = {
    "adam": ("adam", 0, 1000, "float64", 1.0, {}),
    "lbfgs": ("lbfgs", 0, 1000, "float64", 1.0, {}),
    "lm": ("lm", 0, 200, "float64", 1.0, {}),
    "lm-5": ("lm", 5, 60, "float64", 1.0, {}),
    "lm-9": ("lm", 9, 60, "float64", 1.0, {}),
    "lm-9-float32": ("lm", 9, 60, "float32", 1.0, {}),
    "lm-15": ("lm", 15, 60, "float64", 1.0, {}),
    "lm-20": ("lm", 20, 60, "float64", 1.0, {}),
    "scipy-lbfgsb": ("scipy-lbfgsb", 0, 200, "float64", 0.03, {}),
    "scipy-nelder-mead": ("scipy-nelder-mead", 0, 1000, "float64", 0.03, {}),
}
ABLATION = {
    "all (lm-9)": {},
    "no approach": {"approach_steps": 0, "descent_steps": 18},
    "approach at 1.2 rcut": {"approach_factor": 1.2},
    "approach at 1.7 rcut": {"approach_factor": 1.7},
    "approach of 8 steps": {"approach_steps": 8},
    "approach of 20 steps": {"approach_steps": 20},
    "no fresh starts": {"fresh": False},
    "volume of the candidate": {"reference_density": False},
    "noise on the best so far": {"best": True},
}
DEFAULT_RUNS = ["adam", "lbfgs", "lm", "lm-5", "lm-9", "lm-9-float32", "scipy-lbfgsb"]


def load(source: str, number: int, seed: int) -> list[SymmetricCrystal | CrystalError]:
    """Exactly `number` candidates; a row that cannot be built is an error in its place."""
    rng = np.random.default_rng(seed)
    if source == "random":
        return [random_candidate(rng) for _ in range(number)]
    if source.endswith(".csv"):
        from asexlatent.symmetry import read_table

        found = [_row(row) for row in read_table(source)]
        print(f"{len(found)} rows, {sum(isinstance(f, CrystalError) for f in found)} not buildable")
    else:
        from ase.io import read

        known = [SymmetricCrystal.from_atoms(atoms) for atoms in read(source, index=":")]
        return [randomized(known[k % len(known)], rng) for k in range(number)]
    if len(found) < number:
        print(f"repeated with noise up to {number}")
    from perturbed_known import candidate

    return [
        one if k < len(found) or isinstance(one, CrystalError) else candidate(one, 0.1, (seed, k))
        for k, one in enumerate(found[i % len(found)] for i in range(number))
    ]


def _row(row) -> SymmetricCrystal | CrystalError:
    try:
        return row.crystal()
    except CrystalError as error:
        return error


def judge(before: SymmetricCrystal, after: SymmetricCrystal) -> bool:
    """Whether a result is valid, by the rule in the head of this file."""
    from ase.neighborlist import neighbor_list
    from spglib import get_symmetry

    atoms = after.to_atoms()
    if after.wyckoffs != before.wyckoffs:
        return False
    first, distances = neighbor_list("id", atoms, 1.85)
    if len(distances) == 0 or distances.min() < 1.15:
        return False
    if (np.bincount(first, minlength=len(atoms)) != 3).any():
        return False
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    operations = get_symmetry(cell, symprec=1e-3)
    order = wyckoff_positions(before.space_group)[0].multiplicity
    return len(operations["rotations"]) % order == 0


def run_one(options: argparse.Namespace, name: str) -> dict:
    """Refine, judge and count; the figures of one line of the table."""
    solver, restarts, steps, dtype, share, settings = RUNS[name]
    if options.variant:
        settings = ABLATION[options.variant]
    number = max(1, round(options.n * share))
    candidates = load(options.candidates, options.n, options.seed)[:number]
    torch.set_num_threads(1)
    place = {"dtype": getattr(torch, dtype)}
    if solver not in BASELINES:
        place |= {"device": options.device, "memory": options.memory}
    warm = RefinementRun(
        candidates[:10], solver=solver, steps=2, restarts=min(restarts, 1), **place
    )
    for _ in warm:
        pass
    started, cpu = time.perf_counter(), time.process_time()
    run = RefinementRun(
        candidates,
        solver=solver,
        restarts=Restarts(restarts, seed=options.seed, **settings),
        steps=steps,
        batch_size=options.batch_size,
        **place,
    )
    for _ in run:
        pass
    results = run.results()
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    scale = 1000 / number
    figures = {
        "run": options.variant or name,
        "candidates": number,
        "cpu_s_per_1000": cpu * scale,
        "wall_s_per_1000": wall * scale,
        "peak_memory_mib": peak_memory("cpu" if solver in BASELINES else options.device),
        "evaluations_per_candidate": float(np.mean([r.steps for r in results])),
    }
    return figures | count(results, scale)


def count(results: list, scale: float) -> dict:
    """Valid crystals, their nets and what they look like."""
    from asexlatent.topology import identify_net

    good = [r for r in results if r.valid and judge(r.source, r.crystal)]
    nets = [identify_net(r.crystal.to_atoms(), cutoff=1.85) for r in good]
    density = [12.011 * r.crystal.n_atoms / r.crystal.volume / 0.602214 for r in good]
    losses = [r.loss for r in results if r.crystal is not None]
    return {
        "claimed_valid": sum(r.valid for r in results) * scale,
        "valid": len(good) * scale,
        "valid_without_fresh": sum(r.path != "fresh" for r in good) * scale,
        "nets": len({net.key for net in nets}) * scale,
        "paths": dict(Counter(r.path for r in good)),
        "status": dict(Counter(str(r.status) for r in results)),
        "dimensions": dict(sorted(Counter(net.dimension for net in nets).items())),
        "interpenetrated": sum(len(n.components) > 1 for n in nets),
        "density_g_cm3": np.quantile(density, [0.1, 0.5, 0.9]).round(2).tolist() if good else [],
        "median_loss": float(np.median(losses)) if losses else None,
        "median_loss_valid": float(np.median([r.loss for r in good])) if good else None,
    }


def table(lines: list[dict]) -> str:
    """Markdown."""
    head = (
        "| run | wall s / 1000 | CPU s / 1000 | peak MiB | valid | without fresh | nets | "
        "0D/1D/2D/3D | density | median loss (valid) |\n|" + " --- |" + " ---: |" * 9
    )
    rows = [head]
    for f in lines:
        dimensions = "/".join(str(f["dimensions"].get(str(d), 0)) for d in range(4))
        density = f"{f['density_g_cm3'][1]:.2f}" if f["density_g_cm3"] else "-"
        loss = "-" if f["median_loss_valid"] is None else f"{f['median_loss_valid']:.3f}"
        mark = "~" if f["candidates"] < lines[0]["candidates"] else ""
        rows.append(
            f"| {f['run']} | {mark}{f['wall_s_per_1000']:.1f} | "
            f"{mark}{f['cpu_s_per_1000']:.1f} | {f['peak_memory_mib']:.0f} | "
            f"{mark}{f['valid']:.0f} | {mark}{f['valid_without_fresh']:.0f} | "
            f"{mark}{f['nets']:.0f} | {dimensions} | {density} | {loss} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", default="random")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=DEFAULT_RUNS)
    parser.add_argument("--ablation", action="store_true", help="lm-9 with one idea changed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=_batch_size, default="auto")
    parser.add_argument("--device", default="cpu", help="of all runs but SciPy's")
    parser.add_argument("--memory", type=float, default=2.0, help="budget of a batch, GiB")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", choices=RUNS, help="show where the time of one run goes")
    parser.add_argument("--child", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--variant", choices=ABLATION, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_one(options, options.child)))
    elif options.profile:
        profile(options)
    else:
        compare(options)


def profile(options: argparse.Namespace) -> None:
    """Print the functions in which one run spends its time."""
    import cProfile
    import pstats

    profiler = cProfile.Profile()
    profiler.enable()
    run_one(options, options.profile)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def compare(options: argparse.Namespace) -> None:
    """Run every line in a process of its own and print the table."""
    cases = [("lm-9", v) for v in ABLATION] if options.ablation else [(r, "") for r in options.runs]
    shared = ["--candidates", options.candidates, "-n", str(options.n)]
    shared += ["--seed", str(options.seed), "--batch-size", str(options.batch_size)]
    shared += ["--device", options.device, "--memory", str(options.memory)]
    lines = []
    for name, variant in cases:
        command = [sys.executable, __file__, "--child", name, *shared]
        command += ["--variant", variant] if variant else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        lines.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    print(
        f"{options.n} candidates ({options.candidates}), seed {options.seed}, one core"
        f"{'' if options.device == 'cpu' else ' and ' + options.device};"
    )
    print(f"{describe_machine(1)}\n")
    print(table(lines))
    if options.json:
        content = {"machine": describe_machine(1), "command": sys.argv, "lines": lines}
        content["restarts"] = asdict(Restarts())
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else int(text)


if __name__ == "__main__":
    main()
