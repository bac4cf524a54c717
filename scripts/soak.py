"""A long run under a memory limit: throughput, and memory over time.

``python scripts/soak.py -n 20000 --workers 2 --restarts 2 --plot docs/images/soak.png`` makes
random carbon crystals, refines them with ``asexlatent-refine`` and samples the memory of all its
processes. Two things hold the limit: the kernel (RLIMIT_DATA, what each process has asked for
privately) and this script, which kills the run when the processes together hold more than the
limit (shared pages counted once). ``--screen 500`` screens some of what came out.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from machine import describe_machine

GIB = 2.0**30


@dataclass
class Sample:
    """State of a run at one time: seconds since its start, candidates done, GiB held."""

    seconds: float
    done: int
    gib: float
    processes: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("input", nargs="?", help="candidates (default: random crystals)")
    add("-n", type=int, default=20000, help="candidates")
    add("--folder", type=Path, default=Path("soak"), help="where everything goes")
    add("--limit", type=float, default=4.0, metavar="GIB", help="memory")
    add("--workers", type=int, default=2)
    add("--restarts", type=int, default=10)
    add("--screen", type=int, default=0, metavar="N", help="screen the first N valid crystals")
    add("--reuse", action="store_true", help="screen what an earlier call has refined")
    add("--calculator", default=None, help="for the screening")
    add("--plot", type=Path, default=None, metavar="FILE", help="memory over time")
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(exist_ok=True)
    print(describe_machine(options.workers))
    rows = options.input or str(folder / "candidates.csv")
    if options.input is None and not Path(rows).exists():
        words = ["--random", "-n", str(options.n), "-o", rows, "-q"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run([sys.executable, "-m", "asexlatent.cli.generate", *words], check=True)
        spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        print(f"{options.n} random crystals made in {spent:.0f} s of CPU")
    out = folder / "refined"
    if options.reuse:
        screen(out, options)
        return 0
    words = ["--workers", str(options.workers), "--restarts", str(options.restarts)]
    samples = refine([rows, "-o", str(out), "--overwrite", "-q", *words], out, options.limit)
    report(samples, out, options)
    with open(folder / "memory.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["seconds", "done", "gib", "processes"])
        writer.writerows((f"{s.seconds:.1f}", s.done, f"{s.gib:.4f}", s.processes) for s in samples)
    if options.plot:
        draw(samples, options)
    if options.screen:
        screen(out, options)
    return 0


def refine(words: Sequence[str], out: Path, limit: float) -> list[Sample]:
    """Run the command under the limit; samples of its memory."""

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit * GIB), int(limit * GIB)))

    command = [sys.executable, "-m", "asexlatent.cli.refine", *words]
    started = time.monotonic()
    process = subprocess.Popen(command, preexec_fn=restrict)
    samples = []
    while process.poll() is None:
        time.sleep(2)
        tree = descendants(process.pid)
        held = sum(map(proportional, tree)) / GIB
        samples.append(Sample(time.monotonic() - started, finished(out), held, len(tree)))
        if held > limit:
            process.kill()
            raise SystemExit(f"more than {limit:g} GiB are held: {held:.2f}")
    if process.returncode != 0:
        raise SystemExit(f"asexlatent-refine ended with code {process.returncode}")
    return samples


def finished(out: Path) -> int:
    """Candidates that were written so far."""
    try:
        with open(out / "table.csv", "rb") as handle:
            return max(sum(1 for _ in handle) - 1, 0)
    except OSError:
        return 0


def descendants(pid: int) -> list[int]:
    """A process and all that it started."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(stat[1]), []).append(int(entry))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def proportional(pid: int) -> int:
    """Bytes of memory that a process holds; of pages it shares, its share."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError):
        pass
    return 0


def slope(samples: Sequence[Sample]) -> float:
    """Growth in MiB per 1000 candidates over the last three quarters of the run."""
    import numpy as np

    late = samples[len(samples) // 4 :]
    done = np.array([s.done for s in late], float)
    if np.ptp(done) == 0:
        return float("nan")
    return float(np.polyfit(done / 1000, [s.gib * 1024 for s in late], 1)[0])


def report(samples: Sequence[Sample], out: Path, options: argparse.Namespace) -> None:
    """Print what the run was like."""
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    counts, seconds = summary["counts"], summary["seconds"]
    total = counts["candidates"]
    print(
        f"asexlatent-refine --workers {options.workers} --restarts {options.restarts}: {total} "
        f"candidates, {counts['valid']} valid, {counts['failed']} failed, "
        f"{seconds['wall']:.0f} s, {seconds['cpu']:.0f} s of CPU: "
        f"{total / seconds['cpu']:.1f} candidates per second and core"
    )
    print(
        f"memory of all processes: at most {max(s.gib for s in samples):.2f} GiB of "
        f"{options.limit:g}, growth {slope(samples):+.1f} MiB per 1000 candidates"
    )


def draw(samples: Sequence[Sample], options: argparse.Namespace) -> None:
    """Memory over the number of candidates done."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([s.done for s in samples], [s.gib for s in samples], lw=1)
    axes.axhline(options.limit, color="0.6", ls="--", lw=0.8)
    axes.set_xlabel("candidates done")
    axes.set_ylabel("memory (GiB)")
    axes.set_ylim(0, options.limit * 1.05)
    axes.set_xlim(0, None)
    figure.savefig(options.plot, dpi=150)


def screen(out: Path, options: argparse.Namespace) -> None:
    """Screen the first valid crystals."""
    where = options.folder / "screened"
    words = [f"{out / 'valid.extxyz'}@:{options.screen}", "-o", str(where), "--overwrite", "-q"]
    words += ["--calculator", options.calculator] if options.calculator else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "asexlatent.cli.screen", *words]
    started = time.monotonic()
    code = subprocess.run([*command, "--workers", str(options.workers)]).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    counts = json.loads((where / "summary.json").read_text(encoding="utf-8"))["counts"]
    print(
        f"asexlatent-screen of {options.screen} valid crystals: code {code}, "
        f"{time.monotonic() - started:.0f} s, {cpu:.0f} s of CPU; {counts}"
    )


if __name__ == "__main__":
    sys.exit(main())
