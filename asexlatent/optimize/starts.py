"""Where the attempts of a search begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asexlatent.descriptor import LocalEnvironment
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.metric import Metric
from asexlatent.optimize.solver import CellBounds

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
    from_best : bool
        Whether the noise is put on the best iterate of the attempts so far (where one was nearer
        to the motif than all others), instead of on the candidate.
    """

    path: str
    displacement: float = 0.0
    strain: float = 0.0
    volume: float = 0.0
    from_best: bool = False


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
    reference_density : bool
        Whether new starts take the density of the environment's reference structure, times a
        random factor, instead of the candidate's.
    best : bool
        Whether small noise is put on the best iterate so far, instead of on the candidate.
    fresh : bool
        Whether later attempts may draw all free coordinates anew: the result then shares only
        the space group and the Wyckoff positions with the candidate.
    seed : int
        Random numbers are keyed by (seed, index of the crystal, attempt).
    first : int
        Number of the first attempt: a search that goes on where another one ended.
    """

    count: int = 0
    approach_steps: int = 12
    approach_factor: float = 1.45
    descent_steps: int = 6
    check_every: int = 4
    reference_density: bool = True
    best: bool = False
    fresh: bool = True
    seed: int = 0
    first: int = 0

    @property
    def attempts(self) -> range:
        """Numbers of the attempts; 0 is the one from the candidate itself."""
        return range(self.first, self.first + self.count + 1)

    @property
    def searching(self) -> bool:
        """Whether there is more than one descent from the candidate."""
        return self.count > 0 or self.first > 0

    def start(self, attempt: int) -> Start:
        """Where attempt 0, 1, ... begins."""
        if attempt == 0:
            return Start(DESCENT)
        cycle = (
            Start(PERTURBED, 0.3, 0.05, 0.1, from_best=self.best),
            Start(PERTURBED, 1.0, 0.10, 0.2),
            Start(FRESH, 0.0, 0.10, 0.2) if self.fresh else Start(PERTURBED, 0.6, 0.10, 0.2),
        )
        return cycle[(attempt - 1) % len(cycle)]


def begin(
    batch: CrystalBatch,
    start: Start,
    seed: int,
    attempt: int,
    keys: Sequence[int],
    density: float | None,
) -> Tensor:
    """Free variables (V,) at which an attempt begins.

    Parameters
    ----------
    batch : CrystalBatch
        The candidates.
    seed, attempt, keys
        Of the random numbers; one key for each crystal.
    density : float or None
        Atoms per Å^3 to begin with; None keeps that of the candidate.
    """
    variables = batch.variables
    if attempt == 0:
        return variables
    normal, uniform, volume = _noise(batch, seed, attempt, keys)
    metric = Metric.at(batch, variables)
    length = torch.sqrt(torch.diagonal(metric.site_gram, dim1=1, dim2=2))
    spread = variables.new_zeros(batch.n_variables + 1)
    spread[batch.site_index.reshape(-1)] = (start.displacement / length).reshape(-1)
    spread = spread[:-1]
    spread = torch.where(batch.variable_kind == 0, start.strain * variables, spread)
    spread = torch.where(batch.variable_kind == 1, start.strain, spread)
    moved = variables + spread * normal
    if start.path == FRESH:
        moved = torch.where(batch.variable_kind == 2, uniform, moved)
    factor = torch.exp(start.volume * volume)
    if density is not None:
        n_atoms = torch.bincount(batch.atom_crystal, minlength=batch.n_crystals)
        present = torch.linalg.det(batch.cells(moved)).clamp(min=1e-3)
        factor = factor * n_atoms / (density * present)
    factor = (factor ** (1 / 3))[batch.variable_crystal]
    scaled = torch.where(batch.variable_kind == 0, moved * factor, moved)
    return CellBounds().apply(batch, scaled, variables)


def _noise(
    batch: CrystalBatch, seed: int, attempt: int, keys: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Normal and uniform numbers (V,) and a normal one per crystal (B,)."""
    normal, uniform, volume = [], [], []
    for key, size in zip(keys, batch.variables_per_crystal().tolist(), strict=True):
        stream = np.random.Philox(key=np.array([seed, key], dtype=np.uint64))
        generator = np.random.Generator(stream.advance(attempt << 32))
        volume.append(generator.standard_normal())
        normal.append(generator.standard_normal(size))
        uniform.append(generator.random(size))
    like = batch.variables
    return (
        torch.as_tensor(np.concatenate(normal)).to(like),
        torch.as_tensor(np.concatenate(uniform)).to(like),
        torch.as_tensor(np.array(volume)).to(like),
    )


def number_density(environment: LocalEnvironment) -> float | None:
    """Atoms per Å^3 of the reference, which new starts aim at; None if it fills no space."""
    structure = environment.structure
    if structure is None or not structure.pbc.all():
        return None
    return len(structure) / structure.get_volume()
