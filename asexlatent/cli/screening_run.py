"""The run behind ``asexlatent-screen``: read, screen, write, sum up."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asexlatent.cli.engine import Engine
from asexlatent.cli.inputs import Entry, read_inputs, split_input
from asexlatent.cli.job import torch_threads
from asexlatent.cli.progress import SHOWN_FAILURES, Terminal
from asexlatent.cli.refine import EXIT_DONE, EXIT_INTERRUPTED, EXIT_NOTHING
from asexlatent.cli.screen import ScreenSettings
from asexlatent.cli.screening_folder import ScreenFolder
from asexlatent.cli.settings import UsageError

if TYPE_CHECKING:
    from asexlatent.descriptor import LocalEnvironment
    from asexlatent.screening import Relaxer, ScreenProgress, ScreenResult, ScreenRun

LOGGER = "asexlatent.screen"


def run(
    settings: ScreenSettings,
    output: Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    environment: LocalEnvironment | None = None,
) -> int:
    """Screen all inputs into a folder; `environment` is used in place of the target if given.

    Returns
    -------
    int
        Exit code, see `asexlatent.cli.screen.main`.

    Raises
    ------
    UsageError
        Before anything is written.
    """
    started = time.perf_counter()
    environment = environment or _environment(settings)
    missing = [name for name in settings.inputs if not split_input(name)[0].exists()]
    if missing:
        raise UsageError(f"{missing[0]}: no such file or folder")
    relaxer = make_relaxer(settings)
    folder = ScreenFolder(output or _default_folder(settings.inputs), settings, overwrite)
    with (
        folder,
        Engine(settings.workers, settings.scheduler, settings.device) as engine,
        torch_threads(settings.threads),
        _logging(folder.path / "log", quiet, verbose) as log,
    ):
        entries, problems = _read(settings, environment, log)
        watch = _Watch(quiet)
        screening = _start(settings, environment, relaxer, entries, folder, engine)
        interrupted = _go(screening, watch, log)
        result = screening.result()
        about = {
            "inputs": list(settings.inputs),
            "problems": problems,
            "interrupted": interrupted,
            "seconds": watch.seconds | {"wall": round(time.perf_counter() - started, 1)},
            "versions": versions(),
        }
        folder.write(result, about)
        _say_failures(result, log, verbose, folder.path)
        if not quiet:
            print(result.table())
            print(f"{time.perf_counter() - started:.1f} s; results in {folder.path}/")
        if interrupted:
            return EXIT_INTERRUPTED
        if not result.ranked:
            log.error("nothing to rank")
            return EXIT_NOTHING
        return EXIT_DONE


def versions() -> dict[str, str]:
    """Versions of what the results depend on."""
    import platform
    from importlib.metadata import version

    from asexlatent import __version__

    names = ("torch", "mace-torch", "numpy", "ase", "spglib", "pymatgen")
    return {
        "asexlatent": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def _default_folder(inputs: tuple[str, ...]) -> Path:
    path, _ = split_input(inputs[0])
    return Path((path.stem or path.resolve().name) + "-screened")


def _environment(settings: ScreenSettings) -> LocalEnvironment:
    from asexlatent.cli.settings import Settings
    from asexlatent.cli.target import resolve_target

    environment, _ = resolve_target(Settings(target=settings.target))
    return environment


def _read(
    settings: ScreenSettings, environment: LocalEnvironment, log: logging.Logger
) -> tuple[list[Entry], list[str]]:
    problems: list[str] = []

    def report(line: str) -> None:
        problems.append(line)
        log.error(line)

    entries = list(read_inputs(settings, environment.species, report))
    for entry in entries:  # what asexlatent-refine wrote into a table
        info = getattr(entry.candidate, "info", None)
        if info is not None:
            own = {k: v for k, v in entry.extra.items() if k.startswith("asx_") and v}
            info.update(own)
        for note in entry.notes:
            log.info("%s: %s", entry.source, note)
    return entries, problems


def make_relaxer(settings: ScreenSettings) -> Relaxer:
    """Relaxer for the calculator; UsageError for one that cannot be had."""
    from asexlatent.screening import energies

    names = ("fmax", "smax", "steps", "device", "dtype", "memory")
    try:
        return energies.make_relaxer(
            settings.calculator, **{name: getattr(settings, name) for name in names}
        )
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        words = " ".join(str(error).split())
        named = "" if settings.calculator is None else f"--calculator {settings.calculator}: "
        raise UsageError(f"{named}{words}") from None


def _start(
    settings: ScreenSettings,
    environment: LocalEnvironment,
    relaxer: Relaxer,
    entries: list[Entry],
    folder: ScreenFolder,
    engine: Engine,
) -> ScreenRun:
    from asexlatent.screening import ScreenRun
    from asexlatent.screening.pipeline import RELAXED_TOGETHER

    executor, in_flight = engine.start(len(entries) > RELAXED_TOGETHER)
    names = ("emax", "reference", "fmax", "smax", "steps", "symprec", "device", "dtype", "memory")
    return ScreenRun(
        [entry.candidate for entry in entries],
        environment,
        relaxer,
        folder=folder.chunks,
        sources=[entry.source for entry in entries],
        executor=executor,
        in_flight=in_flight,
        net_duplicates=not settings.every,
        **{name: getattr(settings, name) for name in names},
    )


def _go(screening: ScreenRun, watch: _Watch, log: logging.Logger) -> bool:
    """Work until the end or until Ctrl-C; returns whether it was the latter."""
    log.info("energies by %s", screening.relaxer.name)
    with contextlib.closing(watch):
        try:
            for state in screening:
                watch.show(state)
        except KeyboardInterrupt:
            log.warning("interrupted: writing what is there; the same command goes on later")
            return True
    return False


def _say_failures(result: ScreenResult, log: logging.Logger, verbose: bool, folder: Path) -> None:
    """Failures in one line each; the terminal is spared a long list, the log is not."""
    failed = [row for row in result.rows if row.status == "failed"]
    shown = len(failed) if verbose else SHOWN_FAILURES
    for place, row in enumerate(failed):
        level = logging.WARNING if place < shown else logging.INFO
        log.log(level, "%s: %s", row.source or row.index, row.reason)
    if len(failed) > shown:
        log.warning("further failures are listed in %s/screened.csv only (-v prints all)", folder)
    for composition, found in result.references.items():
        if found.note:
            log.warning("%s: %s", composition, found.note)
    below = [row for row in result.ranked if row.above_reference < -1e-3]
    if below and result.references[below[0].composition].name == "graphite":
        log.warning("lower than graphite by this calculator: %d", len(below))


@dataclass(eq=False)
class _Watch:
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


@contextlib.contextmanager
def _logging(path: Path, quiet: bool, verbose: bool) -> Iterator[logging.Logger]:
    """Log to a file and to the terminal, and take library warnings along; undone at the end."""
    log, warnings = logging.getLogger(LOGGER), logging.getLogger("py.warnings")
    before = log.level, log.propagate, warnings.propagate
    log.setLevel(logging.DEBUG)
    log.propagate = warnings.propagate = False
    to_file = logging.FileHandler(path, mode="a", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal = Terminal(logging.ERROR if quiet else logging.WARNING)
    terminal.setFormatter(logging.Formatter("asexlatent-screen: %(message)s"))
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
