"""L-BFGS against the formula of BFGS, SciPy, and what its settings promise."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from optimize_cases import Quadratic, graphite, orthorhombic, puckered, random_crystal
from scipy.optimize import minimize

from asexlatent.optimize import LBFGS, BatchMinimizer, CellBounds, CrystalBatch, DescriptorLoss
from asexlatent.optimize.metric import Metric
from asexlatent.optimize.objective import Evaluation, Iterate

FREE = CellBounds(0.0, 1e9, 0.0, 0.0)


def minimizer(crystals, objective, solver=None, fmax=0.0) -> BatchMinimizer:
    solver = LBFGS() if solver is None else solver
    return BatchMinimizer(CrystalBatch.from_crystals(crystals), objective, solver, fmax)


def inverse_metric(batch: CrystalBatch, metric: Metric) -> np.ndarray:
    """Dense inverse of the physical metric of one crystal without angles, variable by variable."""
    size = batch.n_variables
    gram = np.zeros((size, size))
    n_cell = int(batch.n_cell_variables[0])
    gram[:n_cell, :n_cell] = metric.cell_gram[0, :n_cell, :n_cell]
    for site, index in enumerate(batch.site_index.tolist()):
        for i, p in enumerate(index):
            for j, q in enumerate(index):
                if p < size and q < size:
                    gram[p, q] = metric.site_gram[site, i, j]
    return np.linalg.inv(gram)


def test_the_direction_is_that_of_bfgs(sp2):
    """The inverse Hessian built update by update, as in any textbook, from the visited places."""
    one = minimizer([orthorhombic(strain=0.03)], DescriptorLoss(sp2))
    solver, batch = one.solver, one.batch
    places, used = [], 0
    for _ in range(9):
        best = one._work.best
        place = best.variables.numpy().copy(), best.evaluation.gradient.numpy().copy()
        if not places or not np.array_equal(place[0], places[-1][0]):
            places.append(place)
            metric = best.metric
        one.step()
        state = one._state.per_variable
        if not np.array_equal(state["base"].numpy(), places[-1][0]):
            continue
        pairs = [
            (b[0] - a[0], b[1] - a[1])
            for a, b in pairwise(places)
            if (b[0] - a[0]) @ (b[1] - a[1]) > 0
        ]
        if not pairs or one._state.per_crystal["failures"].item() > 0:
            continue
        hessian = inverse_metric(batch, metric)
        step, change = pairs[-1]
        hessian *= (step @ change) / (change @ hessian @ change)
        for step, change in pairs:
            left = np.eye(len(step)) - np.outer(step, change) / (step @ change)
            hessian = left @ hessian @ left.T + np.outer(step, step) / (step @ change)
        expected = -hessian @ places[-1][1]
        direction = state["direction"].numpy()
        assert direction == pytest.approx(expected, rel=1e-6, abs=1e-9 * np.abs(expected).max())
        used += 1
    assert used >= 3
    assert solver.memory >= len(places)


@pytest.mark.parametrize("space_group", [14, 62, 148, 194])
def test_scipy_finds_nothing_lower_nearby(space_group, sp2):
    """From where it ends, a line search that is not ours goes nowhere."""
    crystal = random_crystal(space_group, np.random.default_rng(4))
    one = minimizer([crystal], DescriptorLoss(sp2), fmax=1e-5)
    for _ in range(400):
        if not one.step():
            break
    end, found = one.variables.numpy(), one.losses.item()
    assert found < 0.9 * one.initial_losses.item()
    problem = DescriptorLoss(sp2).bind(one.batch)

    def loss(x):
        evaluation = problem.evaluate(torch.as_tensor(x))
        return evaluation.value.item(), evaluation.gradient.numpy()

    more = minimize(loss, end, jac=True, method="L-BFGS-B", options={"maxls": 50})
    assert more.fun == pytest.approx(found, rel=1e-4, abs=1e-8)


def test_a_step_that_fails_is_tried_again_shorter():
    """Downhill becomes uphill behind a wall: the same direction, a fraction of the length."""

    @dataclass
    class Wall:
        """Gradient that promises a descent, and values that break the promise `tries` times."""

        tries: int

        def bind(self, batch):
            return self

        def evaluate(self, variables, metric=None):
            slope = torch.zeros_like(variables)
            slope[0] = -1.0
            moved = variables[:1] - 7.0
            uphill = (moved != 0) & (self.tries > 0)
            self.tries -= int(uphill)
            value = torch.where(uphill, 10.0 + moved, 10.0 - moved)
            return Evaluation(value, slope, value < 0)

    solver = LBFGS(bounds=FREE, first_displacement=0.3, max_strain=10.0, max_displacement=10.0)
    one = minimizer([graphite(a=7.0, c=9.0)], Wall(3), solver)
    steps = []
    for _ in range(4):
        one.step()
        steps.append(one._work.current.variables[0].item() - 7.0)
    assert one.steps.item() == 4
    ratios = np.array(steps[1:]) / np.array(steps[:-1])
    assert ratios == pytest.approx([solver.backtrack] * 3)
    assert one._work.best.variables[0] > 7.0  # the fourth went down


def test_a_flat_loss_stalls():
    """No descent in `stall_patience` steps: given up, and told so."""

    class Flat:
        def bind(self, batch):
            return self

        def evaluate(self, variables, metric=None):
            value = variables.new_ones(2)
            return Evaluation(value, torch.ones_like(variables), value < 0)

    solver = LBFGS(stall_patience=5)
    one = minimizer([graphite(), puckered()], Flat(), solver)
    one.repack_fraction = 2.0
    for _ in range(20):
        if not one.step():
            break
    assert [str(status) for status, _ in one.reports()] == ["stalled", "stalled"]
    assert one.steps.tolist() == [6, 6]


def test_a_quadratic_ends_in_few_steps_and_each_has_its_own_memory():
    """As many steps as unknowns and a few; strengths that differ a million times do not mix."""
    crystals = [orthorhombic(0), orthorhombic(1), puckered()]
    target = CrystalBatch.from_crystals(crystals).variables + 0.2

    @dataclass
    class Bowls:
        inner: Quadratic

        def bind(self, batch):
            self.batch = batch
            return self

        def evaluate(self, variables, metric=None):
            owner = self.batch.variable_crystal
            strength = torch.tensor([1.0, 1e6, 1e-3], dtype=torch.float64)[owner]
            distance = variables - target
            value = variables.new_zeros(3).index_add(0, owner, strength * distance**2)
            return Evaluation(value, 2 * strength * distance, value < 0)

    solver = LBFGS(bounds=FREE, max_displacement=50.0, max_strain=50.0)
    one = minimizer(crystals, Bowls(Quadratic()), solver)
    one.repack_fraction = 2.0
    start = one.initial_losses.clone()
    for _ in range(25):
        one.step()
    assert (one.losses < 1e-9 * start).all()


def test_memory_is_as_long_as_asked_and_linear_in_the_unknowns(sp2):
    solver = LBFGS(memory=3)
    crystals = [orthorhombic(0), puckered()]
    one = minimizer(crystals, DescriptorLoss(sp2), solver)
    for _ in range(8):
        one.step()
    assert one._state.per_variable["steps"].shape == (one.batch.n_variables, 3)
    assert one._state.per_crystal["curvatures"].shape == (2, 3)
    assert not one.solver.needs_curvature
    assert one._work.best.evaluation.curvature is None


def test_proposals_begin_at_the_best_place(sp2):
    """Steps and gradient changes that are remembered are those between accepted places."""
    one = minimizer([orthorhombic(strain=0.04)], DescriptorLoss(sp2))
    for _ in range(6):
        best: Iterate = one._work.best
        before = best.variables.clone()
        one.step()
        assert torch.equal(one._state.per_variable["base"], before)
