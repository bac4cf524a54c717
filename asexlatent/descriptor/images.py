"""Periodic images: which lattice shifts bring an atom near another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from asexlatent.parallel import on_accelerator

# Candidates handled at a time. On a CPU they stay in cache; an accelerator pays for operators, not
# for what they move, and holds some 250 MB of them.
CHUNK, ACCELERATOR_CHUNK = 50_000, 1_000_000
_BOX = 60  # shifts of one pair of atoms that are tried without further thought


class ImageSearch(NamedTuple):
    """Which images of an atom are near.

    Tried are all shifts between those lattice planes that a sphere meets. Where these are many (a
    sphere of many cells, or a skewed cell, whose box is much larger than the sphere), planes come
    first, then lines, then points: in a frame with a along x and b in the xy plane, the third shift
    alone decides the height of the image, the second then its distance from a line, the first its
    place on it. Each range is exact, so the work grows with the number of planes, lines and points
    that the sphere meets, however skewed the cell.
    """

    scaled: Tensor
    cells: Tensor
    columns: tuple[Tensor, ...]  # (B, 3 - axis): how the shifts from axis on move coordinate axis
    cutoffs: Tensor
    reach: Tensor  # (B, 3): cutoffs in plane spacings

    @classmethod
    def of(cls, scaled: Tensor, cells: Tensor, cutoffs: Tensor) -> ImageSearch:
        """Prepare for atoms (N, 3), cells (B, 3, 3) and cutoffs (B,)."""
        frames = triangular_cells(cells)
        columns = tuple(frames[:, axis:, axis].contiguous() for axis in range(3))
        return cls(scaled, cells, columns, cutoffs, cutoffs[:, None] / plane_spacings(cells))

    def images(
        self, center: Tensor, atom: Tensor, place: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Row numbers and shifts (.., 3) of the near images, in parts.

        ``center`` and ``atom`` are atom indices, ``place`` their crystals, all (Q,).
        """
        offset = self.scaled.index_select(0, atom) - self.scaled.index_select(0, center)
        eps = torch.finfo(offset.dtype).eps
        slack = 32 * eps * (1.0 + self.reach + self.scaled.abs().max())
        reach = (self.reach + slack).index_select(0, place)
        behind, ahead = (reach + offset).floor_(), (reach - offset).floor_()
        spans = (behind + ahead).add_(1.0).clamp_(min=0.0)
        low = behind.neg_()
        counts = (spans[:, 0] * spans[:, 1] * spans[:, 2]).long()
        many = (counts > _BOX).nonzero().ravel()
        if len(many):
            counts[many] = 0
            left = (self.cutoffs**2).index_select(0, place[many])
            none = offset.new_zeros(len(many), 0)
            for which, shifts in self._along(2, many, none, left, offset, place):
                yield self._near(which, shifts, offset, center, atom, place)
        for which, shifts in _boxes(low, spans, counts):
            yield self._near(which, shifts, offset, center, atom, place)

    def _near(
        self,
        which: Tensor,
        shifts: Tensor,
        offset: Tensor,
        center: Tensor,
        atom: Tensor,
        place: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Those of the rows and shifts that are near."""
        where = place.index_select(0, which)
        steps = offset.index_select(0, which).add_(shifts)
        square = squared_lengths(steps, self.cells.index_select(0, where))
        near = square < (self.cutoffs**2).index_select(0, where)
        # an atom is no neighbour of itself
        near &= (square > 0.0) | (atom != center).index_select(0, which)
        near = near.nonzero().ravel()
        return which.index_select(0, near), shifts.index_select(0, near).long()

    def _along(
        self, axis: int, rows: Tensor, shifts: Tensor, left: Tensor, offset: Tensor, place: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Extend shifts along the axes above ``axis`` (Q', 2 - axis) by this axis and those below.

        ``left`` is what the squared distance may still grow by.
        """
        column = self.columns[axis].index_select(0, place[rows])
        steps = offset.index_select(0, rows)
        base, step = steps[:, axis] * column[:, 0], column[:, 0]
        for i in range(1, 3 - axis):
            base = base + (steps[:, axis + i] + shifts[:, i - 1]) * column[:, i]
        base = base / step
        half = left.clamp(min=0.0).sqrt() / step
        slack = 64 * torch.finfo(base.dtype).eps * (1.0 + base.abs() + half)
        low = torch.ceil(-half - base - slack)
        counts = (torch.floor(half - base + slack) - low + 1.0).long().clamp(min=0)
        for start, stop in chunks(counts):
            which, rank = expand(counts[start:stop])
            which = which + start
            new = low[which] + rank
            longer = torch.cat((new[:, None], shifts.index_select(0, which)), 1)
            if axis == 0:
                yield rows[which], longer
                continue
            smaller = left[which] - ((base[which] + new) * step[which]) ** 2
            yield from self._along(axis - 1, rows[which], longer, smaller, offset, place)


def _boxes(low: Tensor, spans: Tensor, counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """All shifts of boxes with corner low (Q, 3) and spans (Q, 3); counts (Q,) of them each."""
    for start, stop in chunks(counts):
        which, rank = expand(counts[start:stop])
        which, rank = which + start, rank.to(low)
        x, y, _ = spans.index_select(0, which).unbind(1)
        # quotients of small integers, half a unit away from where rounding could matter
        rest = torch.floor((rank + 0.5) / x)
        last = torch.floor((rest + 0.5) / y)
        inside = torch.stack((rank - rest * x, rest - last * y, last), 1)
        yield which, inside.add_(low.index_select(0, which))


def squared_lengths(steps: Tensor, cells: Tensor) -> Tensor:
    """Squared lengths (P,) in Å^2 of fractional steps (P, 3) in cells (P, 3, 3)."""
    x, y, z = torch.bmm(steps.unsqueeze(1), cells).squeeze(1).unbind(1)
    return x * x + y * y + z * z


def expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Index i repeated counts[i] times, and the running number 0 .. counts[i] - 1 beside it.

    Of counts (Q,), two arrays (sum of counts,).
    """
    index = torch.repeat_interleave(counts)
    starts = torch.cumsum(counts, 0) - counts
    return index, torch.arange(len(index), device=counts.device) - starts[index]


def chunk_size(device: torch.device | str | None) -> int:
    """Candidates handled at a time."""
    return ACCELERATOR_CHUNK if on_accelerator(device) else CHUNK


def chunks(counts: Tensor) -> list[tuple[int, int]]:
    """Cut 0 .. Q into ranges whose counts, of (Q,), sum to about `chunk_size`."""
    if len(counts) == 0:
        return []
    blocks = torch.cumsum(counts, 0) // chunk_size(counts.device)
    starts = torch.nonzero(torch.diff(blocks)).flatten() + 1
    edges = [0, *starts.tolist(), len(counts)]
    return list(pairwise(edges))


def inverse_cells(cells: Tensor) -> Tensor:
    """Inverses (B, 3, 3) of cells (B, 3, 3) by cross products, without any check."""
    a, b, c = cells.unbind(-2)
    cross = torch.linalg.cross
    normals = torch.stack((cross(b, c), cross(c, a), cross(a, b)), -1)
    return normals / (a * normals[..., 0]).sum(-1)[..., None, None]


def triangular_cells(cells: Tensor) -> Tensor:
    """The same cells (B, 3, 3) turned so that a lies along x and b in the xy plane."""
    a, b, c = cells.unbind(-2)
    along = a.norm(dim=-1)
    normal = torch.linalg.cross(a, b)
    area = normal.norm(dim=-1)
    sideways = (torch.linalg.cross(normal, a) * c).sum(-1) / (area * along)
    zero = torch.zeros_like(along)
    rows = (
        (along, zero, zero),
        ((a * b).sum(-1) / along, area / along, zero),
        ((a * c).sum(-1) / along, sideways, (normal * c).sum(-1).abs() / area),
    )
    # a left-handed cell is mirrored: distances are all that is needed
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


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
    return 1.0 / inverse_cells(cells).norm(dim=-2)
