"""Batched Levenberg-Marquardt: second-order steps for a least-squares loss.

A crystal has at most some thirty free variables and Eq. 1 is a sum of squares, so the
Gauss-Newton matrix is small, positive and cheap (`site_jacobian`). What it leaves out of the
Hessian is learned on the way (`secant`), and used where it has foretold the last change of the
loss better. Damping and acceptance are per crystal, with the gain ratio of H. B. Nielsen (report
IMM-REP-1999-05, Technical University of Denmark, 1999). Damping is measured in physical lengths
(`Metric`), not in the raw variables, so that Å, radians and fractions need no scaling factors.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from asexlatent.optimize import secant
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.metric import Metric
from asexlatent.optimize.objective import Iterate
from asexlatent.optimize.slot_map import SlotMap
from asexlatent.optimize.solver import CellBounds, SolverState


@dataclass(frozen=True)
class LevenbergMarquardt:
    """Levenberg-Marquardt with a trust region in Å and strain, every crystal on its own.

    Parameters
    ----------
    damping : float
        First damping, relative to the largest curvature per squared length.
    cell_length : float
        Å; a strain e counts as a displacement of ``cell_length * e`` in the damping.
    max_displacement, max_strain : float
        Longest step: movement of any site in Å, and norm of the strain.
    stall_tolerance, stall_patience : float, int
        A crystal whose loss has not fallen by this fraction within so many steps is stalled.
    """

    damping: float = 1e-3
    cell_length: float = 2.0
    max_displacement: float = 0.4
    max_strain: float = 0.1
    stall_tolerance: float = 1e-3
    stall_patience: int = 12
    bounds: CellBounds = field(default_factory=CellBounds)
    name: str = "lm"
    needs_curvature: bool = True

    def start(self, batch: CrystalBatch) -> SolverState:
        """No damping yet: it is chosen at the first step, from the curvature there."""
        variables = batch.variables
        zero = variables.new_zeros(batch.n_crystals)
        n = int(batch.variables_per_crystal().max())
        return SolverState(
            {"point": variables.clone(), "slope": torch.zeros_like(variables)},  # best so far
            {
                "damping": zero,
                "growth": zero + 2.0,
                "accepted": zero + torch.inf,  # value the last proposal had to beat
                "predicted": zero.clone(),  # reduction the model in use promised for it
                "plain": zero.clone(),  # change foretold by Gauss-Newton
                "bent": zero.clone(),  # and by both parts of the Hessian
                "extra": variables.new_zeros(batch.n_crystals, n, n),
                "reference": zero + torch.inf,
                "waiting": torch.zeros_like(zero, dtype=torch.int64),
            },
        )

    def propose(
        self, batch: CrystalBatch, state: SolverState, current: Iterate, best: Iterate
    ) -> Tensor:
        """Take one damped step from the best iterate."""
        memory = state.per_crystal
        curvature = best.evaluation.curvature
        slots = batch.slot_map(curvature.shape[1])
        scale = self._scale(batch, slots, best.metric)
        change = current.evaluation.value - memory["accepted"]
        learned = (memory["bent"] - change).abs() < (memory["plain"] - change).abs()
        self._learn(batch, slots, state, best)
        self._update(memory, current.evaluation.value, best.evaluation.value, curvature, scale)

        gradient, extra = slots.pad(best.evaluation.gradient), memory["extra"]
        damped = curvature + memory["damping"][:, None, None] * scale
        factor, _ = torch.linalg.cholesky_ex(damped)
        other, indefinite = torch.linalg.cholesky_ex(damped + extra)
        learned = learned & (indefinite == 0)
        factor = torch.where(learned[:, None, None], other, factor)
        step = -torch.cholesky_solve(gradient[:, :, None], factor)[:, :, 0]
        displacement, strain = best.metric.step_lengths(batch, slots.unpad(step))
        shrink = torch.maximum(displacement / self.max_displacement, strain / self.max_strain)
        step = step / shrink.clamp(min=1.0)[:, None]
        memory["plain"] = (step * gradient).sum(1) + _half_square(curvature, step)
        memory["bent"] = memory["plain"] + _half_square(extra, step)
        memory["predicted"] = -torch.where(learned, memory["bent"], memory["plain"])
        return self.bounds.apply(batch, best.variables + slots.unpad(step), best.variables)

    def stalled(self, state: SolverState) -> Tensor:
        """No relevant decrease for `stall_patience` steps."""
        return state.per_crystal["waiting"] >= self.stall_patience

    def _learn(
        self, batch: CrystalBatch, slots: SlotMap, state: SolverState, best: Iterate
    ) -> None:
        """Update what Gauss-Newton leaves out, where the last proposal was accepted."""
        memory, last, slope = state.per_crystal, state.per_variable, best.evaluation.gradient
        first = torch.isinf(memory["accepted"])
        accepted = best.evaluation.value < memory["accepted"]
        memory["extra"] = secant.updated(
            memory["extra"],
            best.evaluation.curvature,
            slots.pad(best.variables - last["point"]),
            slots.pad(slope - last["slope"]),
            accepted & ~first,
        )
        owner = accepted[batch.variable_crystal]
        last["point"] = torch.where(owner, best.variables, last["point"])
        last["slope"] = torch.where(owner, slope, last["slope"])

    def _update(
        self,
        memory: dict[str, Tensor],
        value: Tensor,
        best: Tensor,
        curvature: Tensor,
        scale: Tensor,
    ) -> None:
        """Judge the last proposal: damping (Nielsen's rule) and the wait for progress."""
        accepted = best < memory["accepted"]
        gain = (memory["accepted"] - value) / memory["predicted"].clamp(min=1e-300)
        ease = (1 - (2 * gain.clamp(0, 1) - 1) ** 3).clamp(min=1 / 3)
        grown = torch.where(accepted, ease, memory["growth"])
        diagonals = (torch.diagonal(m, dim1=1, dim2=2) for m in (curvature, scale))
        largest = torch.div(*diagonals).amax(1)
        first = torch.isinf(memory["accepted"])
        damping = torch.where(first, self.damping * largest, memory["damping"] * grown)
        # The floor keeps the matrix invertible along directions that nothing feels; at the ceiling
        # steps are too short to matter, and rejected again and again it would overflow.
        damping = torch.minimum(damping, 1e12 * largest + 1e12)
        memory["damping"] = torch.maximum(damping, 1e-9 * largest + 1e-12)
        memory["growth"] = torch.where(accepted, 2.0, (2.0 * memory["growth"]).clamp(max=2.0**30))
        memory["accepted"] = best

        improved = best < memory["reference"] * (1 - self.stall_tolerance)
        memory["reference"] = torch.where(improved, best, memory["reference"])
        memory["waiting"] = torch.where(improved, 0, memory["waiting"] + 1)

    def _scale(self, batch: CrystalBatch, slots: SlotMap, metric: Metric) -> Tensor:
        """Squared lengths (Å^2) of steps as a matrix (B, n, n); unit where slots are empty."""
        n = slots.n
        total = metric.site_gram.new_zeros(batch.n_crystals * (n + 1) * (n + 1))
        total.index_add_(0, slots.pair.reshape(-1), metric.site_gram.reshape(-1))
        total = total.view(batch.n_crystals, n + 1, n + 1)[:, :n, :n]
        total = total + torch.diag_embed((~slots.used).to(total))
        m = min(6, n)
        in_cell = slots.cell[:, :m] < n
        in_cell = in_cell[:, :, None] & in_cell[:, None, :]
        total[:, :m, :m] += self.cell_length**2 * metric.cell_gram[:, :m, :m] * in_cell
        return total


def _half_square(matrix: Tensor, step: Tensor) -> Tensor:
    """s' M s / 2 of each crystal, (B,), of matrices (B, n, n) and steps (B, n)."""
    return 0.5 * (step * torch.bmm(matrix, step[:, :, None])[:, :, 0]).sum(1)
