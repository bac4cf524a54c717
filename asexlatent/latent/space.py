"""Latent variables in the place of free variables: Algorithm 2 of the method on the same driver.

Refinement in the representation space moves the free variables R of each crystal. Here the
unknowns are the latent variables z, and R is what the decoder makes of them under the fixed
condition of the crystal. The driver, its solvers and its rules (clipping, plateau, who leaves
when, best iterate) are those of `asexlatent.optimize`: a `LatentBatch` is to them what a
`CrystalBatch` is, a `LatentLoss` what a `DescriptorLoss` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from asexlatent.latent.columns import FreeVariableMap
from asexlatent.latent.conditions import Condition
from asexlatent.latent.model import LatentModel, PreparedConditions
from asexlatent.optimize import (
    Adam,
    CellBounds,
    CrystalBatch,
    Evaluation,
    LevenbergMarquardt,
    Objective,
    Solver,
)
from asexlatent.optimize.batch import Subset
from asexlatent.optimize.metric import Metric
from asexlatent.optimize.objective import Problem
from asexlatent.optimize.slot_map import SlotMap
from asexlatent.symmetry import SymmetricCrystal


@dataclass(frozen=True, eq=False)
class LatentBatch:
    """Points z in the latent space of a model, each under the condition of a crystal.

    B crystals, L latent dimensions, V free variables of all crystals together.

    Attributes
    ----------
    model : LatentModel
    crystals : CrystalBatch
        The crystals whose conditions are kept. Their own cells say where impossible angles fall
        back to, otherwise their free variables have no consequence.
    prepared : PreparedConditions
        Of the same crystals, without the list of conditions.
    z : Tensor, shape (B, L)
    mode : str
        How mixture components become values, see `MixtureTransform.values`.
    """

    model: LatentModel
    crystals: CrystalBatch
    prepared: PreparedConditions
    z: Tensor
    mode: str = "straight_through"

    @classmethod
    def of(
        cls,
        model: LatentModel,
        crystals: Sequence[SymmetricCrystal],
        z: Tensor,
        mode: str = "straight_through",
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> LatentBatch:
        """Prepare to decode z (B, L), one for each crystal.

        Raises
        ------
        CrystalError
            A condition is outside the vocabulary of the model.
        """
        prepared = model.prepare([Condition.from_crystal(crystal) for crystal in crystals])
        batch = CrystalBatch.from_crystals(crystals, device, dtype)
        return cls(model, batch, prepared._replace(conditions=()), z.to(batch.variables), mode)

    # -- what the driver asks of a batch ------------------------------------------------------

    @property
    def n_crystals(self) -> int:
        """Number of crystals, B."""
        return self.z.shape[0]

    @property
    def latent(self) -> int:
        """Dimension L of the latent space."""
        return self.z.shape[1]

    @property
    def variables(self) -> Tensor:
        """z of all crystals, one after the other, shape (B L,)."""
        return self.z.reshape(-1)

    @cached_property
    def variable_crystal(self) -> Tensor:
        """Owner of each latent variable, shape (B L,)."""
        index = torch.arange(self.n_crystals, device=self.z.device)
        return index.repeat_interleave(self.latent)

    @cached_property
    def variable_kind(self) -> Tensor:
        """As fractional coordinates (2), without a unit, shape (B L,)."""
        return torch.full_like(self.variable_crystal, 2)

    @cached_property
    def n_cell_variables(self) -> Tensor:
        """Cell parameters among the latent variables: none, shape (B,)."""
        return torch.zeros_like(self.crystals.n_cell_variables)

    def variables_per_crystal(self) -> Tensor:
        """L for each crystal, shape (B,)."""
        return torch.full_like(self.n_cell_variables, self.latent)

    def slot_map(self, n: int) -> SlotMap:
        """Latent variables as an array (B, n), n being L: where each stands."""
        flat = torch.arange(self.z.numel(), device=self.z.device)
        none = flat.new_zeros(0)
        return SlotMap(n, flat, torch.ones_like(self.z) > 0, none, none, none)

    def subset(self, keep: Tensor) -> Subset:
        """Masks of the crystals for which `keep`, shape (B,), is true."""
        whole = self.crystals.subset(keep)
        return Subset(keep, keep[self.variable_crystal], whole.sites)

    def select(self, keep: Tensor) -> LatentBatch:
        """Return the batch of the crystals for which `keep`, shape (B,), is true."""
        prepared = PreparedConditions(
            (), self.prepared.embedded[keep], _select(self.prepared.variables, keep)
        )
        crystals = self.crystals.select(keep)
        return replace(self, crystals=crystals, prepared=prepared, z=self.z[keep])

    # -- decoding -----------------------------------------------------------------------------

    def decode(self, variables: Tensor) -> Tensor:
        """Free variables R (V,) of the crystals at latent variables (B L,), differentiable.

        A decoded cell that no solver would try (`CellBounds`) is brought within those limits.
        """
        z = variables.view(self.z.shape)
        free = self.model.decode_free_variables(z, self.prepared, self.mode)
        before = self.crystals.variables
        return CellBounds().apply(self.crystals, free.to(before), before)

    def jacobian(self, variables: Tensor) -> Tensor:
        """Derivative of `decode`, dR / dz, shape (V, L); each row of the crystal's own z."""
        identity = torch.eye(self.latent).to(variables).repeat(1, self.n_crystals)

        def along(direction: Tensor) -> Tensor:
            return torch.func.jvp(self.decode, (variables,), (direction,))[1]

        return torch.func.vmap(along)(identity).T


