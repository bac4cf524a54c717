"""refine() on executors: the same bits, in the same order, whoever dies."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixSymmetry
from optimize_cases import GROUPS, graphite, orthorhombic, puckered, random_crystal

from asexlatent.optimize import Status, chunked, refine
from asexlatent.parallel import LocalWorkers
from asexlatent.symmetry import CrystalError


def candidates() -> list:
    rng = np.random.default_rng(1)
    held = graphite(2.5).to_atoms()
    held.constraints = [FixSymmetry(held), FixAtoms([0])]
    held.calc = EMT()
    held.info |= {"lock": threading.Lock(), "name": "held"}  # nothing that can be sent anywhere
    return [
        held,
        *(random_crystal(g, rng, volume_per_atom=10) for g in GROUPS[:4]),
        CrystalError("row 3: not a number"),
        puckered(0.02).to_atoms(),
        Atoms("C2", positions=[[0, 0, 0], [1.4, 0, 0]]),
        orthorhombic(),
        bulk("Si"),
    ]


def same(a, b) -> bool:
    if (a.status, a.reason, a.valid, a.path, a.steps) != (
        b.status, b.reason, b.valid, b.path, b.steps,
    ):  # fmt: skip
        return False
    if a.crystal is None:
        return b.crystal is None
    numbers = ("loss_initial", "loss", "gradient", "displacement")
    return (
        np.array_equal(a.crystal.free_variables, b.crystal.free_variables)
        and a.crystal.info == b.crystal.info
        and all(getattr(a, name) == getattr(b, name) for name in numbers)
        and np.array_equal(a.to_atoms().positions, b.to_atoms().positions)
    )


OPTIONS = {"chunk_size": 3, "steps": 10, "restarts": 1, "seed": 5}


@pytest.mark.slow
def test_executors_change_no_bit():
    given = candidates()
    here = refine(given, **OPTIONS)
    assert [result.source for result in here] == given
    assert here[0].crystal.info["name"] == "held"
    assert here[5].reason == "row 3: not a number"
    seen = []
    for executor in (LocalWorkers(2), ThreadPoolExecutor(1)):
        with executor:
            there = refine(given, executor=executor, progress=seen.append, **OPTIONS)
        assert all(a.source is c for a, c in zip(there, given, strict=True))
        assert all(map(same, here, there))
    assert [state.done for state in seen[-4:]] == [3, 6, 9, 10]
    assert seen[-1].total == 10


def test_chunks_are_those_of_the_whole_up_to_rounding():
    given = candidates()
    whole = refine(given, steps=10, seed=5)
    parts = refine(given, steps=10, seed=5, chunk_size=4)
    for a, b in zip(whole, parts, strict=True):
        assert (a.status, a.reason, a.steps) == (b.status, b.reason, b.steps)
        assert a.loss == pytest.approx(b.loss, rel=1e-6, abs=1e-12, nan_ok=True)
    first = refine(given[4:], steps=10, restarts=1, seed=5, first_index=4, chunk_size=2)
    keys = refine(given[4:], steps=10, restarts=1, seed=5, keys=range(4, 10), chunk_size=2)
    assert all(map(same, first, keys))


@pytest.mark.slow
def test_a_killed_worker_changes_no_bit():
    given = candidates()
    here = refine(given, **OPTIONS)
    with LocalWorkers(2) as workers:
        killed = []

        def kill(_: object) -> None:
            if not killed and workers.pids():
                killed.append(workers.pids()[0])
                os.kill(killed[0], signal.SIGKILL)

        there = refine(given, executor=workers, progress=kill, **OPTIONS)
    assert killed
    assert all(map(same, here, there))


def test_a_candidate_that_kills_its_worker(monkeypatch):
    job = chunked.RefinementJob(None, {})
    (lost,) = job.lost((0, bulk("C")), "it died")
    assert lost.status is Status.FAILED
    assert lost.reason == "it died"


def test_wrong_options_are_refused_at_once():
    with pytest.raises(ValueError, match="chunk_size must be at least 1"):
        refine(candidates(), chunk_size=0)
    with pytest.raises(ValueError, match="unknown solver"):
        refine(candidates(), chunk_size=2, solver="magic")
    with pytest.raises(TypeError, match="stepz"):
        refine(candidates(), chunk_size=2, stepz=3)
    assert refine([], chunk_size=2) == []
