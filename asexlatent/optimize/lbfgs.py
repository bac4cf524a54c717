"""Batched L-BFGS: memory linear in the number of free variables.

For crystals with hundreds of unknowns, whose normal equations would be large, and for
objectives that are no sum of squares. Two-loop recursion of Nocedal (Math. Comp. 35, 773, 1980),
per crystal, started from the physical metric instead of a multiple of the unit matrix, so that
Å, radians and fractions need no scaling factors. With `needs_curvature` it starts from the
curvature that the objective gives, which for an energy (`asexlatent.screening.MACEEnergy`) is that
of a spring model: steps are second-order ones from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from asexlatent.optimize.batch import CrystalBatch, padded
from asexlatent.optimize.metric import Metric
from asexlatent.optimize.objective import Iterate
from asexlatent.optimize.solver import CellBounds, SolverState


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS with steps limited in Å and strain, every crystal on its own.

    A step that does not lower the loss is taken back and tried again shorter.

    Parameters
    ----------
    memory : int
        Pairs of steps and gradient changes remembered.
    max_displacement, max_strain : float
        Longest step: movement of any site in Å, and norm of the strain.
    first_displacement : float
        Length of the first step, before any curvature is known, Å.
    backtrack : float
        Factor on a step that failed.
    stall_patience : int
        Failed steps in a row after which a crystal is stalled.
    needs_curvature : bool
        Begin every direction from the curvature of the objective, which must be positive definite,
        instead of the physical metric.
    """

    memory: int = 10
    max_displacement: float = 0.3
    max_strain: float = 0.1
    first_displacement: float = 0.05
    backtrack: float = 0.3
    stall_patience: int = 12
    bounds: CellBounds = field(default_factory=CellBounds)
    name: str = "lbfgs"
    needs_curvature: bool = False

    def start(self, batch: CrystalBatch) -> SolverState:
        """Nothing remembered."""
        zero = torch.zeros_like(batch.variables)
        one = zero.new_zeros(batch.n_crystals)
        history = zero.new_zeros(batch.n_variables, self.memory)
        return SolverState(
            {
                "base": zero,
                "base_gradient": zero.clone(),
                "direction": zero.clone(),
                "steps": history,
                "changes": history.clone(),
            },
            {
                "curvatures": one.new_zeros(batch.n_crystals, self.memory),  # 0: unused
                "accepted": one + torch.inf,
                "length": one + 1.0,
                "failures": torch.zeros_like(one, dtype=torch.int64),
            },
        )

    def propose(
        self, batch: CrystalBatch, state: SolverState, current: Iterate, best: Iterate
    ) -> Tensor:
        """Step from the best iterate: a new direction after a success, else a shorter step."""
        owner, crystal, variable = batch.variable_crystal, state.per_crystal, state.per_variable
        better = best.evaluation.value < crystal["accepted"]
        first = torch.isinf(crystal["accepted"])
        gradient = best.evaluation.gradient
        self._remember(batch, state, best, better & ~first)
        crystal["accepted"] = best.evaluation.value
        crystal["failures"] = torch.where(better, 0, crystal["failures"] + 1)
        # After some failures the memory misleads: begin again with steepest descent.
        forget = crystal["failures"] == self.stall_patience // 3
        crystal["curvatures"] = torch.where(forget[:, None], 0.0, crystal["curvatures"])
        renew = better | forget
        direction = -self._apply(batch, state, _first_guess(batch, best), gradient)
        direction = torch.where(renew[owner], direction, variable["direction"])
        shorter = crystal["length"] * self.backtrack
        crystal["length"] = torch.where(renew, 1.0, shorter)
        variable["direction"] = direction
        variable["base"], variable["base_gradient"] = best.variables, gradient

        step = direction * crystal["length"][owner]
        displacement, strain = best.metric.step_lengths(batch, step)
        blind = (crystal["curvatures"] == 0).all(1)
        limit = torch.where(blind, self.first_displacement / self.max_displacement, 1.0)
        limit = limit * torch.where(blind, crystal["length"], 1.0)
        size = torch.maximum(displacement / self.max_displacement, strain / self.max_strain)
        factor = torch.where(size > limit, limit / size, 1.0)
        return self.bounds.apply(batch, best.variables + step * factor[owner], best.variables)

    def stalled(self, state: SolverState) -> Tensor:
        """Return where `stall_patience` steps in a row failed."""
        return state.per_crystal["failures"] >= self.stall_patience

    def _remember(
        self, batch: CrystalBatch, state: SolverState, best: Iterate, moved: Tensor
    ) -> None:
        """Push the last accepted step and its gradient change, where the curvature is positive."""
        variable, crystal = state.per_variable, state.per_crystal
        owner = batch.variable_crystal
        step = best.variables - variable["base"]
        change = best.evaluation.gradient - variable["base_gradient"]
        curvature = _dot(batch, step, change)
        floor = 1e-10 * torch.sqrt(_dot(batch, step, step) * _dot(batch, change, change))
        good = moved & (curvature > floor)
        for name, new in (("steps", step), ("changes", change)):
            pushed = torch.cat((new[:, None], variable[name][:, :-1]), dim=1)
            variable[name] = torch.where(good[owner][:, None], pushed, variable[name])
        pushed = torch.cat((curvature[:, None], crystal["curvatures"][:, :-1]), dim=1)
        crystal["curvatures"] = torch.where(good[:, None], pushed, crystal["curvatures"])

    def _apply(
        self,
        batch: CrystalBatch,
        state: SolverState,
        first_guess: Callable[[Tensor], Tensor],
        gradient: Tensor,
    ) -> Tensor:
        """Inverse Hessian times a gradient (V,): the two-loop recursion."""
        steps, changes = state.per_variable["steps"], state.per_variable["changes"]
        curvatures, owner = state.per_crystal["curvatures"], batch.variable_crystal
        used = curvatures > 0
        inverse = torch.where(used, 1.0 / torch.where(used, curvatures, 1.0), 0.0)
        weights = []
        vector = gradient
        for k in range(self.memory):
            weight = inverse[:, k] * _dot(batch, steps[:, k], vector)
            vector = vector - weight[owner] * changes[:, k]
            weights.append(weight)
        natural = first_guess(changes[:, 0])
        scale = curvatures[:, 0] / _dot(batch, changes[:, 0], natural).clamp(min=1e-300)
        scale = torch.where(used[:, 0], scale, 1.0)
        vector = scale[owner] * first_guess(vector)
        for k in reversed(range(self.memory)):
            weight = weights[k] - inverse[:, k] * _dot(batch, changes[:, k], vector)
            vector = vector + weight[owner] * steps[:, k]
        return vector


