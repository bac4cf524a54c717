from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene
from ase.io import read

from asexlatent.cli.refine import main


class Outcome:
    """What a call of the command left behind."""

    def __init__(self, code: int, folder: Path):
        self.code, self.folder = code, folder

    @property
    def frames(self) -> list[Atoms]:
        return read(self.folder / "refined.extxyz", ":")

    @property
    def summary(self) -> dict:
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def counts(self) -> dict:
        return self.summary["counts"]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture
def refine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run the command with a few steps, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, steps: int = 3, output: str = "out") -> Outcome:
        words = [str(a) for a in arguments]
        if "--config" not in words and "--restarts" not in words:
            words += ["--restarts", "0"]
        if "--workers" not in words and "--scheduler" not in words:
            words += ["--workers", "1"]  # what is patched here is not in other processes
        if steps is not None:
            words += ["--steps", str(steps)]
        return Outcome(main([*words, "-o", output]), tmp_path / output)

    return call


@pytest.fixture
def crystals() -> list[Atoms]:
    """Six small carbon crystals, each marked by its ``info``."""
    made = []
    for k in range(6):
        atoms = bulk("C", "diamond", a=3.4 + 0.05 * k, cubic=k % 2 == 0)
        if k == 3:
            atoms = graphene(a=2.4, vacuum=3.0)
            atoms.pbc = True
        atoms.info["mark"] = f"number {k}"
        atoms.set_tags(np.arange(len(atoms)))
        made.append(atoms)
    return made


@pytest.fixture
def start_process() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts processes as a terminal does: they heed Ctrl-C even where the tests themselves run
    in the background of a script; none outlives its test."""
    started: list[subprocess.Popen] = []

    def start(command: list[str], **options: Any) -> subprocess.Popen:
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        started.append(subprocess.Popen(command, preexec_fn=heed, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
