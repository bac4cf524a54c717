"""Restarts: what is valid, how it was reached, and that nobody else matters for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list
from optimize_cases import graphite, orthorhombic
from spglib import get_symmetry

from asexlatent import LocalEnvironment, identify_net, refine
from asexlatent.optimize import CrystalBatch, DescriptorLoss, LevenbergMarquardt, Restarts
from asexlatent.optimize.search import Search
from asexlatent.optimize.starts import FRESH, begin
from asexlatent.symmetry import SymmetricCrystal, lattice_variables, wyckoff_positions


def candidates(n: int = 12) -> list[SymmetricCrystal]:
    """One or two sites in general position: there is room for three neighbours."""
    rng = np.random.default_rng(11)
    groups = (2, 14, 62, 88, 148, 152, 166, 186, 205, 227)
    made = []
    for k in range(n):
        group, n_sites = groups[k % len(groups)], 1 + k % 2
        n_atoms = n_sites * wyckoff_positions(group)[0].multiplicity
        size = (9.0 * n_atoms) ** (1 / 3)
        cell = lattice_variables(group).project(np.array([size] * 3 + [1.5, 1.6, 1.5]))
        made.append(
            SymmetricCrystal.build(group, cell, [("C", 0, rng.random(3)) for _ in range(n_sites)])
        )
    return made


@pytest.fixture(scope="module")
def results():
    return refine(candidates(), "sp2", restarts=Restarts(4, seed=1), steps=60)


def is_valid(crystal: SymmetricCrystal) -> bool:
    """The rule, without a line of ours."""
    atoms = crystal.to_atoms()
    first, distances = neighbor_list("id", atoms, 1.85)
    return bool((np.bincount(first, minlength=len(atoms)) == 3).all() and distances.min() > 1.15)


def test_valid_means_three_neighbours_and_the_group_kept(results):
    assert sum(result.valid for result in results) >= 3
    for result, source in zip(results, candidates(), strict=True):
        assert result.valid == is_valid(result.crystal)
        assert result.crystal.wyckoffs == source.wyckoffs
        atoms = result.crystal.to_atoms()
        found = get_symmetry((atoms.cell, atoms.get_scaled_positions(), atoms.numbers), 1e-3)
        order = wyckoff_positions(source.space_group)[0].multiplicity
        assert len(found["rotations"]) % order == 0


def test_restarts_reach_more_than_one_descent(results):
    plain = refine(candidates(), "sp2", restarts=0, steps=100)
    assert sum(r.valid for r in results) > sum(r.valid for r in plain)
    assert {r.path for r in plain if r.valid} <= {"descent"}
    for result in results:
        assert (result.path in ("descent", "perturbed", "fresh")) == result.valid


def test_a_result_does_not_depend_on_its_company(results):
    for k in (0, 3, 7):
        (alone,) = refine(
            candidates()[k : k + 1], "sp2", restarts=Restarts(4, seed=1), steps=60, first_index=k
        )
        assert (alone.path, alone.valid) == (results[k].path, results[k].valid)
        assert alone.loss == pytest.approx(results[k].loss, rel=1e-5, abs=1e-9)


def test_another_seed_is_another_search(results):
    other = refine(candidates(), "sp2", restarts=Restarts(4, seed=2), steps=60)
    assert any(
        abs(a.loss - b.loss) > 1e-6
        for a, b in zip(results, other, strict=True)
        if a.path != "descent"
    )


def test_without_fresh_starts_nothing_is_fresh():
    found = refine(candidates(6), "sp2", restarts=Restarts(3, fresh=False), steps=40)
    assert all(result.path != "fresh" for result in found)


def test_what_is_right_stays_what_it_is():
    known = [graphite(), orthorhombic(strain=0.01)]
    for before, after in zip(known, refine(known, "sp2", restarts=5), strict=True):
        if not is_valid(before):
            continue
        assert after.path == "descent"
        keys = [identify_net(c.to_atoms(), cutoff=1.85).key for c in (before, after.crystal)]
        assert keys[0] == keys[1]


def test_starts_are_what_they_are_called():
    crystals = candidates(4)
    batch = CrystalBatch.from_crystals(crystals)
    keys, policy = range(4), Restarts(6)
    assert torch.equal(begin(batch, policy.start(0), 0, 0, keys, None), batch.variables)
    near = begin(batch, policy.start(1), 0, 1, keys, None)
    again = begin(batch, policy.start(1), 0, 1, keys, None)
    assert torch.equal(near, again)
    assert not torch.equal(near, begin(batch, policy.start(1), 1, 1, keys, None))
    assert policy.start(3).path == FRESH
    dense = begin(batch, policy.start(2), 0, 2, keys, 0.1)
    volumes = torch.linalg.det(batch.cells(dense)) / torch.bincount(batch.atom_crystal)
    # the density aimed at, times a log-normal factor of spread 0.2
    assert ((volumes > 4.0) & (volumes < 25.0)).all()


def test_the_best_so_far_can_be_where_noise_is_put():
    """What the first attempt has improved is left less far by small noise than it was found."""
    crystals = candidates(8)
    policy = Restarts(1, best=True, reference_density=False, approach_steps=0)
    batch = CrystalBatch.from_crystals(crystals)
    environment = LocalEnvironment.named("sp2")
    loss = DescriptorLoss(environment)
    search = Search(batch, environment, loss, LevenbergMarquardt(), policy, range(8), steps=30)
    begins = []
    for _ in search:
        wave = search._wave
        if wave.numbers == [1] and not begins:
            best = search.found.variables.clone()
            begins.append((wave.mask, wave.starts))
    ((mask, begun),) = begins
    part = replace(batch, variables=best).select(mask)
    noisy = begin(part, policy.start(1), 0, 1, mask.nonzero().ravel().tolist(), None)
    assert torch.equal(begun, noisy)
    assert not torch.equal(part.variables, batch.select(mask).variables)


DEAD_ENDS = {
    "all on one point": (9.0, lambda rng: np.full(3, 0.3) + rng.normal(0, 1e-4, 3)),
    "isolated": (40.0, lambda rng: rng.random(3)),
    "collapsed": (2.2, lambda rng: rng.random(3)),
}


@pytest.mark.parametrize("name", DEAD_ENDS)
def test_dead_ends_have_a_way_out(name):
    size, draw = DEAD_ENDS[name]
    rng = np.random.default_rng(2)
    crystals = [
        SymmetricCrystal.build(14, [size, size, size, 1.6], [("C", 0, draw(rng)) for _ in range(2)])
        for _ in range(4)
    ]
    found = refine(crystals, "sp2", restarts=Restarts(8), steps=60)
    assert any(result.valid for result in found)
    assert all(np.isfinite(result.loss) for result in found)


def test_what_was_not_reached_says_so():
    policy = Restarts(2, approach_steps=0, descent_steps=1)  # a single step gets nowhere
    (result,) = refine(candidates(2)[1:], "sp2", restarts=policy, steps=1)
    assert not result.valid
    assert str(result.status) == "stalled"
    assert "3 attempts" in result.reason
