"""The output folder: everything is streamed into it, nothing of others is touched."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from asexlatent.cli.extxyz import frame_text
from asexlatent.cli.inputs import Entry, split_input
from asexlatent.cli.records import KEYS, PREFIX, frame, record, refined, table_row
from asexlatent.cli.settings import UsageError

STREAMED = ("refined.extxyz", "valid.extxyz", "table.csv")
OWN_FILES = (
    *STREAMED,
    "summary.json",
    "config.yaml",
    "log",
    *(f"{name}.{kind}" for name in ("spectra", "losses") for kind in ("png", "pdf")),
)
"""Names that the command writes, and the only ones that ``--overwrite`` removes."""


def default_folder(inputs: Sequence[str]) -> Path:
    """Stem of the first input + ``-asexlatent``, in the current folder."""
    path, _ = split_input(inputs[0])
    return Path((path.stem or path.resolve().name) + "-asexlatent")


def prepare_folder(folder: Path, inputs: Iterable[str], overwrite: bool) -> None:
    """Make the folder, or empty it of what an earlier run left.

    Raises
    ------
    UsageError
        It holds something and `overwrite` was not asked for, an input lies where an output would
        go, or it cannot be written to.
    """
    own = [folder / name for name in OWN_FILES]
    for name in inputs:
        path, _ = split_input(name)
        if path.resolve() in {name.resolve() for name in own}:
            raise UsageError(f"the input {path} would be overwritten: choose another folder (-o)")
    try:
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            raise UsageError(f"{folder} is not empty: choose another folder (-o) or --overwrite")
        folder.mkdir(parents=True, exist_ok=True)
        for path in own:
            path.unlink(missing_ok=True)
        (folder / "log").touch()
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None


def write_whole(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it: it is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


class OutputFolder:
    """Writers of the streamed files; a context manager.

    Parameters
    ----------
    folder
        Prepared with `prepare_folder`.
    extras
        Names of the further columns of the input tables, carried to ``table.csv``.
    """

    def __init__(self, folder: Path, extras: Sequence[str]):
        from asexlatent.symmetry import TABLE_COLUMNS

        self.folder = folder
        own = [*TABLE_COLUMNS, *(PREFIX + key for key in KEYS)]
        self._extras = [name for name in extras if name not in own]  # not an earlier run's record
        self._columns = [*own, *self._extras]

    def __enter__(self) -> OutputFolder:
        with ExitStack() as stack:
            self._files: list[IO[str]] = [
                stack.enter_context((self.folder / name).open("w", encoding="utf-8", newline="\n"))
                for name in STREAMED
            ]
            self._stack = stack.pop_all()
        self._refined, self._valid, table = self._files
        self._table = csv.DictWriter(table, self._columns, restval="", lineterminator="\n")
        self._table.writeheader()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def write(self, entries: Sequence[Entry], results: Sequence[Any]) -> list[str]:
        """Write a chunk, one frame and one row for each entry; returns notes for the log."""
        notes: list[str] = []
        for entry, result in zip(entries, results, strict=True):
            values = record(entry, result)
            # A structure that nothing was done to keeps the results of the user's calculator.
            text, lost = frame_text(frame(entry, result, values), keep_results=not refined(result))
            notes += [f"{entry.source}: {line}" for line in lost]
            self._refined.write(text)
            if result.valid:
                self._valid.write(text)
            extra = {name: entry.extra.get(name, "") for name in self._extras}
            self._table.writerow(table_row(result, values) | extra)
        for handle in self._files:
            handle.flush()
        return notes
