"""Pairs in slots of equal width, so that sums over neighbours become batched matrix products."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import torch
from torch import Tensor

WIDTHS = (4, 8, 16)


class Slots(NamedTuple):
    """Where the pairs of each centre stand in an array of S slots of equal width W.

    Each centre owns as many whole slots as its pairs need, one after the other; places beyond its
    last pair are filled with some other pair and must be given weight 0.

    Attributes
    ----------
    width : int
        W.
    source : Tensor
        (S * W,) long, pair at each place.
    real : Tensor
        (S * W,) bool, False at the filled places.
    place : Tensor
        (P,) long, place of each pair, pairs in the order in which they are given.
    center : Tensor
        (S,) long, centre that each slot belongs to.
    ends : Tensor
        (M,) long, number of slots of the centres up to and including each.
    order : Tensor or None
        (P,) long, the pairs sorted by centre; None when they are given so.
    pair_ends : Tensor
        (M,) long, number of pairs of the centres up to and including each.
    """

    width: int
    source: Tensor
    real: Tensor
    place: Tensor
    center: Tensor
    ends: Tensor
    order: Tensor | None
    pair_ends: Tensor

    def chunks(self, places: int) -> list[tuple[int, int, int, int]]:
        """Cut at centres into parts of about ``places`` places at most.

        Returns
        -------
        list of (first centre, last centre + 1, first slot, last slot + 1)
            A centre with more pairs than fit is a part of its own.
        """
        limit = max(places // self.width, 1)
        ends = self.ends.tolist()
        parts = []
        center = slot = 0
        while center < len(ends):
            stop = max(bisect_right(ends, slot + limit, lo=center), center + 1)
            parts.append((center, stop, slot, ends[stop - 1]))
            center, slot = stop, ends[stop - 1]
        return parts

    def pairs(self, centers: slice) -> slice | Tensor:
        """Which pairs belong to consecutive centres, in the order of the sorted pairs."""
        edges = [int(self.pair_ends[i - 1]) if i else 0 for i in (centers.start, centers.stop)]
        here = slice(*edges)
        return here if self.order is None else self.order[here]


def make_slots(centers: Tensor, n_centers: int, width: int | None = None) -> Slots:
    """Arrange pairs in slots.

    Parameters
    ----------
    centers
        (P,) long, centre of each pair, in any order (sorted is fastest).
    n_centers
        M.
    width
        W; chosen for the least work when not given.

    Returns
    -------
    Slots
    """
    counts = torch.bincount(centers, minlength=n_centers)
    if width is None:
        # measured: a slot costs about as much as two places, whatever is in it
        cost = [float(((counts + w - 1) // w).sum()) * (2 + w) for w in WIDTHS]
        width = WIDTHS[cost.index(min(cost))]
    per_center = (counts + width - 1) // width
    ends = torch.cumsum(per_center, 0)
    numbered = torch.arange(len(centers), device=centers.device)
    order, rank = None, numbered
    if bool((centers[1:] < centers[:-1]).any()):
        order = torch.argsort(centers, stable=True)
        rank = torch.empty_like(numbered).index_copy_(0, order, numbered)
    pair_ends = torch.cumsum(counts, 0)
    place = (ends - per_center)[centers] * width + rank - (pair_ends - counts)[centers]
    total = int(ends[-1]) * width if n_centers else 0
    source = torch.zeros(total, dtype=torch.long, device=centers.device)
    source[place] = numbered
    real = torch.zeros(total, dtype=torch.bool, device=centers.device)
    real[place] = True
    center = torch.repeat_interleave(per_center)
    return Slots(width, source, real, place, center, ends, order, pair_ends)
