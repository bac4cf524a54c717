"""Steps of Levenberg-Marquardt and of L-BFGS, each against something that is not them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optimize_cases import orthorhombic, random_crystal
from scipy.optimize import minimize

from asexlatent.optimize import (
    LBFGS,
    BatchMinimizer,
    CrystalBatch,
    DescriptorLoss,
    LevenbergMarquardt,
    make_solver,
    refine,
)
from asexlatent.optimize.metric import Metric
from asexlatent.symmetry import SymmetricCrystal


def one(crystal: SymmetricCrystal) -> CrystalBatch:
    return CrystalBatch.from_crystals([crystal])


def run(crystal, solver, sp2, steps):
    minimizer = BatchMinimizer(one(crystal), DescriptorLoss(sp2), solver, fmax=1e-9)
    path = [minimizer.losses.item()]
    for _ in range(steps):
        if not minimizer.step():
            break
        path.append(minimizer.losses.item())
    return minimizer, np.array(path)


@pytest.mark.parametrize("solver", [LevenbergMarquardt(), LBFGS()])
def test_the_same_minimum_as_scipy(solver, sp2):
    crystal = orthorhombic(strain=0.02)
    batch = one(crystal)
    problem = DescriptorLoss(sp2).bind(batch)

    def loss(x):
        evaluation = problem.evaluate(torch.as_tensor(x))
        return evaluation.value.item(), evaluation.gradient.numpy()

    start = crystal.free_variables
    expected = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-10})
    _, path = run(crystal, solver, sp2, 150)
    assert path[-1] == pytest.approx(expected.fun, abs=1e-9)
    assert (np.diff(path) <= 0).all()


def test_without_damping_a_step_is_that_of_gauss_and_newton(sp2):
    crystal = orthorhombic(strain=0.01)
    batch = one(crystal)
    metric = Metric.at(batch, batch.variables)
    evaluation = DescriptorLoss(sp2).bind(batch).evaluate(batch.variables, metric)
    expected = np.linalg.lstsq(
        evaluation.curvature[0].numpy(), -evaluation.gradient.numpy(), rcond=1e-8
    )[0]
    solver = LevenbergMarquardt(damping=1e-12, max_displacement=9.0, max_strain=9.0)
    minimizer = BatchMinimizer(batch, DescriptorLoss(sp2), solver, fmax=0.0)
    work = minimizer._work
    proposal = solver.propose(batch, minimizer._state, work.current, work.best)
    step = (proposal - batch.variables).numpy()
    curvature = evaluation.curvature[0].numpy()
    # along directions that the loss does not feel the two may differ
    assert curvature @ step == pytest.approx(curvature @ expected, abs=1e-5)


@pytest.mark.parametrize("solver", [LevenbergMarquardt(), LBFGS()])
def test_no_step_is_longer_than_allowed(solver, sp2):
    rng = np.random.default_rng(3)
    for group in (2, 62, 166, 227):
        batch = one(random_crystal(group, rng))
        minimizer = BatchMinimizer(batch, DescriptorLoss(sp2), solver, fmax=0.0)
        for _ in range(6):
            best = minimizer._work.best
            proposal = solver.propose(batch, minimizer._state, minimizer._work.current, best)
            step = proposal - best.variables
            if torch.equal(batch.cells(proposal), batch.cells(best.variables + step)):
                displacement, strain = best.metric.step_lengths(batch, step)
                # the cell bounds may stretch a step that would compress too much
                assert displacement.item() <= solver.max_displacement * 1.5
                assert strain.item() <= solver.max_strain * 1.5
            minimizer.step()


def test_a_rejected_step_is_followed_by_a_shorter_one(sp2):
    draw = np.random.default_rng(5).random
    cell = [5.0, 5.5, 6.0, 1.6]
    crystal = SymmetricCrystal.build(14, cell, [("C", 0, draw(3)) for _ in range(4)])
    solver = LevenbergMarquardt(damping=1e-9, max_displacement=5.0, max_strain=1.0)
    _, path = run(crystal, solver, sp2, 60)
    rejected = np.diff(path) == 0
    assert rejected.any()
    assert path[-1] < 0.5 * path[0]


def test_single_precision_goes_the_same_way(sp2):
    crystals = [orthorhombic(seed) for seed in range(3)]
    double = refine(crystals, sp2, solver="lm", steps=40)
    single = refine(crystals, sp2, solver="lm", steps=40, dtype=torch.float32)
    for a, b in zip(double, single, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-2, abs=1e-4)
        assert a.valid == b.valid


def test_many_unknowns_take_another_path_by_themselves(sp2):
    assert make_solver("lm", 100).name == "lm"
    assert make_solver("lm", 101).name == "lbfgs"
    given = LevenbergMarquardt()
    assert make_solver(given, 500) is given


@pytest.mark.parametrize("n_atoms", [200])
def test_two_hundred_free_atoms(n_atoms, sp2):
    rng = np.random.default_rng(0)
    size = (8.0 * n_atoms) ** (1 / 3)
    sites = [("C", 0, rng.random(3)) for _ in range(n_atoms)]
    crystal = SymmetricCrystal.build(1, [size] * 3 + [np.pi / 2] * 3, sites)
    (result,) = refine([crystal], sp2, steps=30)
    assert result.loss < 0.2 * result.loss_initial
    assert result.crystal.n_atoms == n_atoms
