"""Rounds of latent and representation-space refinement."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from latent_cases import GROUPS, tiny_model

import asexlatent
from asexlatent.descriptor import LocalEnvironment
from asexlatent.latent import (
    Condition,
    DualLevelRun,
    LatentOptions,
    ModelError,
    Vocabulary,
    refine_dual_level,
)
from asexlatent.optimize import Restarts, refine
from asexlatent.optimize.obstacles import obstacle
from asexlatent.symmetry import CrystalError, RandomCrystals, SymmetricCrystal

QUICK = {"steps": 30, "restarts": 0}
LATENT = LatentOptions(steps=10)


def hard(n: int = 12, seed: int = 4) -> list[SymmetricCrystal]:
    """Candidates of which one descent leaves most invalid; all known to the model."""
    source = RandomCrystals("C", GROUPS, max_sites=3, max_atoms=24, neighbors=3, seed=seed)
    rule = LocalEnvironment.named("sp2").rule
    return list(islice((c for c in source.crystals(5 * n) if not obstacle(c, rule)), n))


def run(candidates, **options) -> DualLevelRun:
    options = {"model": tiny_model(), "latent": LATENT, "rounds": 2, **QUICK, **options}
    made = DualLevelRun(candidates, **options)
    for _ in made:
        pass
    return made


@pytest.fixture(scope="module")
def done() -> DualLevelRun:
    return run(hard())


def test_it_is_a_public_name():
    assert asexlatent.refine_dual_level is refine_dual_level


def test_every_result_is_in_its_place_with_its_condition(done):
    results = done.results()
    assert len(results) == len(hard())
    for candidate, result in zip(hard(), results, strict=True):
        np.testing.assert_array_equal(result.source.free_variables, candidate.free_variables)
        assert Condition.from_crystal(result.crystal) == Condition.from_crystal(candidate)


def test_valid_is_judged_independently(done):
    """Three neighbours within 1.85 Å and none nearer than 1.15 Å, by ASE's neighbour list."""
    paths = set()
    for result in done.results():
        if result.valid:
            atoms = result.to_atoms()
            first, distances = neighbor_list("id", atoms, 1.85)
            assert (np.bincount(first, minlength=len(atoms)) == 3).all()
            assert distances.min() > 1.15
            (again,) = refine([result.crystal], steps=0)
            assert again.loss == pytest.approx(result.loss, rel=1e-9)
            assert (result.round == 0) == (not result.path.startswith("latent"))
            paths.add(result.path)
    assert "descent" in paths
    assert any(path.startswith("latent") for path in paths)


def test_rounds_add_up(done):
    results = done.results()
    valid = 0
    for number, row in enumerate(done.rounds):
        assert row.round == number
        assert row.tried == len(results) - valid
        assert row.latent == (row.tried if number else 0)
        assert row.new == sum(r.valid and r.round == number for r in results)
        valid += row.new
        assert row.valid == valid
        assert row.cpu_seconds > 0
    assert valid == sum(r.valid for r in results)
    assert {r.round for r in results if not r.valid} == {done.rounds[-1].round}


def test_what_round_0_finds_is_what_refine_finds(done):
    alone = refine(hard(), **QUICK)
    for result, one in zip(done.results(), alone, strict=True):
        assert (result.round == 0 and result.valid) == one.valid
        if one.valid:
            assert (result.path, result.loss, result.steps) == (one.path, one.loss, one.steps)
        else:
            assert result.loss_initial == one.loss_initial
            assert result.steps > one.steps


def test_a_result_does_not_depend_on_the_list(done):
    """The same candidate alone, with its key."""
    found = [k for k, r in enumerate(done.results()) if r.valid and r.round]
    k = found[0]
    (alone,) = run([hard()[k]], first_index=k).results()
    there = done.results()[k]
    assert (alone.valid, alone.path, alone.round) == (True, there.path, there.round)
    np.testing.assert_allclose(
        alone.crystal.free_variables, there.crystal.free_variables, rtol=1e-3, atol=1e-3
    )


def test_without_a_model_rounds_are_further_attempts():
    """Rounds of two attempts each are one long search, and need no model."""
    crystals = hard(8, seed=3)
    rounds = run(crystals, latent=None, model=None, restarts=1, rounds=2)
    whole = refine(crystals, restarts=Restarts(5), steps=30)
    assert [row.latent for row in rounds.rounds] == [0] * len(rounds.rounds)
    for result, one in zip(rounds.results(), whole, strict=True):
        assert (result.valid, result.path) == (one.valid, one.path)
        assert "latent" not in result.reason
    assert sum(r.valid and r.round > 0 for r in rounds.results())


