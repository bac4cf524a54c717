"""The work of a screening, whichever command it is for: read, screen, and say how it went."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asexlatent.cli.engine import Engine
from asexlatent.cli.inputs import Entry, read_inputs
from asexlatent.cli.progress import SHOWN_FAILURES
from asexlatent.cli.screen import ScreenSettings
from asexlatent.cli.settings import UsageError

if TYPE_CHECKING:
    from asexlatent.descriptor import LocalEnvironment
    from asexlatent.screening import Relaxer, ScreenProgress, ScreenResult, ScreenRun


@dataclass(eq=False)
class ScreenWork:
    """State of a screening.

    Parameters
    ----------
    settings, environment, relaxer
        What to do; `environment` is what the target of the settings stands for.
    chunks : Path
        Folder for finished chunks.
    engine, log, quiet, verbose
        Where it is worked on, and what is said.

    Attributes
    ----------
    problems : list of str
        Inputs without candidates.
    interrupted : bool
    seconds : dict of str to float
        Wall time of each stage.
    """

    settings: ScreenSettings
    environment: LocalEnvironment
    relaxer: Relaxer
    chunks: Path
    engine: Engine
    log: logging.Logger
    quiet: bool
    verbose: bool

    def __post_init__(self) -> None:
        self.problems: list[str] = []
        self.interrupted = False
        self.seconds: dict[str, float] = {}

    def go(self) -> ScreenResult:
        """Screen all inputs, as far as Ctrl-C allows."""
        screening = self._start(self._read())
        self.log.info("energies by %s", self.relaxer.name)
        watch = Watch(self.quiet)
        with contextlib.closing(watch):
            try:
                for state in screening:
                    watch.show(state)
            except KeyboardInterrupt:
                self.log.warning("interrupted: writing what is there; the same command goes on")
                self.interrupted = True
        self.seconds = watch.seconds
        return screening.result()

    def _read(self) -> list[Entry]:
        entries = list(read_inputs(self.settings, self.environment.species, self._problem))
        for entry in entries:  # what asexlatent-refine wrote into a table
            info = getattr(entry.candidate, "info", None)
            if info is not None:
                own = {k: v for k, v in entry.extra.items() if k.startswith("asx_") and v}
                info.update(own)
            for note in entry.notes:
                self.log.info("%s: %s", entry.source, note)
        return entries

    def _problem(self, line: str) -> None:
        self.problems.append(line)
        self.log.error(line)

    def _start(self, entries: list[Entry]) -> ScreenRun:
        from asexlatent.screening import ScreenRun
        from asexlatent.screening.pipeline import RELAXED_TOGETHER

        executor, in_flight = self.engine.start(len(entries) > RELAXED_TOGETHER)
        names = ("emax", "reference", "fmax", "smax", "steps", "symprec")
        names += ("device", "dtype", "memory")
        return ScreenRun(
            [entry.candidate for entry in entries],
            self.environment,
            self.relaxer,
            folder=self.chunks,
            sources=[entry.source for entry in entries],
            executor=executor,
            in_flight=in_flight,
            net_duplicates=not self.settings.every,
            **{name: getattr(self.settings, name) for name in names},
        )

    def say_failures(self, result: ScreenResult, folder: Path) -> None:
        """Failures in one line each; the terminal is spared a long list, the log is not.

        Of candidates that failed in the refinement only the log speaks again.
        """
        from asexlatent.screening.pipeline import NOT_REFINED

        failed = []
        for row in result.rows:
            if row.reason.startswith(NOT_REFINED):
                self.log.info("%s: %s", row.source or row.index, row.reason)
            elif row.status == "failed":
                failed.append(row)
        shown = len(failed) if self.verbose else SHOWN_FAILURES
        for place, row in enumerate(failed):
            level = logging.WARNING if place < shown else logging.INFO
            self.log.log(level, "%s: %s", row.source or row.index, row.reason)
        if len(failed) > shown:
            where = f"{folder}/screened.csv"
            self.log.warning("further failures are listed in %s only (-v prints all)", where)
        for composition, found in result.references.items():
            if found.note:
                self.log.warning("%s: %s", composition, found.note)
        below = [row for row in result.ranked if row.above_reference < -1e-3]
        if below and result.references[below[0].composition].name == "graphite":
            self.log.warning("lower than graphite by this calculator: %d", len(below))


def make_relaxer(settings: ScreenSettings) -> Relaxer:
    """Relaxer for the calculator; UsageError for one that cannot be had."""
    from asexlatent.screening import energies

    names = ("fmax", "smax", "steps", "device", "dtype", "memory")
    calculator = settings.calculator
    if calculator is not None and Path(calculator).exists():
        calculator = str(Path(calculator).absolute())  # other processes may stand elsewhere
    try:
        return energies.make_relaxer(
            calculator, **{name: getattr(settings, name) for name in names}
        )
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        words = " ".join(str(error).split())
        named = "" if settings.calculator is None else f"--calculator {settings.calculator}: "
        raise UsageError(f"{named}{words}") from None


@dataclass(eq=False)
class Watch:
    """A tqdm bar for each stage, nothing where there is no terminal, and the time of each."""

    quiet: bool
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._bar: Any = None
        self._stage = ""
        self._last = time.perf_counter()

    def show(self, state: ScreenProgress) -> None:
        """Take notice of a state."""
        from tqdm import tqdm

        if state.stage != self._stage:
            self.close()
            self._stage = state.stage
            self._bar = tqdm(
                total=state.total,
                desc=state.stage,
                unit="crystal",
                disable=True if self.quiet else None,
                file=sys.stderr,
                dynamic_ncols=True,
                leave=False,
            )
        self._bar.total = state.total
        self._bar.update(state.done - self._bar.n)
        now = time.perf_counter()
        spent = self.seconds.get(state.stage, 0.0) + now - self._last
        self.seconds[state.stage] = round(spent, 3)
        self._last = now

    def close(self) -> None:
        """Clear the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
