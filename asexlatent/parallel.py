"""A function over chunks of a long list, on any executor, whatever happens to its workers.

Knows nothing of crystals. What is run is a `Job`; where it runs is up to a
`concurrent.futures.Executor`: `LocalWorkers` (processes of this machine), one of the standard
library, or that of a Dask cluster (`asexlatent.cluster`). What comes out does not depend on it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from asexlatent.workers import (
    LocalWorkers,
    WorkerDied,
    WorkersError,
    on_accelerator,
    usable_cores,
)

__all__ = [
    "Job",
    "LocalWorkers",
    "WorkerDied",
    "WorkersError",
    "on_accelerator",
    "over_chunks",
    "usable_cores",
]

T = TypeVar("T")
R = TypeVar("R")

LOGGER = "asexlatent.parallel"
_PATIENCE = 2
"""Workers that a whole chunk, or a single item, may cost before it is held responsible."""
_POLL = 0.3  # seconds between two looks at a wish to stop


class Job(Protocol[T, R]):
    """What is done with the items of a chunk; can be pickled.

    The result of a list must be that of its parts joined, up to rounding: a chunk that kills its
    worker is cut in halves.
    """

    def work(self, items: Sequence[T]) -> R:
        """Result of some items; in a worker."""

    def join(self, first: R, second: R) -> R:
        """Result of two lists one after the other."""

    def lost(self, item: T, reason: str) -> R:
        """Result of a single item that kills whatever works on it; the reason is one line."""


def over_chunks(
    job: Job[T, R],
    chunks: Iterable[tuple[int, Sequence[T]]],
    executor: Executor | None = None,
    *,
    in_flight: int | Callable[[], int] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, R]]:
    """Run a job over chunks; yields ``(number, result)`` as they are finished.

    A worker that dies costs the time of its chunk: the chunk is submitted again. A chunk that
    costs several workers is halved until the item is found that does it, and that one becomes
    `Job.lost`; the others have their results. An exception that the job itself raises ends the
    run.

    Parameters
    ----------
    job : Job
    chunks : iterable of (int, sequence)
        Number and items of each chunk; read as far ahead as `in_flight` says and no further.
    executor : Executor, optional
        None works in this process, one chunk after the other, in order. It is left open. A
        process pool that breaks (all its workers are lost with the one that dies) is replaced by
        `LocalWorkers`.
    in_flight : int or callable, optional
        Chunks handed out at a time; asked again each time if callable. Default: two more than
        the executor has workers, as far as it says how many.
    stop : callable
        Asked several times a second; once true, what is not finished is given up.

    Raises
    ------
    WorkersError
        No worker can be started, or the connection to the executor is lost.
    """
    if executor is None:
        for number, items in chunks:
            if stop():
                return
            yield number, job.work(items)
        return
    if in_flight is None:
        in_flight = (getattr(executor, "_max_workers", None) or usable_cores()) + 2
    limit = in_flight if callable(in_flight) else lambda: in_flight
    flight = _Flight(job, executor)
    try:
        yield from flight.run(iter(chunks), limit, stop)
    finally:
        flight.close()


def ordered(results: Iterable[tuple[int, R]], first: int = 0) -> Iterator[tuple[int, R]]:
    """Results of `over_chunks` in the order of their numbers, which are consecutive."""
    waiting: dict[int, R] = {}
    for number, result in results:
        waiting[number] = result
        while first in waiting:
            yield first, waiting.pop(first)
            first += 1


@dataclass(eq=False)
class _Piece(Generic[T]):
    """A chunk, or a part of one that is being searched for the item that kills workers."""

    number: int
    start: int
    items: Sequence[T]
    whole: bool = True
    deaths: int = 0

    def patience(self) -> int:
        return _PATIENCE if self.whole or len(self.items) == 1 else 1

    def halves(self) -> tuple[_Piece[T], _Piece[T]]:
        half = len(self.items) // 2
        first, second = self.items[:half], self.items[half:]
        return (
            _Piece(self.number, self.start, first, whole=False),
            _Piece(self.number, self.start + half, second, whole=False),
        )


@dataclass(eq=False)
class _Flight(Generic[T, R]):
    """What is at work on an executor."""

    job: Job[T, R]
    executor: Executor
    running: dict[Future, _Piece[T]] = field(default_factory=dict)
    own: LocalWorkers | None = None

    def __post_init__(self) -> None:
        self.log = logging.getLogger(LOGGER)
        self.again: deque[_Piece[T]] = deque()
        self.open: dict[int, int] = {}  # pieces of each chunk that have no result yet
        self.results: dict[int, dict[int, R]] = {}

    def run(
        self,
        chunks: Iterator[tuple[int, Sequence[T]]],
        limit: Callable[[], int],
        stop: Callable[[], bool],
    ) -> Iterator[tuple[int, R]]:
        """Hand out and collect until everything is done."""
        exhausted = False
        while not stop():
            while self.again:
                self._submit(self.again.popleft())
            while not exhausted and len(self.open) < max(limit(), 1):
                chunk = next(chunks, None)
                exhausted = chunk is None
                if chunk is not None:
                    self.open[chunk[0]], self.results[chunk[0]] = 1, {}
                    self._submit(_Piece(chunk[0], 0, chunk[1]))
            if not self.open:
                return
            if self.again:  # the pool broke while chunks were handed out
                continue
            done, _ = wait(self.running, timeout=_POLL, return_when=FIRST_COMPLETED)
            for future in done:
                yield from self._take(future)

    def close(self) -> None:
        """Give up what is still at work."""
        for future in self.running:
            future.cancel()
        if self.own is not None:
            self.own.kill()

    def _submit(self, piece: _Piece[T]) -> None:
        try:
            self.running[self.executor.submit(_run, _Call(self.job, piece.items))] = piece
        except BrokenExecutor:
            self._replace()
            self.again.append(piece)
        except RuntimeError as error:  # it was shut down
            raise WorkersError(f"the executor takes no more work: {error}") from error

    def _take(self, future: Future) -> Iterator[tuple[int, R]]:
        piece = self.running.pop(future)
        try:
            result = future.result()
        except WorkerDied as error:
            self._death(piece, str(error))
        except BrokenExecutor:
            self._replace()
            self.again.append(piece)
        except CancelledError as error:
            raise WorkersError("the executor gave up its work: is it still there?") from error
        except Exception as error:
            if type(error).__name__ != "KilledWorker":  # Dask's: several workers died over it
                raise
            self._death(piece, "its worker died several times")
        else:
            self._put(piece, result)
        if self.open.get(piece.number) == 0:
            yield piece.number, self._joined(piece.number)

    def _replace(self) -> None:
        """Go on with processes of our own in place of a pool that broke."""
        if self.own is not None:
            return
        count = getattr(self.executor, "_max_workers", None) or 1
        self.log.warning(
            "a process of the executor died, which breaks it: going on with %d of our own", count
        )
        self.executor = self.own = LocalWorkers(count)

    def _death(self, piece: _Piece[T], what: str) -> None:
        piece.deaths += 1
        if piece.deaths < piece.patience():
            self.log.warning("a worker was lost (%s); its chunk begins again", what)
            self.again.append(piece)
            return
        self._probe()
        if len(piece.items) == 1:
            self.log.warning("a candidate that kills its worker (%s) is given up", what)
            reason = (
                f"the process that worked on it died {piece.deaths} times ({what}): "
                "leave it out, or try it alone on a machine with more memory"
            )
            self._put(piece, self.job.lost(piece.items[0], reason))
            return
        self.log.warning(
            "%d candidates, one of which kills its worker (%s), are searched for it",
            len(piece.items), what,
        )  # fmt: skip
        self.open[piece.number] += 1
        self.again.extend(piece.halves())

    def _probe(self) -> None:
        """Make sure that it is the work that kills workers, before somebody is blamed."""
        try:
            self.executor.submit(_alive).result()
        except (WorkerDied, BrokenExecutor) as error:
            raise WorkersError(f"workers die without any work: {error}") from error

    def _put(self, piece: _Piece[T], result: R) -> None:
        self.results[piece.number][piece.start] = result
        self.open[piece.number] -= 1

    def _joined(self, number: int) -> R:
        del self.open[number]
        parts = [result for _, result in sorted(self.results.pop(number).items(), key=_place)]
        whole = parts[0]
        for part in parts[1:]:
            whole = self.job.join(whole, part)
        return whole


def _place(entry: tuple[int, Any]) -> int:
    return entry[0]


@dataclass(frozen=True, eq=False)
class _Call(Generic[T, R]):
    """One object, which executors that look into lists and tuples take as it is."""

    job: Job[T, R]
    items: Sequence[T]


def _run(call: _Call[T, R]) -> R:
    return call.job.work(call.items)


def _alive() -> bool:
    return True
