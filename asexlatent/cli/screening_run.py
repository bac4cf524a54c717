"""The run behind ``asexlatent-screen``: read, screen, write, sum up."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from asexlatent.cli.engine import Engine, check_device
from asexlatent.cli.exits import EXIT_DONE, EXIT_INTERRUPTED, EXIT_NOTHING
from asexlatent.cli.inputs import split_input
from asexlatent.cli.job import torch_threads
from asexlatent.cli.run_log import run_log
from asexlatent.cli.screen import ScreenSettings
from asexlatent.cli.screening_folder import ScreenFolder
from asexlatent.cli.screening_work import ScreenWork, make_relaxer
from asexlatent.cli.settings import UsageError
from asexlatent.cli.versions import SCREENING, versions

if TYPE_CHECKING:
    from asexlatent.descriptor import LocalEnvironment

LOGGER = "asexlatent.screen"


def run(
    settings: ScreenSettings,
    output: Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> int:
    """Screen all inputs into a folder.

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
    check_device(settings.device)
    environment = _environment(settings)
    if not any(split_input(name)[0].exists() for name in settings.inputs):
        raise UsageError(f"{settings.inputs[0]}: no such file or folder")
    relaxer = make_relaxer(settings)
    folder = ScreenFolder(output or _default_folder(settings.inputs), settings, overwrite)
    level = logging.ERROR if quiet else logging.WARNING
    with (
        folder,
        Engine(settings.workers, settings.scheduler, settings.device) as engine,
        torch_threads(settings.threads),
        run_log(LOGGER, folder.path / "log", "asexlatent-screen", level) as log,
    ):
        work = ScreenWork(
            settings, environment, relaxer, folder.chunks, engine, log, quiet, verbose
        )
        result = work.go()
        about = {
            "inputs": list(settings.inputs),
            "problems": work.problems,
            "interrupted": work.interrupted,
            "seconds": work.seconds | {"wall": round(time.perf_counter() - started, 1)},
            "versions": versions(SCREENING),
        }
        folder.write(result, about)
        work.say_failures(result, folder.path)
        if not quiet:
            print(result.table())
            print(f"{time.perf_counter() - started:.1f} s; results in {folder.path}/")
        if work.interrupted:
            return EXIT_INTERRUPTED
        if not result.ranked:
            log.error("nothing to rank")
            return EXIT_NOTHING
        return EXIT_DONE


def _default_folder(inputs: tuple[str, ...]) -> Path:
    path, _ = split_input(inputs[0])
    return Path((path.stem or path.resolve().name) + "-screened")


def _environment(settings: ScreenSettings) -> LocalEnvironment:
    from asexlatent.cli.settings import Settings
    from asexlatent.cli.target import resolve_target

    environment, _ = resolve_target(Settings(target=settings.target))
    return environment
