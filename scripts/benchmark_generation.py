"""What generated candidates are worth: conditional VAE, baseline VAE and random crystals.

    python scripts/benchmark_generation.py [-n 1000] [--seed 0] [--json FILE] [--work DIR]

Both models are trained on the same rows of the shipped set with the same settings (DIR keeps them),
a share of the nets held out. The baseline is sampled until -n of its rows are crystals; the
conditional model and random crystals get exactly the conditions of these (as section 4.2 of the
method does). Then the same with conditions that the conditional model proposes itself, and with
those of the training set.

Every candidate is refined in two fixed ways without fresh starts: "descent", one descent from the
candidate; "search", an approach under a wider cutoff and one more attempt with noise. Valid is
judged as in benchmark_refine.py, apart from the program; nets are counted by their keys; new are
nets that are not in the training rows.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: times are of one core

import numpy as np
import torch
from benchmark_refine import judge
from machine import describe_machine, peak_memory
from train_default_model import ROWS, read_rows

from asexlatent.latent import (
    PRESETS,
    Condition,
    LatentModel,
    ModelError,
    Training,
    load_model,
    save_model,
)
from asexlatent.latent.reconstruction import reconstruction
from asexlatent.optimize import RefinementRun, Restarts
from asexlatent.symmetry import CrystalError, SymmetricCrystal
from asexlatent.symmetry.random_crystals import draw
from asexlatent.topology import identify_net

WAYS = {"descent": Restarts(0), "search": Restarts(1, fresh=False)}
VOLUME = (6.0, 12.0)  # Å^3 per atom of random crystals, as RandomCrystals has it for carbon


def trained(kind: str, options: argparse.Namespace) -> tuple[LatentModel, dict]:
    """A model of the work folder, trained now if it is not there; figures of its training."""
    folder = options.work / f"{kind}-{options.preset}"
    try:
        model = load_model(folder)
        return model, json.loads((folder / "figures.json").read_text())
    except (ModelError, OSError):
        pass
    started = time.process_time()
    training = Training(read_rows(), PRESETS[options.preset], kind)
    for _ in training:
        pass
    model = training.model()
    errors = reconstruction(model, training.held_out)
    figures = {
        "cpu_s": time.process_time() - started,
        "epochs": len(training.history),
        "taken": training.best_epoch,
        "peak_memory_mib": peak_memory(),
        "reconstruction": {system: asdict(error) for system, error in errors.items()},
    }
    save_model(model, folder)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    return model, figures


def baseline_rows(model: LatentModel, n: int, seed: int) -> tuple[list[SymmetricCrystal], float]:
    """The first n samples of the baseline that are crystals, and the share that is."""
    number = n
    while True:
        found = model.sample(n=number, seed=seed)
        good = [one for one in found if isinstance(one, SymmetricCrystal)]
        if len(good) >= n or number > 200 * n:
            return good[:n], len(good) / len(found)
        number *= 2


def random_under(conditions: Sequence[Condition], seed: int) -> list[SymmetricCrystal]:
    """Random crystals under given conditions."""
    made = []
    for k, condition in enumerate(conditions):
        sites = [
            (s, position)
            for (s, _), position in zip(condition.sites, condition.positions, strict=True)
        ]
        rng = np.random.default_rng((seed, k))
        made.append(draw(condition.space_group, sites, rng, volume=VOLUME))
    return made


def refined(candidates: Sequence, way: str, known: set[str]) -> dict:
    """Refine, judge and count; per 1000 candidates."""
    started = time.process_time()
    run = RefinementRun(candidates, solver="lm", restarts=WAYS[way], steps=60)
    for _ in run:
        pass
    cpu = time.process_time() - started
    good = [r for r in run.results() if r.valid and judge(r.source, r.crystal)]
    nets = Counter()
    for result in good:
        net = identify_net(result.crystal.to_atoms(), cutoff=1.85)
        nets[" + ".join(sorted(part.short_key for part in net.components))] += 1
    scale = 1000 / len(candidates)
    return {
        "valid": len(good) * scale,
        "nets": len(nets) * scale,
        "new": len(set(nets) - known) * scale,
        "cpu_s": cpu * scale,
    }


def compare(options: argparse.Namespace) -> dict:
    """All figures."""
    torch.set_num_threads(1)
    with gzip.open(ROWS, "rt", newline="") as handle:
        known = {row["net"] for row in csv.DictReader(handle)}
    cvae, cvae_figures = trained("cvae", options)
    baseline, baseline_figures = trained("tabular", options)
    n, seed = options.n, options.seed
    rows, share = baseline_rows(baseline, n, seed)
    shared = [Condition.from_crystal(row) for row in rows]
    in_vocabulary = [c for c in shared if cvae.vocabulary.problem(c) is None]
    cases = {"conditions of the baseline": {"baseline VAE": rows}}
    for name, conditions in (
        ("conditions of the baseline", shared),
        ("conditions proposed by the model", cvae.sample_conditions(n, seed)),
        ("conditions of the training set", cvae.sample_conditions(n, seed, source="training")),
    ):
        case = cases.setdefault(name, {})
        case["conditional VAE"] = cvae.sample(conditions, seed=seed)
        case["random"] = random_under(conditions, seed)
    result = {
        "n": n,
        "seed": seed,
        "training": {"cvae": cvae_figures, "tabular": baseline_figures},
        "baseline_rows_that_build": share,
        "baseline_conditions_in_vocabulary": len(in_vocabulary) / len(shared),
        "conditional_rows_that_build": built(cases),
        "different_conditions": {
            "baseline": len(set(shared)),
            "proposed": len(set(cvae.sample_conditions(n, seed))),
        },
        "yield": {},
    }
    for name, case in cases.items():
        for source, candidates in case.items():
            for way in WAYS:
                figures = refined(candidates, way, known)
                result["yield"].setdefault(name, {}).setdefault(source, {})[way] = figures
                print(f"{name}, {source}, {way}: {figures}", file=sys.stderr, flush=True)
    return result


def built(cases: dict) -> float:
    """Share of the samples of the conditional model that are crystals."""
    samples = [one for case in cases.values() for one in case["conditional VAE"]]
    return sum(not isinstance(one, CrystalError) for one in samples) / len(samples)


def table(result: dict) -> str:
    """Markdown."""
    lines = ["| conditions | candidates | " + " | ".join(
        f"{way}: valid | nets | new | CPU s" for way in WAYS) + " |"]  # fmt: skip
    lines.append("| --- | --- |" + " ---: |" * 4 * len(WAYS))
    for name, case in result["yield"].items():
        for source, ways in case.items():
            numbers = [
                f"{ways[way][key]:.0f}" for way in WAYS for key in ("valid", "nets", "new", "cpu_s")
            ]
            lines.append(f"| {name} | {source} | " + " | ".join(numbers) + " |")
    lines.append("\n| held out | rows | lengths, % | angles, ° | sites, Å | components right |")
    lines.append("| --- |" + " ---: |" * 5)
    for system, error in result["training"]["cvae"]["reconstruction"].items():
        angle = "-" if error["angle"] is None else f"{error['angle']:.1f}"
        site = "-" if error["coordinate"] is None else f"{error['coordinate']:.2f}"
        lines.append(
            f"| {system} | {error['rows']} | {100 * error['length']:.1f} | {angle} | {site} | "
            f"{error['components']:.2f} |"
        )
    return "\n".join(lines)


def time_paper(epochs: int) -> dict:
    """Seconds and memory of a few epochs of the paper preset, in a process of its own."""
    code = (
        "import sys, json, time; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from train_default_model import read_rows\n"
        "from machine import peak_memory\n"
        "from asexlatent.latent import PRESETS, Training\n"
        f"training, n = Training(read_rows(), PRESETS['paper']), {epochs}\n"
        "started = time.process_time()\n"
        "for epoch in training:\n"
        "    if epoch.epoch == n: break\n"
        "seconds = (time.process_time() - started) / n\n"
        "print(json.dumps({'cpu_s_per_epoch': seconds, 'peak_memory_mib': peak_memory()}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parent,
    )  # fmt: skip
    figures = json.loads(done.stdout.splitlines()[-1])
    return {**figures, "cpu_s_250_epochs": 250 * figures["cpu_s_per_epoch"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "asx-generation")
    parser.add_argument("--paper-epochs", type=int, default=3, help="0: leave the timing out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = compare(options)
    if options.paper_epochs:
        result["paper_preset"] = time_paper(options.paper_epochs)
    print(f"{options.n} candidates each, seed {options.seed}; {describe_machine(1)}\n")
    print(table(result))
    rest = {k: v for k, v in result.items() if k not in ("yield", "training")}
    print(json.dumps(rest, indent=1))
    if options.json:
        content = {"machine": describe_machine(1), "command": sys.argv, **result}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
