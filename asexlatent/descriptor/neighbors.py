"""Neighbour pairs of many crystals at once, for any cell shape and any number of images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from asexlatent.descriptor.images import (
    ImageSearch,
    chunks,
    expand,
    inverse_cells,
)

_FLAT = 1e-3  # Å^3


class NeighborPairs(NamedTuple):
    """Flat list of pairs, sorted by centre, then neighbour, then shift (last component first).

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


def usable_crystals(scaled: Tensor, cells: Tensor, crystal: Tensor) -> Tensor:
    """(B,) bool: which crystals have a cell with volume and finite coordinates.

    Without volume means below 0.001 Å^3, or nothing but rounding beside the lengths of the cell.
    Parameters as in `neighbor_pairs`.
    """
    cells = cells.detach()
    a, b, c = cells.unbind(-2)
    volumes = (torch.linalg.cross(a, b) * c).sum(-1).abs()
    rounding = 1e4 * torch.finfo(cells.dtype).eps * cells.norm(dim=-1).prod(-1)
    usable = (volumes > _FLAT) & (volumes > rounding) & torch.isfinite(volumes)
    broken = ~torch.isfinite(scaled.detach()).all(-1)
    return usable & (torch.bincount(crystal[broken], minlength=len(cells)) == 0)


def _require_usable(scaled: Tensor, cells: Tensor, crystal: Tensor) -> None:
    usable = usable_crystals(scaled, cells, crystal)
    if not bool(usable.all()):
        first_bad = int((~usable).nonzero()[0, 0])
        raise ValueError(
            f"crystal {first_bad} of the batch has a cell without volume or a coordinate that is "
            "no number; take it out before looking for neighbours"
        )


