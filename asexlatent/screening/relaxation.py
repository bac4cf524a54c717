"""Relaxation under symmetry: MACE energies of many crystals at once, in their free variables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import covalent_radii
from torch import Tensor

from asexlatent.descriptor.neighbors import neighbor_pairs, pair_vectors
from asexlatent.optimize.batch import CrystalBatch, Subset
from asexlatent.optimize.driver import BatchMinimizer, Status
from asexlatent.optimize.lbfgs import LBFGS
from asexlatent.optimize.memory import check_room
from asexlatent.optimize.metric import Metric
from asexlatent.optimize.solver import Solver
from asexlatent.screening.ase_relaxation import relax_with_calculator
from asexlatent.screening.mace_energy import GIB, MACEEnergy
from asexlatent.screening.relaxed import Relaxation, Reporter
from asexlatent.symmetry import CrystalError, SymmetricCrystal

if TYPE_CHECKING:
    from asexlatent.screening.mace_model import MaceModel

__all__ = ["Relaxation", "relax", "relax_with_calculator"]

MAX_EXPANSION = 4.0
"""A crystal that grew, or shrank, by more than this factor in volume has failed."""
MIN_DISTANCE = 0.55
"""Of the sum of two covalent radii (0.84 Å for carbon): a result with nearer atoms has failed."""
_LARGEST_BATCH = 512
# Free variables beyond which a second-order first guess costs more than it saves.
_SECOND_ORDER = 400


def relax(
    crystals: Sequence[SymmetricCrystal],
    model: MaceModel | torch.nn.Module | MACEEnergy | None = None,
    *,
    fmax: float = 0.02,
    smax: float | None = None,
    steps: int = 300,
    solver: Solver | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
    memory: float = 2.0,
    progress: bool | Callable[[int, int], None] = False,
) -> list[Relaxation]:
    """Relax crystals within their space groups on a MACE energy, many at once.

    Cell and sites move in the free variables, by the driver that refines crystals
    (`BatchMinimizer`); crystals leave the batch as they converge. Nothing else can change: group,
    Wyckoff positions and order of the sites are those that came in.

    Parameters
    ----------
    crystals : sequence of SymmetricCrystal
    model : MaceModel, torch.nn.Module, MACEEnergy or None
        None takes the carbon model that ships with the package.
    fmax : float
        Converged when no force is larger, eV/Å, and
    smax : float, optional
        no row of the stress tensor, eV/Å^3. Default: as ASE's ``FrechetCellFilter`` has it, no row
        of the stress times the volume per atom larger than `fmax`, as eV.
    steps : int
        Limit for each crystal.
    solver : Solver, optional
        Default: L-BFGS from the curvature of a spring model.
    device, dtype
        Where to compute, and in which precision the network; of a `MACEEnergy` only the device
        counts. Cells and coordinates are in float64.
    memory : float
        GiB that a batch may take.
    progress : bool or callable
        True shows a bar; a callable is given the number of finished crystals and of all.

    Returns
    -------
    list of Relaxation
        One per crystal, in order. One that flies apart, collapses or meets a value that is no
        number is "failed" with the reason, and so is one of elements unknown to the model.

    Raises
    ------
    ValueError
        For thresholds that are not positive, or a model that is no MACE model.
    """
    if not fmax > 0 or (smax is not None and not smax > 0):
        raise ValueError(f"fmax {fmax} and smax {smax} must be positive")
    energy = model
    if not isinstance(model, MACEEnergy):
        energy = MACEEnergy(model, dtype=dtype, memory=memory)
    job = _Job(energy, fmax, smax, steps, solver, device)
    results = [Relaxation(crystal) for crystal in crystals]
    usable = [k for k, result in enumerate(results) if _is_usable(result, energy, device)]
    with Reporter(progress, len(crystals)) as report:
        report(len(crystals) - len(usable))
        for batch in _plan(crystals, usable, energy, memory, device):
            for k, result in zip(batch, job.run([crystals[k] for k in batch], report), strict=True):
                results[k] = result
    return results


@dataclass(frozen=True, eq=False)
class RelaxationMetric(Metric):
    """`Metric` whose gradient norm has a threshold of its own on the stress.

    Attributes
    ----------
    stress_factor : Tensor, shape (B,)
        Multiplies the norm on the cell.
    """

    stress_factor: Tensor

    @classmethod
    def at(cls, batch: CrystalBatch, variables: Tensor, ratio: float | None = None) -> Metric:
        """Metric at `variables`; `ratio` is fmax / smax, Å^2."""
        metric = Metric.at(batch, variables)
        if ratio is None:
            return metric
        return cls(**vars(metric), stress_factor=ratio / volume_per_atom(batch, variables))

    def gradient_norm(self, batch: CrystalBatch, gradient: Tensor) -> Tensor:
        """Force or stress, whichever is farther from its threshold, as a force (B,)."""
        force, cell = self.gradient_norms(batch, gradient)
        return torch.maximum(force, cell * self.stress_factor)

    def where(self, mask: Subset, other: RelaxationMetric) -> RelaxationMetric:
        """Return this metric for the crystals of `mask`, `other` for the rest."""
        factor = torch.where(mask.crystals, self.stress_factor, other.stress_factor)
        return RelaxationMetric(**vars(super().where(mask, other)), stress_factor=factor)

    def select(self, mask: Subset) -> RelaxationMetric:
        """Return the part of the crystals of `mask`."""
        factor = self.stress_factor[mask.crystals]
        return RelaxationMetric(**vars(super().select(mask)), stress_factor=factor)

    def put(self, mask: Subset, part: RelaxationMetric) -> None:
        """Write `part`, made by `select` with the same mask, back in place."""
        super().put(mask, part)
        self.stress_factor[mask.crystals] = part.stress_factor

    def clone(self) -> RelaxationMetric:
        """Return a copy that shares no memory."""
        return RelaxationMetric(**vars(super().clone()), stress_factor=self.stress_factor.clone())


def volume_per_atom(batch: CrystalBatch, variables: Tensor) -> Tensor:
    """Å^3, shape (B,)."""
    volume = torch.linalg.det(batch.cells(variables))
    return volume / batch.atoms_per_crystal.to(volume)


@dataclass(frozen=True, eq=False)
class _Job:
    """Settings of a relaxation."""

    energy: MACEEnergy
    fmax: float
    smax: float | None
    steps: int
    solver: Solver | None
    device: torch.device | str | None

    def run(
        self, crystals: list[SymmetricCrystal], report: Callable[[int], None]
    ) -> list[Relaxation]:
        """Relax a batch; where it cannot go on as a whole, halves of it do."""
        try:
            return self._minimize(crystals, report)
        except (ValueError, RuntimeError) as error:  # torch says RuntimeError for most things
            if len(crystals) == 1:
                report(1)
                return [Relaxation(crystals[0], reason=str(error))]
        half = len(crystals) // 2
        return [*self.run(crystals[:half], report), *self.run(crystals[half:], report)]

    def _minimize(
        self, crystals: list[SymmetricCrystal], report: Callable[[int], None]
    ) -> list[Relaxation]:
        batch = CrystalBatch.from_crystals(crystals, device=self.device)
        solver = self.solver
        if solver is None:
            largest = int(batch.variables_per_crystal().max())
            solver = LBFGS(needs_curvature=largest <= _SECOND_ORDER)
        ratio = None if self.smax is None else self.fmax / self.smax
        metric = partial(RelaxationMetric.at, ratio=ratio)
        minimizer = BatchMinimizer(batch, self.energy, solver, self.fmax, metric=metric)
        finished = len(crystals) - minimizer.n_active
        report(finished)
        for _ in range(self.steps):
            if not minimizer.n_active:
                break
            minimizer.step()
            report(len(crystals) - minimizer.n_active - finished)
            finished = len(crystals) - minimizer.n_active
        report(len(crystals) - finished)
        return self._results(crystals, batch, minimizer)

    def _results(
        self, crystals: list[SymmetricCrystal], batch: CrystalBatch, minimizer: BatchMinimizer
    ) -> list[Relaxation]:
        variables, gradient = minimizer.variables, minimizer.gradient
        force, cell = Metric.at(batch, variables).gradient_norms(batch, gradient)
        stress = cell / volume_per_atom(batch, variables)
        places = batch.split(variables)
        problems = _problems(batch, variables, minimizer.isolated, self.energy)
        columns = (
            minimizer.losses,
            minimizer.steps,
            force,
            stress,
            minimizer.initial_losses,
        )
        columns = zip(*(column.tolist() for column in columns), strict=True)
        results = []
        for k, ((status, reason), row) in enumerate(zip(minimizer.reports(), columns, strict=True)):
            result = Relaxation(crystals[k], row[0], str(status), reason or None, *row[1:])
            results.append(_finished(result, places[k], problems[k]))
        return results


def _finished(result: Relaxation, variables: np.ndarray, problem: str | None) -> Relaxation:
    """Put the free variables in, or say why not."""
    if result.status == Status.FAILED or not math.isfinite(result.energy):
        problem = problem or "the energy is not a finite number"
    if problem is None:
        try:
            crystal = result.crystal.with_free_variables(variables)
            return replace(result, crystal=crystal)
        except CrystalError as error:
            problem = str(error)
    return replace(result, status=str(Status.FAILED), reason=problem, energy=math.nan)


def _problems(
    batch: CrystalBatch, variables: Tensor, isolated: Tensor, energy: MACEEnergy
) -> list[str | None]:
    """What is wrong with crystals at the end, if anything."""
    growth = (volume_per_atom(batch, variables) / volume_per_atom(batch, batch.variables)).tolist()
    r_max = energy.network(batch.variables.device).r_max
    problems: list[str | None] = []
    shortest = _shortest(batch, variables)
    for b, alone in enumerate(isolated.tolist()):
        if alone:
            problem = f"an atom has no neighbour within {r_max:g} Å: the crystal flew apart"
        elif not 1 / MAX_EXPANSION < growth[b] < MAX_EXPANSION:
            problem = f"the volume changed by a factor of {growth[b]:.3g}"
        elif shortest[b] < MIN_DISTANCE:
            problem = (
                f"atoms collapsed to {shortest[b]:.2f} of the sum of their covalent radii "
                f"(at least {MIN_DISTANCE} is asked for)"
            )
        else:
            problem = None
        problems.append(problem)
    return problems


def _shortest(batch: CrystalBatch, variables: Tensor) -> list[float]:
    """Shortest distance in each crystal that is below what is allowed, in covalent radii."""
    radii = torch.as_tensor(covalent_radii).to(variables)[batch.numbers]
    cells, scaled = batch.geometry(variables)
    crystal, centers = batch.atom_crystal, batch.site_atom
    reach = float(2 * radii.max() * MIN_DISTANCE)
    pairs = neighbor_pairs(scaled, cells, crystal, centers, reach)
    vectors = pair_vectors(scaled, cells, crystal, centers, pairs)
    total = radii[centers[pairs.centers]] + radii[pairs.neighbors]
    nearest = torch.full_like(cells[:, 0, 0], torch.inf)
    owner = batch.site_crystal[pairs.centers]
    return nearest.scatter_reduce(0, owner, vectors.norm(dim=1) / total, "amin").tolist()


def _is_usable(result: Relaxation, energy: MACEEnergy, device: torch.device | str | None) -> bool:
    """Whether a crystal can be tried at all; otherwise its result says why not."""
    known = energy.network(device).known_symbols
    try:
        check_room(result.crystal)
        unknown = sorted(set(result.crystal.symbols) - known)
        if unknown:
            raise CrystalError(f"the MACE model does not know {', '.join(unknown)}")
        batch = CrystalBatch.from_crystals([result.crystal])
        nearest = _shortest(batch, batch.variables)[0]
        if nearest < MIN_DISTANCE / 2:
            raise CrystalError(
                f"atoms at {nearest:.2f} of the sum of their covalent radii cannot be relaxed"
            )
    except ValueError as error:
        result.reason = str(error)
        return False
    return True


def _plan(
    crystals: Sequence[SymmetricCrystal],
    usable: list[int],
    energy: MACEEnergy,
    memory: float,
    device: torch.device | str | None,
) -> Iterator[list[int]]:
    """Cut crystals into batches of like numbers of free variables, as many as memory holds."""
    radius = energy.network(device).r_max + energy.skin
    order = sorted(usable, key=lambda k: crystals[k].free_variables.size)
    batch: list[int] = []
    used = 0.0
    for k in order:
        crystal = crystals[k]
        density = max(0.2, crystal.n_atoms / crystal.volume)
        pairs = crystal.n_sites * density * 4 / 3 * math.pi * radius**3
        columns = crystal.free_variables.size + 1
        need = 400 * pairs + 80.0 * columns**2 + 400.0 * crystal.n_atoms * crystal.n_sites
        if batch and (used + need > memory * GIB / 2 or len(batch) >= _LARGEST_BATCH):
            yield batch
            batch, used = [], 0.0
        batch.append(k)
        used += need
    if batch:
        yield batch
