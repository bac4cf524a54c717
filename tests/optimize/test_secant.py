"""The learned part of the Hessian: the published update, the secant equation, what it is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimize_cases import random_crystal

from asexlatent.optimize import (
    BatchMinimizer,
    CrystalBatch,
    DescriptorLoss,
    LevenbergMarquardt,
    secant,
)
from asexlatent.symmetry import SymmetricCrystal


def published(extra, curvature, step, change):
    """One crystal, with the symbols of NL2SOL: S, J^T J, dx, y; the sizing of its section 3."""
    y_sharp = change - curvature @ step
    tau = min(1.0, abs(step @ y_sharp) / abs(step @ extra @ step)) if extra.any() else 1.0
    residual = y_sharp - tau * extra @ step
    product = step @ change
    first = (np.outer(residual, change) + np.outer(change, residual)) / product
    second = (step @ residual) / product**2 * np.outer(change, change)
    return tau * extra + first - second


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_the_published_update(seed, n):
    rng = np.random.default_rng(seed)
    jacobian = rng.normal(size=(n + 3, n))
    curvature, extra = jacobian.T @ jacobian, rng.normal(size=(n, n))
    extra, step = extra + extra.T, rng.normal(size=n)
    change = curvature @ step + rng.normal(size=n) * 0.3
    parts = [torch.as_tensor(a)[None] for a in (extra, curvature, step, change)]
    (new,) = secant.updated(*parts, torch.tensor([True])).numpy()
    if step @ change < 1e-6 * np.linalg.norm(step) * np.linalg.norm(change):
        np.testing.assert_array_equal(new, extra)
        return
    expected = published(extra, curvature, step, change)
    np.testing.assert_allclose(new, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(new, new.T)
    # the secant equation of the whole Hessian
    np.testing.assert_allclose((curvature + new) @ step, change, atol=1e-7 * np.abs(new).max())


def test_who_did_not_move_learns_nothing():
    eye = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    step = torch.ones(2, 3, dtype=torch.float64)
    new = secant.updated(0.5 * eye, eye, step, 3 * step, torch.tensor([True, False]))
    assert torch.equal(new[1], 0.5 * eye[1])
    assert not torch.equal(new[0], 0.5 * eye[0])


def test_a_single_variable_learns_its_second_derivative():
    """In one dimension the secant is the second derivative of what it has passed."""
    one = torch.ones(1, 1, dtype=torch.float64)
    new = secant.updated(0 * one[None], 2 * one[None], 0.5 * one, 4 * one, torch.tensor([True]))
    assert new.item() == pytest.approx(4 / 0.5 - 2)


def starts(n: int) -> list[SymmetricCrystal]:
    """Three sites on 96l of group 229: few unknowns, and spectra that cannot all be right."""
    rng = np.random.default_rng(3)
    return [
        SymmetricCrystal.build(229, [14.96], [("C", "96l", rng.random(3)) for _ in range(3)])
        for _ in range(n)
    ]


class GaussNewton(LevenbergMarquardt):
    """The same without the learned part."""

    def _learn(self, batch, slots, state, best):
        pass


def minimized(crystals, solver, sp2) -> BatchMinimizer:
    batch = CrystalBatch.from_crystals(crystals)
    one = BatchMinimizer(batch, DescriptorLoss(sp2), solver, 1e-4)
    for _ in range(400):
        if not one.step():
            break
    return one


def test_residuals_that_stay_no_longer_make_it_slow(sp2):
    crystals = starts(8)
    with_it = minimized(crystals, LevenbergMarquardt(), sp2)
    without = minimized(crystals, GaussNewton(), sp2)
    assert with_it.steps.sum() < 0.7 * without.steps.sum()
    converged = [[str(s) for s, _ in m.reports()].count("converged") for m in (with_it, without)]
    assert converged[0] > converged[1]


def test_at_the_end_it_has_the_curvature_along_the_last_steps(sp2):
    """Against differences of gradients: the whole Hessian, not only its Gauss-Newton part."""
    (crystal,) = starts(1)
    one = minimized([crystal], LevenbergMarquardt(), sp2)
    batch = CrystalBatch.from_crystals([crystal])
    problem = DescriptorLoss(sp2).bind(batch)
    x, n = one.variables, len(one.variables)
    hessian = torch.zeros(n, n, dtype=x.dtype)
    for k in range(n):
        shift = torch.zeros_like(x)
        shift[k] = 1e-5
        ends = [problem.evaluate(x + sign * shift).gradient for sign in (1, -1)]
        hessian[k] = (ends[0] - ends[1]) / 2e-5
    plain = one._whole.best.evaluation.curvature[0]
    learned = plain + one._whole_state.per_crystal["extra"][0]
    assert (learned - hessian).norm() < 0.7 * (plain - hessian).norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_company_changes_nothing(sp2, dtype):
    rng = np.random.default_rng(5)
    crystals = [*starts(2), *(random_crystal(g, rng, max_atoms=24) for g in (2, 62, 166))]
    together = CrystalBatch.from_crystals(crystals, dtype=dtype)
    all_of_them = BatchMinimizer(together, DescriptorLoss(sp2), LevenbergMarquardt(), 1e-3)
    alone = CrystalBatch.from_crystals(crystals[:1], dtype=dtype)
    single = BatchMinimizer(alone, DescriptorLoss(sp2), LevenbergMarquardt(), 1e-3)
    for _ in range(12):
        all_of_them.step()
        single.step()
    tolerance = 1e-2 if dtype is torch.float32 else 1e-8
    assert all_of_them.losses[0].item() == pytest.approx(single.losses[0].item(), rel=tolerance)
