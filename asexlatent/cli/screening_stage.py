"""The second stage of ``asexlatent-refine --screen``: what was refined is screened."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asexlatent.cli.engine import Engine
from asexlatent.cli.parts import SCREENED
from asexlatent.cli.screen import ScreenSettings
from asexlatent.cli.screening_work import ScreenWork, make_relaxer
from asexlatent.cli.settings import SCREENING_ONLY, Settings, UsageError
from asexlatent.cli.versions import SCREENING, versions

if TYPE_CHECKING:
    from asexlatent.descriptor import LocalEnvironment
    from asexlatent.screening import ScreenResult


def screening_stage(settings: Settings, environment: LocalEnvironment) -> ScreenStage | None:
    """Stage for the settings of ``asexlatent-refine``; None if no screening is wanted.

    Raises
    ------
    UsageError
        The calculator cannot be had, or there are settings for a screening that is not wanted.
    """
    if settings.screen:
        return ScreenStage(settings, environment)
    for name in SCREENING_ONLY:
        if getattr(settings, name) != getattr(Settings(), name):
            raise UsageError(f"--{name} is for a screening: --screen")
    return None


class ScreenStage:
    """Screening of the refined crystals of a run.

    It does what ``asexlatent-screen`` does with ``refined.extxyz``; finished chunks lie among the
    parts of the run and go with them when it is complete.

    Parameters
    ----------
    settings : Settings
    environment : LocalEnvironment

    Raises
    ------
    UsageError
        The calculator cannot be had.
    """

    def __init__(self, settings: Settings, environment: LocalEnvironment):
        shared = ("calculator", "emax", "top", "symprec", "device", "dtype", "memory", "workers")
        shared += ("scheduler", "threads", "plot")
        self.settings = ScreenSettings(
            inputs=(), target=settings.target, **{name: getattr(settings, name) for name in shared}
        )
        self.environment = environment
        self.relaxer = make_relaxer(self.settings)
        self.interrupted = False

    def go(
        self, folder: Path, engine: Engine, log: logging.Logger, quiet: bool, verbose: bool
    ) -> tuple[ScreenResult, dict[str, Any]]:
        """Screen ``refined.extxyz`` of a folder and write the ranking beside it.

        Returns
        -------
        result, summary
            The latter for ``summary.json``.
        """
        from dataclasses import replace

        from asexlatent.screening.database import summary, write_ranking

        settings = replace(self.settings, inputs=(str(folder / "refined.extxyz"),))
        chunks = folder / SCREENED
        work = ScreenWork(
            settings, self.environment, self.relaxer, chunks, engine, log, quiet, verbose
        )
        result = work.go()
        self.interrupted = work.interrupted
        write_ranking(result, folder, settings.top)
        if settings.plot:
            from asexlatent.cli.screening_figures import write_figures

            write_figures(result, folder)
        work.say_failures(result, folder)
        about = {
            "interrupted": work.interrupted,
            "seconds": work.seconds,
            "versions": versions(SCREENING),
        }
        return result, summary(result) | about
