"""The chunks of a run: cut, worked on somewhere, kept, and put together in order."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asexlatent.cli import chunks
from asexlatent.cli.chunks import Interrupt
from asexlatent.cli.engine import Engine
from asexlatent.cli.figures import Shown
from asexlatent.cli.inputs import Entry, count_inputs, read_inputs, table_extras
from asexlatent.cli.job import Part, RefineJob
from asexlatent.cli.outputs import OutputFolder
from asexlatent.cli.parts import Parts
from asexlatent.cli.progress import SHOWN_FAILURES, Bar, Tally
from asexlatent.cli.rounds import Rounds
from asexlatent.cli.settings import Settings
from asexlatent.parallel import over_chunks

if TYPE_CHECKING:
    from asexlatent.descriptor import LocalEnvironment

Chunk = tuple[int, list[Entry]]


@dataclass(eq=False)
class Work:
    """State of a run.

    Attributes
    ----------
    tally : Tally
        Counts of what was written.
    problems : list of str
        Inputs without candidates.
    shown : Shown or None
        The crystal to plot.
    cpu_elsewhere : float
        Seconds that other processes have spent, or earlier ones on what was taken over.
    interrupted : bool
    """

    settings: Settings
    environment: LocalEnvironment
    rounds: Rounds
    folder: Path
    parts: Parts
    engine: Engine
    log: logging.Logger
    quiet: bool
    verbose: bool

    def __post_init__(self) -> None:
        self.tally, self._seen = Tally(), Tally()  # what is written, and what is finished
        self.problems: list[str] = []
        self.shown: Shown | None = None
        self.cpu_elsewhere = 0.0
        self.interrupted = False
        self._failures_shown = 0
        self._next = 0  # chunk to be written
        self._kept: set[int] = set()  # finished chunks that are on disk and not written yet
        self._pending: dict[int, list[Entry]] = {}
        self._keys: dict[int, str] = {}

    def go(self) -> None:
        """Read, refine and write everything."""
        settings = self.settings
        total = count_inputs(settings) if sys.stderr.isatty() and not self.quiet else None
        entries = read_inputs(settings, self.environment.species, self._problem)
        extras = table_extras(settings)
        self._bar = Bar(total, self.quiet)
        with (
            OutputFolder(self.folder, extras) as self._out,
            Interrupt(self.log.warning) as interrupt,
            contextlib.closing(self._bar),
        ):
            job = RefineJob(
                settings, self.environment, extras, self.rounds, self._bar.watch, interrupt
            )
            todo = self._todo(chunks.cut(entries, chunks.size_of(settings)))
            partial = self._refine(job, todo, interrupt)
            self.interrupted = interrupt.requested
            if self.interrupted:
                self._write_rest(job, todo, partial)
            self._advance()

    def _todo(self, cut: Iterator[list[Entry]]) -> Iterator[Chunk]:
        """Chunks that an earlier run has not finished."""
        for number, chunk in enumerate(cut):
            key = self.parts.key(chunk)
            content = self.parts.load(number, key)
            if content is not None:
                self._done(number, Part.from_json(content))
                continue
            if self.parts.exists(number):
                self.log.warning(
                    "the inputs of chunk %d, from %s on, are not what they were: it is worked on "
                    "again", number, chunk[0].source,
                )  # fmt: skip
            self._pending[number], self._keys[number] = chunk, key
            yield number, chunk

    def _refine(
        self, job: RefineJob, todo: Iterator[Chunk], interrupt: Interrupt
    ) -> dict[int, Part]:
        """Work on the chunks; returns what there is of one that was interrupted."""
        first = list(islice(todo, 2))
        executor, in_flight = self.engine.start(several=len(first) > 1)
        results = over_chunks(
            job,
            chain(_emptied(first), todo),
            executor,
            in_flight=in_flight,
            stop=lambda: interrupt.requested,
        )
        partial = {}
        for number, part in results:
            if part.interrupted:
                partial[number] = part
                continue
            self.parts.save(number, self._keys.pop(number), part.to_json())
            del self._pending[number]
            self._done(number, part)
        return partial

    def _write_rest(self, job: RefineJob, todo: Iterator[Chunk], partial: dict[int, Part]) -> None:
        """After an interruption: what is there, and the rest as it came in."""
        for number, chunk in chain(sorted(self._pending.items()), todo):
            self._advance()
            self._write(partial.pop(number, None) or job.skipped(chunk))
            self._pending.pop(number, None)

    def _done(self, number: int, part: Part) -> None:
        self._kept.add(number)
        self._seen.add(part.outcomes)
        self._bar.finish(self._seen)
        self._advance(number, part)

    def _advance(self, number: int = -1, part: Part | None = None) -> None:
        """Write what is next, as far as it is finished; `part` is one that need not be loaded."""
        while self._next in self._kept:
            self._kept.remove(self._next)
            self._write(part if self._next == number and part else self._load(self._next))

    def _load(self, number: int) -> Part:
        content = self.parts.load(number, None)
        if content is None:
            raise OSError(f"{self.parts.folder} is damaged: chunk {number} has gone")
        return Part.from_json(content)

    def _write(self, part: Part) -> None:
        self._next += 1
        self._out.write(part)
        self.tally.add(part.outcomes)
        self.rounds.add_plain(part.rounds)
        self.cpu_elsewhere += part.cpu
        if part.shown is not None:
            self.shown = part.shown if self.shown is None else self.shown.better(part.shown)
        for note in part.notes:
            self.log.info(note)
        for line in part.failures:
            self._failure(line)

    def summary(self, wall: float, cpu: float) -> dict[str, Any]:
        """Contents of ``summary.json``."""
        return {
            "counts": self.tally.counts(),
            "rounds": self.rounds.rows(),
            "problems": self.problems,
            "interrupted": self.interrupted,
            "seconds": {"wall": round(wall, 3), "cpu": round(cpu, 3)},
            "seed": self.settings.seed,
            "settings": {**asdict(self.settings), "inputs": list(self.settings.inputs)},
        }

    def _problem(self, line: str) -> None:
        self.problems.append(line)
        self.log.error(line)

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


def _emptied(items: list[Chunk]) -> Iterator[Chunk]:
    """Hand over items and forget them."""
    while items:
        yield items.pop(0)
