"""Steps ask the device for few numbers, and not for more when there are more crystals.

Operators whose result the host has to wait for are counted as they are dispatched; that works
without an accelerator. The CPU path of the descriptor arranges pairs in slots, which takes
most of what is counted here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from optimize_cases import orthorhombic
from torch.utils._python_dispatch import TorchDispatchMode

from asexlatent.optimize import SOLVERS, BatchMinimizer, CrystalBatch, DescriptorLoss

WAITING = {
    "aten._local_scalar_dense.default",
    "aten.bincount.default",
    "aten.equal.default",
    "aten.is_nonzero.default",
    "aten.masked_select.default",
    "aten.nonzero.default",
    "aten.repeat_interleave.Tensor",
    "aten._unique2.default",
}
MOST = 9  # per step, in a steady state: nobody leaves, no neighbour is searched for


class Waits(TorchDispatchMode):
    """Counts the operators that make the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> Any:
        name = str(function)
        if name in WAITING:
            self.found[name] += 1
        elif name.startswith(("aten.index.Tensor", "aten.index_put")):
            masks = [i for i in args[1] if i is not None and i.dtype == torch.bool]
            self.found["boolean index"] += bool(masks)
        return function(*args, **(kwargs or {}))


def waits_per_step(solver: str, n_crystals: int, sp2) -> float:
    crystals = [orthorhombic(seed) for seed in range(n_crystals)]
    objective = DescriptorLoss(sp2, skin=3.0)  # wide: no search for neighbours while we count
    batch = CrystalBatch.from_crystals(crystals)
    minimizer = BatchMinimizer(batch, objective, SOLVERS[solver](), fmax=0.0)
    for _ in range(2):
        minimizer.step()
    with Waits() as waits:
        for _ in range(3):
            minimizer.step()
    assert minimizer.n_active == n_crystals
    return waits.found.total() / 3


def test_the_count_sees_what_waits():
    with Waits() as waits:
        x = torch.arange(4.0)
        x.sum().item()
        x[x > 1]
        x.nonzero()
    assert waits.found.total() >= 3


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_step_waits_seldom_whatever_the_batch(solver, sp2):
    few, many = (waits_per_step(solver, n, sp2) for n in (3, 12))
    assert few == many
    assert many <= MOST
