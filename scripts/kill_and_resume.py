"""Kill asexlatent-refine at random moments, resume it each time, compare with a run left alone.

``python scripts/kill_and_resume.py --screen`` refines and screens 12 of the candidates of the
example; 20 times a run is killed (SIGKILL) at a random moment and started again with the same
arguments. Every run that comes to its end is compared, bit for bit, with one that nobody killed:
all files but the log; of the summary not the times, of the database not its time stamps and
random identifiers. ``--workers 2`` puts the work into processes of its own, which are killed too.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from ase.db import connect
from ase.io import read, write

OUT = "out"
OPTIONS = ["--chunk-size", "2", "--restarts", "2", "--steps", "60", "-q"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--kills", type=int, default=20)
    add("--candidates", type=int, default=12)
    add("--screen", action="store_true", help="screen what was refined as well")
    add("--calculator", help="for the screening")
    add("--workers", type=int, default=1)
    add("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args(argv)
    words = [*OPTIONS, "--workers", str(options.workers)]
    words += ["--screen", "--top", "3"] if options.screen else []
    words += ["--calculator", str(Path(options.calculator).resolve())] if options.calculator else []
    with tempfile.TemporaryDirectory() as folder:
        return Trial(Path(folder), words, options).run()


class Trial:
    """Runs in one folder, killed and resumed."""

    def __init__(self, folder: Path, words: list[str], options: argparse.Namespace):
        self.folder, self.options = folder, options
        self.command = [sys.executable, "-m", "asexlatent.cli.refine", "in.extxyz", "-o", OUT]
        self.command += words
        self.numbers = random.Random(options.seed)
        example = resources.files("asexlatent") / "examples" / "random_sp2.extxyz"
        write(folder / "in.extxyz", read(str(example), f":{options.candidates}"))

    def run(self) -> int:
        """All kills; the exit code."""
        begun = time.monotonic()
        if self.start().wait() != 0:
            raise SystemExit("the run without kills has failed")
        lasts = time.monotonic() - begun
        expected = contents(self.folder / OUT)
        print(f"without kills: {lasts:.1f} s, {len(expected)} things to compare")
        kills = ends = different = 0
        shutil.rmtree(self.folder / OUT)
        while True:
            killed = kills < self.options.kills and self.killed(lasts)
            if killed:
                kills += 1
                print(f"kill {kills}: {self.state()}")
                continue
            if kills == self.options.kills and self.start().wait() != 0:
                raise SystemExit("a run that was killed cannot be resumed")
            found = contents(self.folder / OUT)
            wrong = [name for name in expected if found.get(name) != expected[name]]
            wrong += sorted(set(found) - set(expected))
            ends, different = ends + 1, different + bool(wrong)
            print(f"end {ends}: {'differs in ' + ', '.join(wrong) if wrong else 'the same'}")
            shutil.rmtree(self.folder / OUT)
            if kills == self.options.kills:
                break
        print(f"{kills} kills, {ends} runs brought to their end, {different} of them different")
        return int(different > 0)

    def start(self) -> subprocess.Popen:
        """Start, or resume."""
        said = subprocess.DEVNULL
        return subprocess.Popen(self.command, cwd=self.folder, stdout=said, stderr=said)

    def killed(self, lasts: float) -> bool:
        """Start or resume, kill at a random moment; False if the run was over before."""
        process = self.start()
        moment = self.numbers.uniform(0.2, 1.0) * lasts
        try:
            code = process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            code = process.wait()
        if code not in (0, -signal.SIGKILL):
            raise SystemExit(f"a run that was killed cannot be resumed: exit code {code}")
        out = self.folder / OUT
        # It may have been at its very end: the parts go last.
        complete = (out / "summary.json").exists() and not (out / "parts").exists()
        return code != 0 and not complete

    def state(self) -> str:
        """What a killed run has left."""
        parts = self.folder / OUT / "parts"
        chunks = len(list(parts.glob("*.json.gz")))
        screened = len(list(parts.glob("screening/*.json")))
        return f"{chunks} chunks refined, {screened} chunks of the screening" * parts.exists() or (
            "nothing yet"
        )


def contents(folder: Path) -> dict[str, Any]:
    """All that must be the same."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or path.name == "log":
            continue
        if path.name == "summary.json":
            found[name] = _without_times(json.loads(path.read_text(encoding="utf-8")))
        elif path.suffix == ".db":
            with connect(path) as database:
                found[name] = [_row(row) for row in database.select()]
        else:
            found[name] = path.read_bytes()
    return found


def _row(row: Any) -> tuple:
    atoms = row.toatoms()
    parts = (atoms.numbers, atoms.positions, atoms.cell.array, np.array(row.energy))
    plain = json.dumps([row.key_value_pairs, row.data], sort_keys=True, default=str)
    return *(part.tobytes() for part in parts), plain


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if "seconds" not in k}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
