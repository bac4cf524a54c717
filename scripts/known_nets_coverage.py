"""How many known nets does the search behind the training set find, and how soon?

    python scripts/known_nets_coverage.py KNOWN --work DIR [-o PICTURE]

KNOWN are known three-coordinated crystals, anything that ASE reads; DIR is the --work folder of
make_training_set.py, which has not seen them. Compared are the exact keys of the nets. The table
counts the known nets that were among the nets found after so many seconds of CPU time, all of them
and by the number of inequivalent sites of the known crystal.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.io import read
from matplotlib.figure import Figure

from asexlatent import SymmetricCrystal, identify_net

DEFAULT = Path(__file__).parents[1] / "docs" / "images" / "known_nets.png"
GROUPS = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 8), (9, 99))  # numbers of sites


@dataclass(frozen=True)
class Known:
    """A known crystal: its net, and the candidates drawn until it was found (inf: never)."""

    net: str
    dimension: int
    n_sites: int
    found: float


def load_known(path: Path, found: dict[str, int]) -> list[Known]:
    known = {}
    for atoms in read(path, index=":"):
        component = identify_net(atoms).components[0]
        n_sites = SymmetricCrystal.from_atoms(atoms).n_sites
        net = component.short_key
        when = found.get(net, float("inf"))
        known.setdefault(net, Known(net, component.dimension, n_sites, when))
    return list(known.values())


def read_columns(path: Path, *names: str) -> list[np.ndarray]:
    with open(path, newline="") as handle:
        rows = list(csv.DictReader(handle))
    return [np.array([float(row[name]) for row in rows]) for name in names]


def table(known: Sequence[Known], progress: list[np.ndarray], times: Sequence[float]) -> str:
    """Markdown: one line for each time."""
    candidates, nets, seconds = progress
    parts = [[k for k in known if low <= k.n_sites <= high] for low, high in GROUPS]
    labels = [f"{low}" if low == high else f"{low} to {high}" for low, high in GROUPS]
    labels[-1] = f"{GROUPS[-1][0]} or more"
    head = [f"{label} sites ({len(part)})" for label, part in zip(labels, parts, strict=True)]
    lines = [
        f"| CPU s | candidates | nets | known nets ({len(known)}) | " + " | ".join(head) + " |",
        "| ---: " * (4 + len(parts)) + "|",
    ]
    for time in times:
        row = int(np.searchsorted(seconds, time, side="right")) - 1
        if row < 0:
            continue
        counts = [sum(k.found <= candidates[row] for k in part) for part in (known, *parts)]
        cells = [f"{seconds[row]:.0f}", f"{candidates[row]:.0f}", f"{nets[row]:.0f}"]
        lines.append("| " + " | ".join([*cells, *map(str, counts)]) + " |")
    return "\n".join(lines)


def draw(known: Sequence[Known], progress: list[np.ndarray]) -> Figure:
    candidates, _, seconds = progress
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for low, high in ((1, 99), (1, 2), (3, 3), (4, 99)):
        part = [k for k in known if low <= k.n_sites <= high]
        share = [np.mean([k.found <= n for k in part]) for n in candidates]
        label = {(1, 99): "all", (1, 2): "1 or 2 sites", (3, 3): "3 sites"}.get((low, high))
        style = {"linewidth": 2.4} if high - low > 97 else {}
        name = f"{label or '4 sites or more'} ({len(part)})"
        axes.plot(seconds, share, label=name, drawstyle="steps-post", **style)
    axes.set(xscale="log", xlabel="CPU time (s)", ylabel="share of known nets found", ylim=(0, 1))
    axes.legend(frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("known", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("-o", type=Path, default=DEFAULT)
    options = parser.parse_args()
    with open(options.work / "nets.csv", newline="") as handle:
        found = {row["net"]: int(row["candidates"]) for row in csv.DictReader(handle)}
    progress = read_columns(options.work / "progress.csv", "candidates", "nets", "seconds")
    known = load_known(options.known, found)
    times = [30 * 2**n for n in range(12) if 30 * 2**n < progress[2][-1]]
    print(table(known, progress, [*times, progress[2][-1]]))
    options.o.parent.mkdir(parents=True, exist_ok=True)
    draw(known, progress).savefig(options.o, dpi=150)
    print(f"\n{options.o}")


if __name__ == "__main__":
    main()