def _dot(batch: CrystalBatch, first: Tensor, second: Tensor) -> Tensor:
    """Scalar product of each crystal's part of two arrays (V,), shape (B,)."""
    total = first.new_zeros(batch.n_crystals)
    return total.index_add_(0, batch.variable_crystal, first * second)


def _first_guess(batch: CrystalBatch, best: Iterate) -> Callable[[Tensor], Tensor]:
    """Inverse Hessian before anything is remembered, as a map of arrays (V,)."""
    curvature = best.evaluation.curvature
    if curvature is None:
        return lambda vector: _natural(batch, best.metric, vector)
    slots = batch.slot_map(curvature.shape[1])
    factor, _ = torch.linalg.cholesky_ex(curvature)

    def solve(vector: Tensor) -> Tensor:
        padded_vector = slots.pad(vector)[:, :, None]
        return slots.unpad(torch.cholesky_solve(padded_vector, factor)[:, :, 0])

    return solve


def _natural(batch: CrystalBatch, metric: Metric, gradient: Tensor) -> Tensor:
    """Steepest descent in physical lengths: the inverse metric times a gradient (V,)."""
    extended = padded(gradient)
    result = torch.zeros_like(extended)
    for gram, slots in ((metric.site_gram, batch.site_index), (metric.cell_gram, batch.cell_slots)):
        solved = torch.linalg.solve_ex(gram, extended[slots]).result
        result[slots.reshape(-1)] = solved.reshape(-1)  # what is no variable goes to the last place
    return result[:-1]
