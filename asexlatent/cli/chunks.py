"""Refining one chunk of candidates, whatever happens in it.

Chunks are cut by the input alone, so that what comes out does not depend on the machine.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, TypeVar

from asexlatent.cli.frames import reason
from asexlatent.cli.settings import Settings
from asexlatent.parallel import on_accelerator

if TYPE_CHECKING:
    from asexlatent.cli.rounds import Rounds
    from asexlatent.descriptor import LocalEnvironment
    from asexlatent.latent.dual_level import DualLevelRun
    from asexlatent.optimize import Progress, Refinement, RefinementRun
    from asexlatent.optimize.result import Candidate

T = TypeVar("T")

CHUNK, ACCELERATOR_CHUNK = 500, 4000
"""Candidates that are read, refined and written together; an accelerator wants large batches."""

INTERRUPTED = "interrupted"
LOGGER = "asexlatent.refine"


def size_of(settings: Settings) -> int:
    """Candidates of a chunk."""
    usual = ACCELERATOR_CHUNK if on_accelerator(settings.device) else CHUNK
    return settings.chunk_size or usual


def cut(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


class Interrupt:
    """Ctrl-C as a request to stop after the running step; a second one stops at once.

    Use as a context manager; ``requested`` says whether Ctrl-C was pressed.
    """

    def __init__(self, notify: Callable[[str], None]):
        self.requested = False
        self._notify = notify
        self._previous: Callable | int | None = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._notify("interrupted: finishing the step and writing what is there")


def refine_chunk(
    candidates: Sequence[Candidate],
    environment: LocalEnvironment,
    settings: Settings,
    watch: Callable[[Progress, RefinementRun | DualLevelRun], None],
    interrupt: Interrupt,
    first_index: int,
    rounds: Rounds,
) -> list[Refinement]:
    """Refine candidates; one result for each, in order.

    `first_index` is the place of the first one in the whole input, the key of its random numbers;
    `rounds` makes the run and counts what its rounds bring.

    An error that no candidate should be able to cause (memory running out, a fault of a library)
    costs the candidate that causes it and no other.
    """
    from asexlatent.optimize import Refinement

    run = None
    try:
        run = rounds.start(candidates, environment, first_index, run_options(settings))
        for state in run:
            watch(state, run)
            if interrupt.requested:
                break
    except KeyboardInterrupt:
        interrupt.requested = True
    except Exception as error:
        if len(candidates) == 1:
            logging.getLogger(LOGGER).info("an internal error", exc_info=True)
            return [Refinement(source=candidates[0], reason=f"internal error: {reason(error)}")]
        half = len(candidates) // 2
        parts = ((candidates[:half], first_index), (candidates[half:], first_index + half))
        return [
            result
            for part, first in parts
            for result in refine_chunk(part, environment, settings, watch, interrupt, first, rounds)
        ]
    if run is None:
        return skip(candidates)
    results = run.results()
    rounds.add(run)
    if interrupt.requested:
        for result in results:
            unfinished = result.steps < settings.steps or (settings.restarts and not result.valid)
            if str(result.status) == "step_limit" and unfinished:
                result.reason = INTERRUPTED
    return results


def skip(candidates: Sequence[Candidate]) -> list[Refinement]:
    """Results for candidates that were not reached."""
    from asexlatent.optimize import Refinement, Status
    from asexlatent.symmetry import SymmetricCrystal

    results = []
    for candidate in candidates:
        result = Refinement(source=candidate, status=Status.STEP_LIMIT, reason=INTERRUPTED)
        if isinstance(candidate, Exception):
            result.status, result.reason = Status.FAILED, str(candidate)
        elif isinstance(candidate, SymmetricCrystal):
            result.crystal = candidate
        results.append(result)
    return results


def run_options(settings: Settings) -> dict:
    """Arguments of `RefinementRun`."""
    import torch

    return {
        "solver": settings.solver,
        "restarts": settings.restarts,
        "seed": settings.seed,
        "steps": settings.steps,
        "fmax": settings.ftol,
        "symprec": settings.symprec,
        "space_group": settings.space_group,
        "batch_size": settings.batch_size,
        "memory": settings.memory,
        "device": settings.device,
        "dtype": getattr(torch, settings.dtype),
    }