def neighbor_pairs(
    scaled: Tensor, cells: Tensor, crystal: Tensor, center_atoms: Tensor, rcut: float | Tensor
) -> NeighborPairs:
    """All neighbours nearer than ``rcut`` of the given centre atoms.

    Any cell shape, any number of images, atoms wrapped or not. An atom is its own neighbour through
    its images, never through the zero shift; another atom at the same place is a neighbour.

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
    _require_usable(scaled, cells, crystal)
    cutoffs = torch.as_tensor(rcut, dtype=cells.dtype, device=device).expand(len(cells))
    order = torch.argsort(crystal, stable=True)
    per_crystal = torch.bincount(crystal, minlength=len(cells))
    first = torch.cumsum(per_crystal, 0) - per_crystal
    home = crystal[center_atoms]
    search = ImageSearch.of(scaled, cells, cutoffs)
    parts = []
    for start, stop in chunks(per_crystal[home]):
        center, rank = expand(per_crystal[home[start:stop]])
        center = center + start
        place = home[center]
        atom = order[first[place] + rank]
        found = list(search.images(center_atoms[center], atom, place))
        which, shifts = (torch.cat(columns) for columns in zip(*found, strict=True))
        if len(found) > 1:
            which, order_found = torch.sort(which, stable=True)
            shifts = shifts[order_found]
        parts.append((center[which], atom[which], shifts))
    if not parts:
        empty = torch.zeros(0, dtype=torch.long, device=device)
        return NeighborPairs(empty, empty, torch.zeros(0, 3, dtype=torch.long, device=device))
    return NeighborPairs(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def pair_vectors(
    scaled: Tensor, cells: Tensor, crystal: Tensor, center_atoms: Tensor, pairs: NeighborPairs
) -> Tensor:
    """Vectors (P, 3) in Å from centre to neighbour, differentiable in ``scaled`` and ``cells``.

    Parameters as in `neighbor_pairs`.
    """
    atoms = center_atoms.index_select(0, pairs.centers)
    steps = scaled.index_select(0, pairs.neighbors) - scaled.index_select(0, atoms) + pairs.shifts
    place = crystal.index_select(0, atoms)
    return torch.bmm(steps.unsqueeze(1), cells.index_select(0, place)).squeeze(1)


class NeighborList:
    """Pairs of a fixed set of crystals, kept while the crystals move little.

    Pairs are searched up to ``rcut + skin`` and kept for a crystal as long as no pair can have come
    within ``rcut`` unseen. With A the cell at the search and A' the present one, a vector v' now
    was ``v' A'^-1 A - (Δs_j - Δs_i) A`` then, so that the list is complete while

        rcut |A'^-1 A - 1| + |Δs_i A| + |Δs_j A| <= skin

    (Frobenius norm, which bounds the stretch; largest displacement of a centre, and of any atom).
    Atoms that are wrapped to another image between two calls are followed. Only crystals that fail
    the test are searched again.

    The object that `update` returns is the same one as long as nothing in it has changed, unless it
    is cut to what is within ``rcut``.

    Parameters
    ----------
    crystal
        (N,) long, which crystal each atom belongs to.
    center_atoms
        (M,) long, atoms whose neighbours are wanted.
    rcut
        Cutoff in Å.
    skin
        Å, 0 or more; 0 searches at every change.
    symmetric
        All atoms are images of the centres of their crystal by isometries of its lattice, before
        and after, so that they move as far as these: only the centres are watched.

    Attributes
    ----------
    searches : int
        How many crystals have been searched so far, repeats counted.
    """

    def __init__(
        self,
        crystal: Tensor,
        center_atoms: Tensor,
        rcut: float,
        skin: float = 0.5,
        symmetric: bool = False,
    ) -> None:
        if not (rcut > 0 and skin >= 0):
            raise ValueError(f"rcut {rcut} Å must be positive and skin {skin} Å not negative")
        self.crystal, self.center_atoms = crystal, center_atoms
        self.rcut, self.skin = float(rcut), float(skin)
        self.symmetric = symmetric
        self.center_crystal = crystal[center_atoms]
        self.searches = 0
        self._pairs: NeighborPairs | None = None
        self._scaled: Tensor | None = None  # at the search of each crystal
        self._cells: Tensor | None = None

    def update(self, scaled: Tensor, cells: Tensor, within: bool = True) -> NeighborPairs:
        """Pairs of the crystals as they are now.

        Parameters
        ----------
        scaled
            (N, 3) fractional coordinates.
        cells
            (B, 3, 3) lattice vectors in rows, Å.
        within
            True: only the pairs nearer than ``rcut``, exactly those of `neighbor_pairs`, in its
            order. False: also those in the skin (`PowerSpectrum` gives them no weight); this saves
            one synchronisation with an accelerator and keeps the number of pairs constant between
            searches.

        Returns
        -------
        NeighborPairs

        Raises
        ------
        ValueError
            As `neighbor_pairs`.
        """
        return self.with_vectors(scaled, cells, within)[0]

    @torch.no_grad()
    def with_vectors(
        self, scaled: Tensor, cells: Tensor, within: bool = True
    ) -> tuple[NeighborPairs, Tensor]:
        """Pairs as `update` gives them, and their vectors (P, 3) in Å."""
        scaled, cells = scaled.detach(), cells.detach()
        if self._pairs is None:
            self._search(scaled, cells, torch.ones_like(cells[:, 0, 0], dtype=torch.bool))
        elif self.symmetric:
            self._watch(scaled, cells)
        else:
            self._follow(scaled, cells)
        pairs = self._pairs
        vectors = pair_vectors(scaled, cells, self.crystal, self.center_atoms, pairs)
        if not within:
            return pairs, vectors
        x, y, z = vectors.unbind(1)
        near = (x * x + y * y + z * z < self.rcut**2).nonzero().ravel()
        pairs = NeighborPairs(*(column.index_select(0, near) for column in pairs))
        return pairs, vectors.index_select(0, near)

    def select(self, keep: Tensor) -> NeighborList:
        """The list of some of the crystals, without a new search.

        Parameters
        ----------
        keep
            (B,) bool. Atoms, centres and crystals that stay keep their order and are numbered
            from 0.
        """
        atoms = keep[self.crystal]
        centers = keep[self.crystal[self.center_atoms]]
        new_atom = torch.cumsum(atoms, 0) - 1
        new_center = torch.cumsum(centers, 0) - 1
        new_crystal = torch.cumsum(keep, 0) - 1
        chosen = NeighborList(
            new_crystal[self.crystal[atoms]],
            new_atom[self.center_atoms[centers]],
            self.rcut,
            self.skin,
            self.symmetric,
        )
        if self._pairs is not None:
            stays = centers[self._pairs.centers]
            pairs = NeighborPairs(*(column[stays] for column in self._pairs))
            chosen._pairs = NeighborPairs(
                new_center[pairs.centers], new_atom[pairs.neighbors], pairs.shifts
            )
            chosen._scaled, chosen._cells = self._scaled[atoms], self._cells[keep]
        return chosen

    def _watch(self, scaled: Tensor, cells: Tensor) -> None:
        """Search again where the test fails, of which the centres alone decide."""
        step = (scaled - self._scaled).index_select(0, self.center_atoms)
        home = self.center_crystal
        moved = torch.bmm(step.unsqueeze(1), self._cells.index_select(0, home)).squeeze(1)
        largest = torch.zeros_like(cells[:, 0, 0])
        largest = largest.scatter_reduce(0, home, moved.norm(dim=1), "amax")
        stale = self._stale(cells, 2.0 * largest)
        if bool(stale.any()):
            self._search(scaled, cells, stale)

    def _follow(self, scaled: Tensor, cells: Tensor) -> None:
        """Search again where the test fails; renumber the images of wrapped atoms elsewhere."""
        step = scaled - self._scaled
        jump = torch.round(step)
        moved = torch.bmm((step - jump).unsqueeze(1), self._cells[self.crystal]).squeeze(1)
        moved = moved.norm(dim=1)
        largest = torch.zeros_like(cells[:, 0, 0])
        largest = largest.scatter_reduce(0, self.crystal, moved, "amax")
        centers = self.center_atoms
        of_centers = torch.zeros_like(largest)
        of_centers = of_centers.scatter_reduce(0, self.center_crystal, moved[centers], "amax")
        stale = self._stale(cells, largest + of_centers)
        flags = torch.stack((stale.any(), (jump != 0).any())).tolist()
        if flags[1]:
            jump = jump.masked_fill(stale[self.crystal][:, None], 0.0)
            self._scaled = self._scaled + jump
            hops = jump.long()
            c, n, shifts = self._pairs
            self._pairs = NeighborPairs(c, n, shifts + hops[centers[c]] - hops[n])
        if flags[0]:
            self._search(scaled, cells, stale)

    def _stale(self, cells: Tensor, moved: Tensor) -> Tensor:
        """Whether a pair of a crystal (B,) may have come near unseen; moved (B,) in Å."""
        stretch = torch.bmm(inverse_cells(cells), self._cells)
        stretch = stretch - torch.eye(3, dtype=cells.dtype, device=cells.device)
        # written so that a coordinate that is no number asks for a search, which complains
        return ~(self.rcut * stretch.flatten(1).norm(dim=1) + moved <= self.skin)

    def _search(self, scaled: Tensor, cells: Tensor, stale: Tensor) -> None:
        """New pairs for the crystals that are stale, merged with the old ones of the others."""
        count = int(stale.sum())
        self.searches += count
        reach = self.rcut + self.skin
        if count == len(cells):
            self._pairs = neighbor_pairs(scaled, cells, self.crystal, self.center_atoms, reach)
            self._scaled, self._cells = scaled.clone(), cells.clone()
            return
        of_atoms = stale[self.crystal]
        atoms = of_atoms.nonzero().flatten()
        centers = stale[self.center_crystal]
        new_atom = torch.cumsum(of_atoms, 0) - 1
        found = neighbor_pairs(
            scaled[atoms],
            cells[stale],
            (torch.cumsum(stale, 0) - 1)[self.crystal[atoms]],
            new_atom[self.center_atoms[centers]],
            reach,
        )
        back = centers.nonzero().flatten()
        found = NeighborPairs(back[found.centers], atoms[found.neighbors], found.shifts)
        stays = ~centers[self._pairs.centers]
        kept = NeighborPairs(*(column[stays] for column in self._pairs))
        self._pairs = _merge(kept, found, len(self.center_atoms))
        self._scaled = torch.where(of_atoms[:, None], scaled, self._scaled)
        self._cells = torch.where(stale[:, None, None], cells, self._cells)


def _merge(first: NeighborPairs, second: NeighborPairs, n_centers: int) -> NeighborPairs:
    """Two lists, each sorted by centre and without a centre in common, as one sorted list."""
    counts = [torch.bincount(part.centers, minlength=n_centers) for part in (first, second)]
    starts = torch.cumsum(counts[0] + counts[1], 0) - counts[0] - counts[1]
    order = []
    for part, count in zip((first, second), counts, strict=True):
        rank = torch.arange(len(part.centers), device=starts.device)
        own_start = torch.cumsum(count, 0) - count
        order.append(starts[part.centers] + rank - own_start[part.centers])
    place = torch.cat(order)
    merged = []
    for a, b in zip(first, second, strict=True):
        both = torch.cat((a, b))
        merged.append(torch.empty_like(both).index_copy_(0, place, both))
    return NeighborPairs(*merged)
