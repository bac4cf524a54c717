"""`refine` in chunks, on an executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

from ase import Atoms
from ase.constraints import FixSymmetry

from asexlatent.descriptor import LocalEnvironment
from asexlatent.optimize.refinement import RefinementRun
from asexlatent.optimize.result import Candidate, Progress, Refinement
from asexlatent.parallel import over_chunks
from asexlatent.symmetry import SymmetricCrystal

CHUNK = 500
"""Candidates of a chunk, if nobody says otherwise."""

Item = tuple[int, Candidate]
"""Key of the random numbers and the candidate."""


@dataclass(frozen=True, eq=False)
class RefinementJob:
    """Refines chunks of candidates; an `asexlatent.parallel.Job`.

    Results come without their candidates, which the caller has.
    """

    environment: LocalEnvironment
    options: dict[str, Any]

    def work(self, items: Sequence[Item]) -> list[Refinement]:
        """Refine a chunk with one thread."""
        import torch

        keys, candidates = zip(*items, strict=True)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            run = RefinementRun(candidates, self.environment, keys=keys, **self.options)
            for _ in run:
                pass
        finally:
            torch.set_num_threads(threads)
        results = run.results()
        for result in results:
            result.source = None
        return results

    def join(self, first: list[Refinement], second: list[Refinement]) -> list[Refinement]:
        """Results of two lists one after the other."""
        return first + second

    def lost(self, item: Item, reason: str) -> list[Refinement]:
        """Result of a candidate that kills the process that works on it."""
        return [Refinement(source=None, reason=reason)]


def refine_chunks(
    candidates: Sequence[Candidate],
    environment: LocalEnvironment,
    executor: Executor | None,
    chunk_size: int | None,
    progress: Callable[[Progress], None] | None,
    options: dict[str, Any],
) -> list[Refinement]:
    """As `asexlatent.optimize.refine`, chunk by chunk; candidates as they are stay here."""
    size = CHUNK if chunk_size is None else chunk_size
    if size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}")
    first = options.pop("first_index", 0)
    keys = options.pop("keys", None) or range(first, first + len(candidates))
    RefinementRun([], environment, **options)  # complain about options now, and here
    results = [_unfinished(candidate) for candidate in candidates]

    def chunks() -> Iterator[tuple[int, list[Item]]]:
        for start in range(0, len(candidates), size):
            stop = min(start + size, len(candidates))
            yield start, [(keys[k], bare(candidates[k])) for k in range(start, stop)]

    done = valid = 0
    try:
        for start, part in over_chunks(RefinementJob(environment, options), chunks(), executor):
            for k, result in enumerate(part, start):
                results[k] = _claimed(result, candidates[k])
            done, valid = done + len(part), valid + sum(result.valid for result in part)
            if progress is not None:
                progress(Progress(done, len(candidates), 0, valid))
    except KeyboardInterrupt:
        pass
    return results


def bare(candidate: Candidate) -> Candidate:
    """What the refinement needs of a candidate: no calculator, arrays or provenance."""
    if isinstance(candidate, Atoms):
        atoms = Atoms(
            numbers=candidate.numbers,
            positions=candidate.positions,
            cell=candidate.cell,
            pbc=candidate.pbc,
        )
        if "spacegroup" in candidate.info:
            atoms.info["spacegroup"] = candidate.info["spacegroup"]
        atoms.constraints = [c for c in candidate.constraints if isinstance(c, FixSymmetry)]
        return atoms
    return replace(candidate, info={}) if isinstance(candidate, SymmetricCrystal) else candidate


def _claimed(result: Refinement, candidate: Candidate) -> Refinement:
    """Bring a result together with its candidate and what that carries along."""
    result.source = candidate
    if result.crystal is not None:
        info = {key: value for key, value in candidate.info.items() if key != "spacegroup"}
        if isinstance(candidate, SymmetricCrystal):
            info = candidate.info
        result.crystal = replace(result.crystal, info=info)
    return result


def _unfinished(candidate: Candidate) -> Refinement:
    from asexlatent.optimize.driver import Status

    crystal = candidate if isinstance(candidate, SymmetricCrystal) else None
    return Refinement(candidate, crystal, Status.STEP_LIMIT, "not started")
