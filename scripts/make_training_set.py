"""Make the training set that ships with the package: three-coordinated nets of random crystals.

    python scripts/make_training_set.py [--nets 2500] [--seed 0] [--work DIR] [-o FILE]

Random symmetric crystals (space group, up to eight Wyckoff positions whose site symmetry allows
three neighbours, free variables) are refined to sp2 with one restart. Those that are valid and
below the largest loss, and are one 3-periodic or layered net with an exact key that has not been
met before, are described in the highest space group in which they stay what they are, and stored
as rows. Half of the candidates take a new space group and new positions, in proportion to what the
group has yielded so far; the others return to conditions that have worked, by Thompson sampling on
the share of new nets per site, up to 24 nets for each.

Nothing but the seed goes in. DIR keeps the state after every chunk, so that an interrupted run goes
on where it was (--seconds ends it on purpose): on one machine the same seed gives the same file,
wherever it was interrupted. The column `candidates` says how many had been drawn when the net was
found; DIR/progress.csv how long that took. One process on one core.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: times are of one core
os.environ["SPGLIB_WARNING"] = "OFF"  # what it cannot find at a tolerance is found at the next

import torch
from net_search import Find, Limits, NetSearch, State, Tried

from asexlatent.symmetry import TABLE_COLUMNS

DEFAULT = Path(__file__).parents[1] / "asexlatent" / "data" / "sp2_nets.csv.gz"
COLUMNS = (*TABLE_COLUMNS, "net", "dimension", "loss", "candidates")


class Work:
    """The folder in which a run is kept: rows found so far, and what was learned."""

    def __init__(self, folder: Path, limits: Limits):
        self.rows, self.file = folder / "nets.csv", folder / "state.json"
        self.progress = folder / "progress.csv"
        folder.mkdir(parents=True, exist_ok=True)
        self.limits = limits

    def load(self) -> State:
        """State of the last finished chunk; rows of a chunk that was not finished are dropped."""
        if not self.file.exists():
            self.rows.write_text(",".join(COLUMNS) + "\n")
            self.progress.write_text("candidates,nets,seconds\n")
            return State()
        saved = json.loads(self.file.read_text())
        if saved["limits"] != asdict(self.limits):
            sys.exit(f"{self.file} was made with {saved['limits']}: choose another --work folder")
        for path, size in zip((self.rows, self.progress), saved["sizes"], strict=True):
            with open(path, "r+") as handle:
                handle.truncate(size)
        values = saved["state"]
        return State(
            **{k: values[k] for k in ("chunk", "index", "candidates", "seconds", "nets")},
            conditions={k: Tried(*v) for k, v in values["conditions"].items()},
            groups={int(k): Tried(*v) for k, v in values["groups"].items()},
            skipped=Counter(values["skipped"]),
        )

    def save(self, state: State, finds: list[Find], found: int) -> None:
        """Append rows, then the state that knows of them."""
        with open(self.rows, "a", newline="") as handle:
            rows = [_row(find, state.candidates) for find in finds]
            csv.writer(handle, lineterminator="\n").writerows(rows)
        with open(self.progress, "a") as handle:
            handle.write(f"{state.candidates},{found},{state.seconds:.1f}\n")
        values = dict(vars(state))
        for name in ("conditions", "groups"):
            values[name] = {k: [v.drawn, v.valid, v.new] for k, v in values[name].items()}
        sizes = [path.stat().st_size for path in (self.rows, self.progress)]
        content = {"limits": asdict(self.limits), "sizes": sizes, "state": values}
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(json.dumps(content))
        os.replace(temporary, self.file)


def _row(find: Find, candidates: int) -> list[str]:
    row = find.crystal.to_row()
    texts = []
    for name in TABLE_COLUMNS:
        number = row[name]
        texts.append(f"{number:.6f}" if number != int(number) else str(int(number)))
    return [*texts, find.net, str(find.dimension), f"{find.loss:.5f}", str(candidates)]


def write_compressed(source: Path, target: Path) -> None:
    """Copy as gzip whose bytes depend on the content alone."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as handle:
        handle.write(source.read_bytes())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(buffer.getvalue())


def report(state: State, found: int) -> str:
    return (
        f"{found} nets of {state.candidates} candidates in {state.seconds:.0f} s CPU; "
        f"{len(state.conditions)} conditions work; left out: {dict(state.skipped)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", type=int, default=2500, help="stop when there are so many")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after (wall)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-atoms", type=int, default=384, help="per conventional cell")
    parser.add_argument("--max-loss", type=float, default=0.1)
    parser.add_argument("--work", type=Path, default=Path("training-set-work"))
    parser.add_argument("-o", type=Path, default=DEFAULT)
    options = parser.parse_args()

    torch.set_num_threads(1)
    limits = Limits(options.max_atoms, options.max_loss, options.seed)
    work = Work(options.work, limits)
    state = work.load()
    search = NetSearch(limits, state)
    with open(work.rows) as handle:
        found = sum(1 for _ in handle) - 1
    started = time.monotonic()
    while found < options.nets:
        if time.monotonic() - started > options.seconds:
            sys.exit(f"stopped: {report(state, found)}")
        finds = search.chunk()[: options.nets - found]
        found += len(finds)
        work.save(state, finds, found)
        print(report(state, found), flush=True)
    write_compressed(work.rows, options.o)
    print(f"{report(state, found)}; {options.o}, {options.o.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
