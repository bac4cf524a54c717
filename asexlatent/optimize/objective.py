"""Objectives: what is minimised, one value per crystal.

An objective is bound to a batch once (`Objective.bind`); the bound `Problem` is evaluated many
times and follows the batch when crystals leave it. Any differentiable quantity per crystal
fits: the descriptor loss here, an energy, or their sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from asexlatent.descriptor import LocalEnvironment
from asexlatent.descriptor.environment import nearest_reference
from asexlatent.descriptor.neighbors import NeighborList, NeighborPairs
from asexlatent.descriptor.slots import Slots, make_slots
from asexlatent.optimize.batch import CrystalBatch, Subset
from asexlatent.optimize.combined import Summable
from asexlatent.optimize.jacobian import neighbor_maps, site_jacobian
from asexlatent.optimize.metric import Metric


@dataclass(frozen=True, eq=False)
class Evaluation:
    """An objective at one set of free variables.

    Attributes
    ----------
    value : Tensor, shape (B,)
        For the descriptor loss, Eq. 1 of the method (dimension of the descriptor squared).
    gradient : Tensor, shape (V,)
        With respect to the free variables (per Å, per radian, per unit of fraction).
    isolated : Tensor of bool, shape (B,)
        Some site has no neighbour that the objective can see: a plateau, not a solution.
    curvature : Tensor, shape (B, n, n), or None
        Positive semidefinite second derivative (Gauss-Newton) in the variable slots of each
        crystal (`CrystalBatch.slot`), zero where a crystal has fewer than n variables; only
        when it was asked for.
    """

    value: Tensor
    gradient: Tensor
    isolated: Tensor
    curvature: Tensor | None = None

    def where(self, mask: Subset, other: Evaluation) -> Evaluation:
        """Return this evaluation for the crystals of `mask`, `other` for the rest."""
        keep, curvature = mask.crystals, None
        if self.curvature is not None:
            curvature = torch.where(keep[:, None, None], self.curvature, other.curvature)
        return Evaluation(
            torch.where(keep, self.value, other.value),
            torch.where(mask.variables, self.gradient, other.gradient),
            torch.where(keep, self.isolated, other.isolated),
            curvature,
        )

    def select(self, mask: Subset) -> Evaluation:
        """Return the part of the crystals of `mask`."""
        keep = mask.crystals
        curvature = None if self.curvature is None else self.curvature[keep]
        gradient = self.gradient[mask.variables]
        return Evaluation(self.value[keep], gradient, self.isolated[keep], curvature)

    def put(self, mask: Subset, part: Evaluation) -> None:
        """Write `part`, made by `select` with the same mask, back in place."""
        self.value[mask.crystals] = part.value
        self.gradient[mask.variables] = part.gradient
        self.isolated[mask.crystals] = part.isolated
        if self.curvature is not None:
            self.curvature[mask.crystals] = part.curvature

    def clone(self) -> Evaluation:
        """Return a copy that shares no memory."""
        curvature = None if self.curvature is None else self.curvature.clone()
        return Evaluation(
            self.value.clone(), self.gradient.clone(), self.isolated.clone(), curvature
        )


@dataclass(eq=False)
class Iterate:
    """Free variables, shape (V,), with the metric and the objective there."""

    variables: Tensor
    metric: Metric
    evaluation: Evaluation

    def where(self, mask: Subset, other: Iterate) -> Iterate:
        """Return this iterate for the crystals of `mask`, `other` for the rest."""
        return Iterate(
            torch.where(mask.variables, self.variables, other.variables),
            self.metric.where(mask, other.metric),
            self.evaluation.where(mask, other.evaluation),
        )

    def select(self, mask: Subset) -> Iterate:
        """Return the part of the crystals of `mask`."""
        return Iterate(
            self.variables[mask.variables], self.metric.select(mask), self.evaluation.select(mask)
        )

    def put(self, mask: Subset, part: Iterate) -> None:
        """Write `part`, made by `select` with the same mask, back in place."""
        self.variables[mask.variables] = part.variables
        self.metric.put(mask, part.metric)
        self.evaluation.put(mask, part.evaluation)

    def without_curvature(self) -> Iterate:
        """Return the same without the largest of its tensors."""
        return replace(self, evaluation=replace(self.evaluation, curvature=None))

    def clone(self) -> Iterate:
        """Return a copy that shares no memory."""
        return Iterate(self.variables.clone(), self.metric.clone(), self.evaluation.clone())


class Problem(Protocol):
    """An objective bound to a batch of B crystals with V free variables in all.

    Variables and gradients have shape (V,), values (B,), curvatures (B, n, n).
    """

    def evaluate(self, variables: Tensor, metric: Metric | None = None) -> Evaluation:
        """Value (B,) and gradient (V,) of the crystals at `variables`, shape (V,).

        With `metric`, that of the batch at `variables`, also the curvature (B, n, n).
        """
        ...

    def select(self, keep: Tensor, batch: CrystalBatch) -> Problem:
        """Return the problem of the crystals that `keep`, bool of shape (B,), leaves in `batch`."""
        ...


class Objective(Protocol):
    """Something to minimise over the free variables of crystals."""

    def bind(self, batch: CrystalBatch) -> Problem:
        """Prepare for the crystals of `batch`."""
        ...


@dataclass(frozen=True)
class DescriptorLoss(Summable):
    """Mean squared deviation of the power spectra from a local environment (Eq. 1).

    Parameters
    ----------
    environment : LocalEnvironment
        The target. Each site is compared with the nearest reference of its species.
    site_weights : {"equal", "multiplicity"}
        Eq. 1 counts inequivalent sites equally; "multiplicity" counts atoms equally.
    skin : float
        Å added to the cutoff of the neighbour lists, which are reused until something has
        moved by half of it.
    """

    environment: LocalEnvironment
    site_weights: str = "equal"
    skin: float = 0.6

    def __post_init__(self) -> None:
        if self.site_weights not in ("equal", "multiplicity"):
            raise ValueError(
                f"site_weights must be 'equal' or 'multiplicity', not {self.site_weights!r}"
            )

    def bind(self, batch: CrystalBatch) -> DescriptorProblem:
        """Prepare the descriptor, the weights of the sites and an empty neighbour list."""
        return DescriptorProblem(self, batch)


class _Arranged(NamedTuple):
    """What follows from which atoms are neighbours, wherever they are."""

    pairs: NeighborPairs
    numbers: Tensor  # (P,)
    slots: Slots
    pieces: Slots  # those of one site together
    site: Tensor  # of the neighbours in each piece

    @classmethod
    def of(cls, batch: CrystalBatch, pairs: NeighborPairs) -> _Arranged:
        """Arrange the pairs of the sites of a batch."""
        site = batch.atom_site.index_select(0, pairs.neighbors)
        slots = make_slots(pairs.centers, batch.n_sites)
        pieces = make_slots(pairs.centers, batch.n_sites, width=4, kind=site)
        numbers = batch.numbers.index_select(0, pairs.neighbors)
        return cls(pairs, numbers, slots, pieces, site[pieces.first])


class DescriptorProblem:
    """`DescriptorLoss` bound to a batch: Algorithm 1, lines 5 to 8, as one tensor program.

    Parameters
    ----------
    loss, batch
        What is bound.
    previous : DescriptorProblem, optional
        Of a batch that `batch` was selected from, with the mask `keep` (B of that batch,).

    Attributes
    ----------
    within : bool
        Whether pairs beyond the cutoff are taken out of the neighbour list at every evaluation.
        That saves arithmetic, but the number of those left has to be waited for, and again how
        they are arranged: so on a CPU only.
    """

    def __init__(
        self,
        loss: DescriptorLoss,
        batch: CrystalBatch,
        previous: DescriptorProblem | None = None,
        keep: Tensor | None = None,
    ):
        self.loss = loss
        self.batch = batch
        self.within = batch.variables.device.type == "cpu"
        self._arranged: _Arranged | None = None
        # copies on the device of the batch: the environment itself lives on the host
        reference = loss.environment.numbers.to(batch.numbers.device)
        self._match = batch.numbers[batch.site_atom][:, None] == reference
        self._reference = loss.environment.spectra.to(batch.variables)
        weight = torch.ones_like(batch.site_crystal)
        weight = batch.multiplicity if loss.site_weights == "multiplicity" else weight
        weight = weight.to(batch.variables.dtype)
        total = weight.new_zeros(batch.n_crystals).index_add_(0, batch.site_crystal, weight)
        self.site_weight = weight / total[batch.site_crystal]
        if previous is None or keep is None:
            placement = {"dtype": weight.dtype, "device": weight.device}
            self.spectrum = loss.environment.power_spectrum(**placement)
            self.neighbors = NeighborList(
                batch.atom_crystal, batch.site_atom, self.spectrum.rcut, loss.skin, symmetric=True
            )
            n_slots = int(batch.variables_per_crystal().max())
        else:
            self.spectrum, n_slots = previous.spectrum, previous.slots.n
            self.within = previous.within
            self.neighbors = previous.neighbors.select(keep)
        self.slots = batch.slot_map(n_slots)

    def evaluate(self, variables: Tensor, metric: Metric | None = None) -> Evaluation:
        """Loss and gradient of every crystal at `variables`, shape (V,).

        With `metric`, that of the batch at `variables`, also the Gauss-Newton curvature.
        """
        if metric is not None:
            return self._linearize(variables, metric)
        variables = variables.detach().requires_grad_(True)
        value, count = self.value(variables)
        (gradient,) = torch.autograd.grad(value.sum(), variables)
        return Evaluation(value.detach(), gradient, self._isolated(count))

    def value(self, variables: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (B,), differentiable, and the number of neighbours of each site (S,)."""
        pairs, vectors = self._pairs(variables)
        numbers = self.batch.numbers[pairs.neighbors]
        spectra = self.spectrum(vectors, pairs.centers, numbers, self.batch.n_sites)
        per_site = (self._residual(spectra) ** 2).mean(1) * self.site_weight
        return self._per_crystal(per_site), self._count(pairs, vectors.detach())

    def select(self, keep: Tensor, batch: CrystalBatch) -> DescriptorProblem:
        """Return the problem of the crystals kept, with their neighbour lists."""
        return DescriptorProblem(self.loss, batch, self, keep)

    def _linearize(self, variables: Tensor, metric: Metric) -> Evaluation:
        """Value, gradient and Gauss-Newton curvature in one pass, without autograd."""
        batch, n = self.batch, self.slots.n
        cells, scaled = batch.geometry(variables)
        pairs, vectors = self.neighbors.with_vectors(scaled, cells, self.within)
        if self._arranged is None or self._arranged.pairs is not pairs:
            self._arranged = _Arranged.of(batch, pairs)
        numbers, slots, pieces, site = self._arranged[1:]
        maps = neighbor_maps(batch, cells, pairs)
        weight = self.site_weight / self.spectrum.n_components
        root = torch.sqrt(2 * weight)[:, None]  # on both factors of every product
        spectra = vectors.new_zeros(batch.n_sites, self.spectrum.n_components)
        gradient = vectors.new_zeros(batch.n_crystals, n)
        curvature = vectors.new_zeros(batch.n_crystals, n * n)
        for part in self.spectrum.motions(vectors, numbers, slots, pieces, maps):
            here, these = part.centers, part.pieces
            jacobian = site_jacobian(
                batch, self.slots, cells, metric, part, pieces.center[these], site[these]
            )
            jacobian = jacobian.mul_(root[here, :, None])
            spectra[here] = part.spectra
            residual = self._residual(part.spectra, here) * root[here]
            owner = batch.site_crystal[here]
            gradient.index_add_(0, owner, torch.bmm(jacobian, residual[:, :, None])[:, :, 0])
            product = torch.bmm(jacobian, jacobian.transpose(1, 2))
            curvature.index_add_(0, owner, product.flatten(1))
        return Evaluation(
            self._per_crystal((self._residual(spectra) ** 2).sum(1) * weight),
            self.slots.unpad(gradient),
            self._isolated(self._count(pairs, vectors)),
            curvature.view(-1, n, n),
        )

    def _pairs(self, variables: Tensor) -> tuple[NeighborPairs, Tensor]:
        """Neighbour pairs of the sites, and their vectors (P, 3), differentiable."""
        batch = self.batch
        cells, scaled = batch.geometry(variables)
        pairs = self.neighbors.update(scaled, cells, self.within)
        own = scaled[batch.site_atom]
        step = scaled[pairs.neighbors] - own[pairs.centers] + pairs.shifts
        cell = cells[batch.site_crystal[pairs.centers]]
        return pairs, torch.bmm(step[:, None, :], cell)[:, 0]

    def _residual(self, spectra: Tensor, sites: slice = slice(None)) -> Tensor:
        return spectra - nearest_reference(spectra, self._reference, self._match[sites])

    def _per_crystal(self, per_site: Tensor) -> Tensor:
        """Sum an array (S, ...) over the sites of each crystal."""
        total = per_site.new_zeros(self.batch.n_crystals, *per_site.shape[1:])
        return total.index_add(0, self.batch.site_crystal, per_site)

    def _count(self, pairs: NeighborPairs, vectors: Tensor) -> Tensor:
        """Neighbours within the cutoff (not the skin) of each site, shape (S,)."""
        x, y, z = vectors.unbind(1)
        seen = (x * x + y * y + z * z < self.spectrum.rcut**2).long()
        return torch.zeros_like(self.batch.site_atom).index_add_(0, pairs.centers, seen)

    def _isolated(self, count: Tensor) -> Tensor:
        return self._per_crystal((count == 0).long()) > 0
