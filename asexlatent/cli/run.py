"""The run behind ``asexlatent-refine``: read, refine chunk by chunk, write, sum up."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asexlatent.cli import chunks
from asexlatent.cli.engine import Engine, check_device
from asexlatent.cli.exits import EXIT_DONE, EXIT_INTERRUPTED, EXIT_NOTHING
from asexlatent.cli.fingerprint import fingerprint
from asexlatent.cli.inputs import split_input
from asexlatent.cli.job import torch_threads
from asexlatent.cli.outputs import default_folder, prepare_folder
from asexlatent.cli.parts import Parts
from asexlatent.cli.rounds import Rounds
from asexlatent.cli.run_log import run_log
from asexlatent.cli.screening_stage import ScreenStage, screening_stage
from asexlatent.cli.settings import NEUTRAL, Settings, UsageError
from asexlatent.cli.target import resolve_target
from asexlatent.cli.versions import versions
from asexlatent.cli.work import Work
from asexlatent.whole_file import write_whole

if TYPE_CHECKING:
    from asexlatent.descriptor import LocalEnvironment


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
    stage = screening_stage(settings, environment)
    if not any(split_input(name)[0].exists() for name in settings.inputs):
        for name in settings.inputs:
            print(f"asexlatent-refine: {name}: no such file or folder", file=sys.stderr)
        return EXIT_NOTHING
    folder = Path(output) if output else default_folder(settings.inputs)
    with contextlib.ExitStack() as stack:
        engine = Engine(settings.workers, settings.scheduler, settings.device)
        stack.enter_context(engine)
        parts, resumed = open_folder(folder, settings, environment, overwrite, stack)
        log = stack.enter_context(
            run_log(chunks.LOGGER, folder / "log", "asexlatent-refine", _shown(quiet, verbose))
        )
        stack.enter_context(torch_threads(settings.threads))
        write_whole(folder / "config.yaml", settings.dump())
        log.info("%s: %s", "going on" if resumed else "inputs", ", ".join(settings.inputs))
        if resumed and not quiet:
            print(f"asexlatent-refine: going on with the unfinished run in {folder}/")
        work = Work(settings, environment, rounds, folder, parts, engine, log, quiet, verbose)
        work.go()
        seconds = (
            time.perf_counter() - started[0],
            time.process_time() - started[1] + work.cpu_elsewhere,
        )
        summary = work.summary(*seconds) | {"versions": versions()}
        write_whole(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
        if work.shown and not work.interrupted:
            work.shown.plot(folder, environment, *work.tally.all_losses())
        log.info("%d candidates, %d valid", work.tally.total, work.tally.n_valid)
        if not quiet:
            print(work.tally.table())
            said = "" if stage is not None and not work.interrupted else f"; results in {folder}/"
            print(f"{seconds[0]:.1f} s ({seconds[1]:.1f} s of CPU){said}")
        if work.interrupted:
            return EXIT_INTERRUPTED
        if not work.tally.n_refined:
            parts.finish()
            log.error("nothing could be refined")
            return EXIT_NOTHING
        code = EXIT_DONE
        if stage is not None:
            code = _screen(stage, work, summary, started[0])
        if code != EXIT_INTERRUPTED:
            parts.finish()
        return code


def _screen(stage: ScreenStage, work: Work, summary: dict[str, Any], started: float) -> int:
    """Screen what was refined; returns the exit code."""
    result, about = stage.go(work.folder, work.engine, work.log, work.quiet, work.verbose)
    wall = time.perf_counter() - started
    summary["seconds"]["wall"] = round(wall, 3)
    summary = summary | {"interrupted": stage.interrupted, "screening": about}
    write_whole(work.folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    if not work.quiet:
        print(f"\n{result.table()}\n{wall:.1f} s; results in {work.folder}/")
    if stage.interrupted:
        return EXIT_INTERRUPTED
    if not result.ranked:
        work.log.error("nothing to rank")
        return EXIT_NOTHING
    return EXIT_DONE


def open_folder(
    folder: Path,
    settings: Settings,
    environment: LocalEnvironment,
    overwrite: bool,
    stack: contextlib.ExitStack,
) -> tuple[Parts, bool]:
    """Output folder, locked until the end of `stack`; whether it holds this run, unfinished.

    Raises
    ------
    UsageError
        It holds something else, or cannot be written to.
    """
    parts = Parts(folder, identity(settings, environment))
    known = parts.folder.exists()
    if known:
        stack.enter_context(parts.alone())
    resumed = not overwrite and parts.check()
    prepare_folder(folder, settings.inputs, overwrite, resumed)
    if not known:
        stack.enter_context(parts.alone())
    if not resumed:
        parts.begin()
    return parts, resumed


def identity(settings: Settings, environment: LocalEnvironment) -> dict[str, Any]:
    """What decides the results of a run, for telling whether another one is the same."""
    chosen = {k: v for k, v in asdict(settings).items() if k not in NEUTRAL}
    model: str | None = None
    if settings.model is not None:
        files = sorted(path for path in Path(settings.model).iterdir() if path.is_file())
        model = fingerprint([(path.name, path.read_bytes()) for path in files])
    return {
        "settings": chosen | {"chunk_size": chunks.size_of(settings)},
        "the target sha256": fingerprint(environment),
        "the model sha256": model,
        "versions": versions(),
    }


def check_machine(settings: Settings) -> None:
    """Refuse a solver or a device that does not exist."""
    from asexlatent.optimize import check_solver

    try:
        check_solver(settings.solver)
    except ValueError as error:
        raise UsageError(f"--solver: {str(error).splitlines()[0]}") from None
    check_device(settings.device)


def _shown(quiet: bool, verbose: bool) -> int:
    """Level of what the terminal shows."""
    return logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
