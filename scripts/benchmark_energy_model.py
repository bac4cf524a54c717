"""How far energies are from PBE on known three-coordinated carbons, and what they cost.

    python scripts/benchmark_energy_model.py ../shared/data/sp2_known_pbe.extxyz shipped chgnet

Structures as PBE left them, ``pbe_energy_per_atom`` in ``info``. One constant per method (the
median difference) is removed, then: mean absolute error, rank correlation (Spearman), and time per
atom for energy, forces and stress on one core, one structure at a time. Methods are names for
``get_calculator``, or folders of models (one row each: a learning curve). ``--stored KEY`` adds
energies per atom found in ``info``.

``--relaxed`` relaxes every structure of at most ``--largest`` atoms first, as screening does.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
import warnings
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.optimize import BFGS
from machine import describe_machine
from scipy.stats import spearmanr

from asexlatent.screening import get_calculator


def main() -> None:
    options = _options()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    frames = [frame for frame in read(options.structures, ":") if len(frame) <= options.largest]
    target = np.array([frame.info["pbe_energy_per_atom"] for frame in frames])
    print(f"{len(frames)} structures, {sum(map(len, frames))} atoms; {describe_machine(1)}")
    print("| energies | mean error, eV/atom | rank correlation | ms per atom |\n|---|---|---|---|")
    for key in options.stored:
        stored = np.array([frame.info[key] for frame in frames])
        print(_row(f"stored {key}", stored, target, None), flush=True)
    for method in options.methods:
        calculator = get_calculator(None if method == "shipped" else method, dtype=options.dtype)
        values, each = energies(frames, calculator, options.relaxed)
        print(_row(Path(method).name, values, target, each), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structures", type=Path)
    parser.add_argument("methods", nargs="*", default=["shipped"])
    parser.add_argument("--stored", nargs="*", default=[])
    parser.add_argument("--largest", type=int, default=1000, help="atoms of a structure")
    parser.add_argument("--relaxed", action="store_true")
    parser.add_argument("--dtype", default="float64")
    return parser.parse_args()


def energies(
    frames: list[Atoms], calculator: Calculator, relaxed: bool = False
) -> tuple[np.ndarray, float]:
    """Energies per atom (eV), and CPU milliseconds per atom of one evaluation."""
    first = frames[0].copy()  # the first call of a model is not like the others
    first.calc = calculator
    first.get_forces()
    values, seconds, atoms = [], 0.0, 0
    for frame in frames:
        copy = frame.copy()
        copy.calc = calculator
        if relaxed:
            BFGS(FrechetCellFilter(copy), logfile=None).run(0.03, 200)
            copy.calc.reset()
        start = time.process_time()
        copy.get_forces()
        copy.get_stress()
        seconds += time.process_time() - start
        atoms += len(copy)
        values.append(copy.get_potential_energy() / len(copy))
    return np.array(values), 1e3 * seconds / atoms


def accuracy(values: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Mean absolute error with the median difference removed, and the rank correlation."""
    difference = values - target
    error = float(np.abs(difference - np.median(difference)).mean())
    return error, float(spearmanr(values, target).statistic)


def _row(title: str, values: np.ndarray, target: np.ndarray, each: float | None) -> str:
    error, rank = accuracy(values, target)
    cost = "" if each is None else f"{each:.2f}"
    return f"| {title} | {error:.4f} | {rank:.3f} | {cost} |"


if __name__ == "__main__":
    main()
