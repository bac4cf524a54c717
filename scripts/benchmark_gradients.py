"""What automatic derivatives buy: time and memory of refinement steps, against differences.

    python scripts/benchmark_gradients.py [--crystals 1000] [--steps 100] [--few 250] [--json FILE]

The crystals are those of the example that ships with the package, repeated and perturbed along
their free variables (0.1 Å) until there are as many as wanted. Nothing converges: every crystal
takes every step, but lm gives up a crystal after 40 failed steps in a row and scipy one that it
cannot improve; their time is multiplied up to all steps. Each line is a process of its own;
seconds are processor time of one core.

- adam, lbfgs: gradients by automatic differentiation; lm: gradients and Gauss-Newton curvature
  from analytic pair derivatives.
- "differences": the same adam and lbfgs, their gradients by forward differences of the loss, all
  crystals at once, one evaluation for each further free variable.
- "scipy": scipy.optimize's L-BFGS-B with its own forward differences, crystal by crystal, as the
  method was run before it was batched; its steps are its iterations. The loss is ours with a
  batch of one, which a program written for single crystals would beat by some factor.

Differences are measured on the first --few crystals (scipy on a tenth of these) and their time is
multiplied up, which is marked by "~"; memory is that of the crystals that were run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: times are of one core

import numpy as np
import torch
from ase.io import read
from machine import describe_machine, peak_memory
from perturbed_known import candidate
from torch import Tensor

from asexlatent import CrystalBatch, DescriptorLoss, LocalEnvironment, SymmetricCrystal
from asexlatent.optimize import LBFGS, Adam, BatchMinimizer, Evaluation, LevenbergMarquardt

SOLVERS = {
    "adam": Adam(stall_patience=10**6),
    "lbfgs": LBFGS(stall_patience=10**6),
    "lm": LevenbergMarquardt(stall_patience=40),
}
CASES = ("adam", "lbfgs", "lm", "adam differences", "lbfgs differences", "scipy")
STEP = 1e-6  # of the differences, in Å, radians and fractions


def example_crystals(number: int) -> list[SymmetricCrystal]:
    """The shipped crystals, perturbed anew at each repetition."""
    example = resources.files("asexlatent") / "examples" / "random_sp2.extxyz"
    with resources.as_file(example) as path:
        shipped = [SymmetricCrystal.from_atoms(atoms) for atoms in read(path, index=":")]
    return [candidate(shipped[k % len(shipped)], 0.1, (0, k)) for k in range(number)]


@dataclass(frozen=True)
class Differences:
    """An objective whose gradients are forward differences of another's values."""

    objective: DescriptorLoss

    def bind(self, batch: CrystalBatch) -> DifferencesProblem:
        """Prepare for the crystals of `batch`."""
        return DifferencesProblem(self.objective, batch)


class DifferencesProblem:
    """Evaluates the k-th free variable of all crystals that have one together."""

    def __init__(self, objective: DescriptorLoss, batch: CrystalBatch):
        self.objective, self.batch = objective, batch
        self.problem = objective.bind(batch)
        sizes = batch.variables_per_crystal()
        self.parts = []
        for slot in range(int(sizes.max())):
            keep = sizes > slot
            part = batch.select(keep)
            self.parts.append((keep, part, objective.bind(part)))

    @torch.no_grad()
    def evaluate(self, variables: Tensor, metric: object = None) -> Evaluation:
        """Values, and gradients by one more evaluation for each variable slot."""
        value, count = self.problem.value(variables)
        gradient = torch.zeros_like(variables)
        for slot, (keep, part, problem) in enumerate(self.parts):
            mine = keep[self.batch.variable_crystal]
            moved = variables[mine] + STEP * (part.slot == slot)
            there, _ = problem.value(moved)
            place = self.batch.first_variable[keep] + slot
            gradient[place] = (there - value[keep]) / STEP
        lonely = torch.zeros_like(value).index_add_(
            0, self.batch.site_crystal, (count == 0).to(value)
        )
        return Evaluation(value, gradient, lonely > 0)

    def select(self, keep: Tensor, batch: CrystalBatch) -> DifferencesProblem:
        """Return the problem of the crystals kept."""
        return DifferencesProblem(self.objective, batch)


