"""What a batched solver is, and the bounds that every solver respects."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from asexlatent.optimize.batch import CrystalBatch, Subset
from asexlatent.optimize.objective import Iterate


@dataclass(eq=False)
class SolverState:
    """Everything a solver remembers, so that crystals can leave, return and be saved.

    Attributes
    ----------
    per_variable : dict of Tensor, each of shape (V, ...)
    per_crystal : dict of Tensor, each of shape (B, ...)
    """

    per_variable: dict[str, Tensor] = field(default_factory=dict)
    per_crystal: dict[str, Tensor] = field(default_factory=dict)

    def select(self, mask: Subset) -> SolverState:
        """Return the part of the crystals of `mask`."""
        return SolverState(
            {k: v[mask.variables] for k, v in self.per_variable.items()},
            {k: v[mask.crystals] for k, v in self.per_crystal.items()},
        )

    def put(self, mask: Subset, part: SolverState) -> None:
        """Write `part`, made by `select` with the same mask, back in place."""
        for name, value in part.per_variable.items():
            self.per_variable[name][mask.variables] = value
        for name, value in part.per_crystal.items():
            self.per_crystal[name][mask.crystals] = value


class Solver(Protocol):
    """A batched minimiser that asks for one evaluation per step.

    A solver never sees convergence: the driver decides who leaves. It keeps crystals
    independent: nothing it computes for one may depend on another.
    """

    name: str
    needs_curvature: bool

    def start(self, batch: CrystalBatch) -> SolverState:
        """State before the first step."""
        ...

    def propose(
        self, batch: CrystalBatch, state: SolverState, current: Iterate, best: Iterate
    ) -> Tensor:
        """Next variables to evaluate, shape (V,); updates `state`.

        `current` is the last proposal with its evaluation (no curvature), `best` the iterate of
        lowest value that each crystal has seen.
        """
        ...

    def stalled(self, state: SolverState) -> Tensor:
        """Return for each crystal whether further steps are hopeless, shape (B,)."""
        ...


@dataclass(frozen=True)
class CellBounds:
    """Limits that keep trial cells possible and memory bounded.

    Attributes
    ----------
    min_length, max_length : float
        Lattice parameters, Å. A crystal that comes in beyond a limit may stay as large.
    min_angle : float
        Smallest angle, and smallest distance of an angle from 180 degrees, in degrees.
    min_volume_per_atom : float
        Å^3; a denser trial cell is expanded isotropically (diamond has 5.7).
    """

    min_length: float = 1.0
    max_length: float = 100.0
    min_angle: float = 20.0
    min_volume_per_atom: float = 1.0

    def apply(self, batch: CrystalBatch, trial: Tensor, previous: Tensor) -> Tensor:
        """Bring `trial`, shape (V,), within the limits.

        `previous` is a possible geometry: the angles of a trial whose three angles cannot form
        a cell fall back to it.
        """
        angle = math.radians(self.min_angle)
        is_length, is_angle = batch.variable_kind == 0, batch.variable_kind == 1
        none = torch.full_like(trial, math.inf)
        low = (-none).masked_fill(is_length, self.min_length).masked_fill(is_angle, angle)
        high = none.masked_fill(is_length, self.max_length).masked_fill(is_angle, math.pi - angle)
        low, high = torch.minimum(low, previous), torch.maximum(high, previous)
        trial = torch.clamp(trial, min=low, max=high)

        before = _volume_factor(batch.cell_parameters(previous))
        parameters = batch.cell_parameters(trial)
        factor = _volume_factor(parameters)
        impossible = factor < before.clamp(max=0.05)
        back = impossible[batch.variable_crystal] & is_angle
        trial = torch.where(back, previous, trial)

        a, b, c = parameters[:, :3].unbind(1)
        volume = a * b * c * torch.sqrt(torch.where(impossible, before, factor))
        scale = (self.min_volume_per_atom * batch.atoms_per_crystal.to(volume) / volume) ** (1 / 3)
        scale = torch.clamp(scale, min=1.0)[batch.variable_crystal]
        return torch.where(is_length, trial * scale, trial)


def _volume_factor(parameters: Tensor) -> Tensor:
    """(V / abc)^2 of cells (B, 6), shape (B,); not positive when the angles are impossible."""
    x, y, z = torch.cos(parameters[:, 3:]).unbind(1)
    return 1 - (x * x + y * y + z * z) + 2 * x * y * z
