"""The step loop: a whole batch moves, finished crystals leave, the best iterate is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum

import torch
from torch import Tensor

from asexlatent.optimize.batch import CrystalBatch, Subset
from asexlatent.optimize.metric import Metric
from asexlatent.optimize.objective import Evaluation, Iterate, Objective, Problem
from asexlatent.optimize.solver import Solver


class Status(str, Enum):
    """How the refinement of one crystal ended; says nothing about the motif (`valid`)."""

    CONVERGED = "converged"
    STALLED = "stalled"
    STEP_LIMIT = "step_limit"
    FAILED = "failed"

    def __str__(self) -> str:
        return self.value


# Codes held per crystal on the device; a running crystal that is asked reports the step limit.
_RUNNING, _CONVERGED, _STALLED, _ISOLATED, _NOT_FINITE, _STOPPED = range(6)
_REPORTS = {
    _RUNNING: (Status.STEP_LIMIT, ""),
    _CONVERGED: (Status.CONVERGED, ""),
    _STALLED: (Status.STALLED, "no improvement at the smallest step"),
    _ISOLATED: (Status.STALLED, "a site has no neighbour within the descriptor cutoff"),
    _NOT_FINITE: (Status.FAILED, "the loss is not a finite number"),
    _STOPPED: (Status.STEP_LIMIT, ""),
}


@dataclass(eq=False)
class _Track:
    """What is known of each crystal: where it is, and its best iterate."""

    current: Iterate  # the solver's last proposal
    best: Iterate
    norm: Tensor  # (B,) generalised gradient at the best iterate
    code: Tensor  # (B,)
    steps: Tensor  # (B,)

    def select(self, mask: Subset) -> _Track:
        keep = mask.crystals
        current, best = self.current.select(mask), self.best.select(mask)
        return _Track(current, best, self.norm[keep], self.code[keep], self.steps[keep])

    def put(self, mask: Subset, part: _Track) -> None:
        self.current.put(mask, part.current)
        self.best.put(mask, part.best)
        keep = mask.crystals
        self.norm[keep] = part.norm
        self.code[keep] = part.code
        self.steps[keep] = part.steps


class BatchMinimizer:
    """Minimise an objective for every crystal of a batch, one solver step at a time.

    Crystals never interact. A crystal leaves the working set when its generalised gradient
    falls below `fmax` (see `generalized_gradient`), when its solver gives it up, or when its
    loss stops being finite; the others go on with less to compute.

    Parameters
    ----------
    batch : CrystalBatch
    objective : Objective
    solver : Solver
    fmax : float
        Threshold on the generalised gradient; 0 never converges.
    movable : Tensor of bool, shape (V,), optional
        Free variables that may change. Default: all.
    metric : callable
        Of batch and variables; makes what measures steps and gradients, a `Metric` or what
        answers as one. Crystals may be moved in other unknowns than their free variables by a
        batch, an objective and a metric of such unknowns (`asexlatent.latent.space`).
    """

    # Packing a smaller working set costs about one step; wait until it pays.
    repack_fraction = 0.1

    def __init__(
        self,
        batch: CrystalBatch,
        objective: Objective,
        solver: Solver,
        fmax: float = 0.05,
        movable: Tensor | None = None,
        metric: Callable[[CrystalBatch, Tensor], Metric] = Metric.at,
    ):
        self.batch = batch
        self.metric = metric
        self.objective = objective
        self.solver = solver
        self.fmax = fmax
        self.movable = None if movable is None or bool(movable.all()) else movable
        problem = objective.bind(batch)
        start = self._look(batch, problem, batch.variables, self.movable)
        self.initial_losses = start.evaluation.value.clone()
        norm = start.metric.gradient_norm(batch, start.evaluation.gradient)
        count = torch.zeros(batch.n_crystals, dtype=torch.int64, device=norm.device)
        current = start.without_curvature().clone()
        self._whole = _Track(current, start.clone(), norm, count, count.clone())
        self._whole_state = solver.start(batch)
        self._open(batch, problem, torch.ones_like(count) > 0)
        self._classify()

    # -- stepping ---------------------------------------------------------------------------

    @property
    def n_active(self) -> int:
        """Crystals still moving."""
        if self._n_active is None:  # the one number that a step asks the device for
            self._n_active = int((self._work.code == _RUNNING).sum())
        return self._n_active

    def step(self) -> bool:
        """Move every active crystal once; returns whether any is still active after it."""
        if not self.n_active:
            return False
        self._repack()
        work, batch = self._work, self._batch
        active = work.code == _RUNNING
        owner = batch.variable_crystal
        moves = active[owner] if self._movable is None else active[owner] & self._movable
        proposal = self.solver.propose(batch, self._state, work.current, work.best)
        broken = ~torch.isfinite(proposal) & moves
        variables = torch.where(moves & ~broken, proposal, work.current.variables)
        lost = torch.zeros_like(work.code).index_add_(0, owner, broken.long()) > 0
        new = self._look(batch, self._problem, variables, self._movable)
        work.current = new.without_curvature().where(batch.subset(active), work.current)
        work.steps = work.steps + active

        better = active & (new.evaluation.value < work.best.evaluation.value)
        work.best = new.where(batch.subset(better), work.best)
        norm = new.metric.gradient_norm(batch, new.evaluation.gradient)
        work.norm = torch.where(better, norm, work.norm)
        work.code = work.code.masked_fill(active & lost, _NOT_FINITE)
        self._classify()
        return self.n_active > 0

    def stop(self, crystals: Tensor) -> None:
        """Take crystals, a mask of shape (B,), out of the run where they are."""
        work = self._work
        stop = crystals[self._mask.crystals] & (work.code == _RUNNING)
        work.code = work.code.masked_fill(stop, _STOPPED)
        self._n_active = None

    def resume(self, fmax: float) -> None:
        """Continue with another threshold: crystals that miss it become active again."""
        self.fmax = fmax
        self._flush()
        whole = self._whole
        reopen = (whole.code == _CONVERGED) & ~(whole.norm < fmax)
        whole.code = whole.code.masked_fill(reopen, _RUNNING)
        self._open(self.batch, self.objective.bind(self.batch), torch.ones_like(whole.code) > 0)
        self._classify()

    # -- results, always of the best iterate ----------------------------------------------------

    @property
    def variables(self) -> Tensor:
        """Free variables of the best iterate of every crystal, shape (V,)."""
        self._flush()
        return self._whole.best.variables

    @property
    def losses(self) -> Tensor:
        """Loss of the best iterate of every crystal, shape (B,)."""
        self._flush()
        return self._whole.best.evaluation.value

    @property
    def gradient(self) -> Tensor:
        """Gradient at the best iterate with respect to the free variables, shape (V,)."""
        self._flush()
        return self._whole.best.evaluation.gradient

    @property
    def gradient_norms(self) -> Tensor:
        """Generalised gradient at the best iterate of every crystal, shape (B,)."""
        self._flush()
        return self._whole.norm

    @property
    def isolated(self) -> Tensor:
        """Whether a site of the best iterate has no neighbour, bool, shape (B,)."""
        self._flush()
        return self._whole.best.evaluation.isolated

    @property
    def steps(self) -> Tensor:
        """Steps taken by every crystal, shape (B,)."""
        self._flush()
        return self._whole.steps

    def reports(self) -> list[tuple[Status, str]]:
        """Status and reason of every crystal; one still moving reports the step limit."""
        self._flush()
        return [_REPORTS[code] for code in self._whole.code.tolist()]

    # -- state for restart files ----------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors that an uninterrupted run would have, by name."""
        self._flush()
        track, state = self._whole, self._whole_state
        tensors = {"initial_losses": self.initial_losses}
        tensors |= {"norm": track.norm, "code": track.code, "steps": track.steps}
        for name, iterate in (("current", track.current), ("best", track.best)):
            tensors[f"{name}.variables"] = iterate.variables
            for part in fields(Evaluation):
                tensor = getattr(iterate.evaluation, part.name)
                if tensor is not None:
                    tensors[f"{name}.{part.name}"] = tensor
        tensors |= {f"variable.{k}": v for k, v in state.per_variable.items()}
        tensors |= {f"crystal.{k}": v for k, v in state.per_crystal.items()}
        return tensors

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Continue from `state_dict()` of a minimiser of the same crystals and solver."""
        mine = self.state_dict()
        if mine.keys() != tensors.keys() or any(
            mine[name].shape != tensors[name].shape for name in mine
        ):
            raise ValueError("the saved state is of other crystals or of another solver")
        cast = {k: torch.as_tensor(v).to(mine[k]) for k, v in tensors.items()}
        self.initial_losses = cast["initial_losses"]
        iterates = (
            Iterate(
                cast[f"{name}.variables"],
                self.metric(self.batch, cast[f"{name}.variables"]),
                Evaluation(**{f.name: cast.get(f"{name}.{f.name}") for f in fields(Evaluation)}),
            )
            for name in ("current", "best")
        )
        self._whole = _Track(*iterates, cast["norm"], cast["code"], cast["steps"])
        for name in self._whole_state.per_variable:
            self._whole_state.per_variable[name] = cast[f"variable.{name}"]
        for name in self._whole_state.per_crystal:
            self._whole_state.per_crystal[name] = cast[f"crystal.{name}"]
        everything = torch.ones_like(self._whole.code) > 0
        self._open(self.batch, self.objective.bind(self.batch), everything)

    # -- the working set ------------------------------------------------------------------------

    def _look(
        self, batch: CrystalBatch, problem: Problem, variables: Tensor, movable: Tensor | None
    ) -> Iterate:
        """Evaluate the objective, as the solver needs it."""
        metric = self.metric(batch, variables)
        evaluation = problem.evaluate(variables, metric if self.solver.needs_curvature else None)
        if movable is not None:
            evaluation = masked(batch, evaluation, movable)
        return Iterate(variables, metric, evaluation)

    def _open(self, batch: CrystalBatch, problem: Problem, keep: Tensor) -> None:
        """Make the crystals of `keep`, a mask over the whole batch, the working set."""
        self._batch, self._problem = batch, problem
        self._mask = self.batch.subset(keep)
        self._movable = None if self.movable is None else self.movable[self._mask.variables]
        self._work = self._whole.select(self._mask)
        self._state = self._whole_state.select(self._mask)
        self._n_active = None

    def _flush(self) -> None:
        """Write the working set back into the whole."""
        self._whole.put(self._mask, self._work)
        self._whole_state.put(self._mask, self._state)

    def _repack(self) -> None:
        """Leave finished crystals behind once they are a fair share of the working set."""
        finished = self._batch.n_crystals - self.n_active
        if not finished or finished < self.repack_fraction * self._batch.n_crystals:
            return
        self._flush()
        active = self._work.code == _RUNNING
        keep = self._mask.crystals.clone()
        keep[self._mask.crystals] = active
        batch = self._batch.select(active)
        self._open(batch, self._problem.select(active, batch), keep)

    def _classify(self) -> None:
        """Decide who is finished."""
        work = self._work
        running = work.code == _RUNNING
        small = work.norm < self.fmax
        code = torch.zeros_like(work.code).masked_fill(self.solver.stalled(self._state), _STALLED)
        code = code.masked_fill(small, _CONVERGED)
        code = code.masked_fill(small & work.best.evaluation.isolated, _ISOLATED)
        finite = torch.isfinite(work.current.evaluation.value)
        finite &= torch.isfinite(work.best.evaluation.value)
        work.code = torch.where(running, code.masked_fill(~finite, _NOT_FINITE), work.code)
        self._n_active = None


def masked(batch: CrystalBatch, evaluation: Evaluation, movable: Tensor) -> Evaluation:
    """Take the variables that may not change, False in `movable` (V,), out of an evaluation."""
    curvature = evaluation.curvature
    if curvature is not None:
        free = batch.slot_map(curvature.shape[1]).pad(movable.to(curvature))
        curvature = curvature * free[:, :, None] * free[:, None, :]
    return replace(evaluation, gradient=evaluation.gradient * movable, curvature=curvature)