def run_batched(case: str, crystals: list[SymmetricCrystal], steps: int) -> tuple[float, float]:
    """Seconds for all steps and median loss at the end."""
    name, _, differences = case.partition(" ")
    objective = DescriptorLoss(LocalEnvironment.named("sp2"))
    if differences:
        objective = Differences(objective)
    solver = SOLVERS[name]
    warm_up = CrystalBatch.from_crystals(crystals[:2])
    BatchMinimizer(warm_up, objective, solver, fmax=0.0).step()
    start = time.process_time()
    minimizer = BatchMinimizer(CrystalBatch.from_crystals(crystals), objective, solver, fmax=0.0)
    for _ in range(steps):
        minimizer.step()
    seconds = time.process_time() - start
    share = int(minimizer.steps.sum()) / (steps * len(crystals))
    return seconds / share, float(minimizer.losses.median())


def run_scipy(crystals: list[SymmetricCrystal], steps: int) -> tuple[float, float]:
    """Seconds for all steps and median loss at the end."""
    from scipy.optimize import minimize

    objective = DescriptorLoss(LocalEnvironment.named("sp2"))
    losses, taken, start = [], 0, time.process_time()
    for crystal in crystals:
        batch = CrystalBatch.from_crystals([crystal])
        problem = objective.bind(batch)

        def value(x: np.ndarray, problem: object = problem) -> float:
            with torch.no_grad():
                return float(problem.value(torch.as_tensor(x))[0])

        limits = {"maxiter": steps, "ftol": 0.0, "gtol": 0.0, "maxfun": 10**9}
        kinds = zip(crystal.free_variables, batch.variable_kind.tolist(), strict=True)
        bounds = [(None, None) if kind == 2 else (x / 2, x * 1.4) for x, kind in kinds]
        found = minimize(
            value, crystal.free_variables, method="L-BFGS-B", bounds=bounds, options=limits
        )
        losses.append(found.fun)
        taken += max(found.nit, 1)
    seconds = time.process_time() - start
    return seconds * steps * len(crystals) / taken, float(np.median(losses))


def measure(case: str, number: int, steps: int) -> dict[str, object]:
    """One line of the table, in this process."""
    crystals = example_crystals(number)
    before = peak_memory()
    seconds, loss = (
        run_scipy(crystals, steps) if case == "scipy" else run_batched(case, crystals, steps)
    )
    return {
        "case": case,
        "crystals_run": number,
        "steps": steps,
        "seconds": seconds,
        "peak_mib": peak_memory(),
        "before_mib": before,
        "median_loss": loss,
    }


def measure_apart(case: str, number: int, steps: int) -> dict[str, object]:
    """`measure` in a fresh process, whose peak memory is then its own."""
    command = [sys.executable, __file__, "--case", case]
    command += ["--crystals", str(number), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def table(lines: list[dict[str, object]], wanted: int, steps: int) -> str:
    head = f"seconds for {wanted} crystals and {steps} steps"
    rows = [f"| solver | {head} | peak memory, MiB | of it imports and input | median loss |"]
    rows.append("|---|---|---|---|---|")
    for line in lines:
        rough = "" if line["crystals_run"] == wanted else "~"
        of = "" if not rough else f" (run: {line['crystals_run']})"
        rows.append(
            f"| {line['case']} | {rough}{line['seconds_scaled']:.3g}{of} | "
            f"{line['peak_mib']:.0f} | {line['before_mib']:.0f} | {line['median_loss']:.3g} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crystals", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--few", type=int, default=250, help="crystals of the runs by differences")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options.crystals, options.steps)))
        return

    sizes = [c.free_variables.size for c in example_crystals(options.crystals)]
    print(
        f"{describe_machine(1)}; {options.crystals} crystals with {min(sizes)} to {max(sizes)} "
        f"free variables, {np.mean(sizes):.1f} on average"
    )
    lines = []
    for case in CASES:
        number = options.crystals
        if case == "scipy" or "differences" in case:
            number = min(number, max(options.few // (10 if case == "scipy" else 1), 1))
        line = measure_apart(case, number, options.steps)
        line["seconds_scaled"] = line["seconds"] * options.crystals / number
        lines.append(line)
        print(f"  {case}: {line['seconds']:.2f} s for {number} crystals", file=sys.stderr)
    print(table(lines, options.crystals, options.steps))
    if options.json is not None:
        found = {"machine": describe_machine(1), "torch": torch.__version__, "lines": lines}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
