"""Refine a list of crystals: pack, minimise in batches within a memory budget, unpack in order."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor

import torch
from ase.data import atomic_numbers

from asexlatent.descriptor import LocalEnvironment
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.driver import Status
from asexlatent.optimize.memory import (
    Abreast,
    check_memory,
    check_room,
    crystal_bytes,
    out_of_memory,
    plan_batches,
)
from asexlatent.optimize.objective import DescriptorLoss, Objective
from asexlatent.optimize.obstacles import obstacle
from asexlatent.optimize.registry import BASELINES, SECOND_ORDER_LIMIT, check_solver, make_solver
from asexlatent.optimize.result import Candidate, Progress, Refinement
from asexlatent.optimize.scipy_baseline import SciPySearch
from asexlatent.optimize.search import Search
from asexlatent.optimize.solver import Solver
from asexlatent.optimize.starts import Restarts
from asexlatent.symmetry import CrystalError, SymmetricCrystal


def refine(
    candidates: Sequence[Candidate],
    environment: LocalEnvironment | str = "sp2",
    *,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
    chunk_size: int | None = None,
    **options: object,
) -> list[Refinement]:
    """Steer candidates to a local environment with their space groups intact.

    Parameters
    ----------
    candidates : sequence of Atoms, SymmetricCrystal or CrystalError
        An error stands for a candidate that could not be read; it keeps its place.
    environment : LocalEnvironment or str
        The target, or the name of one (`LocalEnvironment.named`).
    progress : callable, optional
        Called with a `Progress` after each step; with chunks, after each chunk.
    executor : concurrent.futures.Executor, optional
        Where chunks of candidates are worked on: `asexlatent.parallel.LocalWorkers`, a pool of
        the standard library, ``dask.distributed.Client(...).get_executor(pure=False)``. It is
        left open. A worker that dies costs the time of its chunk; a candidate that kills its
        worker is a failed status.
    chunk_size : int, optional
        Candidates of a chunk, 500 with an executor. Results depend on it in their last digits,
        and on nothing else: executors, their number of workers and the order in which chunks
        are finished change no bit. Without both, all candidates are one piece.
    **options
        As for `RefinementRun`.

    Returns
    -------
    list of Refinement
        One per candidate, in order. Ctrl-C (KeyboardInterrupt) ends the run early and returns
        what there is; what was not finished has the status ``step_limit``.
    """
    if executor is not None or chunk_size is not None:
        from asexlatent.optimize.chunked import refine_chunks

        if isinstance(environment, str):
            environment = LocalEnvironment.named(environment)
        return refine_chunks(candidates, environment, executor, chunk_size, progress, options)
    run = RefinementRun(candidates, environment, **options)  # type: ignore[arg-type]
    try:
        for state in run:
            if progress is not None:
                progress(state)
    except KeyboardInterrupt:
        pass
    return run.results()


class RefinementRun:
    """A refinement that can be watched and interrupted; iterate over it, then ask for results.

    Parameters
    ----------
    candidates, environment
        As for `refine`.
    objective : Objective, optional
        What is minimised; by default `DescriptorLoss(environment)`.
    solver : str or Solver
        Name of a solver or an instance with its settings. The names in `BASELINES` run SciPy on
        one crystal at a time, on the CPU, in as many processes as torch has threads, without
        restarts.
    restarts : int or Restarts
        Attempts after the first for crystals whose motif is not right (see `Restarts`). With 0
        there is one descent from the candidate and nothing else.
    steps : int
        Step limit of the (last) descent of each crystal.
    fmax : float
        Threshold on the generalised gradient for ``converged``.
    symprec, angle_tolerance, space_group
        For candidates that are `Atoms`: see `asexlatent.symmetry.symmetrize`.
    seed, first_index : int
        Random numbers are keyed by (seed, first_index + position of the candidate), so that a
        result does not depend on what else is in the list.
    keys : sequence of int, optional
        Keys of the candidates in place of first_index + position.
    batch_size : int or "auto"
        Crystals at a time; "auto" fills `memory`.
    memory : float
        Budget for the tensors of one batch, GiB. A crystal that is too large for it by itself
        fails. Where memory runs out all the same, the batch goes on in halves.
    device, dtype
        Of the computation; float64 on the CPU by default.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        environment: LocalEnvironment | str = "sp2",
        *,
        objective: Objective | None = None,
        solver: str | Solver = "lm",
        restarts: int | Restarts = 0,
        seed: int = 0,
        first_index: int = 0,
        keys: Sequence[int] | None = None,
        steps: int = 1000,
        fmax: float = 0.05,
        symprec: float = 1e-2,
        angle_tolerance: float = -1.0,
        space_group: int | None = None,
        batch_size: int | str = "auto",
        memory: float = 2.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
    ):
        if isinstance(environment, str):
            environment = LocalEnvironment.named(environment)
        self.environment = environment
        self.objective = DescriptorLoss(environment) if objective is None else objective
        self.solver = solver
        check_solver(solver)  # complain about an unknown name now, not in the middle
        self.restarts = Restarts(restarts, seed=seed) if isinstance(restarts, int) else restarts
        self.keys = range(first_index, first_index + len(candidates)) if keys is None else keys
        self.steps, self.fmax = steps, fmax
        self.device, self.dtype, self.memory = device, dtype, memory
        detection = {
            "symprec": symprec,
            "angle_tolerance": angle_tolerance,
            "space_group": space_group,
        }
        self._results = [self._understand(c, detection) for c in candidates]
        ready = [k for k, r in enumerate(self._results) if r.status is not Status.FAILED]
        self._batch_size = batch_size
        self._short = False  # memory has run out before: copies of crystals would fill it again
        self._batches = self._plan(ready, batch_size, memory)
        self._done = len(self._results) - len(ready)
        self._valid = 0
        self._open: tuple[list[int], Search | SciPySearch] | None = None

    def __iter__(self) -> Iterator[Progress]:
        total = len(self._results)
        queue = deque(self._batches)
        while queue:
            indices = queue.popleft()
            lack = yield from self._batch(indices)
            if lack and self.restarts.searching and not self._short:
                queue.appendleft(indices)  # once more, without copies of crystals
                self._short = True
            elif lack:
                queue.extendleft(reversed(self._halved(indices, lack)))
            yield Progress(self._done, total, 0, self._valid)

    def _batch(self, indices: list[int]) -> Generator[Progress, None, str]:
        """Refine a batch; returns what was said if memory ran out."""
        total, lack = len(self._results), ""
        try:
            search = self._search(indices)
            self._open = (indices, search)
            for step, (finished, valid) in enumerate(search, 1):
                yield Progress(self._done + finished, total, step, self._valid + valid)
            self._close()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            lack = " ".join(str(error).split())[:200] or type(error).__name__
        if lack:  # only now nothing holds the tensors any more
            search = self._open = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return lack

    def _halved(self, indices: list[int], lack: str) -> list[list[int]]:
        """Halves of a batch that memory does not hold; a crystal alone has failed."""
        half = len(indices) // 2
        if half:
            return [indices[:half], indices[half:]]
        result = self._results[indices[0]]
        result.status = Status.FAILED
        result.reason = f"memory ran out for this crystal alone: {lack}"
        self._done += 1
        return []

    def _plan(self, ready: list[int], batch_size: int | str, memory: float) -> list[list[int]]:
        """Batches of indices, crystals with similar numbers of unknowns together."""
        crystals = {k: self._results[k].crystal for k in ready}
        unknowns = {k: crystal.free_variables.size for k, crystal in crystals.items()}
        ready = sorted(ready, key=lambda k: unknowns[k])
        small = [k for k in ready if unknowns[k] <= SECOND_ORDER_LIMIT]
        batches = []
        for part in (small, ready[len(small) :]):
            plan = plan_batches(
                [crystals[k] for k in part],
                self.environment,
                batch_size,
                memory,
                self.dtype,
                self.device,
            )
            batches += [[part[i] for i in indices] for indices in plan]
        return batches

    def _search(self, indices: list[int]) -> Search | SciPySearch:
        crystals = [self._results[k].crystal for k in indices]
        if self.solver in BASELINES:
            return SciPySearch(
                crystals,
                self.environment,
                self.objective,
                self.solver,
                self.steps,
                self.fmax,
                workers=torch.get_num_threads(),
            )
        batch = CrystalBatch.from_crystals(crystals, self.device, self.dtype)
        rule = self.environment.rule
        known = [obstacle(c, rule) for c in crystals] if self.restarts.searching else None
        return Search(
            batch,
            self.environment,
            self.objective,
            make_solver(self.solver, int(batch.variables_per_crystal().max())),
            self.restarts,
            [self.keys[k] for k in indices],
            self.steps,
            self.fmax,
            known,
            self._abreast(crystals),
        )

    def _abreast(self, crystals: list[SymmetricCrystal]) -> Callable[[list[int]], int]:
        """How many attempts at crystals of a batch go side by side."""
        if self._short:
            return lambda places: 1
        where = (self.environment, self.dtype, self.device)
        needs = [crystal_bytes(crystal, *where) for crystal in crystals]
        sites = [crystal.n_sites for crystal in crystals]
        return Abreast(needs, sites, self.memory, self.device, self._batch_size)

    def losses(self) -> list[float]:
        """Losses known so far, of finished crystals and of the open batch; for a display."""
        started = self._open[1].losses().tolist() if self._open else []
        pending = set(self._open[0]) if self._open else set()
        known = [r.loss for k, r in enumerate(self._results) if k not in pending]
        return [loss for loss in (*known, *started) if math.isfinite(loss)]

    def results(self) -> list[Refinement]:
        """Results in input order; usable at any time."""
        self._close()
        return self._results

    def _understand(self, candidate: Candidate, detection: dict) -> Refinement:
        result = Refinement(source=candidate)
        try:
            if isinstance(candidate, Exception):
                raise candidate
            if isinstance(candidate, SymmetricCrystal):
                result.crystal = candidate
            else:
                from asexlatent.symmetry.detect import symmetrize

                symmetric = symmetrize(candidate, **detection)
                result.displacement = symmetric.displacement
                result.embedding = symmetric.embedding
                result.crystal = symmetric.crystal
            numbers = [atomic_numbers[site.species] for site in result.crystal.sites]
            self.environment.check_species(torch.tensor(numbers))
            check_room(result.crystal)
        except ValueError as error:
            result.crystal, result.reason = None, str(error)
            return result
        try:
            check_memory(result.crystal, self.environment, self.memory, self.dtype, self.device)
            result.status, result.reason = Status.STEP_LIMIT, "not started"
        except CrystalError as error:
            result.reason = str(error)
        return result

    def _close(self) -> None:
        """Take the results out of the open batch."""
        if self._open is None:
            return
        (indices, search), self._open = self._open, None
        batch, found = search.batch, search.finish()
        # The atoms of a caller's own cell must not jump by lattice vectors; rows are wrapped.
        plain = [self._results[k].embedding is None for k in indices]
        plain = torch.tensor(plain, device=found.variables.device)[batch.variable_crystal]
        variables = torch.where(plain, batch.wrap(found.variables), found.variables)
        rows = zip(
            indices,
            batch.split(variables),
            found.reports,
            search.initial.tolist(),
            found.loss.tolist(),
            found.norm.tolist(),
            found.steps.tolist(),
            found.valid.tolist(),
            found.paths,
            strict=True,
        )
        for k, free, (status, reason), initial, loss, norm, steps, valid, path in rows:
            result = self._results[k]
            result.crystal = result.crystal.with_free_variables(free)
            result.status, result.reason, result.steps = status, reason, steps
            result.loss_initial, result.loss, result.gradient = initial, loss, norm
            result.valid = valid and status is not Status.FAILED
            result.path = path if result.valid else ""
            self._valid += result.valid
        self._done += len(indices)