def test_what_the_model_does_not_know_gets_attempts_and_a_reason():
    model = tiny_model()
    groups = sorted({c.space_group for c in hard()})
    small = Vocabulary(("C",), tuple(groups[1:]), model.vocabulary.max_sites)
    lame = replace(model, vocabulary=small)
    crystals = [c for c in hard() if c.space_group == groups[0]]
    assert crystals
    result = run(crystals, model=lame, rounds=1)
    row = result.rounds[1]
    assert row.latent == 0
    assert sum(row.skipped.values()) == row.tried
    assert all(f"space group {groups[0]} was not in" in reason for reason in row.skipped)
    for one in result.results():
        assert not one.path.startswith("latent")
        if not one.valid:
            assert f"no latent stage: space group {groups[0]}" in one.reason
            assert one.steps > 10


def test_it_stops_when_a_round_brings_nothing():
    # nothing to move but a and c, and six neighbours in each of the two kinds of distances
    fixed = SymmetricCrystal.build(194, (3.0, 6.0), [("C", "2c", [])])
    result = run([fixed], rounds=5)
    assert [row.new for row in result.rounds] == [0, 0]
    assert len(run(hard(3), rounds=0).rounds) == 1


def test_failed_candidates_keep_their_place():
    error = CrystalError("cannot be read")
    results = run([error, hard()[0]]).results()
    assert str(results[0].status) == "failed"
    assert results[0].reason == "cannot be read"
    assert results[1].crystal is not None


def test_atoms_come_back_as_they_were(done):
    k = next(k for k, r in enumerate(done.results()) if r.round and r.valid)
    atoms = hard()[k].to_atoms()[::-1]
    atoms.set_tags(range(len(atoms)))
    (result,) = refine_dual_level(
        [atoms], model=tiny_model(), latent=LATENT, rounds=3, space_group=hard()[k].space_group,
        restarts=2, steps=30,
    )  # fmt: skip
    refined = result.to_atoms()
    assert (refined.get_tags() == np.arange(len(atoms))).all()
    assert result.crystal.volume == pytest.approx(refined.cell.volume)


@pytest.mark.parametrize("when", [1, 2])
def test_ctrl_c_returns_what_there_is(when):
    """In the latent stage of round 1 (step counts begin again), and in the refinement after it."""
    seen = []
    model, crystals = tiny_model(), hard()
    one = DualLevelRun(crystals, model=model, latent=LATENT, rounds=3, **QUICK)
    first = iter(one)
    while not one.rounds:
        next(first)
    known = [r.valid for r in one._results]

    def watch(state):
        seen.append(state.step)
        restarted = sum(a > b for a, b in pairwise(seen))
        if restarted >= when + 1:
            raise KeyboardInterrupt

    results = refine_dual_level(
        crystals, model=model, latent=LATENT, rounds=3, progress=watch, **QUICK
    )
    assert len(results) == len(crystals)
    assert all(r.valid for r, was in zip(results, known, strict=True) if was)
    assert all(r.crystal is not None for r in results)


def test_progress_never_counts_more_than_there_is():
    states = []
    refine_dual_level(
        hard(), model=tiny_model(), latent=LATENT, rounds=1, progress=states.append, **QUICK
    )
    assert all(0 <= s.done <= s.total == 12 and s.valid <= 12 for s in states)


def test_wrong_options(tmp_path):
    with pytest.raises(ModelError, match="no model in"):
        DualLevelRun([], model=tmp_path)
    with pytest.raises(ModelError, match="conditional"):
        DualLevelRun([], model=tiny_model("tabular"))
    with pytest.raises(ValueError, match="negative"):
        DualLevelRun([], rounds=-1, model=tiny_model())
    with pytest.raises(ValueError, match="cutoff_factor"):
        LatentOptions(cutoff_factor=0)
    assert refine_dual_level([], model=tiny_model()) == []


def test_what_symmetry_forbids_gets_no_further_round():
    barred = SymmetricCrystal.build(
        2, [4.0, 5.0, 6.0, 1.4, 1.5, 1.6], [("C", "2i", [0.1, 0.2, 0.3]), ("C", "1a", [])]
    )
    made = run([*hard(3), barred])
    result = made.results()[-1]
    assert not result.valid
    assert result.round == 0
    assert "3 neighbours" in result.reason
    assert made.rounds[0].tried > made.rounds[1].tried
