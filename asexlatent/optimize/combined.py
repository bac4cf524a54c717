"""Sums of objectives: ``DescriptorLoss(environment) + 0.1 * MACEEnergy(model)``."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from asexlatent.optimize.batch import CrystalBatch
    from asexlatent.optimize.metric import Metric
    from asexlatent.optimize.objective import Evaluation, Objective, Problem


class Summable:
    """Gives an objective ``+`` and, with a number, ``*``; the result is an `ObjectiveSum`."""

    def __add__(self, other: Objective) -> ObjectiveSum:
        if not hasattr(other, "bind"):
            return NotImplemented
        return ObjectiveSum((*_terms(self), *_terms(other)))

    __radd__ = __add__  # reached only for an objective without an addition of its own

    def __mul__(self, weight: float) -> ObjectiveSum:
        if not isinstance(weight, numbers.Real):
            return NotImplemented
        return ObjectiveSum(tuple((weight * own, term) for own, term in _terms(self)))

    __rmul__ = __mul__


@dataclass(frozen=True)
class ObjectiveSum(Summable):
    """Weighted sum of objectives, itself an objective.

    Values, gradients and curvatures are added; a crystal is on a plateau where it is for every
    term. The unit of the value is that of the terms times their weights: a weight of 0.1 for an
    energy makes 10 eV per atom count as much as a loss of 1.

    Parameters
    ----------
    terms : tuple of (float, Objective)
        Weights, finite and not negative, and what they weigh.

    Raises
    ------
    ValueError
        For another weight, or no term.
    """

    terms: tuple[tuple[float, Objective], ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("a sum of objectives needs at least one")
        for weight, term in self.terms:
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(
                    f"weight {weight} of {type(term).__name__} must be finite and not negative: "
                    "objectives are minimised"
                )

    def bind(self, batch: CrystalBatch) -> SumProblem:
        """Bind every term."""
        return SumProblem(tuple((weight, term.bind(batch)) for weight, term in self.terms))


@dataclass(frozen=True)
class SumProblem:
    """`ObjectiveSum` bound to a batch of B crystals with V free variables in all.

    Variables and gradients have shape (V,), values (B,), curvatures (B, n, n).
    """

    terms: tuple[tuple[float, Problem], ...]

    def evaluate(self, variables: Tensor, metric: Metric | None = None) -> Evaluation:
        """Sum of the terms at `variables`, shape (V,): see `Evaluation` for the shapes.

        With `metric`, that of the batch at `variables`, also the sum of the curvatures (B, n, n).
        """
        total: Evaluation | None = None
        for weight, term in self.terms:
            part = _scaled(term.evaluate(variables, metric), weight)
            total = part if total is None else _added(total, part)
        return total

    def select(self, keep: Tensor, batch: CrystalBatch) -> SumProblem:
        """Return the problem of the crystals that `keep`, bool of shape (B,), leaves in `batch`."""
        return SumProblem(tuple((w, term.select(keep, batch)) for w, term in self.terms))


def _terms(objective: Objective) -> tuple[tuple[float, Objective], ...]:
    return objective.terms if isinstance(objective, ObjectiveSum) else ((1.0, objective),)


def _scaled(part: Evaluation, weight: float) -> Evaluation:
    curvature = None if part.curvature is None else weight * part.curvature
    return replace(
        part, value=weight * part.value, gradient=weight * part.gradient, curvature=curvature
    )


def _added(total: Evaluation, part: Evaluation) -> Evaluation:
    curvature = None if total.curvature is None else total.curvature + part.curvature
    return replace(
        total,
        value=total.value + part.value,
        gradient=total.gradient + part.gradient,
        isolated=total.isolated & part.isolated,
        curvature=curvature,
    )
