"""Energies, forces and stresses of structures by CHGNet, the teacher of the energy model.

    python scripts/label_energy_structures.py WORK/first.extxyz WORK/first_labelled.extxyz

Needs CHGNet (``pip install asexlatent[chgnet]``; its weights come with it). About 10 ms per atom on
one core, a third of that for frames that ask for the energy only (``info["ask"]``). Units as in
ASE: eV, eV/Å, eV/Å^3 (tension positive). An output file that is there already is continued.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread, read, write
from chgnet.model import CHGNet
from pymatgen.io.ase import AseAtomsAdaptor

GPA = 1 / 160.21766208  # eV/Å^3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structures", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--chunk", type=int, default=20, help="structures written at a time")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    frames = read(options.structures, ":")
    done = sum(1 for _ in iread(options.output)) if options.output.exists() else 0
    model = CHGNet.load(use_device="cpu", verbose=False).requires_grad_(False)
    start, atoms = time.perf_counter(), 0
    for first in range(done, len(frames), options.chunk):
        chunk = frames[first : first + options.chunk]
        write(options.output, labelled(chunk, model), append=True)
        atoms += sum(map(len, chunk))
        each = (time.perf_counter() - start) / atoms
        print(f"{first + len(chunk)}/{len(frames)}, {1e3 * each:.1f} ms per atom", flush=True)


def labelled(frames: list[Atoms], model: CHGNet) -> list[Atoms]:
    """Copies of the frames with what they ask of CHGNet."""
    first_order = torch.autograd.grad

    def grad(outputs, inputs, **_):  # CHGNet keeps the graph for training: a third of the time
        return first_order(outputs, inputs, retain_graph=True)

    copies = []
    for frame in frames:
        structure, copy = AseAtomsAdaptor.get_structure(frame), frame.copy()
        with mock.patch("torch.autograd.grad", grad):
            answer = model.predict_structure(structure, task=frame.info.get("ask", "efs"))
        copy.calc = SinglePointCalculator(copy, **_results(answer, len(copy)))
        copies.append(copy)
    return copies


def _results(answer: dict[str, np.ndarray], n_atoms: int) -> dict[str, Any]:
    """CHGNet's answer under ASE's names and in its units."""
    results: dict[str, Any] = {"energy": float(answer["e"]) * n_atoms}
    if "f" in answer:
        stress = (answer["s"] + answer["s"].T) * GPA / 2
        results["forces"] = answer["f"]
        results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return results


if __name__ == "__main__":
    main()
