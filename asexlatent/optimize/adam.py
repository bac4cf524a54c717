"""The published solver: AdamW moments with conditioning per crystal (Algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.objective import Iterate
from asexlatent.optimize.solver import CellBounds, SolverState


@dataclass(frozen=True)
class Adam:
    """Adam on scaled free variables, every crystal on its own.

    The settings are the published ones. Departures, each for a defect that was seen:

    - The plateau factor multiplies the step. Multiplied into the gradient, as published,
      Adam's normalisation cancels it and the step never shrinks.
    - No weight decay: it would pull coordinates towards the origin.
    - Fractional coordinates are free to leave [0, 1] (the crystal is periodic) instead of
      being clamped there; cells are kept within `bounds`.
    - Bias correction counts the steps of each crystal, so one that enters late starts afresh.

    Parameters
    ----------
    learning_rate : float
        Step in scaled variables.
    length_scale, angle_scale : float
        Å and degrees per scaled unit; fractional coordinates are their own unit. The first
        step changes a length by 0.07 Å and an angle by 0.36 degrees.
    clip : float
        Largest norm of a crystal's gradient with respect to the scaled variables.
    plateau_patience, plateau_factor, plateau_minimum
        After `patience` steps without a relative improvement of `plateau_tolerance` the step of
        that crystal is multiplied by the factor, down to the minimum.
    stall_patience : int
        Steps without improvement at the minimum after which a crystal counts as stalled.
    """

    learning_rate: float = 2e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    length_scale: float = 35.0
    angle_scale: float = 180.0
    clip: float = 10.0
    plateau_patience: int = 10
    plateau_factor: float = 0.5
    plateau_minimum: float = 0.1
    plateau_tolerance: float = 1e-4
    stall_patience: int = 100
    bounds: CellBounds = field(default_factory=CellBounds)
    name: str = "adam"
    needs_curvature: bool = False

    def start(self, batch: CrystalBatch) -> SolverState:
        """Zero moments, full steps."""
        zero = torch.zeros_like(batch.variables)
        one = zero.new_ones(batch.n_crystals)
        count = torch.zeros(batch.n_crystals, dtype=torch.int64, device=zero.device)
        return SolverState(
            {"first_moment": zero, "second_moment": zero.clone()},
            {
                "step": count,
                "scale": one,
                "reference": one * torch.inf,
                "waiting": count.clone(),
            },
        )

    def propose(
        self, batch: CrystalBatch, state: SolverState, current: Iterate, best: Iterate
    ) -> Tensor:
        """Take one Adam step from the last proposal."""
        variables = current.variables
        owner = batch.variable_crystal
        unit = torch.ones_like(variables).masked_fill(batch.variable_kind == 0, self.length_scale)
        unit = unit.masked_fill(batch.variable_kind == 1, math.radians(self.angle_scale))
        gradient = self._clipped(batch, current.evaluation.gradient * unit)
        scale = self._condition(state, current.evaluation.value)

        moments = state.per_variable
        step = state.per_crystal["step"] + 1
        state.per_crystal["step"] = step
        first = torch.lerp(gradient, moments["first_moment"], self.beta1)
        second = torch.lerp(gradient**2, moments["second_moment"], self.beta2)
        moments["first_moment"], moments["second_moment"] = first, second
        # in the precision of the moments: a power of integers would be float32, and 1 - 0.999
        # has lost four digits by then
        count = step.to(first)[owner]
        mean = first / (1 - self.beta1**count)
        spread = torch.sqrt(second / (1 - self.beta2**count))
        move = self.learning_rate * scale[owner] * mean / (spread + self.epsilon)
        return self.bounds.apply(batch, variables - unit * move, variables)

    def stalled(self, state: SolverState) -> Tensor:
        """Smallest step size and no improvement for `stall_patience` steps."""
        smallest = state.per_crystal["scale"] <= self.plateau_minimum
        return smallest & (state.per_crystal["waiting"] >= self.stall_patience)

    def _clipped(self, batch: CrystalBatch, gradient: Tensor) -> Tensor:
        squares = gradient.new_zeros(batch.n_crystals)
        squares.index_add_(0, batch.variable_crystal, gradient**2)
        factor = torch.clamp(self.clip / torch.sqrt(squares), max=1.0)
        return gradient * factor[batch.variable_crystal]

    def _condition(self, state: SolverState, value: Tensor) -> Tensor:
        """Shrink the steps of crystals on a plateau; returns the scale, shape (B,)."""
        memory = state.per_crystal
        improved = value < memory["reference"] * (1 - self.plateau_tolerance)
        memory["reference"] = torch.where(improved, value, memory["reference"])
        waiting = torch.where(improved, 0, memory["waiting"] + 1)
        above = memory["scale"] > self.plateau_minimum
        shrink = (waiting >= self.plateau_patience) & above
        reduced = torch.clamp(memory["scale"] * self.plateau_factor, min=self.plateau_minimum)
        memory["scale"] = torch.where(shrink, reduced, memory["scale"])
        memory["waiting"] = torch.where(shrink, 0, waiting)
        return memory["scale"]
