"""refine(): a list in, as many results out, in order, whatever happens."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from optimize_cases import GROUPS, eq1, graphite, orthorhombic, puckered, random_crystal

from asexlatent.optimize import Adam, Progress, RefinementRun, Status, refine
from asexlatent.symmetry import CrystalError, SymmetricCrystal


def candidates() -> list:
    """Crystals and Atoms of very different sizes, and four that cannot be refined."""
    rng = np.random.default_rng(0)
    crystals = [random_crystal(g, rng, volume_per_atom=10) for g in GROUPS]
    nan = orthorhombic().to_atoms()
    nan.positions[0] = np.nan
    return [
        orthorhombic(),
        CrystalError("row 7: Wyckoff index 31 is out of range"),
        puckered(0.02).to_atoms(),
        *crystals,
        nan,
        Atoms("C2", positions=[[0, 0, 0], [1.4, 0, 0]]),
        bulk("Si"),
        graphite(2.4).to_atoms(),
        graphite(20, 20),
    ]


def failed(result) -> bool:
    return result.status is Status.FAILED


@pytest.mark.parametrize("options", [{}, {"batch_size": 3}, {"memory": 0.02}])
def test_every_candidate_comes_out_in_its_place(options):
    given = candidates()
    results = refine(given, steps=8, **options)
    assert len(results) == len(given)
    for result, candidate in zip(results, given, strict=True):
        assert result.source is candidate
        if isinstance(candidate, SymmetricCrystal):
            assert result.crystal.wyckoffs == candidate.wyckoffs
            assert result.loss_initial == pytest.approx(eq1(candidate), rel=1e-8)
        if not failed(result):
            assert result.loss == pytest.approx(eq1(result.crystal), rel=1e-6, abs=1e-12)
            assert result.loss <= result.loss_initial
            assert result.steps <= 8
            assert result.gradient >= 0
    places = [k for k, result in enumerate(results) if failed(result)]
    assert places == [1, *range(len(given) - 5, len(given) - 2)]
    reasons = [results[k].reason for k in places]
    assert reasons[0] == "row 7: Wyckoff index 31 is out of range"
    for reason, words in zip(reasons[1:], ("not finite", "not periodic", "Si"), strict=True):
        assert words in reason
    for k in places:
        assert results[k].crystal is None
        assert np.isnan([results[k].loss, results[k].loss_initial, results[k].gradient]).all()
        assert not results[k].valid
    assert results[-1].status is Status.STALLED
    assert "no neighbour" in results[-1].reason


def test_batches_change_no_result():
    given = candidates()
    first, *others = (
        refine(given, steps=15, **options)
        for options in ({"batch_size": 1}, {"batch_size": 4}, {"batch_size": "auto"})
    )
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert (a.status, a.reason, a.steps, a.valid) == (b.status, b.reason, b.steps, b.valid)
            if a.crystal is not None:
                assert a.crystal.free_variables == pytest.approx(b.crystal.free_variables, abs=1e-6)


def test_atoms_come_back_in_their_own_cell():
    atoms = puckered(0.02, a=2.5).to_atoms().repeat((2, 1, 1))[::-1]
    atoms.rotate(30, (1, 2, 3), rotate_cell=True)
    atoms.positions[0] += 2 * atoms.cell[0]
    atoms.set_tags(range(8))
    atoms.info["label"] = "mine"
    before = atoms.copy()
    (result,) = refine([atoms], fmax=0.05)
    out = result.to_atoms()
    assert result.status is Status.CONVERGED
    assert np.array_equal(atoms.positions, before.positions)  # the input is not touched
    assert out.get_tags().tolist() == list(range(8))
    assert out.info["label"] == "mine"
    moved = out.get_scaled_positions(wrap=False) - before.get_scaled_positions(wrap=False)
    assert 1e-4 < np.abs(moved).max() < 0.2
    again = SymmetricCrystal.from_atoms(out)
    assert again.space_group == 194
    assert eq1(again) == pytest.approx(result.loss, abs=1e-9)


def test_atoms_do_not_jump_by_lattice_vectors():
    """Whatever side of a cell boundary the free coordinates end on."""
    given = [orthorhombic(seed).to_atoms() for seed in range(8)]
    moves = []
    for atoms, result in zip(given, refine(given), strict=True):
        after = result.to_atoms().get_scaled_positions(wrap=False)
        moves.append(np.abs(after - atoms.get_scaled_positions(wrap=False)).max())
        assert result.crystal is not None
    assert 1e-3 < max(moves) < 0.1


def test_failed_candidates_come_back_as_they_were():
    broken = Atoms("C2", positions=[[0, 0, 0], [1.4, 0, 0]], info={"x": 1})
    result, nothing = refine([broken, CrystalError("no row")])
    assert result.to_atoms() == broken
    assert result.to_atoms() is not broken
    assert len(nothing.to_atoms()) == 0


def test_crystals_come_back_with_wrapped_coordinates():
    free = orthorhombic().free_variables.copy()
    free[-2:] += [3.0, -2.0]
    (result,) = refine([orthorhombic().with_free_variables(free)], steps=5)
    coordinates = result.crystal.free_variables[-2:]
    assert (coordinates >= 0).all()
    assert (coordinates < 1).all()
    assert result.loss == pytest.approx(eq1(result.crystal), rel=1e-6)


def test_the_displacement_of_the_symmetrisation_is_reported():
    atoms = graphite().to_atoms()
    atoms.rattle(0.003, seed=0)
    (result,) = refine([atoms], symprec=0.02, steps=1)
    assert 1e-4 < result.displacement < 0.02
    assert result.crystal.space_group == 194


def test_valid_is_the_motif_not_the_status():
    diamond = bulk("C", "diamond", 3.567, cubic=True)
    results = refine([graphite(2.44), SymmetricCrystal.from_atoms(diamond)])
    assert [result.valid for result in results] == [True, False]
    assert results[1].status is Status.CONVERGED  # a stationary point, and no sp2 carbon
    assert results[0].path == "descent"
    assert results[1].path == ""
    assert refine([diamond], "sp3", steps=3)[0].valid


def test_progress_counts_up():
    given = candidates()
    seen: list[Progress] = []
    refine(given, steps=6, batch_size=5, progress=seen.append)
    assert {state.total for state in seen} == {len(given)}
    done = [state.done for state in seen if state.step == 0]
    assert done == sorted(done)
    assert done[-1] == len(given)
    assert all(0 <= state.valid <= state.done <= len(given) for state in seen if state.step == 0)


@pytest.mark.parametrize("when", [1, 4, 9])
def test_interrupted_returns_what_there_is(when):
    given = candidates()
    calls = 0

    def interrupt(state):
        nonlocal calls
        calls += 1
        if calls == when:
            raise KeyboardInterrupt

    results = refine(given, steps=4, batch_size=6, progress=interrupt)
    assert calls == when
    assert len(results) == len(given)
    reasons = [result.reason for result in results]
    assert reasons.count("not started") > 0
    for result, candidate in zip(results, given, strict=True):
        assert result.source is candidate
        if result.reason == "not started":
            assert result.status is Status.STEP_LIMIT
            assert result.crystal is not None
            assert result.steps == 0
    assert any(result.steps > 0 for result in results)
    started = [r for r in results if r.steps > 0]
    for result in started:
        assert result.loss == pytest.approx(eq1(result.crystal), rel=1e-6, abs=1e-12)


def test_a_run_can_be_watched_and_left():
    run = RefinementRun([orthorhombic(), puckered(0.02)], solver=Adam(), fmax=0.0)
    for state in run:
        if state.step == 7:
            break
    results = run.results()
    assert [result.steps for result in results] == [7, 7]
    assert [result.status for result in results] == [Status.STEP_LIMIT] * 2
    assert run.results() is results


def test_wrong_options_are_refused_at_once():
    with pytest.raises(ValueError, match="unknown solver 'sgd': choose from adam"):
        refine([graphite()], solver="sgd")
    with pytest.raises(ValueError, match="unknown environment 'sp4'"):
        refine([graphite()], "sp4")
    with pytest.raises(ValueError, match="batch_size must be"):
        refine([graphite()], batch_size=0)
    assert refine([]) == []


@pytest.mark.parametrize(
    ("cell", "n_sites"),
    [
        ([3.0, 3.0, 3.0, 0.001, 1.5, 1.5004], 1),  # flat
        ([0.3, 0.3, 0.3, 1.5, 1.5, 1.5], 30),  # a thousand atoms in an Å^3
    ],
)
def test_an_impossible_cell_fails_alone(cell, n_sites):
    sites = [("C", 0, [0.1 + 0.02 * k, 0.2, 0.3]) for k in range(n_sites)]
    impossible = SymmetricCrystal.build(1, cell, sites)
    results = refine([graphite(2.4), impossible, puckered(0.02)], steps=3)
    assert [failed(result) for result in results] == [False, True, False]
    assert "impossible cell" in results[1].reason


def test_a_cell_that_is_only_far_too_dense_is_rescued():
    dense = SymmetricCrystal.build(1, [0.9, 0.9, 0.9, 1.5, 1.5, 1.5], [("C", 0, [0.1] * 3)])
    (result,) = refine([dense], steps=20)
    assert not failed(result)
    assert result.crystal.volume > 0.99
    assert result.loss < result.loss_initial
