"""Neighbour pairs of many crystals at once, for any cell shape and any number of periodic images."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

_CHUNK = 1_000_000  # candidate pairs handled at a time: bounds the memory, not the result
_FLAT = 0.01  # Å


class NeighborPairs(NamedTuple):
    """Flat list of pairs, sorted by centre, then neighbour, then shift.

    The vector of a pair is ``(scaled[neighbor] + shift - scaled[center_atom]) @ cell``.

    Attributes
    ----------
    centers
        (P,) long, index into the list of centre atoms (not an atom index).
    neighbors
        (P,) long, atom index.
    shifts
        (P, 3) long, lattice shift of the neighbour.
    """

    centers: Tensor
    neighbors: Tensor
    shifts: Tensor


def plane_spacings(cells: Tensor) -> Tensor:
    """Distances in Å between the lattice planes, without any check.

    Parameters
    ----------
    cells
        (B, 3, 3), lattice vectors in rows, Å.

    Returns
    -------
    Tensor
        (B, 3); 0 or not a number for a cell without volume.
    """
    a, b, c = cells.unbind(-2)
    cross = torch.linalg.cross
    normals = torch.stack((cross(b, c), cross(c, a), cross(a, b)), 1)
    volumes = (a * normals[:, 0]).sum(-1).abs()
    return volumes[:, None] / normals.norm(dim=-1)


def usable_crystals(scaled: Tensor, cells: Tensor, crystal: Tensor) -> Tensor:
    """(B,) bool: which crystals have a cell with volume and finite coordinates.

    Without volume means lattice planes less than 0.01 Å apart, where the images cannot be counted.

    Parameters as in `neighbor_pairs`.
    """
    spacings = plane_spacings(cells.detach())
    usable = (spacings > _FLAT).all(-1) & torch.isfinite(spacings).all(-1)
    broken = ~torch.isfinite(scaled.detach()).all(-1)
    return usable & (torch.bincount(crystal[broken], minlength=len(cells)) == 0)


def neighbor_pairs(
    scaled: Tensor, cells: Tensor, crystal: Tensor, center_atoms: Tensor, rcut: float | Tensor
) -> NeighborPairs:
    """All neighbours nearer than ``rcut`` of the given centre atoms.

    For every centre and every atom of its crystal, the lattice shifts that can be near enough are
    counted axis by axis from the spacing of the lattice planes and only those are tried, so nothing
    depends on the shape of the cell, on how many images are needed or on whether the atoms are
    wrapped. An atom is its own neighbour through its images, never through the zero shift; another
    atom at the same place is a neighbour.

    Parameters
    ----------
    scaled
        (N, 3) fractional coordinates, wrapped or not.
    cells
        (B, 3, 3) lattice vectors in rows, Å.
    crystal
        (N,) long, which crystal each atom belongs to; any order.
    center_atoms
        (M,) long, atoms whose neighbours are wanted.
    rcut
        Å; one for all, or (B,) one for each crystal.

    Returns
    -------
    NeighborPairs
        On the device of the input.

    Raises
    ------
    ValueError
        When a cell has no volume or a coordinate is not finite.
    """
    scaled, cells = scaled.detach(), cells.detach()
    device = scaled.device
    usable = usable_crystals(scaled, cells, crystal)
    if not bool(usable.all()):
        first_bad = int((~usable).nonzero()[0, 0])
        raise ValueError(
            f"crystal {first_bad} of the batch has a cell without volume or a coordinate that is "
            "no number; take it out before looking for neighbours"
        )
    cutoffs = torch.as_tensor(rcut, dtype=cells.dtype, device=device).expand(len(cells))
    slack = 1.0 + 16 * torch.finfo(cells.dtype).eps
    reach = slack * cutoffs[:, None] / plane_spacings(cells)  # in lattice vectors, (B, 3)

    order = torch.argsort(crystal, stable=True)
    per_crystal = torch.bincount(crystal, minlength=len(cells))
    first = torch.cumsum(per_crystal, 0) - per_crystal
    home = crystal[center_atoms]
    counts = per_crystal[home]
    parts = []
    for start, stop in _chunks(counts, _CHUNK):
        rows = torch.arange(start, stop, device=device)
        center, rank = _expand(counts[start:stop])
        center = rows[center]
        atom = order[first[home[center]] + rank]
        parts.extend(_search(scaled, cells, cutoffs, reach, center, atom, center_atoms, home))
    if not parts:
        empty = torch.zeros(0, dtype=torch.long, device=device)
        return NeighborPairs(empty, empty, torch.zeros(0, 3, dtype=torch.long, device=device))
    return NeighborPairs(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _search(
    scaled: Tensor,
    cells: Tensor,
    cutoffs: Tensor,
    reach: Tensor,
    center: Tensor,
    atom: Tensor,
    center_atoms: Tensor,
    home: Tensor,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Pairs among (center, atom) candidates, over all their lattice shifts."""
    itself = center_atoms[center]
    place = home[center]
    offset = scaled[atom] - scaled[itself]
    slack = 16 * torch.finfo(scaled.dtype).eps * (1.0 + offset.abs())
    low = torch.ceil(-reach[place] - offset - slack).long()
    spans = (torch.floor(reach[place] - offset + slack).long() - low + 1).clamp(min=0)
    counts = spans.prod(1)
    found = []
    for start, stop in _chunks(counts, _CHUNK):
        which, rank = _expand(counts[start:stop])
        which = which + start
        span = spans[which]
        last = rank % span[:, 2]
        rest = rank // span[:, 2]
        shift = low[which] + torch.stack((rest // span[:, 1], rest % span[:, 1], last), 1)
        where = place[which]
        vectors = ((offset[which] + shift).unsqueeze(-1) * cells[where]).sum(1)
        near = (vectors * vectors).sum(1) < cutoffs[where] ** 2
        near &= (atom[which] != itself[which]) | (shift != 0).any(1)
        which, shift = which[near], shift[near]
        found.append((center[which], atom[which], shift))
    return found


def _expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Index i repeated counts[i] times, and the running number 0 .. counts[i] - 1 beside it."""
    index = torch.repeat_interleave(counts)
    starts = torch.cumsum(counts, 0) - counts
    return index, torch.arange(len(index), device=counts.device) - starts[index]


def _chunks(counts: Tensor, limit: int) -> list[tuple[int, int]]:
    """Cut 0 .. len(counts) into ranges whose counts sum to about ``limit`` at most (one entry at least)."""
    if len(counts) == 0:
        return []
    blocks = torch.cumsum(counts, 0) // limit
    starts = torch.nonzero(torch.diff(blocks)).flatten() + 1
    edges = [0, *starts.tolist(), len(counts)]
    return list(pairwise(edges))


def pair_vectors(
    scaled: Tensor, cells: Tensor, crystal: Tensor, center_atoms: Tensor, pairs: NeighborPairs
) -> Tensor:
    """Vectors (P, 3) in Å from centre to neighbour, differentiable in ``scaled`` and ``cells``.

    Parameters as in `neighbor_pairs`.
    """
    atoms = center_atoms[pairs.centers]
    steps = scaled[pairs.neighbors] - scaled[atoms] + pairs.shifts
    return (steps.unsqueeze(-1) * cells[crystal[atoms]]).sum(1)
