"""The output folder: everything is streamed into it, nothing of others is touched."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from asexlatent.cli.inputs import split_input
from asexlatent.cli.parts import FOLDER, discard
from asexlatent.cli.records import carried_columns, table_columns
from asexlatent.cli.screening_figures import FIGURES
from asexlatent.cli.settings import UsageError

if TYPE_CHECKING:
    from asexlatent.cli.job import Part

STREAMED = ("refined.extxyz", "valid.extxyz", "table.csv")
OWN_FILES = (
    *STREAMED,
    "summary.json",
    "config.yaml",
    "log",
    *(f"{name}.{kind}" for name in ("spectra", "losses", *FIGURES) for kind in ("png", "pdf")),
)
"""Names that the command writes; these, and the ranking, are all that ``--overwrite`` removes."""


def default_folder(inputs: Sequence[str]) -> Path:
    """Stem of the first input + ``-asexlatent``, in the current folder."""
    path, _ = split_input(inputs[0])
    return Path((path.stem or path.resolve().name) + "-asexlatent")


def prepare_folder(
    folder: Path, inputs: Iterable[str], overwrite: bool, resume: bool = False
) -> None:
    """Make the folder, or empty it of what an earlier run left.

    Parameters
    ----------
    resume
        It holds an unfinished run that is gone on with: its parts and its log stay.

    Raises
    ------
    UsageError
        It holds something and `overwrite` was not asked for, an input lies where an output would
        go, or it cannot be written to.
    """
    from asexlatent.screening.database import remove_ranking

    own = [folder / name for name in (*OWN_FILES, *(f"{name}.part" for name in STREAMED))]
    for name in inputs:
        path, _ = split_input(name)
        if path.resolve() in {name.resolve() for name in own}:
            raise UsageError(f"the input {path} would be overwritten: choose another folder (-o)")
    try:
        if not (overwrite or resume or _is_free(folder)):
            raise UsageError(f"{folder} is not empty: choose another folder (-o) or --overwrite")
        folder.mkdir(parents=True, exist_ok=True)
        for path in own:
            if not (resume and path.name == "log"):
                path.unlink(missing_ok=True)
        remove_ranking(folder)
        if not resume:
            discard(folder / FOLDER)
        (folder / "log").touch()
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None


def _is_free(folder: Path) -> bool:
    """Whether there is nothing in a folder, or what a run has made that was killed at once."""
    if not folder.exists():
        return True
    for path in folder.iterdir():
        if path.name == FOLDER and all(p.name.startswith(("lock", "run.")) for p in path.iterdir()):
            continue
        if path.name != "log" or path.stat().st_size:
            return False
    return True


class OutputFolder:
    """Writers of the streamed files; a context manager.

    They have ``.part`` after their names until they are complete.

    Parameters
    ----------
    folder
        Prepared with `prepare_folder`.
    extras
        Names of the further columns of the input tables, carried to ``table.csv``.
    """

    def __init__(self, folder: Path, extras: Sequence[str]):
        self.folder = folder
        self._columns = [*table_columns(), *carried_columns(extras)]

    def __enter__(self) -> OutputFolder:
        with ExitStack() as stack:
            self._files: list[IO[str]] = [
                stack.enter_context(
                    (self.folder / f"{name}.part").open("w", encoding="utf-8", newline="\n")
                )
                for name in STREAMED
            ]
            self._stack = stack.pop_all()
        *_, table = self._files
        csv.writer(table, lineterminator="\n").writerow(self._columns)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            for handle in self._files:
                os.fsync(handle.fileno())
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            self._stack.close()
        for name in STREAMED:
            part = self.folder / f"{name}.part"
            if kind is None:
                os.replace(part, self.folder / name)
            else:
                part.unlink(missing_ok=True)

    def write(self, part: Part) -> None:
        """Write a chunk, one frame and one row for each entry."""
        for handle, text in zip(self._files, (part.refined, part.valid, part.table), strict=True):
            handle.write(text)
            handle.flush()
