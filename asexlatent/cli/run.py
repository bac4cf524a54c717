"""The run behind ``asexlatent-refine``: read, refine chunk by chunk, write, sum up."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asexlatent.cli import chunks
from asexlatent.cli.chunks import Interrupt, refine_chunk, skip
from asexlatent.cli.figures import Showcase
from asexlatent.cli.inputs import Entry, count_inputs, read_inputs, split_input, table_extras
from asexlatent.cli.outputs import OutputFolder, default_folder, prepare_folder, write_whole
from asexlatent.cli.progress import SHOWN_FAILURES, Bar, Tally, Terminal
from asexlatent.cli.refine import EXIT_DONE, EXIT_INTERRUPTED, EXIT_NOTHING
from asexlatent.cli.rounds import Rounds
from asexlatent.cli.settings import Settings, UsageError
from asexlatent.cli.target import resolve_target

if TYPE_CHECKING:
    from asexlatent.descriptor import LocalEnvironment
    from asexlatent.optimize import Refinement


def run(
    settings: Settings,
    output: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> int:
    """Refine all inputs into a folder.

    Returns
    -------
    int
        Exit code, see `asexlatent.cli.refine.main`.

    Raises
    ------
    UsageError
        Before anything is written.
    """
    started = time.perf_counter(), time.process_time()
    check_machine(settings)
    environment, settings = resolve_target(settings)
    rounds = Rounds(settings)
    if not any(split_input(name)[0].exists() for name in settings.inputs):
        for name in settings.inputs:
            print(f"asexlatent-refine: {name}: no such file or folder", file=sys.stderr)
        return EXIT_NOTHING
    folder = Path(output) if output else default_folder(settings.inputs)
    prepare_folder(folder, settings.inputs, overwrite)
    with _logging(folder / "log", quiet, verbose) as log, _threads(settings.threads):
        write_whole(folder / "config.yaml", settings.dump())
        log.info("inputs: %s", ", ".join(settings.inputs))
        work = _Work(settings, environment, rounds, folder, log, quiet, verbose)
        work.go()
        seconds = time.perf_counter() - started[0], time.process_time() - started[1]
        summary = work.summary(*seconds)
        write_whole(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
        if settings.plot and not work.interrupted:
            work.showcase.plot(folder, environment, *work.tally.all_losses())
        log.info("%d candidates, %d valid", work.tally.total, work.tally.n_valid)
        if not quiet:
            print(work.tally.table())
            print(f"{seconds[0]:.1f} s ({seconds[1]:.1f} s of CPU); results in {folder}/")
        if work.interrupted:
            return EXIT_INTERRUPTED
        if not work.tally.n_refined:
            log.error("nothing could be refined")
            return EXIT_NOTHING
        return EXIT_DONE


def check_machine(settings: Settings) -> None:
    """Refuse a solver or a device that does not exist."""
    import torch

    from asexlatent.optimize import check_solver

    try:
        check_solver(settings.solver)
        torch.empty(1, device=settings.device)
    except (ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
        option = "--solver" if isinstance(error, ValueError) else f"--device {settings.device}"
        raise UsageError(f"{option}: {str(error).splitlines()[0]}") from None


@dataclass(eq=False)
class _Work:
    """State of a run."""

    settings: Settings
    environment: LocalEnvironment
    rounds: Rounds
    folder: Path
    log: logging.Logger
    quiet: bool
    verbose: bool

    def __post_init__(self) -> None:
        self.tally = Tally()
        self.problems: list[str] = []
        self.interrupted = False
        self.showcase = Showcase(self.settings)
        self._failures_shown = 0

    def go(self) -> None:
        """Read, refine and write everything."""
        settings = self.settings
        total = count_inputs(settings) if sys.stderr.isatty() and not self.quiet else None
        entries = read_inputs(settings, self.environment.species, self._problem)
        bar = Bar(total, self.quiet)
        with (
            OutputFolder(self.folder, table_extras(settings)) as out,
            Interrupt(self.log.warning) as interrupt,
            contextlib.closing(bar),
        ):
            for chunk in chunks.cut(entries, chunks.CHUNK):
                candidates = [entry.candidate for entry in chunk]
                if interrupt.requested:
                    results = skip(candidates)
                else:
                    results = refine_chunk(
                        candidates,
                        self.environment,
                        settings,
                        bar.watch,
                        interrupt,
                        chunk[0].index,
                        self.rounds,
                    )
                for note in out.write(chunk, results):
                    self.log.info(note)
                self._after(chunk, results)
                bar.finish(self.tally)
        self.interrupted = interrupt.requested

    def summary(self, wall: float, cpu: float) -> dict[str, Any]:
        """Contents of ``summary.json``."""
        counts = self.tally.counts()
        return {
            "counts": counts,
            "rounds": self.rounds.rows(),
            "problems": self.problems,
            "interrupted": self.interrupted,
            "seconds": {"wall": round(wall, 3), "cpu": round(cpu, 3)},
            "seed": self.settings.seed,
            "settings": {**asdict(self.settings), "inputs": list(self.settings.inputs)},
            "versions": versions(),
        }

    def _problem(self, line: str) -> None:
        self.problems.append(line)
        self.log.error(line)

    def _after(self, chunk: list[Entry], results: list[Refinement]) -> None:
        self.tally.add(results)
        self.showcase.consider(results)
        for entry, result in zip(chunk, results, strict=True):
            for note in entry.notes:
                self.log.info("%s: %s", entry.source, note)
            if str(result.status) == "failed":
                self._failure(f"{entry.source}: {' '.join(result.reason.split())}")

    def _failure(self, line: str) -> None:
        """Say which candidate failed; the terminal is spared a long list, the log is not."""
        self._failures_shown += 1
        level = logging.WARNING
        if self._failures_shown > SHOWN_FAILURES and not self.verbose:
            level = logging.INFO
        self.log.log(level, line)
        if self._failures_shown == SHOWN_FAILURES and not self.verbose:
            where = f"{self.folder}/log and table.csv"
            self.log.warning(f"further failures are listed in {where} only (-v prints all)")


def versions() -> dict[str, str]:
    """Versions of what the results depend on."""
    import platform
    from importlib.metadata import version

    from asexlatent import __version__

    names = ("torch", "numpy", "scipy", "ase", "spglib", "pyxtal")
    return {
        "asexlatent": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


@contextlib.contextmanager
def _logging(path: Path, quiet: bool, verbose: bool) -> Iterator[logging.Logger]:
    """Log to a file and to the terminal, and take library warnings along; undone at the end."""
    log = logging.getLogger(chunks.LOGGER)
    warnings = logging.getLogger("py.warnings")
    before = log.level, log.propagate, warnings.propagate
    log.setLevel(logging.DEBUG)
    log.propagate = warnings.propagate = False
    to_file = logging.FileHandler(path, mode="a", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal = Terminal(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)
    terminal.setFormatter(logging.Formatter("asexlatent-refine: %(message)s"))
    log.addHandler(to_file)
    log.addHandler(terminal)
    warnings.addHandler(to_file)
    logging.captureWarnings(True)
    try:
        yield log
    finally:
        logging.captureWarnings(False)
        for logger in (log, warnings):
            logger.removeHandler(to_file)
        log.removeHandler(terminal)
        to_file.close()
        log.setLevel(before[0])
        log.propagate, warnings.propagate = before[1:]


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Set torch's number of threads for a while."""
    import torch

    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
