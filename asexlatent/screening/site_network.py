"""A MACE model evaluated on the inequivalent sites of symmetric crystals, and on nothing else.

The energy of an atom is that of its site, and a feature of an atom that the operation R of the
space group makes out of the site's atom is D(R) times the site's feature. So messages need to be
computed for one atom of each site only. MACE has a door for this: in its parallel form for
molecular dynamics, atoms that other processors own ("ghosts") take part as senders of messages,
and their features are asked from outside between the layers. Here the ghosts are the symmetry
images of the sites, and what they are told is the turned feature of their site.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SiteGraph:
    """Neighbours of some sites: S sites as nodes first, then G images of them.

    Attributes
    ----------
    receivers, senders : Tensor, shape (P,)
        Site that has the neighbour, and node that is the neighbour.
    species : Tensor, shape (S + G,)
        Index of each node among the elements of the model.
    images : SiteImages
    """

    receivers: Tensor
    senders: Tensor
    species: Tensor
    images: SiteImages


class SiteNetwork:
    """A copy of a MACE module, in a precision and on a device, that answers for sites.

    Parameters
    ----------
    module : mace.modules.MACE
        Of any depth and interaction, with or without scale and shift. Not compiled: a model in
        TorchScript or for cuEquivariance cannot be asked between its layers.
    dtype, device
        Of the evaluation.
    head : str, optional
        Of a model with several heads. Default: as MACE's calculator chooses.

    Attributes
    ----------
    r_max : float
        Cutoff, Å.
    numbers : tuple of int
        Atomic numbers that the model knows.

    Raises
    ------
    ValueError
        For a module that is no MACE model of this kind, or an unknown head.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
        head: str | None = None,
    ):
        self.irreps = _exchanged_irreps(module)
        self.module = copy.deepcopy(module).to(device=device, dtype=dtype)
        self.module.eval().requires_grad_(False)
        self.dtype = dtype
        self.r_max = float(module.r_max)
        self.numbers = tuple(int(z) for z in module.atomic_numbers)
        self.head = _head_index(module, head)
        self.bytes_per_edge = _bytes_per_edge(module, dtype)

    @property
    def known_symbols(self) -> frozenset[str]:
        """Elements of the model."""
        return frozenset(chemical_symbols[z] for z in self.numbers)

    def species(self, numbers: Tensor) -> Tensor:
        """Index of atomic numbers (N,) among the elements of the model, -1 for others, (N,)."""
        known = torch.tensor(self.numbers, device=numbers.device)
        same = numbers[:, None] == known
        return torch.where(same.any(1), same.long().argmax(1), -1)

    def images(self, source: Tensor, rotations: Tensor) -> SiteImages:
        """Images of sites (G,) under Cartesian operations (G, 3, 3), proper or not."""
        degrees = {ir.l: wigner(ir.l, rotations) for _, ir in self.irreps}
        improper = torch.linalg.det(rotations) < 0
        blocks, start = [], 0
        for mul, ir in self.irreps:
            matrix, stop = degrees[ir.l], start + mul * ir.dim
            if ir.p != (-1) ** ir.l:
                matrix = torch.where(improper[:, None, None], -matrix, matrix)
            if ir.l or ir.p < 0:  # true scalars stay as they are
                blocks.append((start, stop, ir.dim, matrix.to(self.dtype)))
            start = stop
        return SiteImages(source, blocks)

    def energies(self, vectors: Tensor, graph: SiteGraph) -> Tensor:
        """Energy of each site's atom (eV), shape (S,), differentiable for the vectors.

        Parameters
        ----------
        vectors : Tensor, shape (P, 3)
            From each receiver to its neighbour, Å.
        """
        n_images = len(graph.images.source)
        n_sites = len(graph.species) - n_images
        attributes = torch.nn.functional.one_hot(graph.species, len(self.numbers)).to(self.dtype)
        data = {
            # MACE's vectors point from the sender to the receiver
            "vectors": -vectors.to(self.dtype),
            "edge_index": torch.stack((graph.senders, graph.receivers)),
            "node_attrs": attributes,
            "batch": torch.zeros_like(graph.species[:n_sites]),
            "head": graph.species.new_full((1,), self.head),
            "natoms": (n_sites, n_images),
            "lammps_class": graph.images,
        }
        return self.module(data, compute_force=False, lammps_mliap=True)["node_energy"]


