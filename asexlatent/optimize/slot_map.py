"""Free variables of every crystal of a batch in an array of equal rows, for small matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from asexlatent.optimize.batch import CrystalBatch


@dataclass(frozen=True, eq=False)
class SlotMap:
    """Where the variables of a batch stand when each crystal has n slots.

    Attributes
    ----------
    n : int
        Slots per crystal: at least the largest number of free variables of any crystal.
    flat : Tensor, shape (V,)
        Place of each variable in a padded array (B, n), flattened.
    used : Tensor of bool, shape (B, n)
        Slots that are a variable.
    cell : Tensor, shape (B, 6)
        Slot of each free cell parameter; n where there is none.
    site : Tensor, shape (S, 3)
        Slot behind x, y, z of each site; n where the coordinate is not free.
    pair : Tensor, shape (S, 3, 3)
        Place of each pair of coordinates of a site in an array (B, n + 1, n + 1), flattened.
    """

    n: int
    flat: Tensor
    used: Tensor
    cell: Tensor
    site: Tensor
    pair: Tensor

    @classmethod
    def of(cls, batch: CrystalBatch, n: int) -> SlotMap:
        """Slots of `batch`, n for each crystal."""
        slot = batch.site_index - batch.first_variable[batch.site_crystal][:, None]
        site = torch.where(batch.site_free, slot, torch.full_like(slot, n))
        row = batch.site_crystal[:, None] * (n + 1) + site
        pair = row[:, :, None] * (n + 1) + site[:, None, :]
        index = torch.arange(max(n, 6), device=slot.device)
        used = index[:n] < batch.variables_per_crystal()[:, None]
        cell = index[:6].expand(batch.n_crystals, 6)
        cell = torch.where(cell < batch.n_cell_variables[:, None], cell, torch.full_like(cell, n))
        flat = batch.variable_crystal * n + batch.slot
        return cls(n, flat, used, cell, site, pair)

    def pad(self, per_variable: Tensor) -> Tensor:
        """Spread (V,) to (B, n), zeros elsewhere."""
        padded = per_variable.new_zeros(self.used.numel())
        return padded.index_copy_(0, self.flat, per_variable).view(self.used.shape)

    def unpad(self, padded: Tensor) -> Tensor:
        """Gather (B, n) to (V,)."""
        return padded.reshape(-1).index_select(0, self.flat)