def _select(maps: FreeVariableMap, keep: Tensor) -> FreeVariableMap:
    owned = keep[maps.crystal]
    return FreeVariableMap(
        n_atoms=maps.n_atoms[keep],
        same_as_a=maps.same_as_a[keep],
        fixed_angles=maps.fixed_angles[keep],
        crystal=(torch.cumsum(keep, 0) - 1)[maps.crystal[owned]],
        source=maps.source[owned],
        weights=maps.weights[owned],
        constant=maps.constant[owned],
    )


@dataclass(frozen=True)
class LatentMetric:
    """Lengths in latent space: the prior is a unit normal, so they are plain Euclidean.

    Stands where `Metric` does for free variables; the same everywhere, so there is nothing to
    select or to copy. Gradients and steps of B crystals are flat, shape (B L,).

    Parameters
    ----------
    latent : int
        Dimension L of the latent space.
    """

    latent: int

    @classmethod
    def at(cls, batch: LatentBatch, variables: Tensor) -> LatentMetric:
        """Metric at `variables`, shape (B L,)."""
        return cls(batch.latent)

    def gradient_norm(self, batch: LatentBatch, gradient: Tensor) -> Tensor:
        """Norm (B,) of the gradient (B L,) with respect to each crystal's z."""
        return gradient.view(-1, self.latent).norm(dim=1)

    def step_lengths(self, batch: LatentBatch, step: Tensor) -> tuple[Tensor, Tensor]:
        """Lengths (B,) of a step (B L,) in z; no strain (the second is zero)."""
        length = step.view(-1, self.latent).norm(dim=1)
        return length, torch.zeros_like(length)

    def where(self, mask: Subset, other: LatentMetric) -> LatentMetric:
        """Return this metric: it is the other."""
        return self

    def select(self, mask: Subset) -> LatentMetric:
        """Return this metric."""
        return self

    def put(self, mask: Subset, part: LatentMetric) -> None:
        """Do nothing."""

    def clone(self) -> LatentMetric:
        """Return this metric: it cannot change."""
        return self


@dataclass(frozen=True)
class LatentLoss:
    """An objective over free variables, as a function of the latent variables.

    Parameters
    ----------
    objective : Objective
        Usually `DescriptorLoss`: Eq. 2 of the method.
    prior_weight : float
        Adds ``prior_weight * |z|^2 / 2``, the prior's negative logarithm. The method has none.
    """

    objective: Objective
    prior_weight: float = 0.0

    def bind(self, batch: LatentBatch) -> LatentProblem:
        """Prepare for the crystals of `batch`."""
        return LatentProblem(self, batch, self.objective.bind(batch.crystals))

    def prior(self, z: Tensor) -> Tensor:
        """What the prior adds to the value of each crystal, shape (B,), at z (B, L)."""
        return 0.5 * self.prior_weight * (z**2).sum(dim=1)


