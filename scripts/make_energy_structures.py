"""Structures that the energy model for carbon is trained on, all made here from nothing.

    python scripts/make_energy_structures.py WORK/first.extxyz
    python scripts/make_energy_structures.py WORK/relaxed.extxyz --relaxed-by MODEL --nets 1200

The first call makes valid nets (from the table of nets that ships with the package), strained and
rattled; four-coordinated, chain-like and layered carbon; random symmetric crystals; molecules. The
second relaxes nets by a model that exists already, and keeps frames of the way: screening asks for
energies at relaxed structures, so these matter most. ``label_energy_structures.py`` comes next.

Every frame says in ``info`` what it is (``kind``), by what training and selection are kept apart
(``group``: frames of one net are never on both sides), and what the teacher is asked (``ask``:
"efs" for energy, forces and stress; "e" on the way to a minimum, where the energy is what matters
and many structures are worth more than their forces, which cost three times as much).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import spglib
from ase import Atoms
from ase.build import bulk, graphene
from ase.io import write
from ase.neighborlist import neighbor_list

from asexlatent.symmetry import CrystalError, RandomCrystals, SymmetricCrystal, read_table

NETS = Path(__file__).parents[1] / "asexlatent/data/sp2_nets.csv.gz"
# Å: CHGNet turns attractive below about 0.8; the model's pair repulsion takes over
NEAREST, NEAREST_SQUEEZED = 1.0, 0.85


def main() -> None:
    options = _options()
    nets = list(_small_nets(options.largest))
    order = np.random.default_rng(options.seed).permutation(len(nets))
    chosen = [nets[i] for i in order[options.skip : options.skip + options.nets]]
    if options.relaxed_by is None:
        atoms = [net for _, net in chosen]
        frames = [*_net_frames(atoms, options.seed), *_other_frames(options.seed)]
    else:
        frames = list(_relaxed([crystal for crystal, _ in chosen], options))
    frames = [frame for frame in frames if _is_sound(frame)]
    shuffled = np.random.default_rng([options.seed, 4]).permutation(len(frames))
    write(options.output, [frames[i] for i in shuffled])  # so that a part of it is a fair part
    kinds = sorted({frame.info["kind"] for frame in frames})
    for kind in kinds:
        same = [frame for frame in frames if frame.info["kind"] == kind]
        print(f"{kind:12s} {len(same):6d} structures {sum(map(len, same)):8d} atoms")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--nets", type=int, default=700, help="number of nets")
    parser.add_argument("--skip", type=int, default=0, help="pass over so many nets first")
    parser.add_argument("--largest", type=int, default=24, help="atoms in the primitive cell")
    parser.add_argument("--relaxed-by", help="folder of a model: relax nets, keep frames")
    parser.add_argument("--steps", type=int, default=100, help="steps of these relaxations")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


# ---------------------------------------------------------------------------------- nets


def _small_nets(largest: int) -> Iterator[tuple[SymmetricCrystal, Atoms]]:
    for row in read_table(NETS):
        crystal = row.crystal()
        if crystal.n_atoms <= 4 * largest:
            atoms = primitive(crystal)
            if len(atoms) <= largest:
                atoms.info = {"group": str(crystal.info["net"])}
                yield crystal, atoms


def primitive(crystal: SymmetricCrystal) -> Atoms:
    """Primitive cell."""
    atoms = crystal.to_atoms()
    cell = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
    lattice, scaled, numbers = spglib.find_primitive(cell, symprec=1e-4)
    return Atoms(numbers, cell=lattice, scaled_positions=scaled, pbc=True)


def _net_frames(nets: list[Atoms], seed: int) -> Iterator[Atoms]:
    rng = np.random.default_rng([seed, 1])
    for k, net in enumerate(nets):
        group = net.info["group"]
        yield _named(net, "net", group)
        if k % 2:
            yield _named(strained(net, rng, 0.06, 0.03), "net strained", group)
        if k % 4 == 0:
            yield _named(strained(net, rng, 0.03, 0.12), "net rattled", group)
        if k % 8 == 0:
            scale = rng.uniform(0.82, 1.3)
            yield _named(strained(net, rng, 0.05, 0.05, scale), "net scaled", group)
        if k % 8 == 4:
            yield _named(strained(net, rng, 0.02, 0.02, rng.uniform(0.7, 0.85)), "squeezed", group)


def strained(
    atoms: Atoms, rng: np.random.Generator, strain: float, rattle: float, scale: float = 1.0
) -> Atoms:
    """Copy with a random strain, lengths scaled, and noise (Å) on the positions."""
    noise = rng.normal(size=(3, 3)) * strain
    copy = atoms.copy()
    copy.set_cell(atoms.cell[:] @ (scale * np.eye(3) + (noise + noise.T) / 2), scale_atoms=True)
    copy.positions += rng.normal(size=copy.positions.shape) * rattle
    return copy


# ------------------------------------------------------------------------- all other kinds


def _other_frames(seed: int) -> Iterator[Atoms]:
    rng = np.random.default_rng([seed, 2])
    yield from _molecules()
    for kind, parents, copies in (
        ("layers", list(_layers()), 1),
        ("diamond", list(_diamonds()), 3),
        ("chains", list(_chains()), 2),
        ("random sp3", list(_refined("sp3", 80, seed)), 2),
        ("random sp", list(_refined("sp", 25, seed)), 1),
        ("random", list(_random(260, seed)), 0),
    ):
        for i, parent in enumerate(parents):
            group = f"{kind} {i}"
            yield _named(parent, kind, group)
            if kind != "random":
                squeezed = strained(parent, rng, 0.02, 0.02, rng.uniform(0.65, 0.9))
                yield _named(squeezed, "squeezed", group)
            for _ in range(copies):
                strain, rattle = rng.uniform(0, 0.06), rng.uniform(0, 0.12)
                yield _named(strained(parent, rng, strain, rattle), kind, group)


def _molecules() -> Iterator[Atoms]:
    for distance in [*np.arange(1.0, 2.0, 0.05), *np.arange(2.0, 5.0, 0.25)]:
        pair = Atoms("C2", [(0, 0, 0), (distance, 0, 0)], cell=[12] * 3, pbc=True)
        yield _named(pair, "molecule", "dimer")


def _layers() -> Iterator[Atoms]:
    for a in (2.3, 2.4, 2.468, 2.55, 2.7):
        sheet = graphene(a=a, vacuum=8.0)
        sheet.pbc = True
        yield sheet
    for spacing in (2.2, 2.5, 2.8, 3.0, 3.2, 3.35, 3.5, 3.8, 4.2, 4.6, 5.2):
        for shift in (0.0, 1 / 3, 0.15):  # AA, AB, between
            for a in (2.42, 2.468, 2.52):
                scaled = [(0, 0, 0), (1 / 3, 2 / 3, 0), (shift, 2 * shift, 0.5)]
                scaled += [(1 / 3 + shift, 2 / 3 + 2 * shift, 0.5)]
                cell = [(a, 0, 0), (-a / 2, a * 3**0.5 / 2, 0), (0, 0, 2 * spacing)]
                yield Atoms("C4", cell=cell, scaled_positions=scaled, pbc=True)


def _diamonds() -> Iterator[Atoms]:
    for a in (2.6, 2.8, 3.0, 3.2, 3.35, 3.45, 3.5, 3.57, 3.65, 3.75, 3.9, 4.1, 4.4, 4.8, 5.3):
        yield bulk("C", "diamond", a=a)
    for a in (2.3, 2.45, 2.52, 2.6, 2.8):
        for ratio in (1.55, 1.66, 1.75):
            cell = [(a, 0, 0), (-a / 2, a * 3**0.5 / 2, 0), (0, 0, a * ratio)]
            scaled = [(1 / 3, 2 / 3, z) for z in (0.0625, 0.4375)]
            scaled += [(2 / 3, 1 / 3, z) for z in (0.5625, 0.9375)]
            yield Atoms("C4", cell=cell, scaled_positions=scaled, pbc=True)
    for structure, lengths in (("sc", (1.6, 1.75, 2.0)), ("fcc", (2.8, 3.1)), ("bcc", (2.2, 2.4))):
        for a in lengths:
            yield bulk("C", structure, a=a)


def _chains() -> Iterator[Atoms]:
    for apart in (2.6, 3.0, 3.4, 4.0, 6.0):
        for single, triple in ((1.28, 1.28), (1.36, 1.22), (1.45, 1.18), (1.2, 1.2), (1.45, 1.45)):
            yield Atoms(
                "C2",
                [(0, 0, 0), (0, 0, triple)],
                cell=[apart, apart * 1.1, single + triple],
                pbc=True,
            )


def _random(number: int, seed: int, largest: int = 12) -> Iterator[Atoms]:
    source = RandomCrystals("C", volume=(5.0, 16.0), max_atoms=4 * largest, seed=seed)
    index = found = 0
    while found < number:
        crystal = source.crystal(index)
        index += 1
        if _shortest(crystal.to_atoms()) > 1.1:
            atoms = primitive(crystal)
            if len(atoms) <= largest:
                found += 1
                yield atoms


def _refined(environment: str, number: int, seed: int, largest: int = 16) -> Iterator[Atoms]:
    """Random crystals steered to an environment, as the package does it."""
    from asexlatent.optimize import refine

    source = RandomCrystals("C", volume=(5.0, 10.0), max_sites=3, max_atoms=48, seed=seed + 1)
    found = start = 0
    while found < number and start < 4000:
        candidates = []
        for index in range(start, start + 200):
            try:
                candidates.append(source.crystal(index))
            except CrystalError:
                continue
        start += 200
        for result in refine(candidates, environment, restarts=2, steps=100, seed=seed):
            if result.valid and found < number:
                atoms = primitive(result.crystal)
                if len(atoms) <= largest:
                    found += 1
                    yield atoms


# ------------------------------------------------------------------------------ relaxations


def _relaxed(crystals: list[SymmetricCrystal], options: argparse.Namespace) -> Iterator[Atoms]:
    """Where relaxations under symmetry end, and some places on the way there and about there."""
    from asexlatent.screening import MACEEnergy, load_mace_model, relax

    rng = np.random.default_rng([options.seed, 3])
    model = MACEEnergy(load_mace_model(options.relaxed_by))
    ends = relax(crystals, model, steps=options.steps)
    ways = relax(crystals, model, steps=int(rng.integers(3, 8)))
    for k, (crystal, end, way) in enumerate(zip(crystals, ends, ways, strict=True)):
        group = str(crystal.info["net"])
        if end.status == "failed":
            continue
        atoms = primitive(end.crystal)
        yield _named(atoms, "relaxed", group, "e")
        if k % 2 == 0 and way.status != "failed":
            yield _named(primitive(way.crystal), "on the way", group, "e")
        if k % 4 == 0:
            yield _named(strained(atoms, rng, 0.03, 0.04), "about", group)


# ---------------------------------------------------------------------------------- helpers


def _named(atoms: Atoms, kind: str, group: str, ask: str = "efs") -> Atoms:
    copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    copy.info = {"kind": kind, "group": group, "ask": ask}
    return copy


def _is_sound(atoms: Atoms) -> bool:
    limit = NEAREST_SQUEEZED if atoms.info["kind"] == "squeezed" else NEAREST
    return _shortest(atoms) >= limit


def _shortest(atoms: Atoms) -> float:
    return float(min(neighbor_list("d", atoms, 3.0), default=np.inf))


if __name__ == "__main__":
    main()
