"""A step asks the device for two numbers, and the host for nothing, however large the batch.

Operators whose result the host has to wait for, and copies from the host, are counted as they
are dispatched; that works without an accelerator, on the path that an accelerator takes. The two
are whether a neighbour list is out of date, and how many crystals are still moving. On a CPU,
where nothing has to be waited for, pairs are cut to the cutoff and arranged anew at every step.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from optimize_cases import orthorhombic, random_crystal
from torch.utils._python_dispatch import TorchDispatchMode

from asexlatent.descriptor import LocalEnvironment, power_spectrum
from asexlatent.optimize import SOLVERS, BatchMinimizer, CrystalBatch, DescriptorLoss

WAITING = {
    "_linalg_check_errors",
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "lift_fresh",  # a tensor made of Python numbers: a copy from the host
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}
ACCELERATOR, CPU = 2, 20  # per step, in a steady state: nobody leaves, no neighbour is searched for


class Waits(TorchDispatchMode):
    """Counts the operators that make the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        name = function._schema.name.removeprefix("aten::")
        waits = name in WAITING or (name == "repeat_interleave" and "output_size" not in kwargs)
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            waits = any(i is not None and i.dtype == torch.bool for i in args[1])
        if waits:
            self.found[name] += 1
        return function(*args, **kwargs)


def prepare(solver: str, crystals: list, sp2: LocalEnvironment, on_cpu: bool) -> BatchMinimizer:
    objective = DescriptorLoss(sp2, skin=3.0)  # wide: no search for neighbours while we count
    batch = CrystalBatch.from_crystals(crystals)
    minimizer = BatchMinimizer(batch, objective, SOLVERS[solver](), fmax=0.0)
    minimizer._problem.within = on_cpu
    return minimizer


def waits_per_step(minimizer: BatchMinimizer) -> Counter[str]:
    for _ in range(2):
        minimizer.step()
    searches = minimizer._problem.neighbors.searches
    with Waits() as waits:
        for _ in range(3):
            minimizer.step()
    assert minimizer.n_active == minimizer.batch.n_crystals
    assert minimizer._problem.neighbors.searches == searches
    return Counter({name: count / 3 for name, count in waits.found.items()})


@pytest.fixture
def as_on_an_accelerator(monkeypatch):
    """Autograd goes through plain operators instead of the products by hand for CPUs."""
    monkeypatch.setattr(power_spectrum, "_by_hand", lambda vectors: False)


def test_the_count_sees_what_waits():
    with Waits() as waits:
        x = torch.arange(4.0)
        x.sum().item()
        x[x > 1]
        x.nonzero()
        x.new_tensor([1.0])
        torch.repeat_interleave(torch.arange(2))
        torch.linalg.inv(torch.eye(2))
        bool((x > 0).all())
    seen = {"_local_scalar_dense": 2, "index": 1, "nonzero": 1, "lift_fresh": 1}
    seen |= {"repeat_interleave": 1, "_linalg_check_errors": 1}
    assert waits.found == seen


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_step_asks_an_accelerator_for_two_numbers(solver, sp2, as_on_an_accelerator):
    for n in (3, 12):
        crystals = [orthorhombic(seed) for seed in range(n)]
        waits = waits_per_step(prepare(solver, crystals, sp2, on_cpu=False))
        assert waits == {"_local_scalar_dense": ACCELERATOR}


def test_nor_do_other_groups_and_environments_ask_for_more(as_on_an_accelerator):
    """Two species, several references, sites of several kinds."""
    two = LocalEnvironment.named("SiO4")
    rng = np.random.default_rng(0)
    crystals = [random_crystal(group, rng, 3, species="Si") for group in (2, 62, 152)]
    waits = waits_per_step(prepare("lm", crystals, two, on_cpu=False))
    assert waits == {"_local_scalar_dense": ACCELERATOR}


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_on_a_cpu_the_number_does_not_depend_on_the_batch(solver, sp2):
    few, many = (
        waits_per_step(prepare(solver, [orthorhombic(seed) for seed in range(n)], sp2, on_cpu=True))
        for n in (3, 12)
    )
    assert few == many
    assert many.total() <= CPU


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_both_paths_go_the_same_way(solver, sp2, as_on_an_accelerator):
    crystals = [orthorhombic(seed) for seed in range(3)]
    there = prepare(solver, crystals, sp2, on_cpu=False)
    here = prepare(solver, crystals, sp2, on_cpu=True)
    for _ in range(12):
        there.step()
        here.step()
    torch.testing.assert_close(there.losses, here.losses, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(there.variables, here.variables, rtol=0, atol=1e-8)
