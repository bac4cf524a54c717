"""Train the sp2 carbon model that ships with the package, on the rows that ship with it.

    python scripts/train_default_model.py [-o DIR] [--preset small] [--seed 0]

One thread, so that the weights are the same on every machine with the same torch. Takes minutes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: the order of sums decides the last digits

import torch

from asexlatent.latent import PRESETS, Dataset, Training, save_model
from asexlatent.latent.reconstruction import reconstruction
from asexlatent.symmetry import SymmetricCrystal

PACKAGE = Path(__file__).parents[1] / "asexlatent"
ROWS = PACKAGE / "data" / "sp2_nets.csv.gz"


def read_rows(path: Path = ROWS) -> Dataset:
    """Return the shipped training set; every net is its own parent."""
    with gzip.open(path, "rt", newline="") as handle:
        rows = list(csv.DictReader(handle))
    crystals = [SymmetricCrystal.from_row(row) for row in rows]
    return Dataset.from_candidates(crystals, parents=[row["net"] for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", dest="output", type=Path, default=PACKAGE / "models" / "sp2")
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = read_rows()
    print(data)
    started = time.process_time()
    training = Training(data, PRESETS[options.preset].but(seed=options.seed))
    for epoch in training:
        if epoch.epoch % 10 == 0:
            print(
                f"epoch {epoch.epoch}: component {epoch.component:.2f}, residual "
                f"{epoch.residual:.2f}, KL {epoch.kl:.2f}; held out {epoch.held_out:.2f}"
            )
    model = training.model(print)
    print(f"{time.process_time() - started:.0f} s of CPU, taken: epoch {training.best_epoch}")
    for system, errors in reconstruction(model, training.held_out).items():
        print(system, errors)
    save_model(model, options.output)
    size = sum(path.stat().st_size for path in options.output.iterdir())
    print(f"{size / 2**20:.1f} MiB in {options.output}")


if __name__ == "__main__":
    main()
