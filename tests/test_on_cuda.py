"""The same program on a CUDA device: the same crystals come out, and the step loop does not wait.

These tests need a device. What can be checked without one, on the path that a device takes, is
in `tests/optimize/test_host_syncs.py`.
"""

from __future__ import annotations

import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list

from asexlatent import SymmetricDescriptorOptimizer
from asexlatent.descriptor import LocalEnvironment
from asexlatent.latent import (
    Dataset,
    Training,
    TrainingSettings,
    load_model,
    refine_dual_level,
)
from asexlatent.optimize import (
    SOLVERS,
    BatchMinimizer,
    CrystalBatch,
    DescriptorLoss,
    RefinementRun,
    Status,
    refine,
)
from asexlatent.optimize.obstacles import obstacle
from asexlatent.screening import MACEEnergy, load_mace_model, relax
from asexlatent.symmetry import RandomCrystals, SymmetricCrystal

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

GROUPS = (2, 5, 15, 62, 65, 99, 139, 166, 176, 194, 225)
GRAPHITE = SymmetricCrystal.build(194, [2.5, 6.9], [("C", "b", []), ("C", "c", [])])
DIAMOND = SymmetricCrystal.build(227, [3.6], [("C", "a", [])])
SRS = SymmetricCrystal.build(214, [4.2], [("C", "a", [])])


@pytest.fixture(scope="module")
def candidates() -> list[SymmetricCrystal]:
    source = RandomCrystals("C", GROUPS, max_sites=3, max_atoms=48, neighbors=3, seed=4)
    rule = LocalEnvironment.named("sp2").rule
    return list(islice((c for c in source.crystals(400) if not obstacle(c, rule)), 60))


def is_sp2(crystal: SymmetricCrystal) -> bool:
    """Three neighbours within 1.85 Å and none nearer than 1.15 Å, by ASE's neighbour list."""
    atoms = crystal.to_atoms()
    first, distances = neighbor_list("id", atoms, 1.85)
    bonds = np.bincount(first, minlength=len(atoms))
    return bool((bonds == 3).all() and distances.min() > 1.15)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_few_steps_end_where_they_end_on_the_cpu(solver, candidates):
    here = refine(candidates, solver=solver, steps=6)
    there = refine(candidates, solver=solver, steps=6, device="cuda")
    assert any(result.loss < 0.9 * result.loss_initial for result in here)
    for a, b in zip(here, there, strict=True):
        assert b.loss_initial == pytest.approx(a.loss_initial, rel=1e-10)
        assert b.loss == pytest.approx(a.loss, rel=1e-5)
        assert b.status == a.status


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_search_makes_as_many_valid(dtype, candidates):
    here = refine(candidates, restarts=4, steps=60)
    there = refine(candidates, restarts=4, steps=60, device="cuda", dtype=dtype)
    n_here, n_there = (sum(r.valid for r in results) for results in (here, there))
    assert n_here > 0.3 * len(candidates)
    assert abs(n_here - n_there) <= 0.15 * len(candidates)
    assert all(is_sp2(r.crystal) for r in there if r.valid)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_step_waits_for_the_device_twice(solver, candidates):
    """Counted by torch itself, on every operator that makes the host wait."""
    batch = CrystalBatch.from_crystals(candidates[:20], "cuda")
    objective = DescriptorLoss(LocalEnvironment.named("sp2"), skin=3.0)
    minimizer = BatchMinimizer(batch, objective, SOLVERS[solver](), fmax=0.0)
    for _ in range(2):
        minimizer.step()
    searches = minimizer._problem.neighbors.searches
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            for _ in range(3):
                minimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert minimizer.n_active == batch.n_crystals
    assert minimizer._problem.neighbors.searches == searches
    waits = [str(w.message) for w in found if "synchroniz" in str(w.message)]
    assert len(waits) == 3 * 2, "\n".join(str(w.filename) + f":{w.lineno}" for w in found)


def test_the_ase_optimizer():
    atoms = GRAPHITE.to_atoms()
    with SymmetricDescriptorOptimizer(atoms, logfile=None, device="cuda") as optimizer:
        assert optimizer.run(fmax=0.01, steps=100)
    bonds = neighbor_list("d", atoms, 1.85)
    assert bonds == pytest.approx(1.42, abs=0.01)


def test_a_batch_too_large_for_the_device_goes_on_in_halves(candidates, monkeypatch):
    """Memory of the device really runs out: the share that the process may use is set low."""
    whole = RefinementRun(candidates, steps=3, device="cuda")
    halves = []
    split = RefinementRun._halved

    def watched(self, indices, lack):
        halves.append(len(indices))
        return split(self, indices, lack)

    monkeypatch.setattr(RefinementRun, "_halved", watched)
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((held + 24 * 2**20) / total)
    try:
        results = refine(candidates * 4, steps=3, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    for _ in whole:
        pass
    assert halves
    for a, b in zip(whole.results() * 4, results, strict=True):
        assert b.status is not Status.FAILED
        assert b.loss == pytest.approx(a.loss, rel=1e-6)


def test_latent_rounds(candidates):
    model = load_model()
    known = [c for c in candidates if model.problem(c) is None]
    results = refine_dual_level(known, model=model, rounds=1, restarts=0, steps=30, device="cuda")
    assert sum(r.path == "latent" for r in results) > 0
    assert all(is_sp2(r.crystal) for r in results if r.valid)


def test_training(candidates, tmp_path: Path):
    settings = TrainingSettings().but(
        latent=4, embedding=8, hidden=24, components=3, epochs=4, batch=16, held_out=0.2,
        condition_epochs=1, dropout=0.0,
    )  # fmt: skip
    data = Dataset.from_candidates(candidates)
    here, there = Training(data, settings), Training(data, settings, device="cuda")
    for a, b in zip(here, there, strict=True):
        assert b.held_out == pytest.approx(a.held_out, rel=1e-3)
    made = there.model()
    assert made.device.type == "cpu"
    assert len(made.sample(n=5, seed=1)) == 5
    half = Training(data, settings, folder=tmp_path, device="cuda")
    next(iter(half))
    half.save_checkpoint()
    again = Training(data, settings, folder=tmp_path, device="cuda")
    assert again.resumed
    *_, last = again
    assert last.held_out == pytest.approx(there.history[-1].held_out, rel=1e-4)


def test_relaxation_under_a_network():
    crystals = [GRAPHITE, DIAMOND, SRS]
    energy = MACEEnergy(load_mace_model())
    here = relax(crystals, energy, fmax=0.01)
    there = relax(crystals, energy, fmax=0.01, device="cuda")
    for a, b in zip(here, there, strict=True):
        assert (a.status, b.status) == ("converged", "converged")
        assert b.energy == pytest.approx(a.energy, abs=1e-4)


def test_the_command(tmp_path: Path, candidates):
    from ase.io import read, write

    from asexlatent.cli.refine import main

    write(tmp_path / "in.extxyz", [c.to_atoms() for c in candidates[:20]])
    command = [str(tmp_path / "in.extxyz"), "-o", str(tmp_path / "out"), "--device", "cuda"]
    assert main([*command, "--restarts", "3", "--screen", "-q"]) == 0
    refined = read(tmp_path / "out" / "refined.extxyz", ":")
    assert len(refined) == 20
    assert any(atoms.info["asx_valid"] for atoms in refined)
    assert (tmp_path / "out" / "ranked.csv").is_file()
