"""Latent refinement of a batch of crystals: what one round of the dual-level loop does first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from asexlatent.descriptor import LocalEnvironment
from asexlatent.latent.model import LatentModel
from asexlatent.latent.space import LatentBatch, LatentLoss, LatentMetric, latent_solver
from asexlatent.latent.starts import check_starts, latent_starts
from asexlatent.optimize import BatchMinimizer, DescriptorLoss, Objective, Solver
from asexlatent.optimize.search import motif
from asexlatent.symmetry import SymmetricCrystal


@dataclass(frozen=True)
class LatentOptions:
    """How latent variables are refined.

    Parameters
    ----------
    starts : {"prior", "encoder", "both"}
        Where z begins, see `latent_starts`.
    samples : int
        Starts for each crystal; the best result is kept.
    steps : int
        Step limit.
    solver : str or Solver
        "adam" (the published conditioning), "lm" (second order), or an instance.
    cutoff_factor : float
        Cutoff of the descriptor, in units of the environment's own, for an environment that
        knows its structure. 1 is Eq. 1 as published; a wider one lets atoms that ought to bond
        see each other, as the approach of a search does (`Restarts.approach_factor`).
    prior_weight : float
        See `LatentLoss`. The method has none.
    mode : {"straight_through", "soft", "hard"}
        How mixture components become values, see `MixtureTransform.values`.
    fmax : float
        A crystal leaves when the norm of its gradient in z is below this.
    check_every : int
        Steps between two looks at the motif; a crystal that has it leaves.
    """

    starts: str = "both"
    samples: int = 2
    steps: int = 25
    solver: str | Solver = "adam"
    cutoff_factor: float = 1.45
    prior_weight: float = 0.0
    mode: str = "straight_through"
    fmax: float = 1e-3
    check_every: int = 10

    def __post_init__(self) -> None:
        check_starts(self.starts, self.samples)
        self.make_solver()  # complain about an unknown name now
        if self.cutoff_factor <= 0:
            raise ValueError(f"cutoff_factor must be above zero, not {self.cutoff_factor}")

    def make_solver(self) -> Solver:
        """Return the solver, with settings for latent variables if it is a name."""
        return latent_solver(self.solver)


PUBLISHED = LatentOptions(starts="prior", samples=1, steps=1000, cutoff_factor=1.0)
"""Algorithm 2 as the method has it: one start from the prior, Eq. 1, the steps of Algorithm 1."""


@dataclass(eq=False)
class LatentStage:
    """Latent refinement of crystals that the model knows; iterate, then ask for the crystals.

    Parameters
    ----------
    model : LatentModel
    crystals : sequence of SymmetricCrystal
        Their conditions are kept.
    keys : sequence of int
        Index of each crystal in the whole input, the key of its random numbers.
    environment : LocalEnvironment
    objective : Objective
        What is minimised, unless `options` ask for another cutoff.
    options : LatentOptions
    seed, number : int
        Of the random numbers; `number` is that of the round.
    device, dtype
        Of the geometry and the descriptor. The network computes in the precision of its weights.
    """

    model: LatentModel
    crystals: Sequence[SymmetricCrystal]
    keys: Sequence[int]
    environment: LocalEnvironment
    objective: Objective
    options: LatentOptions = field(default_factory=LatentOptions)
    seed: int = 0
    number: int = 1
    device: torch.device | str | None = None
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        samples, options = self.options.samples, self.options
        z = latent_starts(
            self.model, self.crystals, self.keys, options.starts, samples, self.seed, self.number
        )
        batch = LatentBatch.of(
            self.model,
            [crystal for crystal in self.crystals for _ in range(samples)],
            z.flatten(0, 1),
            options.mode,
            self.device,
            self.dtype,
        )
        objective = self.objective
        if options.cutoff_factor != 1 and self.environment.structure is not None:
            objective = DescriptorLoss(self.environment.widened(options.cutoff_factor), skin=0.3)
        self.minimizer = BatchMinimizer(
            batch,
            LatentLoss(objective, options.prior_weight),
            options.make_solver(),
            options.fmax,
            metric=LatentMetric.at,
        )

    def __iter__(self) -> Iterator[int]:
        """Run; yields the number of crystals that have the motif so far after every step."""
        options, minimizer = self.options, self.minimizer
        found = 0
        for step in range(1, options.steps + 1):
            going = minimizer.step()
            if step % options.check_every == 0 and going:
                good = self._motif(self._decoded()).view(-1, options.samples).any(dim=1)
                found = int(good.sum())
                minimizer.stop(good.repeat_interleave(options.samples))
            yield found
            if not going:
                break

    def finish(self) -> list[SymmetricCrystal]:
        """Best decoded crystal of each, in order: the motif first, then the smallest loss."""
        crystals, free = self.minimizer.batch.crystals, self._decoded()
        loss = self.objective.bind(crystals).evaluate(free).value
        loss = torch.nan_to_num(loss, nan=torch.inf) - self._motif(free) * 1e300
        best = loss.view(-1, self.options.samples).argmin(dim=1).tolist()
        parts = crystals.split(crystals.wrap(free))
        return [
            crystal.with_free_variables(parts[k * self.options.samples + sample])
            for k, (crystal, sample) in enumerate(zip(self.crystals, best, strict=True))
        ]

    def steps(self) -> list[int]:
        """Evaluations used for each crystal, over its samples."""
        return self.minimizer.steps.view(-1, self.options.samples).sum(dim=1).tolist()

    def _decoded(self) -> Tensor:
        with torch.no_grad():
            return self.minimizer.batch.decode(self.minimizer.variables)

    def _motif(self, free: Tensor) -> Tensor:
        return motif(self.environment, self.minimizer.batch.crystals, free)
