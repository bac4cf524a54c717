"""What a search promises at its edges: budgets, interruptions, hopeless starts, plain targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list
from optimize_cases import eq1, graphite, orthorhombic, puckered, random_crystal

from asexlatent import identify_net, refine
from asexlatent.descriptor import LocalEnvironment
from asexlatent.optimize import (
    BatchMinimizer,
    CrystalBatch,
    DescriptorLoss,
    LevenbergMarquardt,
    Restarts,
    Status,
    memory,
)
from asexlatent.optimize.objective import DescriptorProblem
from asexlatent.optimize.search import Wave
from asexlatent.symmetry import SymmetricCrystal

POLICY = Restarts(2, seed=3)


def candidates() -> list[SymmetricCrystal]:
    rng = np.random.default_rng(11)
    sites = [[("C", 0, rng.random(3)) for _ in range(1 + k % 2)] for k in range(4)]
    cells = ([6.5, 6.5, 6.5, 1.5], [5.0, 7.0, 6.0, 1.8], [8.0, 6.0, 5.0, 1.6], [6.0, 6.0, 7.0, 1.5])
    return [SymmetricCrystal.build(14, cell, part) for cell, part in zip(cells, sites, strict=True)]


def is_valid(crystal: SymmetricCrystal) -> bool:
    atoms = crystal.to_atoms()
    first, distances = neighbor_list("id", atoms, 1.85)
    return bool((np.bincount(first, minlength=len(atoms)) == 3).all() and distances.min() > 1.15)


# -------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("batch_size", ["auto", 2])
def test_interrupted_anywhere_the_loss_is_that_of_the_crystal(batch_size):
    """After every single step of all stages in turn."""
    total = 0

    def count(state):
        nonlocal total
        total += 1

    refine(candidates(), restarts=POLICY, steps=8, batch_size=batch_size, progress=count)
    assert total > 40
    for when in range(1, total, 9):
        calls = 0

        def stop(state, when=when):
            nonlocal calls
            calls += 1
            if calls == when:
                raise KeyboardInterrupt

        found = refine(candidates(), restarts=POLICY, steps=8, batch_size=batch_size, progress=stop)
        for result, source in zip(found, candidates(), strict=True):
            assert result.crystal.wyckoffs == source.wyckoffs
            assert result.status in (Status.STEP_LIMIT, Status.STALLED, Status.CONVERGED)
            if result.reason != "not started":
                assert result.loss == pytest.approx(eq1(result.crystal), rel=1e-6, abs=1e-10)
                assert result.valid == is_valid(result.crystal)
                assert (result.path != "") == result.valid


# -------------------------------------------------------------------------------------- budgets


def test_steps_are_the_evaluations_but_for_where_stages_begin(monkeypatch):
    calls = 0
    plain = DescriptorProblem.evaluate

    def counted(self, variables, metric=None):
        nonlocal calls
        calls += 1
        return plain(self, variables, metric)

    monkeypatch.setattr(DescriptorProblem, "evaluate", counted)
    monkeypatch.setattr(memory, "_ABREAST", 1)
    for count in (0, 1, 3):
        calls = 0
        (result,) = refine(candidates()[:1], restarts=Restarts(count, seed=3), steps=20)
        # each stage looks at its first place: one in a descent, at most three in an attempt
        stages = 1 if count == 0 else 3 * (count + 1)
        assert result.steps <= calls <= result.steps + stages + 1


def test_how_many_go_abreast():
    """No more than the memory, the sites and the size of a batch allow."""
    gib = memory.GIB
    needs, sites = [gib / 8, gib / 4, gib / 16], [4, 8, 2]
    most = memory._ABREAST
    assert memory.Abreast(needs, sites, 1.0)([0, 1]) == 2
    assert memory.Abreast(needs, sites, 1.0)([2]) == 16
    assert memory.Abreast(needs, sites, 1e9)([0, 1, 2]) == most // 14
    assert memory.Abreast(needs, sites, 1e9, "cuda")([1]) == memory._ACCELERATOR_ABREAST // 8
    assert memory.Abreast(needs, sites, 1e9, None, 6)([0, 1]) == 3
    assert memory.Abreast(needs, sites, 1e-9, None, 1)([0, 1]) == 1


@pytest.mark.parametrize("most", [6, 512])
def test_attempts_abreast_end_as_one_after_the_other(most, monkeypatch):
    """All that is reported, evaluations too, for crystals that succeed early, late and never."""
    rng = np.random.default_rng(5)
    crystals = [*candidates(), *(random_crystal(g, rng) for g in (2, 15, 62, 139, 166, 194))]
    waves = []
    make = Wave.__init__

    def watched(self, search, numbers, mask):
        waves.append((len(numbers), int(search.batch.select(mask).n_sites)))
        make(self, search, numbers, mask)

    monkeypatch.setattr(Wave, "__init__", watched)
    monkeypatch.setattr(memory, "_ABREAST", 1)
    apart = refine(crystals, restarts=7, steps=30, seed=4)
    assert {width for width, _ in waves} == {1}
    waves.clear()
    monkeypatch.setattr(memory, "_ABREAST", most)
    abreast = refine(crystals, restarts=7, steps=30, seed=4)
    assert max(width for width, _ in waves) > 1
    assert all(width == 1 or width * n <= most for width, n in waves)
    assert len({result.path for result in apart}) > 2
    for one, other in zip(apart, abreast, strict=True):
        assert (one.status, one.reason, one.path) == (other.status, other.reason, other.path)
        assert (one.valid, one.steps) == (other.valid, other.steps)
        assert other.loss == pytest.approx(one.loss, rel=1e-6, abs=1e-9)


def test_more_attempts_cost_no_more_than_their_limits():
    policy = Restarts(3, approach_steps=5, descent_steps=4, seed=3)
    for result in refine(candidates(), restarts=policy, steps=30):
        at_most = 4 * (policy.approach_steps + policy.descent_steps + 30)
        assert 0 < result.steps <= at_most


def test_no_restarts_is_a_plain_descent():
    """The same steps to the same place as the minimiser alone."""
    environment = LocalEnvironment.named("sp2")
    crystals = [orthorhombic(), *candidates()]
    found = refine(crystals, environment, restarts=0, steps=15)
    batch = CrystalBatch.from_crystals(crystals)
    one = BatchMinimizer(batch, DescriptorLoss(environment), LevenbergMarquardt(), 0.05)
    for _ in range(15):
        if not one.step():
            break
    assert [r.loss for r in found] == pytest.approx(one.losses.tolist(), rel=1e-7, abs=1e-12)
    assert [r.steps for r in found] == one.steps.tolist()
    assert [(r.status, r.reason) for r in found] == one.reports()


# ---------------------------------------------------------------------------------- environments


def test_an_environment_without_its_structure_still_searches():
    """It cannot be widened: no approach, restarts all the same."""
    environment = replace(LocalEnvironment.named("sp2"), structure=None)
    found = refine(candidates(), environment, restarts=POLICY, steps=20)
    again = refine(candidates(), environment, restarts=POLICY, steps=20)
    assert [r.loss for r in found] == [r.loss for r in again]
    for result in found:
        assert np.isfinite(result.loss)
        assert result.loss <= result.loss_initial
        assert result.valid == is_valid(result.crystal)


# ------------------------------------------------------------------------------ hopeless starts


HOPELESS = {
    "one point": SymmetricCrystal.build(2, [5.0] * 3 + [1.5] * 3, [("C", 0, [0.3] * 3)] * 3),
    "far apart": SymmetricCrystal.build(194, [60.0, 60.0], [("C", "c", [])]),
    "collapsed": SymmetricCrystal.build(62, [1.0, 1.1, 1.2], [("C", 0, [0.1, 0.2, 0.3])]),
    "exploded": SymmetricCrystal.build(14, [90.0, 90, 90, 1.5], [("C", 0, [0.1, 0.2, 0.3])]),
    "flat": SymmetricCrystal.build(166, [9.0, 1.2], [("C", "c", [0.2])]),
}


@pytest.mark.parametrize("restarts", [0, 1])
def test_hopeless_starts_come_out_with_a_status(restarts):
    found = refine(list(HOPELESS.values()), restarts=restarts, steps=12)
    for (name, source), result in zip(HOPELESS.items(), found, strict=True):
        assert isinstance(result.status, Status), name
        assert result.crystal is not None
        assert result.crystal.wyckoffs == source.wyckoffs
        assert np.isfinite(result.loss)
        assert result.loss <= result.loss_initial * (1 + 1e-9)
    far = found[list(HOPELESS).index("far apart")]
    if not restarts:
        assert far.status is Status.STALLED
        assert "no neighbour" in far.reason


def test_an_easy_condition_becomes_valid_from_any_cell():
    """One 6c site in R-3m is a buckled honeycomb: found from cells far too small and too large."""
    crystals = [
        SymmetricCrystal.build(166, cell, [("C", "c", [z])])
        for cell, z in (([1.5, 4.0], 0.01), ([2.5, 9.0], 0.4), ([12.0, 50.0], 0.2))
    ]
    found = refine(crystals, restarts=Restarts(8, seed=1), steps=60)
    assert all(result.valid for result in found)
    assert all(is_valid(result.crystal) for result in found)


def test_what_is_valid_already_stays_the_net_it_is():
    """Known carbons, disturbed a little: the first attempt keeps them, and moves them little."""
    known = [graphite(2.48), orthorhombic(1, strain=0.01), orthorhombic(2, strain=0.01)]
    before = [crystal for crystal in known if is_valid(crystal)]
    assert before
    for crystal, result in zip(before, refine(before, restarts=4, steps=60), strict=True):
        assert result.valid
        assert result.path == "descent"
        nets = [identify_net(c.to_atoms(), cutoff=1.85).key for c in (crystal, result.crystal)]
        assert nets[0] == nets[1]
        change = result.crystal.free_variables - crystal.free_variables
        # coordinates come back wrapped
        assert np.abs(change - np.round(change)).max() < 0.1


# --------------------------------------------------------------------------------------- company


def test_the_same_numbers_alone_and_in_a_list(sp2):
    """To rounding, as long as rounding has not been amplified by a hundred steps."""
    crystals = [*candidates(), puckered(0.03), random_crystal(148, np.random.default_rng(2))]
    policy = Restarts(1, seed=5)
    together = refine(crystals, sp2, restarts=policy, steps=10)
    for k in (0, 2, 5):
        (alone,) = refine(crystals[k : k + 1], sp2, restarts=policy, steps=10, first_index=k)
        assert alone.path == together[k].path
        assert alone.status == together[k].status
        assert alone.loss == pytest.approx(together[k].loss, rel=1e-6, abs=1e-10)
        np.testing.assert_allclose(
            alone.crystal.free_variables, together[k].crystal.free_variables, atol=1e-6
        )


def test_single_precision_finds_as_much(sp2):
    double, single = (
        refine(candidates() * 3, sp2, restarts=Restarts(4, seed=2), steps=40, dtype=dtype)
        for dtype in (torch.float64, torch.float32)
    )
    valid = [sum(result.valid for result in results) for results in (double, single)]
    assert valid[0] > 3
    assert abs(valid[1] - valid[0]) <= 3
    for result in single:
        assert result.valid == is_valid(result.crystal)
