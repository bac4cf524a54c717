"""Pairs in slots of equal width, so that sums over neighbours become batched matrix products."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

WIDTHS = (4, 8, 16)


@dataclass(frozen=True, eq=False)
class Slots:
    """Where the pairs of each centre stand in an array of S slots of equal width W.

    Each centre owns as many whole slots as its pairs need, one after the other; places beyond the
    last pair of a slot are filled with that pair and must be given weight 0.

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
    first : Tensor
        (S,) long, the first pair of each slot.
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
    first: Tensor
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
        ends = self._ends
        parts = []
        center = slot = 0
        while center < len(ends):
            stop = max(bisect_right(ends, slot + limit, lo=center), center + 1)
            parts.append((center, stop, slot, ends[stop - 1]))
            center, slot = stop, ends[stop - 1]
        return parts

    def of(self, centers: slice) -> slice:
        """Slots of consecutive centres."""
        ends = self._ends
        first = ends[centers.start - 1] if centers.start else 0
        return slice(first, ends[centers.stop - 1] if centers.stop else 0)

    @cached_property
    def _ends(self) -> list[int]:
        return self.ends.tolist()

    def pairs(self, centers: slice) -> slice | Tensor:
        """Which pairs belong to consecutive centres, in the order of the sorted pairs."""
        edges = [int(self.pair_ends[i - 1]) if i else 0 for i in (centers.start, centers.stop)]
        here = slice(*edges)
        return here if self.order is None else self.order[here]


def make_slots(
    centers: Tensor, n_centers: int, width: int | None = None, kind: Tensor | None = None
) -> Slots:
    """Arrange pairs in slots.

    Parameters
    ----------
    centers
        (P,) long, centre of each pair, in any order (sorted is fastest).
    n_centers
        M.
    width
        W; chosen for the least work when not given.
    kind
        (P,) long; when given, consecutive pairs of a centre that differ in it stand in slots of
        their own. For sorted pairs only.

    Returns
    -------
    Slots
    """
    pair_counts = torch.bincount(centers, minlength=n_centers)
    pair_ends = torch.cumsum(pair_counts, 0)
    # runs of pairs, each with slots of its own: those of a centre, or of a centre and a kind
    run, counts, owner, order = centers, pair_counts, None, None
    if kind is not None:
        begins = torch.ones_like(centers, dtype=torch.bool)
        begins[1:] = (centers[1:] != centers[:-1]) | (kind[1:] != kind[:-1])
        run, owner = torch.cumsum(begins, 0) - 1, centers[begins]
        counts = torch.bincount(run, minlength=len(owner))
    elif bool((centers[1:] < centers[:-1]).any()):
        order = torch.argsort(centers, stable=True)
    width = _best_width(counts) if width is None else width
    per_run = (counts + width - 1) // width
    ends, slot_run = torch.cumsum(per_run, 0), torch.repeat_interleave(per_run)
    run_slots, run_pairs = ends - per_run, torch.cumsum(counts, 0) - counts
    slot = torch.arange(len(slot_run), device=centers.device)
    in_slot = torch.arange(width, device=centers.device)
    rank = (slot - run_slots[slot_run])[:, None] * width + in_slot
    last = counts[slot_run][:, None] - 1
    source = (run_pairs[slot_run][:, None] + torch.minimum(rank, last)).ravel()
    numbered = torch.arange(len(centers), device=centers.device)
    if order is not None:
        source = order[source]
        numbered = torch.empty_like(numbered).index_copy_(0, order, numbered)
    place = (run_slots * width - run_pairs).index_select(0, run) + numbered
    center = slot_run
    if owner is not None:
        center = owner[slot_run]
        ends = torch.cumsum(torch.zeros_like(pair_counts).index_add_(0, owner, per_run), 0)
    real = (rank <= last).ravel()
    return Slots(width, source, real, place, center, source[::width], ends, order, pair_ends)


def _best_width(counts: Tensor) -> int:
    # measured: a slot costs about as much as two places, whatever is in it
    cost = [float(((counts + w - 1) // w).sum()) * (2 + w) for w in WIDTHS]
    return WIDTHS[cost.index(min(cost))]