class SiteImages:
    """Symmetry images of sites, and how features turn on the way there.

    MACE calls it between its layers when it wants the features of ghosts (`forward_exchange`),
    and with the gradients of these on the way back (`reverse_exchange`).

    Parameters
    ----------
    source : Tensor, shape (G,)
        Site that each image is made of.
    blocks : list of (start, stop, size, Tensor of shape (G, size, size))
        Columns of the features that turn, and the matrices that turn each irrep among them.
    """

    def __init__(self, source: Tensor, blocks: list[tuple[int, int, int, Tensor]]):
        self.source = source
        self.blocks = blocks

    def part(self, images: slice, first_site: int) -> SiteImages:
        """Some of the images, with sites counted from `first_site`."""
        blocks = [(*place, matrix[images]) for *place, matrix in self.blocks]
        return SiteImages(self.source[images] - first_site, blocks)

    def forward_exchange(self, features: Tensor, out: Tensor, width: int) -> None:
        """Write to `out` the features (S + G, width) with those of the images put in."""
        n_sites = len(features) - len(self.source)
        out[:n_sites] = features[:n_sites]
        images = features.index_select(0, self.source)
        out[n_sites:] = images
        for start, stop, size, matrix in self.blocks:
            part = images[:, start:stop].unflatten(1, (-1, size))
            out[n_sites:, start:stop] = torch.bmm(part, matrix.transpose(1, 2)).flatten(1)

    def reverse_exchange(self, gradient: Tensor, out: Tensor, width: int) -> None:
        """Write to `out` the gradient (S + G, width) with that of the images given to sites."""
        n_sites = len(gradient) - len(self.source)
        back = gradient[n_sites:].clone()
        for start, stop, size, matrix in self.blocks:
            part = back[:, start:stop].unflatten(1, (-1, size))
            back[:, start:stop] = torch.bmm(part, matrix).flatten(1)
        out[n_sites:] = 0.0
        out[:n_sites] = gradient[:n_sites]
        out[:n_sites].index_add_(0, self.source, back)


def wigner(degree: int, rotations: Tensor) -> Tensor:
    """Matrices of rotations (G, 3, 3) for e3nn's real harmonics of a degree, (G, 2l+1, 2l+1).

    They solve Y(R v) = D(R) Y(v) for a few vectors v. Improper R are taken as they act on the
    harmonics, parity (-1)^l; e3nn's own matrices go through angles and lose half of the digits
    where a pole is met.
    """
    import mace  # noqa: F401  (first: without it torch >= 2.6 refuses a file that e3nn opens)

    # isort: split
    from e3nn import o3

    generator = torch.Generator().manual_seed(degree)
    options = {"dtype": rotations.dtype, "device": rotations.device}
    points = torch.randn(4 * degree + 2, 3, generator=generator, dtype=torch.float64).to(**options)
    before = o3.spherical_harmonics(degree, points, normalize=True)
    turned = points @ rotations.transpose(1, 2)
    after = o3.spherical_harmonics(degree, turned, normalize=True)
    return (torch.linalg.pinv(before) @ after).transpose(1, 2)


def _exchanged_irreps(module: torch.nn.Module) -> Any:
    """Irreps of the features that neighbours send from the second layer on."""
    layers = getattr(module, "interactions", None)
    if (
        layers is None
        or not hasattr(module, "products")
        or isinstance(module, torch.jit.ScriptModule)
    ):
        raise ValueError(
            f"{type(module).__name__} is no MACE model that can be asked layer by layer: give a "
            "mace.modules.MACE that is not compiled, or use relax_with_calculator"
        )
    if any(getattr(layer, "cueq_config", None) is not None for layer in layers):
        raise ValueError("the model is made for cuEquivariance: give its e3nn form")
    found = {str(layer.linear_up.irreps_out) for layer in layers[1:]}
    if len(found) > 1:
        raise ValueError(f"the layers of the model exchange different features: {sorted(found)}")
    return layers[-1].linear_up.irreps_out if found else []


def _head_index(module: torch.nn.Module, head: str | None) -> int:
    heads = list(getattr(module, "heads", None) or ["Default"])
    if head is None and len(heads) > 1:
        head = next((name for name in heads if name.lower() == "default"), None)
    if head is None and len(heads) == 1:
        return 0
    if head not in heads:
        raise ValueError(f"head {head!r}: choose one of {', '.join(heads)}")
    return heads.index(head)


def _bytes_per_edge(module: torch.nn.Module, dtype: torch.dtype) -> float:
    """Estimate of the memory that one neighbour takes in an evaluation with gradient."""
    numbers = 100
    for layer in module.interactions:
        product = layer.conv_tp
        numbers += product.irreps_in1.dim + 4 * product.irreps_out.dim + 3 * product.weight_numel
        numbers += 6 * sum(getattr(layer, "radial_MLP", None) or [64, 64, 64])
    return numbers * torch.finfo(dtype).bits / 8
