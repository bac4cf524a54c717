"""What rounds through the latent space bring: valid crystals, nets and time after each round.

    python scripts/benchmark_dual_level.py [-n 1000] [--seeds 0 1 2] [--settings best published]
        [--sources table.csv model random] [--arms both representation latent] [--model DIR]
        [--json FILE] [--figure FILE] [--save DIR]

Three arms on the same candidates:

    both            latent refinement, then the representation space, in rounds 1 to 3
    representation  after round 0 one more attempt after the other in the representation space,
                    until the CPU time of "both" is used up; looked at when its rounds end
    latent          latent refinement only: no step in the representation space at all

Sources: a CSV table of rows (candidates of any generator), "model" (samples of the model itself)
and "random" (random space groups and Wyckoff positions of the kind that sp2 allows, random free
variables). Settings: "best" (lm, 5 restarts, then 2 attempts a round) and "published" (the method's
own: AdamW, 1000 steps, no restarts, Eq. 1 as it is, z from the prior).

Valid is judged apart from the program, and nets are counted by exact keys, as in
benchmark_refine.py. Every case is a process of its own on one core. --save keeps the valid
crystals, with their rounds and paths, one extxyz file for each arm.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: times are of one core

import torch
from benchmark_refine import judge, load
from machine import describe_machine, peak_memory

from asexlatent.descriptor import LocalEnvironment
from asexlatent.latent import DualLevelRun, LatentModel, LatentOptions, load_model
from asexlatent.latent.stage import PUBLISHED, LatentStage
from asexlatent.optimize import DescriptorLoss, Refinement, RefinementRun, Restarts
from asexlatent.optimize.search import motif
from asexlatent.symmetry import RandomCrystals, SymmetricCrystal

ROUNDS = 3
ARMS = ("both", "representation", "latent")
SETTINGS = {
    "best": {
        "solver": "lm", "steps": 60, "restarts": 5, "round_restarts": 1, "latent": LatentOptions(),
        "again": Restarts(),
    },
    "published": {
        "solver": "adam", "steps": 1000, "restarts": 0, "round_restarts": 0, "latent": PUBLISHED,
        "again": Restarts(approach_steps=0, descent_steps=1000),
    },
}  # fmt: skip


def candidates_of(
    source: str, n: int, seed: int, model: LatentModel
) -> list[SymmetricCrystal | Exception]:
    """Candidates, exactly n of them."""
    if source == "model":
        return model.sample(n=n, seed=seed)
    if source == "random":
        return list(RandomCrystals("C", neighbors=3, seed=seed).crystals(n))
    return load(source, n, seed)


class Ledger:
    """Valid crystals of an arm, each with the CPU time after which it was known."""

    def __init__(self) -> None:
        self.found: list[tuple[float, Refinement]] = []

    def at(self, seconds: float) -> list[Refinement]:
        """Those known by then."""
        return [result for when, result in self.found if when <= seconds * (1 + 1e-9)]


def both(candidates: list, model: LatentModel, seed: int, how: dict) -> tuple[Ledger, list[float]]:
    """Arm "both"; also the CPU times at which its rounds end."""
    run = DualLevelRun(
        candidates, rounds=ROUNDS, model=model, latent=how["latent"], solver=how["solver"],
        restarts=how["restarts"], round_restarts=how["round_restarts"], steps=how["steps"],
        seed=seed,
    )  # fmt: skip
    for _ in run:
        pass
    ends = [sum(row.cpu_seconds for row in run.rounds[: k + 1]) for k in range(len(run.rounds))]
    ends += [ends[-1]] * (ROUNDS + 1 - len(ends))
    ledger = Ledger()
    ledger.found = [(ends[r.round], r) for r in run.results() if r.valid]
    return ledger, ends


def representation(candidates: list, seed: int, how: dict, ends: list[float]) -> Ledger:
    """Arm "representation": round 0, then single attempts until the time is over."""
    ledger, clock = Ledger(), time.process_time()
    restarts = Restarts(how["restarts"], seed=seed)
    left, first = list(range(len(candidates))), 0
    while left and (not first or time.process_time() - clock < ends[-1]):
        run = RefinementRun(
            [candidates[k] for k in left], solver=how["solver"], steps=how["steps"],
            restarts=restarts, keys=left,
        )  # fmt: skip
        for _ in run:
            pass
        now = time.process_time() - clock
        results = dict(zip(left, run.results(), strict=True))
        # round 0 is the same computation in all arms: the same time
        now = ends[0] if not first else max(now, ends[0] * (1 + 1e-6))
        ledger.found += [(now, result) for result in results.values() if result.valid]
        left = [k for k in left if not results[k].valid and results[k].crystal is not None]
        first += restarts.count + 1
        policy = {f: getattr(how["again"], f) for f in ("approach_steps", "descent_steps")}
        restarts = Restarts(0, seed=seed, first=first, **policy)
    return ledger


def latent_only(
    candidates: list, model: LatentModel, seed: int, how: dict, ends: list[float]
) -> Ledger:
    """Arm "latent": what is decoded, if it is valid as it is, round after round."""
    environment = LocalEnvironment.named("sp2")
    objective, ledger, clock = DescriptorLoss(environment), Ledger(), time.process_time()
    known = [c if isinstance(c, SymmetricCrystal) and not model.problem(c) else None
             for c in candidates]  # fmt: skip
    left = [k for k, crystal in enumerate(known) if crystal is not None]
    for number in range(ROUNDS + 1):
        rest = []
        for start in range(0, len(left), 500):
            part = left[start : start + 500]
            stage = LatentStage(
                model, [known[k] for k in part], part, environment, objective, how["latent"],
                seed, number,
            )  # fmt: skip
            for _ in stage:
                pass
            decoded = stage.finish()
            batch = stage.minimizer.batch.crystals.from_crystals(decoded)
            good = motif(environment, batch, batch.variables).tolist()
            for k, crystal, valid in zip(part, decoded, good, strict=True):
                if valid:
                    result = Refinement(known[k], crystal, valid=True, path="latent", round=number)
                    ledger.found.append((float(number), result))
                else:
                    rest.append(k)
        ends.append(time.process_time() - clock)
        left = rest
    times = ends[-ROUNDS - 1 :]
    ledger.found = [(times[int(number)], result) for number, result in ledger.found]
    return ledger


def run_one(options: argparse.Namespace) -> list[dict]:
    """All arms of one case: a row for each arm and round."""
    torch.set_num_threads(1)
    model, how = load_model(options.model), SETTINGS[options.settings[0]]
    source, seed = options.sources[0], options.seeds[0]
    candidates = candidates_of(source, options.n, seed, model)
    for _ in RefinementRun(candidates[:3], steps=2):  # tables and caches
        pass
    ledger, ends = both(candidates, model, seed, how)
    times: list[float] = []
    arms = {"both": (ledger, ends)}
    if "representation" in options.arms:
        arms["representation"] = (representation(candidates, seed, how, ends), ends)
    if "latent" in options.arms:
        arms["latent"] = (latent_only(candidates, model, seed, how, times), times)
    rows = []
    for arm, (book, when) in arms.items():
        keys = _nets(book)
        if options.save:
            _save(options, arm, book, keys)
        for number, seconds in enumerate(when):
            good = [r for r in book.at(seconds) if id(r) in keys]
            rows.append(
                {
                    "source": Path(source).name, "settings": options.settings[0], "seed": seed,
                    "candidates": len(candidates), "arm": arm, "round": number,
                    "cpu_s": round(seconds, 2), "claimed": len(book.at(seconds)),
                    "valid": len(good), "nets": len({keys[id(r)].key for r in good}),
                    "paths": dict(Counter(r.path for r in good)),
                    "peak_memory_mib": round(peak_memory()),
                }
            )  # fmt: skip
    return rows


def _nets(book: Ledger) -> dict:
    """Net of every crystal that is valid by the independent rule."""
    from asexlatent.topology import identify_net

    good = [r for _, r in book.found if judge(r.crystal, r.crystal)]
    return {id(r): identify_net(r.crystal.to_atoms(), cutoff=1.85) for r in good}


def _save(options: argparse.Namespace, arm: str, book: Ledger, keys: dict) -> None:
    from ase.io import write

    frames = []
    for _, result in book.found:
        if id(result) in keys:
            atoms = result.crystal.to_atoms()
            atoms.info = {"asx_round": result.round, "asx_path": result.path,
                          "asx_loss": result.loss, "asx_net": keys[id(result)].key}  # fmt: skip
            frames.append(atoms)
    options.save.mkdir(parents=True, exist_ok=True)
    name = f"{Path(options.sources[0]).stem}-{options.settings[0]}-{options.seeds[0]}-{arm}.extxyz"
    write(options.save / name, frames)


def table(rows: list[dict]) -> str:
    """Markdown: cumulative valid (nets) in CPU seconds after each round, means over seeds."""
    head = "| candidates | settings | arm | " + " | ".join(f"round {k}" for k in range(ROUNDS + 1))
    lines = [head + " |", "|" + " --- |" * 3 + " ---: |" * (ROUNDS + 1)]
    cases = dict.fromkeys((r["source"], r["settings"], r["arm"]) for r in rows)
    for case in cases:
        mine = [r for r in rows if (r["source"], r["settings"], r["arm"]) == case]
        cells = []
        for number in range(ROUNDS + 1):
            part = [r for r in mine if r["round"] == number]
            valid, nets, cpu = (
                sum(r[name] for r in part) / len(part) for name in ("valid", "nets", "cpu_s")
            )
            cells.append(f"{valid:.0f} ({nets:.0f}) in {cpu:.1f} s")
        lines.append("| " + " | ".join((*case, *cells)) + " |")
    return "\n".join(lines)


def figure(rows: list[dict], path: Path) -> None:
    """Cumulative valid crystals and nets per round, as Fig. 6 of the method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = list(dict.fromkeys((r["settings"], r["source"]) for r in rows))
    made, axes = plt.subplots(1, len(cases), figsize=(2.9 * len(cases), 3.4), squeeze=False,
                              layout="constrained")  # fmt: skip
    colors = dict(zip(ARMS, ("tab:blue", "tab:orange", "tab:green"), strict=True))
    for axis, case in zip(axes[0], cases, strict=True):
        for arm in ARMS:
            mine = [r for r in rows if (r["settings"], r["source"], r["arm"]) == (*case, arm)]
            for name, style in (("valid", "-o"), ("nets", "--s")):
                points = [[r[name] for r in mine if r["round"] == k] for k in range(ROUNDS + 1)]
                if not mine:
                    continue
                means = [sum(p) / len(p) for p in points]
                label = f"{arm}, {name}" if axis is axes[0, 0] else None
                axis.plot(means, style, color=colors[arm], label=label, markersize=4)
        axis.set_title(f"{case[1]}, {case[0]}", fontsize=9)
        axis.set_xlabel("round")
        axis.set_xticks(range(ROUNDS + 1))
        axis.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("crystals so far")
    made.legend(loc="outside lower center", ncols=3, fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sources", nargs="+", default=["model", "random"])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    help_text = "arms to run; both always is, the others take their times from it"
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help=help_text)
    parser.add_argument("--model", type=Path, help="folder of a model (default: the shipped one)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--save", type=Path, help="folder for the valid crystals")
    help_text = "results of earlier runs (--json) to show together; nothing is run"
    parser.add_argument("--read", type=Path, nargs="+", default=[], help=help_text)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_one(options)))
        return
    rows: list[dict] = []
    for path in options.read:
        rows += json.loads(path.read_text())["rows"]
    for settings in options.settings if not options.read else ():
        for source in options.sources:
            for seed in options.seeds:
                rows += _child(options, settings, source, seed)
                print(table(rows), file=sys.stderr, flush=True)
    seeds = sorted({row["seed"] for row in rows})
    numbers = sorted({row["candidates"] for row in rows})
    print(f"{numbers} candidates, seeds {seeds}; {describe_machine(1)}\n")
    print(table(rows))
    if options.json:
        content = {"machine": describe_machine(1), "command": sys.argv, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    if options.figure:
        figure(rows, options.figure)


def _child(options: argparse.Namespace, settings: str, source: str, seed: int) -> list[dict]:
    command = [sys.executable, __file__, "--child", "-n", str(options.n), "--sources", source]
    command += ["--settings", settings, "--seeds", str(seed)]
    command += ["--arms", *options.arms]
    for name in ("model", "save"):
        if getattr(options, name):
            command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
