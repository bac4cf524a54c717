"""Train the small MACE model for carbon that ships with the package.

    python scripts/train_energy_model.py MODEL WORK/*_labelled.extxyz --epochs 40

Reads structures that ``label_energy_structures.py`` labelled, learns energies, forces and stresses
in float32, keeps a running mean of the weights, and writes MODEL (weights, settings, card).
Structures with an energy only make batches of their own, which cost half as much. One structure
group in twelve is held out: the report at the end and the choice between settings use those and
nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from energy_card import card
from torch import Tensor

from asexlatent.screening.mace_model import (
    SETTINGS,
    build_mace,
    load_mace_model,
    save_mace_model,
)

HELD_OUT = 12  # one group in so many


class Labels(NamedTuple):
    """What the teacher says of a batch: eV per atom, eV/Å, eV/Å^3, and how much each counts."""

    energy: Tensor
    forces: Tensor | None
    stress: Tensor | None
    weight: Tensor


@dataclass
class Example:
    """One structure as the network takes it."""

    atoms: Atoms
    edges: Tensor
    shifts: Tensor
    unit_shifts: Tensor

    @property
    def size(self) -> int:
        """Work it makes."""
        return self.edges.shape[1]

    @property
    def has_forces(self) -> bool:
        """Whether the teacher was asked for more than the energy."""
        return "forces" in self.atoms.calc.results


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    frames = [frame for path in options.labelled for frame in read(path, ":")]
    frames = [frame for frame in frames if _largest_force(frame) < options.force_limit]
    held = {group for group in _groups(frames) if _held_out(group)}
    start = None
    if options.start:
        start = json.loads((options.start / SETTINGS).read_text())["architecture"]
    examples = [example(frame, start["r_max"] if start else options.r_max) for frame in frames]
    train = [x for x in examples if x.atoms.info["group"] not in held]
    test = [x for x in examples if x.atoms.info["group"] in held]
    atoms = sum(len(x.atoms) for x in train)
    print(f"{len(train)} structures, {atoms} atoms for training; {len(test)} held out", flush=True)
    architecture = start or _architecture(options, train)
    module = build_mace(architecture, torch.float32)
    if options.start:
        module.load_state_dict(
            load_mace_model(options.start, dtype=torch.float32).module.state_dict()
        )
    module.requires_grad_(True)
    number = sum(parameter.numel() for parameter in module.parameters())
    print(f"{number} weights", flush=True)
    averaged = Trainer(module, options, architecture).run(train, test)
    report = evaluate(averaged, test)
    for line in report:
        print(line)
    settings = {
        "name": options.name,
        "architecture": architecture,
        "training": {
            "structures": len(train),
            "atoms": atoms,
            "held_out_structures": len(test),
            "epochs": options.epochs,
            "started_from": options.start.name if options.start else None,
            "seed": options.seed,
        },
    }
    save_mace_model(averaged, options.model, settings, card(settings, number, report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder to write")
    parser.add_argument("labelled", type=Path, nargs="+")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--start", type=Path, help="folder of a model to go on from, as it is")
    parser.add_argument("--name", default="asexlatent carbon MACE 1")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--lmax", type=int, default=1, help="degree of the messages")
    parser.add_argument("--ell", type=int, default=2, help="degree of the harmonics")
    parser.add_argument("--correlation", type=int, default=3)
    parser.add_argument("--radial", type=int, default=32, help="width of the radial network")
    parser.add_argument("--r-max", type=float, default=4.5)
    parser.add_argument("--edges", type=int, default=6000, help="neighbours in a batch")
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--late", type=float, default=0.6, help="when energies gain weight, 0 to 1")
    parser.add_argument("--force-limit", type=float, default=60.0, help="eV/Å")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _largest_force(frame: Atoms) -> float:
    return float(np.abs(frame.calc.results.get("forces", 0.0)).max())


def _groups(frames: list[Atoms]) -> set[str]:
    return {str(frame.info["group"]) for frame in frames}


def _held_out(group: str) -> bool:
    return sum(map(ord, group)) % HELD_OUT == 0 and group != "dimer"


def _architecture(options: argparse.Namespace, train: list[Example]) -> dict:
    neighbors = sum(x.size for x in train) / sum(len(x.atoms) for x in train)
    alone = min((x.atoms for x in train), key=lambda frame: len(frame) / frame.get_volume())
    lowest = alone.get_potential_energy() / len(alone)
    energies = [x.atoms.get_potential_energy() / len(x.atoms) for x in train]
    shift = np.median(energies) - lowest
    irreps = [
        f"{options.channels}x{degree}{'eo'[degree % 2]}" for degree in range(options.lmax + 1)
    ]
    return {
        "r_max": options.r_max,
        "num_bessel": 8,
        "num_polynomial_cutoff": 5,
        "max_ell": options.ell,
        "interaction_cls": "RealAgnosticResidualInteractionBlock",
        "interaction_cls_first": "RealAgnosticInteractionBlock",
        "num_interactions": 2,
        "hidden_irreps": " + ".join(irreps),
        "MLP_irreps": "16x0e",
        "atomic_energies": [round(float(lowest), 4)],
        "avg_num_neighbors": round(neighbors, 2),
        "atomic_numbers": [6],
        "correlation": options.correlation,
        "gate": "silu",
        "pair_repulsion": True,
        "radial_MLP": [options.radial, options.radial],
        "atomic_inter_scale": 1.0,
        "atomic_inter_shift": round(float(shift), 4),
    }


# --------------------------------------------------------------------------------- batches


def example(atoms: Atoms, r_max: float) -> Example:
    """Neighbours of a structure, once."""
    from mace.data.neighborhood import get_neighborhood

    edges, shifts, unit_shifts, _ = get_neighborhood(
        atoms.positions, r_max, (True, True, True), atoms.cell.array.copy()
    )
    return Example(
        atoms,
        torch.from_numpy(edges).long(),
        torch.from_numpy(shifts).float(),
        torch.from_numpy(unit_shifts).float(),
    )


def collate(examples: list[Example]) -> tuple[dict[str, Tensor], Labels]:
    """Several structures as one graph, and their labels."""
    counts = torch.tensor([len(x.atoms) for x in examples])
    first = torch.cumsum(counts, 0) - counts
    frames = [x.atoms for x in examples]
    data = {
        "positions": _tensor(np.concatenate([f.positions for f in frames])),
        "cell": _tensor(np.concatenate([f.cell.array for f in frames])),
        "node_attrs": torch.ones(int(counts.sum()), 1),
        "edge_index": torch.cat([x.edges + k for x, k in zip(examples, first, strict=True)], 1),
        "shifts": torch.cat([x.shifts for x in examples]),
        "unit_shifts": torch.cat([x.unit_shifts for x in examples]),
        "batch": torch.repeat_interleave(torch.arange(len(examples)), counts),
        "ptr": torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)]),
        "head": torch.zeros(len(examples), dtype=torch.long),
    }
    energy = np.array([f.get_potential_energy() / len(f) for f in frames])
    # what is far above the ground state need not be right to the meV
    weight = np.maximum(1 / (1 + np.clip(energy + 8.2, 0, None) ** 2), 0.01)
    forces = stress = None
    if examples[0].has_forces:
        forces = _tensor(np.concatenate([f.get_forces() for f in frames]))
        stress = _tensor(np.stack([f.get_stress(voigt=False) for f in frames]))
    return data, Labels(_tensor(energy), forces, stress, _tensor(weight))


def batches(
    examples: list[Example], edges: int, rng: np.random.Generator | None = None
) -> list[list[Example]]:
    """Lists of about so many neighbours, in random order; all or none of a list have forces."""
    order = np.arange(len(examples)) if rng is None else rng.permutation(len(examples))
    made: list[list[Example]] = []
    for with_forces in (True, False):
        batch: list[Example] = []
        for index in order:
            if examples[index].has_forces != with_forces:
                continue
            batch.append(examples[index])
            if sum(x.size for x in batch) >= edges:
                made.append(batch)
                batch = []
        if batch:
            made.append(batch)
    return made if rng is None else [made[k] for k in rng.permutation(len(made))]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float32)


# -------------------------------------------------------------------------------- training


class Trainer:
    """Adam; as epochs go by the rate falls, and late in the run energies gain weight."""

    def __init__(self, module: torch.nn.Module, options: argparse.Namespace, architecture: dict):
        self.module, self.options = module, options
        self.averaged = build_mace(architecture, torch.float32)
        self.averaged.load_state_dict(module.state_dict())
        self.optimizer = torch.optim.Adam(module.parameters(), lr=options.rate, amsgrad=True)
        self.step = 0

    def run(self, train: list[Example], test: list[Example]) -> torch.nn.Module:
        """Train and return the averaged model."""
        rng = np.random.default_rng(self.options.seed)
        epochs, start = self.options.epochs, time.process_time()
        for epoch in range(epochs):
            done = 0
            for batch in batches(train, self.options.edges, rng):
                self._update(batch, (epoch + done / len(train)) / epochs)
                done += len(batch)
            minutes = (time.process_time() - start) / 60
            line = evaluate(self.averaged, test)[0]
            print(f"epoch {epoch + 1:3d} {minutes:6.1f} min {line}", flush=True)
        return self.averaged

    def _update(self, batch: list[Example], part: float) -> None:
        data, labels = collate(batch)
        warm = min(1.0, (self.step + 1) / 100)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate * warm * (0.005 + 0.5 * (1 + math.cos(math.pi * part)))
        out = answer(self.module, data, labels, training=True)
        counts = data["ptr"].diff()
        late = part >= self.options.late
        value = loss(out, labels, counts, data["batch"], 40.0 if late else 4.0)
        self.optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 10.0)
        self.optimizer.step()
        self.step += 1
        decay = min(0.995, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, now in zip(self.averaged.parameters(), self.module.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)


def answer(module: torch.nn.Module, data: dict, labels: Labels, training: bool = False) -> dict:
    """What the network says, as far as there is something to compare it with."""
    wanted = labels.forces is not None
    return module(data, training=training, compute_force=wanted, compute_stress=wanted)


def loss(
    out: dict, labels: Labels, counts: Tensor, crystal: Tensor, energy_weight: float
) -> Tensor:
    """Weighted sum of Huber losses of energy per atom, forces and stress times volume per atom."""
    huber = torch.nn.functional.huber_loss
    weight = labels.weight
    energy = huber(out["energy"] / counts, labels.energy, reduction="none", delta=0.05)
    total = energy_weight * 10 * (weight * energy).mean()
    if labels.forces is None:
        return total
    forces = huber(out["forces"], labels.forces, reduction="none", delta=0.3).sum(1)
    stress = huber(10 * out["stress"], 10 * labels.stress, reduction="none", delta=0.1)
    total = total + (weight[crystal] * forces).mean()
    return total + 2.0 * (weight[:, None, None] * stress).sum((1, 2)).mean()


def evaluate(module: torch.nn.Module, test: list[Example]) -> list[str]:
    """Errors on what was held out: all that lies low in energy first, then each kind."""
    rows = []
    for batch in batches(test, 20000):
        data, labels = collate(batch)
        out = answer(module, data, labels)
        error = out["energy"].detach() / data["ptr"].diff() - labels.energy
        forces = torch.full((len(data["positions"]),), torch.nan)
        if labels.forces is not None:
            forces = (out["forces"].detach() - labels.forces).abs().mean(1)
        for k, x in enumerate(batch):
            own = float(forces[data["batch"] == k].mean())
            rows.append((x.atoms.info["kind"], float(labels.energy[k]), float(error[k]), own))
    low = [row for row in rows if row[1] < -8.0]
    lines = [_line("energy below -8 eV", low)]
    return lines + [
        _line(kind, [row for row in rows if row[0] == kind])
        for kind in sorted({r[0] for r in rows})
    ]


def _line(title: str, rows: list[tuple[str, float, float, float]]) -> str:
    energy = 1e3 * np.mean([abs(row[2]) for row in rows])
    known = [row[3] for row in rows if np.isfinite(row[3])]
    forces = np.mean(known) if known else np.nan
    return f"{title:20s} {len(rows):5d} structures {energy:7.1f} meV/atom {forces:7.3f} eV/Å"


if __name__ == "__main__":
    main()
