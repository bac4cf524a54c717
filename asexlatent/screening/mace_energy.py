"""MACE energies of symmetric crystals as an objective: one network call for many crystals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from asexlatent.descriptor.neighbors import NeighborList, NeighborPairs, pair_vectors
from asexlatent.optimize.batch import CrystalBatch
from asexlatent.optimize.combined import Summable
from asexlatent.optimize.metric import Metric
from asexlatent.optimize.objective import Evaluation
from asexlatent.screening.bond_model import BondModel
from asexlatent.screening.site_network import SiteGraph, SiteImages, SiteNetwork

if TYPE_CHECKING:
    from asexlatent.screening.mace_model import MaceModel

GIB = 2.0**30
# Neighbours in one call: enough for the overhead of a call not to matter, few enough for the
# numbers of a call to stay in a processor's cache.
_CPU_EDGES = 8192
TOO_CLOSE = 0.35
"""Of the sum of two covalent radii (0.53 Å for carbon): nearer atoms are no crystal."""
_WALL = 1e8  # eV per atom: a trial with atoms so close is refused by any solver


@dataclass(frozen=True, eq=False)
class MACEEnergy(Summable):
    """Energy per atom (eV) of a MACE model, for every crystal of a batch.

    Only one atom of each inequivalent site receives messages (`SiteNetwork`), which is less work
    than the primitive cell, and the gradient for the free variables comes by differentiation
    straight through cells and coordinates: on an energy per atom E/N it is what forces and stress
    of the full cell give by the chain rule.

    Parameters
    ----------
    model : MaceModel, torch.nn.Module or None
        None takes the carbon model that ships with the package.
    dtype : torch.dtype
        Precision of the network. Cells and coordinates are in that of the batch.
    memory : float
        GiB for one call of the network; a crystal that alone needs more gets it.
    skin : float
        Å added to the cutoff of the neighbour lists, which are reused until something has
        moved by half of it.
    head : str, optional
        Of a model with several heads.

    Raises
    ------
    ValueError
        At `bind`, for a model that cannot be asked for sites, or for elements it does not know.
    """

    model: MaceModel | torch.nn.Module | None = None
    dtype: torch.dtype = torch.float64
    memory: float = 2.0
    skin: float = 0.5
    head: str | None = None

    def network(self, device: torch.device | str | None = None) -> SiteNetwork:
        """The model, ready on a device; the same object for the same device."""
        device = torch.device("cpu" if device is None else device)
        if device not in self._networks:
            self._networks[device] = SiteNetwork(self._module, self.dtype, device, self.head)
        return self._networks[device]

    def bind(self, batch: CrystalBatch) -> MACEProblem:
        """Prepare images, weights of the sites and an empty neighbour list."""
        return MACEProblem(self, self.network(batch.variables.device), batch)

    @cached_property
    def _module(self) -> torch.nn.Module:
        model: Any = self.model
        if model is None:
            from asexlatent.screening.mace_model import load_mace_model

            model = load_mace_model()
        return getattr(model, "module", model)

    @cached_property
    def _networks(self) -> dict[torch.device, SiteNetwork]:
        return {}


class _Chunk(NamedTuple):
    """Consecutive crystals that go through the network together, as ranges."""

    sites: slice
    images: slice
    edges: slice


class MACEProblem:
    """`MACEEnergy` bound to a batch.

    Parameters
    ----------
    energy, network, batch
        What is bound.
    neighbors : NeighborList, optional
        Of the crystals of `batch`, from a problem that held more of them.
    n_slots : int, optional
        Free variables that the curvature has room for. Default: the largest number in `batch`.
    """

    def __init__(
        self,
        energy: MACEEnergy,
        network: SiteNetwork,
        batch: CrystalBatch,
        neighbors: NeighborList | None = None,
        n_slots: int | None = None,
    ):
        self.energy, self.network, self.batch = energy, network, batch
        self.neighbors = neighbors or NeighborList(
            batch.atom_crystal, batch.site_atom, network.r_max, energy.skin, symmetric=True
        )
        self.bonds = BondModel(batch, n_slots)
        self.site_weight = batch.site_share
        self._species = network.species(batch.numbers[batch.site_atom])
        self._check_species()
        self._arrange_images()

    def evaluate(self, variables: Tensor, metric: Metric | None = None) -> Evaluation:
        """Energy per atom and gradient of every crystal at `variables`, shape (V,).

        With `metric`, that of the batch at `variables`, also a model of the curvature
        (`BondModel`).
        """
        batch = self.batch
        variables = variables.detach().requires_grad_(True)
        cells, scaled = batch.geometry(variables)
        pairs = self.neighbors.update(scaled, cells)
        vectors = pair_vectors(scaled, cells, batch.atom_crystal, batch.site_atom, pairs)
        per_site, forces = self._network_pass(pairs, vectors.detach())
        (gradient,) = torch.autograd.grad(vectors, variables, forces)
        value = per_site.new_zeros(batch.n_crystals)
        value = value.index_add_(0, batch.site_crystal, per_site * self.site_weight)
        close = self._too_close(pairs, vectors.detach())
        value = torch.where(close, _WALL, value)
        gradient = torch.where(close[batch.variable_crystal], gradient.nan_to_num(), gradient)
        curvature = None
        if metric is not None:
            curvature = self.bonds.curvature(cells.detach(), metric, pairs, vectors.detach())
        return Evaluation(value, gradient, self._isolated(pairs), curvature)

    def select(self, keep: Tensor, batch: CrystalBatch) -> MACEProblem:
        """Return the problem of the crystals kept, with their neighbour lists."""
        neighbors = self.neighbors.select(keep)
        return MACEProblem(self.energy, self.network, batch, neighbors, self.bonds.slots.n)

    def _network_pass(self, pairs: NeighborPairs, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Energies of the sites (S,), and derivatives of the weighted sum for the vectors."""
        per_site = vectors.new_zeros(self.batch.n_sites)
        derivative = torch.zeros_like(vectors)
        nodes = self._atom_node.index_select(0, pairs.neighbors)
        for sites, images, edges in self._chunks(pairs):
            part = vectors[edges].detach().requires_grad_(True)
            n_sites = sites.stop - sites.start
            sender = nodes[edges]
            shift = self.batch.n_sites + images.start - n_sites
            sender = sender - torch.where(sender < self.batch.n_sites, sites.start, shift)
            chosen = self._images.part(images, sites.start)
            species = self._species[sites]
            graph = SiteGraph(
                pairs.centers[edges] - sites.start,
                sender,
                torch.cat((species, species.index_select(0, chosen.source))),
                chosen,
            )
            energies = self.network.energies(part, graph).to(vectors)
            total = (energies * self.site_weight[sites]).sum()
            per_site[sites] = energies.detach()
            if total.requires_grad:  # not without any neighbour
                (derivative[edges],) = torch.autograd.grad(total, part)
        return per_site, derivative

    def _chunks(self, pairs: NeighborPairs) -> Iterator[_Chunk]:
        """Cut the crystals, in order, into calls of the network."""
        limit = self.energy.memory * GIB / self.network.bytes_per_edge
        if pairs.centers.device.type == "cpu":
            limit = min(limit, _CPU_EDGES)
        per_crystal = torch.zeros_like(self.batch.n_cell_variables)
        owner = self.batch.site_crystal.index_select(0, pairs.centers)
        edges = per_crystal.index_add_(0, owner, torch.ones_like(owner)).cumsum(0).tolist()
        begin, last = 0, 0
        for b, end in enumerate(edges):
            following = edges[b + 1] if b + 1 < len(edges) else None
            if following is not None and following - begin <= limit:
                continue
            yield _Chunk(
                slice(self._first_site[last], self._first_site[b + 1]),
                slice(self._first_image[last], self._first_image[b + 1]),
                slice(begin, end),
            )
            begin, last = end, b + 1

    def _arrange_images(self) -> None:
        """Find the nodes: every site, and each of its images that differs by an operation."""
        batch = self.batch
        code = torch.round(batch.atom_operation).long().flatten(1) + 1
        place = 3 ** torch.arange(9, device=code.device)
        code = (code * place).sum(1)
        identity = int((torch.eye(3).flatten().long() + 1) @ 3 ** torch.arange(9))
        moved = (code != identity).nonzero().ravel()
        key = batch.atom_site[moved] * 3**9 + code[moved]
        kinds, which = torch.unique(key, return_inverse=True)
        source = kinds // 3**9
        self._atom_node = batch.atom_site.index_copy(0, moved, which + batch.n_sites)
        member = torch.empty_like(source).index_copy_(0, which, moved)
        owner = batch.site_crystal[source]
        cells = batch.cells(batch.variables)[owner]
        # of a row vector: x C^-1 W^T C; the same for every cell that the group allows
        turned = torch.linalg.solve(cells, batch.atom_operation[member].transpose(1, 2) @ cells)
        self._images: SiteImages = self.network.images(source, turned.transpose(1, 2))
        self._first_site = _first(batch.site_crystal, batch.n_crystals)
        self._first_image = _first(owner, batch.n_crystals)

    def _check_species(self) -> None:
        from ase.data import chemical_symbols

        batch = self.batch
        unknown = batch.numbers[batch.site_atom][self._species < 0]
        if len(unknown):
            names = ", ".join(chemical_symbols[z] for z in sorted(set(unknown.tolist())))
            known = ", ".join(chemical_symbols[z] for z in self.network.numbers)
            raise ValueError(f"the MACE model does not know {names}; it was made for {known}")

    def _too_close(self, pairs: NeighborPairs, vectors: Tensor) -> Tensor:
        ratio = self.bonds.relative_lengths(pairs, vectors)
        owner = self.batch.site_crystal.index_select(0, pairs.centers)
        smallest = ratio.new_full((self.batch.n_crystals,), torch.inf)
        return smallest.scatter_reduce(0, owner, ratio, "amin") < TOO_CLOSE

    def _isolated(self, pairs: NeighborPairs) -> Tensor:
        count = torch.zeros_like(self.batch.site_atom)
        count.index_add_(0, pairs.centers, torch.ones_like(pairs.centers))
        alone = torch.zeros_like(self.batch.n_cell_variables)
        return alone.index_add_(0, self.batch.site_crystal, (count == 0).long()) > 0


def _first(owner: Tensor, n: int) -> list[int]:
    """Where what belongs to each crystal begins, and the end of the last, n + 1 numbers."""
    count = torch.zeros(n, dtype=torch.long, device=owner.device)
    count.index_add_(0, owner, torch.ones_like(owner))
    return [0, *count.cumsum(0).tolist()]
