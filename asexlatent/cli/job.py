"""What is done with one chunk of candidates, in this process or in another."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from asexlatent.cli import chunks
from asexlatent.cli.chunks import Interrupt, refine_chunk, skip
from asexlatent.cli.extxyz import frame_text
from asexlatent.cli.figures import Shown
from asexlatent.cli.inputs import Entry
from asexlatent.cli.records import (
    carried_columns,
    frame,
    record,
    refined,
    table_columns,
    table_row,
)
from asexlatent.cli.rounds import Rounds
from asexlatent.cli.settings import Settings

if TYPE_CHECKING:
    from asexlatent.descriptor import LocalEnvironment
    from asexlatent.optimize import Refinement


class Outcome(NamedTuple):
    """What is counted of one candidate."""

    status: str
    valid: bool
    path: str
    loss_initial: float
    loss: float


@dataclass
class Part:
    """Results of a chunk as they are written; all of it fits into JSON.

    Attributes
    ----------
    refined, valid, table : str
        Pieces of the output files.
    outcomes : list of Outcome
    failures, notes : list of str
        Lines for the log.
    rounds : list of dict
        Rounds through the latent space.
    shown : Shown or None
        The crystal to plot, if there are plots.
    cpu : float
        Seconds that another process has spent; 0 for this one.
    interrupted : bool
        It is not finished.
    """

    refined: str = ""
    valid: str = ""
    table: str = ""
    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    shown: Shown | None = None
    cpu: float = 0.0
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Part:
        """Back from `to_json`."""
        shown = values["shown"]
        outcomes = [Outcome(*row) for row in values["outcomes"]]
        return cls(**values | {"outcomes": outcomes, "shown": shown and Shown(**shown)})

    def __add__(self, other: Part) -> Part:
        """Both, one after the other."""
        rounds = Rounds.added(self.rounds, other.rounds)
        shown = self.shown.better(other.shown) if self.shown else other.shown
        return Part(
            self.refined + other.refined,
            self.valid + other.valid,
            self.table + other.table,
            self.outcomes + other.outcomes,
            self.failures + other.failures,
            self.notes + other.notes,
            rounds,
            shown,
            self.cpu + other.cpu,
            self.interrupted or other.interrupted,
        )


@dataclass(eq=False)
class RefineJob:
    """Refines chunks of entries; an `asexlatent.parallel.Job`.

    Parameters
    ----------
    settings, environment
        What to do.
    extras : sequence of str
        Further columns of the input tables.
    rounds, watch, interrupt
        In the process that shows what is going on; other processes do without.
    """

    settings: Settings
    environment: LocalEnvironment
    extras: Sequence[str]
    rounds: Rounds | None = None
    watch: Callable[..., None] | None = None
    interrupt: Interrupt | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What other processes get; they may stand in another folder."""
        model = self.settings.model
        settings = replace(self.settings, model=model and str(Path(model).absolute()))
        others = {"settings": settings, "rounds": None, "watch": None, "interrupt": None}
        return self.__dict__ | others

    def work(self, entries: Sequence[Entry]) -> Part:
        """Refine a chunk and render what is written about it."""
        if self.interrupt is not None:
            return self._work(entries, self.rounds.fresh(), self.watch, self.interrupt)
        started = time.process_time()
        with _heard() as said, torch_threads(self.settings.threads):
            rounds = Rounds(self.settings)
            part = self._work(entries, rounds, _unwatched, Interrupt(_unwatched))
        part.notes += said
        part.cpu = time.process_time() - started
        return part

    def _work(
        self, entries: Sequence[Entry], rounds: Rounds, watch: Callable, interrupt: Interrupt
    ) -> Part:
        results = refine_chunk(
            [entry.candidate for entry in entries],
            self.environment,
            self.settings,
            watch,
            interrupt,
            entries[0].index,
            rounds,
        )
        part = self.render(entries, results)
        part.rounds, part.interrupted = rounds.plain(), interrupt.requested
        return part

    def join(self, first: Part, second: Part) -> Part:
        """Results of two lists one after the other."""
        return first + second

    def lost(self, entry: Entry, reason: str) -> Part:
        """Result of a candidate that kills the process that works on it."""
        from asexlatent.optimize import Refinement

        return self.render([entry], [Refinement(source=entry.candidate, reason=reason)])

    def skipped(self, entries: Sequence[Entry]) -> Part:
        """Results of candidates that were not reached."""
        part = self.render(entries, skip([entry.candidate for entry in entries]))
        return replace(part, interrupted=True)

    def render(self, entries: Sequence[Entry], results: Sequence[Refinement]) -> Part:
        """Make frames and rows, one of each for every entry."""
        part = Part()
        carried, sheet = carried_columns(self.extras), io.StringIO()
        columns = [*table_columns(), *carried]
        table = csv.DictWriter(sheet, columns, restval="", lineterminator="\n")
        texts: list[tuple[str, bool]] = []
        for entry, result in zip(entries, results, strict=True):
            values = record(entry, result)
            # A structure that nothing was done to keeps the results of the user's calculator.
            text, lost = frame_text(frame(entry, result, values), keep_results=not refined(result))
            texts.append((text, bool(result.valid)))
            extra = {name: entry.extra.get(name, "") for name in carried}
            table.writerow(table_row(result, values) | extra)
            part.notes += [f"{entry.source}: {line}" for line in (*lost, *entry.notes)]
            if str(result.status) == "failed":
                part.failures.append(f"{entry.source}: {' '.join(result.reason.split())}")
            part.outcomes.append(_outcome(result))
        part.refined = "".join(text for text, _ in texts)
        part.valid = "".join(text for text, valid in texts if valid)
        part.table = sheet.getvalue()
        if self.settings.plot:
            part.shown = Shown.best_of(results, self.settings)
        return part


def _outcome(result: Refinement) -> Outcome:
    numbers = float(result.loss_initial), float(result.loss)
    return Outcome(str(result.status), bool(result.valid), result.path, *numbers)


def _unwatched(*_: object) -> None:
    pass


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Lines of what libraries and the log say meanwhile, in a process that has no log."""
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, message: logging.LogRecord) -> None:
            lines.append(self.format(message))

    listener, log = Listener(), logging.getLogger(chunks.LOGGER)
    before = log.level, log.propagate
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield lines
        lines += [f"{w.category.__name__}: {' '.join(str(w.message).split())}" for w in caught]
    finally:
        log.removeHandler(listener)
        log.setLevel(before[0])
        log.propagate = before[1]


@contextlib.contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """Set torch's number of threads for a while."""
    import torch

    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
