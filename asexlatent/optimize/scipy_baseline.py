"""The opponents: SciPy per crystal, with finite differences, in a pool of processes.

This is how the method was run before it was batched (section 3.4.1 of the method): every crystal
alone, Nelder-Mead or L-BFGS-B, gradients by finite differences. It is here so that anyone can
see what the batch and the derivatives buy; the descriptor is the same, fast one.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asexlatent.descriptor import LocalEnvironment
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.driver import Status
from asexlatent.optimize.metric import generalized_gradient
from asexlatent.optimize.objective import Objective
from asexlatent.optimize.registry import BASELINES
from asexlatent.optimize.search import Found, motif
from asexlatent.optimize.solver import CellBounds
from asexlatent.symmetry import SymmetricCrystal


class _Outcome(NamedTuple):
    variables: np.ndarray
    loss: float
    norm: float
    steps: int


@dataclass(frozen=True)
class _Task:
    crystal: SymmetricCrystal
    objective: Objective
    method: str
    steps: int
    bounds: CellBounds


class SciPySearch:
    """Same interface as `Search`: one descent of each crystal by `scipy.optimize.minimize`.

    Parameters
    ----------
    crystals : list of SymmetricCrystal
    environment, objective
        The target and what is minimised.
    solver : str
        A key of `BASELINES`.
    steps, fmax
        Iterations of SciPy for each crystal; threshold for the status ``converged``.
    workers : int
        Processes; 1 computes in this one.
    """

    def __init__(
        self,
        crystals: list[SymmetricCrystal],
        environment: LocalEnvironment,
        objective: Objective,
        solver: str,
        steps: int = 1000,
        fmax: float = 0.05,
        workers: int = 1,
    ):
        self.batch = CrystalBatch.from_crystals(crystals)
        self.environment, self.objective, self.fmax = environment, objective, fmax
        self.workers = workers
        method = BASELINES[solver]
        self._tasks = [_Task(c, objective, method, steps, CellBounds()) for c in crystals]
        self._done: list[_Outcome] = []
        self.initial = objective.bind(self.batch).evaluate(self.batch.variables).value

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Run; yields the numbers of finished crystals and (unknown before the end) 0."""
        if self.workers == 1:
            yield from self._collect(map(_minimize, self._tasks))
            return
        # fork would copy the threads of torch in an undefined state
        context = multiprocessing.get_context("spawn")
        pool: Executor
        with ProcessPoolExecutor(self.workers, mp_context=context) as pool:
            yield from self._collect(pool.map(_minimize, self._tasks, chunksize=4))

    def _collect(self, outcomes: Iterator[_Outcome]) -> Iterator[tuple[int, int]]:
        for outcome in outcomes:
            self._done.append(outcome)
            yield len(self._done), 0

    def finish(self) -> Found:
        """What there is, also after an interruption."""
        rest = self.batch.split(self.batch.variables)[len(self._done) :]
        parts = [o.variables for o in self._done] + rest
        variables = torch.as_tensor(np.concatenate(parts)).to(self.batch.variables)
        loss, norm = self.initial.clone(), torch.full_like(self.initial, torch.nan)
        steps = torch.zeros_like(self.batch.n_cell_variables)
        reports = [(Status.STEP_LIMIT, "not started")] * self.batch.n_crystals
        for k, outcome in enumerate(self._done):
            loss[k], norm[k], steps[k] = outcome.loss, outcome.norm, outcome.steps
            reports[k] = self._report(outcome)
        valid = motif(self.environment, self.batch, variables)
        rank = torch.where(valid, 3, 1)
        return Found(
            variables, loss, norm, rank, steps, reports, ["descent"] * self.batch.n_crystals
        )

    def losses(self) -> Tensor:
        """Loss of each crystal so far, shape (B,)."""
        losses = self.initial.clone()
        for k, outcome in enumerate(self._done):
            losses[k] = outcome.loss
        return losses

    def _report(self, outcome: _Outcome) -> tuple[Status, str]:
        if not np.isfinite(outcome.loss):
            return Status.FAILED, "the loss is not a finite number"
        if outcome.norm < self.fmax:
            return Status.CONVERGED, ""
        return Status.STEP_LIMIT, ""


def _minimize(task: _Task) -> _Outcome:
    """One crystal, in lengths of Å: fractions times the longest axis, angles times 1 Å."""
    from scipy.optimize import minimize

    torch.set_num_threads(1)
    batch = CrystalBatch.from_crystals([task.crystal])
    problem = task.objective.bind(batch)
    start = batch.variables
    longest = batch.cell_parameters(start)[0, :3].max()
    unit = torch.where(batch.variable_kind == 2, longest, 1.0)

    def loss(x: np.ndarray) -> float:
        # Trial cells are brought within the bounds, as in every other solver.
        with torch.no_grad():
            trial = task.bounds.apply(batch, torch.as_tensor(x) / unit, start)
            return float(problem.value(trial)[0])

    x0 = (start * unit).numpy()
    options = {"maxiter": task.steps}
    result = minimize(loss, x0, method=task.method, options=options)
    variables = task.bounds.apply(batch, torch.as_tensor(result.x) / unit, start)
    evaluation = problem.evaluate(variables)
    norm = generalized_gradient(batch, variables, evaluation.gradient)
    return _Outcome(variables.numpy(), float(evaluation.value), float(norm), int(result.nfev))
