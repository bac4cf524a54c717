"""Energies, forces and stresses of structures by CHGNet, the teacher of the energy model.

    python scripts/label_energy_structures.py WORK/first.extxyz WORK/first_labelled.extxyz

Needs CHGNet (``pip install asexlatent[chgnet]``; its weights come with it). About 10 ms per atom on
one core. Units as in ASE: eV, eV/Å, eV/Å^3 (tension positive). An output file that is there already
is continued.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from unittest import mock

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
    """Copies of the frames with CHGNet's energy, forces and stress."""
    first_order = torch.autograd.grad

    def grad(outputs, inputs, **_):  # CHGNet keeps the graph for training: a third of the time
        return first_order(outputs, inputs, retain_graph=True)

    structures = [AseAtomsAdaptor.get_structure(frame) for frame in frames]
    with mock.patch("torch.autograd.grad", grad):
        answers = model.predict_structure(structures, task="efs", batch_size=1)
    copies = []
    for frame, answer in zip(frames, answers, strict=True):
        copy = frame.copy()
        copy.calc = SinglePointCalculator(
            copy,
            energy=float(answer["e"]) * len(copy),
            forces=answer["f"],
            stress=(answer["s"] + answer["s"].T)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * GPA / 2,
        )
        copies.append(copy)
    return copies


if __name__ == "__main__":
    main()
