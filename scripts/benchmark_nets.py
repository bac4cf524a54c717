"""Identify every crystal of a file: times, and key classes against coordination sequences.

    python scripts/benchmark_nets.py CRYSTALS [--cutoff 1.85] [--rattle 0.02]

Prints one line per crystal and a summary. Times are processor time of one core. The coordination
sequences (multiset of the shells 1 to 10 of all atoms, per formula unit) are computed on the bonded
graph as it is, without placement, frames or minimal image, so their classes check the keys
independently. Where the frames carry `net` and `dimension` in their info, these are compared too.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from math import gcd

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: times are of one core

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import read

from asexlatent.topology import NetIdentity, bonded_graph, coordination_sequences, identify_net
from asexlatent.topology.names import shipped_names


def timed(atoms: Atoms, cutoff: float | None) -> tuple[NetIdentity, float]:
    start = time.process_time()
    net = identify_net(atoms, cutoff)
    return net, time.process_time() - start


def sequence_class(atoms: Atoms, cutoff: float | None) -> tuple:
    graph = bonded_graph(atoms, cutoff).graph
    rows = Counter(map(tuple, coordination_sequences(graph).tolist()))
    common = gcd(*rows.values())
    return tuple(sorted((row, number // common) for row, number in rows.items()))


def rattled(atoms: Atoms, size: float, rng: np.random.Generator) -> Atoms:
    """All translations and the order of the atoms destroyed: the net is found in the full cell."""
    other = atoms[rng.permutation(len(atoms))]
    other.positions += rng.uniform(-size, size, other.positions.shape)
    return other


def report(title: str, times: list[float], crystals: list[Atoms]) -> None:
    slowest = int(np.argmax(times))
    print(
        f"{title}: median {1e3 * np.median(times):.1f} ms, at most {1e3 * max(times):.0f} ms"
        f" ({len(crystals[slowest])} atoms), {sum(times):.2f} s in all"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="crystals, anything ASE reads")
    parser.add_argument("--cutoff", type=float, default=1.85, help="longest bond in Å")
    parser.add_argument("--rattle", type=float, default=0.02, help="Å, for the second pass")
    options = parser.parse_args()
    crystals = read(options.file, index=":")
    timed(bulk("C", "diamond", 3.567), None)  # imports and first calls are start-up

    nets, times, classes = [], [], []
    print(
        f"{'frame':>5} {'atoms':>5} {'vertices':>8} {'dim':>3} {'copies':>6} {'ms':>7}"
        "  stated  found"
    )
    for k, atoms in enumerate(crystals):
        net, seconds = timed(atoms, options.cutoff)
        part = net.components[0]
        print(
            f"{k:5d} {len(atoms):5d} {part.graph.n_vertices:8d} {net.dimension:3d}"
            f" {part.multiplicity:6d} {1e3 * seconds:7.1f}"
            f"  {atoms.info.get('net', '-'):7s} {net.label}"
        )
        nets.append(net)
        times.append(seconds)
        classes.append(sequence_class(atoms, options.cutoff))

    report("as given", times, crystals)
    keys = [net.key for net in nets]
    pairs = set(zip(keys, classes, strict=True))
    print(f"crystals {len(nets)}, exact {sum(net.exact for net in nets)}")
    print(f"different keys {len(set(keys))}, different coordination sequences {len(set(classes))}")
    print(f"the two partitions agree: {len(pairs) == len(set(keys)) == len(set(classes))}")
    print(f"narrow gaps {sum(net.gap.narrow for net in nets)}")
    if all("dimension" in atoms.info for atoms in crystals):
        same = [n.dimension == a.info["dimension"] for n, a in zip(nets, crystals, strict=True)]
        print(f"dimension as stated: {sum(same)} of {len(same)}")
    table = set(shipped_names().values())
    stated = [(a.info.get("net"), n.label) for a, n in zip(crystals, nets, strict=True)]
    in_table = [(name, label) for name, label in stated if name in table]
    right = sum(name == label for name, label in in_table)
    print(f"stated names that are in the table: {len(in_table)}, found: {right}")

    rng = np.random.default_rng(0)
    others = [timed(rattled(atoms, options.rattle, rng), options.cutoff) for atoms in crystals]
    report(f"rattled by {options.rattle} Å and reordered", [t for _, t in others], crystals)
    kept = sum(other.key == key for (other, _), key in zip(others, keys, strict=True))
    print(f"keys kept: {kept} of {len(keys)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
