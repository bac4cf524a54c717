"""The step loop, with every solver: nobody feels anybody else, and the best iterate is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optimize_cases import (
    GROUPS,
    Quadratic,
    Recorded,
    graphite,
    orthorhombic,
    puckered,
    random_crystal,
)

from asexlatent.optimize import (
    SOLVERS,
    Adam,
    BatchMinimizer,
    CrystalBatch,
    DescriptorLoss,
    Status,
    generalized_gradient,
    make_solver,
)
from asexlatent.symmetry import SymmetricCrystal

solvers = pytest.mark.parametrize("solver", sorted(SOLVERS))


def candidates(volume_per_atom: float = 10.0) -> list[SymmetricCrystal]:
    rng = np.random.default_rng(1)
    crystals = [random_crystal(g, rng, volume_per_atom=volume_per_atom) for g in GROUPS]
    return [graphite(2.4), *crystals, orthorhombic(), puckered(0.02)]


def minimizer(crystals, sp2, solver="adam", fmax=0.05, objective=None, **options) -> BatchMinimizer:
    batch = CrystalBatch.from_crystals(crystals)
    objective = DescriptorLoss(sp2) if objective is None else objective
    return BatchMinimizer(batch, objective, make_solver(solver), fmax, **options)


def run(minimizer: BatchMinimizer, steps: int) -> BatchMinimizer:
    for _ in range(steps):
        if not minimizer.step():
            break
    return minimizer


def parts(minimizer: BatchMinimizer) -> list[np.ndarray]:
    return minimizer.batch.split(minimizer.variables)


@solvers
def test_alone_and_in_a_batch_is_the_same(solver, sp2):
    crystals = candidates()[::2]
    together = run(minimizer(crystals, sp2, solver), 25)
    for k, crystal in enumerate(crystals):
        alone = run(minimizer([crystal], sp2, solver), 25)
        assert alone.losses.item() == pytest.approx(together.losses[k].item(), rel=1e-6)
        assert alone.variables.numpy() == pytest.approx(parts(together)[k], abs=1e-7)
        assert alone.reports()[0] == together.reports()[k]
        assert alone.steps.item() == together.steps[k].item()


@solvers
def test_the_best_iterate_is_kept_and_its_loss_with_it(solver, sp2):
    visits: list = []
    crystals = candidates()
    recorded = Recorded(DescriptorLoss(sp2), visits)
    done = minimizer(crystals, sp2, solver, fmax=0.0, objective=recorded)
    done.repack_fraction = 2.0  # so that every visit is of the whole batch
    run(done, 40)
    values = np.array([value for _, value in visits])
    assert done.losses.numpy() == pytest.approx(values.min(axis=0), rel=1e-12)
    if solver == "adam":
        assert (values[-1] > values.min(axis=0)).any()
    where = values.argmin(axis=0)
    owner = done.batch.variable_crystal.numpy()
    best = np.array([visits[where[owner[v]]][0][v] for v in range(len(owner))])
    assert np.array_equal(done.variables.numpy(), best)
    again = DescriptorLoss(sp2).bind(done.batch).evaluate(done.variables)
    assert done.losses.numpy() == pytest.approx(again.value.numpy(), rel=1e-10)
    norm = generalized_gradient(done.batch, done.variables, again.gradient)
    assert done.gradient_norms.numpy() == pytest.approx(norm.numpy(), rel=1e-6)
    assert (done.losses <= done.initial_losses).all()


@solvers
def test_crystals_that_leave_change_nothing_for_the_others(solver, sp2):
    """Repacking at every finished crystal, never, and by default."""
    crystals = candidates()
    results = []
    for fraction in (0.0, 2.0, None):
        one = minimizer(crystals, sp2, solver, fmax=2.0)
        if fraction is not None:
            one.repack_fraction = fraction
        sizes = {one._batch.n_crystals}
        for _ in range(60):
            one.step()
            sizes.add(one._batch.n_crystals)
        assert (len(sizes) > 1) == (fraction != 2.0)
        results.append(one)
    first, *others = results
    statuses = {status for status, _ in first.reports()}
    assert Status.CONVERGED in statuses
    for other in others:
        assert first.reports() == other.reports()
        assert torch.equal(first.steps, other.steps)
        assert torch.allclose(first.variables, other.variables, rtol=0, atol=1e-9)
        assert torch.allclose(first.losses, other.losses, rtol=1e-7, atol=1e-12)


@solvers
def test_converged_crystals_rest(solver, sp2):
    one = minimizer([graphite(), puckered(0.02, a=2.5)], sp2, solver)
    assert one.n_active == 1
    run(one, 300)
    assert [status for status, _ in one.reports()] == ["converged", "converged"]
    assert one.steps[0] == 0
    assert one.steps[1] > 0
    assert np.array_equal(parts(one)[0], graphite().free_variables)
    before = one.variables.clone()
    assert one.step() is False
    assert torch.equal(one.variables, before)


@solvers
def test_status_says_how_it_ended(solver, sp2):
    crystals = [graphite(), graphite(a=20, c=20), puckered(0.02), orthorhombic()]
    one = minimizer(crystals, sp2, solver)
    one.step()
    statuses = [status for status, _ in one.reports()]
    assert statuses == ["converged", "stalled", "step_limit", "step_limit"]
    assert "no neighbour" in one.reports()[1][1]
    assert one.isolated.tolist() == [False, True, False, False]
    assert [str(status) for status in statuses] == statuses


@solvers
def test_a_tighter_threshold_goes_on_where_it_stopped(solver, sp2):
    crystals = [graphite(2.4), orthorhombic(), orthorhombic(1), puckered(0.02, a=2.5)]
    direct = run(minimizer(crystals, sp2, solver, fmax=0.02), 800)
    assert {status for status, _ in direct.reports()} == {"converged"}
    loose = run(minimizer(crystals, sp2, solver, fmax=2.0), 800)
    assert {status for status, _ in loose.reports()} == {"converged"}
    assert loose.steps.sum() < direct.steps.sum()
    loose.resume(0.02)
    assert loose.n_active > 0
    run(loose, 800)
    assert torch.equal(loose.steps, direct.steps)
    assert torch.allclose(loose.variables, direct.variables, rtol=0, atol=1e-9)
    # a looser one asks for nothing more
    loose.resume(10.0)
    assert loose.n_active == 0


@solvers
def test_state_survives_saving(solver, sp2):
    crystals = candidates()
    straight = run(minimizer(crystals, sp2, solver, fmax=1.0), 40)
    first = run(minimizer(crystals, sp2, solver, fmax=1.0), 17)
    saved = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    second = minimizer(crystals, sp2, solver, fmax=1.0)
    second.load_state_dict(saved)
    assert second.reports() == first.reports()
    assert torch.equal(second.variables, first.variables)
    run(second, 23)
    assert second.reports() == straight.reports()
    assert torch.equal(second.steps, straight.steps)
    assert torch.allclose(second.variables, straight.variables, rtol=0, atol=1e-9)
    assert torch.equal(second.initial_losses, straight.initial_losses)


def test_state_of_other_crystals_is_refused(sp2):
    saved = minimizer([graphite(), puckered()], sp2).state_dict()
    with pytest.raises(ValueError, match="of other crystals or of another solver"):
        minimizer([graphite(), graphite()], sp2).load_state_dict(saved)
    with pytest.raises(ValueError, match="of other crystals or of another solver"):
        minimizer([graphite(), puckered()], sp2, "lm").load_state_dict(saved)


@solvers
def test_what_may_not_move_does_not(solver, sp2):
    crystals = [orthorhombic(), orthorhombic(1)]
    batch = CrystalBatch.from_crystals(crystals)
    free = (batch.variable_kind == 2) | (batch.variable_crystal == 1)
    held = run(minimizer(crystals, sp2, solver, movable=free), 300)
    change = (held.variables - batch.variables).abs()
    assert change[~free].max() == 0
    unseen = batch.slot == 2  # the distance of the layers
    assert change[free & ~unseen].min() > 0
    # convergence counts what may move only
    assert [status for status, _ in held.reports()] == ["converged", "converged"]
    gradient = DescriptorLoss(sp2).bind(batch).evaluate(held.variables).gradient
    norms = generalized_gradient(batch, held.variables, gradient, free)
    assert norms.numpy() == pytest.approx(held.gradient_norms.numpy(), rel=1e-6)
    assert generalized_gradient(batch, held.variables, gradient)[0] > 0.05


# -------------------------------------------------------------------------------- numbers lost


@solvers
def test_a_loss_that_is_no_number_stays_alone(solver, sp2):
    """A crystal walks into a hole of the objective; the others do as if it were not there."""
    doomed = graphite(a=3.0, c=5.0)
    others = [graphite(a=7.0, c=8.0), puckered(a=8.0, c=9.0), orthorhombic()]
    objective = Quadratic(target=1.5, hole=2.9)
    lost = run(minimizer([others[0], doomed, *others[1:2]], sp2, solver, objective=objective), 12)
    alone = run(minimizer(others[:2], sp2, solver, objective=objective), 12)
    status, reason = lost.reports()[1]
    assert status is Status.FAILED
    assert reason == "the loss is not a finite number"
    kept = [0, 2]
    assert torch.allclose(lost.losses[kept], alone.losses, rtol=1e-12)
    for k, j in enumerate(kept):
        assert np.allclose(parts(lost)[j], parts(alone)[k], rtol=0, atol=1e-12)
    # what is left of it is its last good iterate
    assert torch.isfinite(lost.losses).all()
    assert parts(lost)[1][0] >= 2.9


@solvers
def test_no_number_from_the_start(solver, sp2):
    objective = Quadratic(target=1.5, hole=2.9)
    one = minimizer([graphite(a=2.0), graphite(a=7.0)], sp2, solver, objective=objective)
    assert [status for status, _ in one.reports()] == ["failed", "step_limit"]
    run(one, 5)
    assert one.steps.tolist() == [0, 5]
    assert torch.isfinite(one.variables).all()


def test_a_proposal_that_is_no_number_is_not_evaluated(sp2):
    class Broken(Adam):
        def propose(self, batch, state, current, best):
            trial = super().propose(batch, state, current, best)
            doomed = torch.bincount(batch.atom_crystal)[batch.variable_crystal] == 8
            return torch.where(doomed, torch.nan, trial)

    crystals = [graphite(2.4), orthorhombic(), puckered(0.02)]
    batch = CrystalBatch.from_crystals(crystals)
    visits: list = []
    broken = BatchMinimizer(batch, Recorded(DescriptorLoss(sp2), visits), Broken(), 0.05)
    run(broken, 20)
    assert all(np.isfinite(x).all() and np.isfinite(v).all() for x, v in visits)
    statuses = [status for status, _ in broken.reports()]
    assert statuses[1] == "failed"
    sane = run(minimizer(crystals, sp2), 20)
    for k in (0, 2):
        assert np.allclose(parts(broken)[k], parts(sane)[k], rtol=0, atol=1e-10)
    assert np.array_equal(parts(broken)[1], crystals[1].free_variables)