class LatentProblem:
    """`LatentLoss` bound to a batch: Algorithm 2, lines 3 to 6, as one tensor program.

    Of B crystals with L latent variables each: variables and gradients have shape (B L,), values
    (B,), curvatures (B, L, L).
    """

    def __init__(self, loss: LatentLoss, batch: LatentBatch, problem: Problem):
        self.loss, self.batch, self.problem = loss, batch, problem

    def evaluate(self, variables: Tensor, metric: LatentMetric | None = None) -> Evaluation:
        """Value, and gradient with respect to z, at latent variables (B L,).

        With `metric` also the curvature (B, L, L), J^T H J with the Gauss-Newton curvature H of
        the objective and the Jacobian J of the decoder.
        """
        batch = self.batch
        if metric is None:
            z = variables.detach().requires_grad_(True)
            free = batch.decode(z)
            found = self.problem.evaluate(free.detach())
            (gradient,) = torch.autograd.grad(free, z, found.gradient)
            curvature = None
        else:
            with torch.no_grad():
                free, jacobian = batch.decode(variables), batch.jacobian(variables)
            found = self.problem.evaluate(free, Metric.at(batch.crystals, free))
            gradient, curvature = self._pull_back(found, jacobian)
        return self._with_prior(replace(found, gradient=gradient, curvature=curvature), variables)

    def select(self, keep: Tensor, batch: LatentBatch) -> LatentProblem:
        """Return the problem of the crystals kept, with their neighbour lists."""
        return LatentProblem(self.loss, batch, self.problem.select(keep, batch.crystals))

    def _pull_back(self, found: Evaluation, jacobian: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (B L,) and curvature (B, L, L) in z of those in the free variables."""
        crystals, n = self.batch.crystals, found.curvature.shape[1]
        place = crystals.variable_crystal * n + crystals.slot
        padded = jacobian.new_zeros(crystals.n_crystals * n, self.batch.latent)
        padded = padded.index_copy(0, place, jacobian).view(-1, n, self.batch.latent)
        gradient = torch.zeros_like(padded[..., 0]).view(-1).index_copy(0, place, found.gradient)
        gradient = torch.bmm(gradient.view(-1, 1, n), padded)[:, 0]
        return gradient.reshape(-1), padded.transpose(1, 2) @ found.curvature @ padded

    def _with_prior(self, found: Evaluation, variables: Tensor) -> Evaluation:
        weight = self.loss.prior_weight
        if not weight:
            return found
        curvature = found.curvature
        if curvature is not None:
            curvature = curvature + weight * torch.eye(self.batch.latent).to(curvature)
        return replace(
            found,
            value=found.value + self.loss.prior(variables.detach().view(self.batch.z.shape)),
            gradient=found.gradient + weight * variables.detach(),
            curvature=curvature,
        )


class Unbounded:
    """Stands where solvers have `CellBounds`: latent variables, shape (B L,), have no limits."""

    def apply(self, batch: LatentBatch, trial: Tensor, previous: Tensor) -> Tensor:
        """Return `trial` as it is."""
        return trial


class LatentLM(LevenbergMarquardt):
    """Levenberg-Marquardt in z, shape (B L,); `max_displacement` is the longest step, |dz|."""

    def _scale(self, batch: LatentBatch, slots: SlotMap, metric: LatentMetric) -> Tensor:
        return torch.eye(batch.latent).to(batch.z).expand(batch.n_crystals, -1, -1)


def latent_solver(solver: str | Solver) -> Solver:
    """Return a solver for latent variables: an instance as it is, a name with settings for z.

    "adam" is the published conditioning with steps of 0.1 in units of the prior; "lm" takes
    second-order steps of at most 1.5.

    Raises
    ------
    ValueError
        For any other name.
    """
    if not isinstance(solver, str):
        return solver
    if solver == "adam":
        return Adam(learning_rate=0.1, bounds=Unbounded())
    if solver == "lm":
        return LatentLM(max_displacement=1.5, bounds=Unbounded())
    raise ValueError(f"the solver of a latent refinement is adam or lm, not {solver!r}")
