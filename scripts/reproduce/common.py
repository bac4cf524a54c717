"""What the figures share: options, refinement and screening with their times, tables."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: times are of one core
sys.path.insert(0, str(Path(__file__).parents[1]))  # the other scripts

import torch
from machine import describe_machine

from asexlatent.cli.fingerprint import fingerprint
from asexlatent.optimize import Refinement, RefinementRun
from asexlatent.screening import ScreenResult, screen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
COUNTS = ("N_valid_env", "N_unique", "N_lowE")


@dataclass(frozen=True)
class Series:
    """One set of candidates after refinement and screening.

    Attributes
    ----------
    candidates : int
    refinement, screening : float
        Processor time, s.
    result : ScreenResult
    """

    candidates: int
    refinement: float
    screening: float
    result: ScreenResult

    def row(self) -> dict[str, Any]:
        """Figures of a table."""
        return {
            "candidates": self.candidates,
            **{name: self.result.counts[name] for name in COUNTS},
            "N_lowE that kept the motif": self.result.counts["N_lowE_motif_kept"],
            "refinement, CPU s / 1000": 1000 * self.refinement / self.candidates,
            "screening, CPU s": self.screening,
        }


def parser(description: str, number: int = 1000) -> argparse.ArgumentParser:
    """Options that all figures have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("-n", type=int, default=number, help="candidates of each kind")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--calculator", help="as for asexlatent-screen (default: the shipped model)")
    work = Path(tempfile.gettempdir()) / "asx-reproduce"
    made.add_argument("--work", type=Path, default=work, help="folder for what is kept")
    made.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    made.add_argument("--json", type=Path, help="write the figures as JSON")
    return made


def start(options: argparse.Namespace) -> None:
    """One thread, and the folder of work."""
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)


def refined(
    candidates: Sequence, options: argparse.Namespace, **how: Any
) -> tuple[list[Refinement], float]:
    """Refine candidates; also the processor time."""

    def work() -> tuple[list[Refinement], float]:
        began = time.process_time()
        run = RefinementRun(candidates, seed=options.seed, **how)
        for _ in run:
            pass
        return run.results(), time.process_time() - began

    for _ in RefinementRun(list(candidates[:2]), steps=2):  # tables are start-up
        pass
    return kept(options, work, "refined", candidates, options.seed, how)


def kept(options: argparse.Namespace, work: Callable[[], Any], name: str, *inputs: Any) -> Any:
    """What `work` gives, from the folder of work if it was done with the same inputs before."""
    path = options.work / f"{name}-{fingerprint(*inputs)[:16]}.pickle"
    if path.exists():
        return pickle.loads(path.read_bytes())
    result = work()
    path.write_bytes(pickle.dumps(result))
    return result


def screened(results: Sequence[Refinement], options: argparse.Namespace) -> tuple:
    """Screen what is valid; also the processor time. What is finished is kept, by structure."""
    crystals = []
    for result in results:
        if result.valid:
            crystal = result.crystal
            crystal.info.update(asx_round=result.round, asx_path=result.path)
            crystals.append(crystal)
    began = time.process_time()
    found = screen(crystals, "sp2", options.calculator, folder=options.work / "screened")
    return found, time.process_time() - began


def series(candidates: Sequence, options: argparse.Namespace, **refinement: Any) -> Series:
    """Refine and screen."""
    results, seconds = refined(candidates, options, **refinement)
    result, spent = screened(results, options)
    return Series(len(candidates), seconds, spent, result)


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: a line for each row, a column for each name; what a row lacks is a dash."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for title, row in rows.items():
        cells = [_cell(row.get(name)) for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def panels(columns: int, rows: int = 1) -> tuple[Figure, Any]:
    """A figure with panels; the axes of one row, or rows of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * columns, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes[0]) if rows == 1 else list(axes)


def save(figure: Figure, name: str, options: argparse.Namespace) -> None:
    """Write a figure and say where it is."""
    options.images.mkdir(parents=True, exist_ok=True)
    path = options.images / name
    figure.savefig(path, dpi=150)
    print(f"figure: {path}")


def finish(
    rows: Mapping[str, Mapping[str, Any]], options: argparse.Namespace, calculator: str
) -> None:
    """Print the table and where it comes from."""
    print(f"\n{options.n} candidates, seed {options.seed}; energies by {calculator};")
    print(f"processor time on {describe_machine(1)}\n")
    print(table(rows))
    if options.json:
        content = {"machine": describe_machine(1), "command": sys.argv, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1, default=float) + "\n")
