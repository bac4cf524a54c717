"""Memory that runs out costs halves of a batch their time; a crystal too large alone fails."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from optimize_cases import GROUPS, random_crystal

from asexlatent import LocalEnvironment
from asexlatent.optimize import DescriptorLoss, Status, refine
from asexlatent.optimize.memory import GIB, crystal_bytes, out_of_memory
from asexlatent.symmetry import SymmetricCrystal

ERRORS = {
    "torch": lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "cpu": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"),
    "python": MemoryError,
}


class Narrow(DescriptorLoss):
    """Has memory for a few crystals only, and for none with this many atoms."""

    def __init__(self, error, crystals=3, atoms=10**9):
        super().__init__(LocalEnvironment.named("sp2"))
        self.error, self.crystals, self.atoms = error, crystals, atoms
        self.sizes = []

    def bind(self, batch):
        self.sizes.append(batch.n_crystals)
        if batch.n_crystals > self.crystals or int(batch.atoms_per_crystal.max()) >= self.atoms:
            raise self.error()
        return super().bind(batch)


def crystals() -> list[SymmetricCrystal]:
    rng = np.random.default_rng(3)
    return [random_crystal(g, rng, volume_per_atom=10) for g in GROUPS[:7]]


@pytest.mark.parametrize("kind", ERRORS)
def test_the_batch_shrinks_and_goes_on(kind):
    given = crystals()
    objective, seen = Narrow(ERRORS[kind]), []
    results = refine(given, objective=objective, steps=6, progress=seen.append)
    assert max(objective.sizes) == 7
    plain = refine(given, steps=6)
    for got, expected in zip(results, plain, strict=True):
        assert (got.status, got.reason, got.steps) == (
            expected.status, expected.reason, expected.steps,
        )  # fmt: skip
        assert got.loss == pytest.approx(expected.loss, rel=1e-6)
    assert seen[-1].done == seen[-1].total == 7


@pytest.mark.parametrize("room", [1, 4])
def test_attempts_side_by_side_are_given_up_first(room):
    """Copies of crystals fill the memory sooner than crystals do; no crystal fails for that."""
    rng = np.random.default_rng(3)
    every = [random_crystal(g, rng, volume_per_atom=10) for g in GROUPS]
    given = [crystal for crystal in every if crystal.space_group in (148, 186, 205, 230)]
    objective = Narrow(ERRORS["torch"], room)
    results = refine(given, objective=objective, restarts=6, steps=20)
    assert max(objective.sizes) > room  # it did run out
    plain = refine(given, restarts=6, steps=20)
    assert any(result.steps > 60 for result in plain)  # they needed several attempts
    for got, expected in zip(results, plain, strict=True):
        assert got.status is not Status.FAILED
        assert (got.status, got.reason, got.path) == (
            expected.status,
            expected.reason,
            expected.path,
        )
        assert got.loss == pytest.approx(expected.loss, rel=1e-6)


def test_a_crystal_that_is_too_large_alone_costs_nobody_else():
    given = crystals()
    largest = max(crystal.n_atoms for crystal in given)
    results = refine(given, objective=Narrow(ERRORS["torch"], 5, largest), steps=3)
    for crystal, result in zip(given, results, strict=True):
        if crystal.n_atoms == largest:
            assert result.status is Status.FAILED
            assert "memory ran out for this crystal alone: CUDA out of memory" in result.reason
        else:
            assert result.status is not Status.FAILED


def test_other_errors_are_not_taken_for_it():
    assert not out_of_memory(ValueError("out of memory"))
    assert not out_of_memory(RuntimeError("the size of tensor a must match"))
    with pytest.raises(RuntimeError, match="must match"):
        refine(crystals(), objective=Narrow(lambda: RuntimeError("sizes must match")))


def test_what_is_beyond_the_budget_fails_and_says_so():
    given = crystals()
    environment = LocalEnvironment.named("sp2")
    needs = [crystal_bytes(crystal, environment, torch.float64) / GIB for crystal in given]
    budget = sorted(needs)[4]
    results = refine(given, environment, steps=2, memory=budget)
    for need, result in zip(needs, results, strict=True):
        assert (result.status is Status.FAILED) == (need > budget)
        if need > budget:
            assert "more than the budget" in result.reason
            assert "--memory" in result.reason
            assert result.crystal is not None  # it comes out as it came in


@pytest.mark.slow
def test_real_memory_that_runs_out():
    """A process that the kernel gives 60 MB beyond what it has; the batch wants hundreds."""
    pytest.importorskip("resource")
    code = """
import resource
from asexlatent import LocalEnvironment
from asexlatent.optimize import RefinementRun, refine
from asexlatent.symmetry import RandomCrystals
given = list(RandomCrystals("C", max_atoms=60, volume=(6, 12)).crystals(600))
environment = LocalEnvironment.named("sp2")
refine(given[:4], environment, steps=3)  # what is loaded on first use
held = int(open("/proc/self/status").read().split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + 60 * 2**20,) * 2)
run = RefinementRun(given, environment, steps=2, batch_size=600)
sizes = []
batch = RefinementRun._batch
def counted(self, indices):
    sizes.append(len(indices))
    return batch(self, indices)
RefinementRun._batch = counted
for _ in run:
    pass
failed = [r.reason for r in run.results() if str(r.status) == "failed"]
print(len(sizes), max(sizes), failed[:3], sum(r.loss == r.loss for r in run.results()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    batches, largest, *_, refined = done.stdout.split()
    assert int(largest) > 250
    assert int(batches) > 2
    assert done.stdout.split("[")[1].startswith("]")
    assert int(refined) == 600
