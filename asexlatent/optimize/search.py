"""Starting crystals again until their motif is right.

One descent under Eq. 1 with a cutoff just beyond the first shell leaves most candidates in a
wrong motif: atoms that ought to bond do not see each other yet. Two things help, in this order:
*approach* steps under the same loss with a wider cutoff (a continuation in rcut: the target's
second shell draws atoms together and holds them apart), and another start. `docs/search.md`
reports what each buys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from asexlatent.descriptor import LocalEnvironment
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.driver import BatchMinimizer
from asexlatent.optimize.metric import Metric
from asexlatent.optimize.objective import DescriptorLoss
from asexlatent.optimize.solver import CellBounds, Solver

DESCENT, PERTURBED, FRESH = "descent", "perturbed", "fresh"


@dataclass(frozen=True)
class Start:
    """Where one attempt begins.

    Parameters
    ----------
    path : str
        What `Refinement.path` says of a crystal that this attempt makes valid.
    displacement : float
        Standard deviation of Gaussian noise on every free coordinate, Å.
    strain : float
        Standard deviation of relative noise on lengths, and of noise on angles in radians.
    volume : float
        Standard deviation of the logarithm of a factor on the volume.
    """

    path: str
    displacement: float = 0.0
    strain: float = 0.0
    volume: float = 0.0


@dataclass(frozen=True)
class Restarts:
    """Policy of the attempts.

    Parameters
    ----------
    count : int
        Attempts after the first.
    approach_steps : int
        Steps under the wider cutoff in each attempt.
    approach_factor : float
        That cutoff, in units of the environment's own.
    descent_steps : int
        Steps under the environment's own cutoff, at the beginning of the first attempt and at
        the end of every one.
    check_every : int
        Steps between two looks at the motif; a crystal that has it leaves the attempt.
    fresh : bool
        Whether later attempts may draw all free coordinates anew: the result then shares only
        the space group and the Wyckoff positions with the candidate.
    seed : int
        Random numbers are keyed by (seed, index of the crystal, attempt).
    """

    count: int = 0
    approach_steps: int = 12
    approach_factor: float = 1.45
    descent_steps: int = 6
    check_every: int = 4
    fresh: bool = True
    seed: int = 0

    def start(self, attempt: int) -> Start:
        """Where attempt 0, 1, ... begins."""
        if attempt == 0:
            return Start(DESCENT)
        cycle = (
            Start(PERTURBED, 0.3, 0.05, 0.1),
            Start(PERTURBED, 1.0, 0.10, 0.2),
            Start(FRESH, 0.0, 0.10, 0.2) if self.fresh else Start(PERTURBED, 0.6, 0.10, 0.2),
        )
        return cycle[(attempt - 1) % len(cycle)]


class Search:
    """Attempts on all crystals of a batch; those whose motif is right leave.

    Parameters
    ----------
    batch : CrystalBatch
    environment : LocalEnvironment
    solver : Solver
    restarts : Restarts
    keys : sequence of int
        Index of each crystal in the whole input, shape (B,): the key of its random numbers.
    density : float or None
        Atoms per Å^3 that perturbed starts aim at; None keeps that of the candidate.

    Attributes
    ----------
    variables : Tensor, shape (V,)
        Best known free variables of each crystal.
    valid : Tensor of bool, shape (B,)
    steps : Tensor, shape (B,)
        Evaluations used so far.
    paths : list of str
    """

    def __init__(
        self,
        batch: CrystalBatch,
        environment: LocalEnvironment,
        solver: Solver,
        restarts: Restarts,
        keys: Sequence[int],
        density: float | None = None,
    ):
        self.batch = batch
        self.environment = environment
        self.solver = solver
        self.restarts = restarts
        self.keys = list(keys)
        self.density = density
        self.near = DescriptorLoss(environment)
        self.far = DescriptorLoss(environment.widened(restarts.approach_factor), skin=0.3)
        self.variables = batch.variables.clone()
        self.losses = torch.full_like(batch.cell_constant[:, 0], torch.inf)
        self.steps = torch.zeros_like(batch.n_cell_variables)
        self.valid = motif(environment, batch, batch.variables)
        self.paths = [DESCENT] * batch.n_crystals

    def __iter__(self) -> Iterator[int]:
        """Run; yields the number of valid crystals after every step."""
        for attempt in range(self.restarts.count + 1):
            start = self.restarts.start(attempt)
            open_ = ~self.valid
            if not bool(open_.any()):
                return
            yield from self._attempt(start, attempt, open_)

    def _attempt(self, start: Start, attempt: int, mask: Tensor) -> Iterator[int]:
        policy = self.restarts
        batch = self.batch.select(mask)
        numbers = mask.nonzero().ravel().tolist()
        begin = self._begin(batch, start, attempt, [self.keys[k] for k in numbers])
        stages = [(self.far, policy.approach_steps), (self.near, policy.descent_steps)]
        if attempt == 0:
            stages.insert(0, (self.near, policy.descent_steps))
        variables = begin
        done = torch.zeros_like(batch.n_cell_variables) > 0
        loss = torch.full_like(self.losses[mask], torch.inf)
        for objective, n_steps in stages:
            # The approach of the first attempt starts from the candidate, not from the dead end
            # of its descent.
            if objective is self.far:
                variables = torch.where(done[batch.variable_crystal], variables, begin)
            minimizer = BatchMinimizer(
                replace(batch, variables=variables), objective, self.solver, fmax=1e-3
            )
            minimizer.stop(done)
            for step in range(1, n_steps + 1):
                if not minimizer.step():
                    break
                if step % policy.check_every == 0 or step == n_steps:
                    good = motif(self.environment, batch, minimizer.variables)
                    minimizer.stop(good)
                yield int(self.valid.sum())
            variables = minimizer.variables
            done = motif(self.environment, batch, variables)
            self.steps[mask] += minimizer.steps
            if objective is self.near:
                loss = minimizer.losses
        self._take(mask, batch, variables, loss, done, start.path)

    def _take(
        self, mask: Tensor, batch: CrystalBatch, variables: Tensor, loss: Tensor, done: Tensor,
        path: str,
    ) -> None:  # fmt: skip
        """Keep what an attempt found: valid crystals, and the lowest loss of the others."""
        better = done | (loss < self.losses[mask])
        owner = self.batch.subset(mask)
        kept = self.variables[owner.variables]
        self.variables[owner.variables] = torch.where(
            better[batch.variable_crystal], variables, kept
        )
        self.losses[mask] = torch.where(better, loss, self.losses[mask])
        self.valid[mask] = done
        for k, good in zip(mask.nonzero().ravel().tolist(), done.tolist(), strict=True):
            if good:
                self.paths[k] = path

    def _begin(
        self, batch: CrystalBatch, start: Start, attempt: int, keys: Sequence[int]
    ) -> Tensor:
        """Free variables (V,) at which an attempt begins."""
        variables = batch.variables
        if attempt == 0:
            return variables
        normal, uniform, volume = self._noise(batch, attempt, keys)
        metric = Metric.at(batch, variables)
        length = torch.sqrt(torch.diagonal(metric.site_gram, dim1=1, dim2=2))
        per_site = start.displacement / length
        spread = variables.new_zeros(batch.n_variables + 1)
        spread[batch.site_index.reshape(-1)] = per_site.reshape(-1)
        spread = spread[:-1]
        spread = torch.where(batch.variable_kind == 0, start.strain * variables, spread)
        spread = torch.where(batch.variable_kind == 1, start.strain, spread)
        moved = variables + spread * normal
        if start.path == FRESH:
            moved = torch.where(batch.variable_kind == 2, uniform, moved)
        scaled = self._rescaled(batch, moved, start, volume)
        return CellBounds().apply(batch, scaled, variables)

    def _rescaled(
        self, batch: CrystalBatch, variables: Tensor, start: Start, volume: Tensor
    ) -> Tensor:
        """Bring the volume to the density aimed at, times a random factor."""
        factor = torch.exp(start.volume * volume)
        if self.density is not None:
            n_atoms = torch.bincount(batch.atom_crystal, minlength=batch.n_crystals)
            present = torch.linalg.det(batch.cells(variables)).clamp(min=1e-3)
            factor = factor * n_atoms / (self.density * present)
        factor = (factor ** (1 / 3))[batch.variable_crystal]
        return torch.where(batch.variable_kind == 0, variables * factor, variables)

    def _noise(
        self, batch: CrystalBatch, attempt: int, keys: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normal and uniform numbers (V,) and a normal one per crystal (B,)."""
        normal, uniform, volume = [], [], []
        for key, size in zip(keys, batch.variables_per_crystal().tolist(), strict=True):
            generator = np.random.Generator(
                np.random.Philox(key=np.array([self.restarts.seed, key], dtype=np.uint64))
            )
            generator.bit_generator.advance(attempt << 32)
            volume.append(generator.standard_normal())
            normal.append(generator.standard_normal(size))
            uniform.append(generator.random(size))
        like = batch.variables
        return (
            torch.as_tensor(np.concatenate(normal)).to(like),
            torch.as_tensor(np.concatenate(uniform)).to(like),
            torch.as_tensor(np.array(volume)).to(like),
        )


def motif(environment: LocalEnvironment, batch: CrystalBatch, variables: Tensor) -> Tensor:
    """Whether every site of each crystal obeys the motif rule at `variables`, shape (B,)."""
    cells, scaled = batch.geometry(variables)
    return environment.valid(scaled, cells, batch.atom_crystal, batch.site_atom, batch.numbers)
