"""Eq. 1, its gradient and its curvature against SciPy quadrature and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optimize_cases import (
    GROUPS,
    eq1,
    graphite,
    linearize,
    puckered,
    random_crystal,
    site_spectra,
    sp2_target,
    spectra,
)

from asexlatent.descriptor import LocalEnvironment
from asexlatent.optimize import CrystalBatch, DescriptorCalculator, DescriptorLoss
from asexlatent.symmetry import SymmetricCrystal


@pytest.fixture(scope="module")
def crystals() -> list[SymmetricCrystal]:
    rng = np.random.default_rng(0)
    return [random_crystal(g, rng) for g in GROUPS]


@pytest.fixture(scope="module")
def batch(crystals) -> CrystalBatch:
    return CrystalBatch.from_crystals(crystals)


@pytest.fixture(scope="module")
def problem(batch, sp2):
    return DescriptorLoss(sp2).bind(batch)


def test_the_oracle_has_the_published_anchor_values():
    anchors = "16.6991 0 2.1774 1.7963 0.0970 -1.9715 0 -0.6192 -0.6351 -0.0398 0.2328 0 0.1761"
    expected = [float(x) for x in f"{anchors} 0.2246 0.0163".split()]
    assert sp2_target() == pytest.approx(expected, abs=5.1e-5)


def test_value_is_eq1(crystals, batch, problem):
    value = problem.evaluate(batch.variables).value.numpy()
    assert value == pytest.approx([eq1(c) for c in crystals], rel=1e-10)


def test_graphite_has_no_loss_and_no_gradient(sp2):
    batch = CrystalBatch.from_crystals([graphite()])
    evaluation = DescriptorLoss(sp2).bind(batch).evaluate(batch.variables)
    assert evaluation.value.item() < 1e-20
    assert evaluation.gradient.abs().max() < 1e-9


def test_gradient_by_finite_differences(batch, problem):
    gradient = problem.evaluate(batch.variables).gradient
    numeric = torch.zeros_like(gradient)
    step = 1e-5
    for k in range(batch.n_variables):
        moved = [batch.variables.clone() for _ in range(2)]
        moved[0][k] += step
        moved[1][k] -= step
        up, down = (problem.evaluate(v).value[batch.variable_crystal[k]] for v in moved)
        numeric[k] = (up - down) / (2 * step)
    scale = torch.zeros(batch.n_crystals, dtype=torch.float64)
    scale = scale.scatter_reduce(0, batch.variable_crystal, gradient.abs(), "amax")
    assert ((gradient - numeric).abs() < 3e-7 * (1 + scale[batch.variable_crystal])).all()


def test_gradient_by_the_oracle(crystals, batch, problem):
    """Nothing of this package between Eq. 1 and its derivative but the crystal itself."""
    gradient = batch.split(problem.evaluate(batch.variables).gradient)
    step = 1e-4
    for b in (0, 4, 9, 13):
        crystal = crystals[b]
        for k in range(crystal.free_variables.size):
            moved = np.eye(crystal.free_variables.size)[k] * step
            up, down = (
                eq1(crystal.with_free_variables(crystal.free_variables + s * moved))
                for s in (1, -1)
            )
            size = np.abs(gradient[b]).max()
            assert gradient[b][k] == pytest.approx((up - down) / (2 * step), abs=1e-5 * (1 + size))


def test_linearised_evaluation_has_the_value_and_gradient_of_autograd(batch, problem):
    plain = problem.evaluate(batch.variables)
    linear = linearize(problem, batch, batch.variables)
    assert plain.curvature is None
    assert torch.allclose(linear.value, plain.value, rtol=1e-12, atol=0)
    scale = plain.gradient.abs().max()
    assert torch.allclose(linear.gradient, plain.gradient, rtol=1e-9, atol=1e-13 * scale)
    assert torch.equal(linear.isolated, plain.isolated)


def test_curvature_is_that_of_the_residuals(crystals, batch, problem):
    """2 / (W L) J^T J, the Jacobian of the spectra from central differences of the oracle."""
    evaluation = linearize(problem, batch, batch.variables)
    for b in (0, 1, 4, 9, 12, 13):
        crystal = crystals[b]
        n = crystal.free_variables.size
        jacobian = []
        for k in range(n):
            step = np.eye(n)[k] * 1e-4
            up, down = (
                site_spectra(crystal.with_free_variables(crystal.free_variables + s * step))
                for s in (1, -1)
            )
            jacobian.append(((up - down) / 2e-4).ravel())
        jacobian = np.array(jacobian)
        expected = 2 * jacobian @ jacobian.T / jacobian.shape[1]
        curvature = evaluation.curvature[b].numpy()
        assert curvature[:n, :n] == pytest.approx(expected, abs=1e-5 * np.abs(expected).max())
        assert not curvature[n:].any()
        assert not curvature[:, n:].any()


def test_multiplicity_weights_count_atoms(sp2):
    rng = np.random.default_rng(8)
    crystals = [random_crystal(g, rng, n_sites=3, volume_per_atom=12) for g in (166, 194, 205)]
    batch = CrystalBatch.from_crystals(crystals)
    assert all(len({s.position.multiplicity for s in c.sites}) > 1 for c in crystals)
    loss = DescriptorLoss(sp2, site_weights="multiplicity").bind(batch)
    value = loss.evaluate(batch.variables).value.numpy()
    for mine, crystal in zip(value, crystals, strict=True):
        atoms = crystal.to_atoms()
        every = spectra(atoms, range(len(atoms)))
        assert mine == pytest.approx(((every - sp2_target()) ** 2).mean(), rel=1e-9)
        assert mine != pytest.approx(eq1(crystal), rel=1e-3)
    linear = linearize(loss, batch, batch.variables)
    plain = loss.evaluate(batch.variables)
    assert torch.allclose(linear.gradient, plain.gradient, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="'equal' or 'multiplicity', not 'atoms'"):
        DescriptorLoss(sp2, site_weights="atoms")


def test_a_crystal_does_not_feel_its_batch(crystals, batch, problem, sp2):
    together = linearize(problem, batch, batch.variables)
    gradients = batch.split(together.gradient)
    for b, crystal in enumerate(crystals):
        alone = CrystalBatch.from_crystals([crystal])
        evaluation = linearize(DescriptorLoss(sp2).bind(alone), alone, alone.variables)
        assert evaluation.value.item() == pytest.approx(together.value[b].item(), rel=1e-12)
        scale = np.abs(gradients[b]).max()
        assert evaluation.gradient.numpy() == pytest.approx(gradients[b], abs=1e-12 * scale)
        n = crystal.free_variables.size
        block = together.curvature[b, :n, :n]
        assert torch.allclose(evaluation.curvature[0], block, rtol=1e-9, atol=1e-12 * block.max())


def test_reused_neighbour_lists_change_nothing(crystals, sp2):
    """A walk with one problem, and every place of it with a fresh one."""
    batch = CrystalBatch.from_crystals(crystals)
    loss = DescriptorLoss(sp2)
    walker = loss.bind(batch)
    variables = batch.variables
    rng = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.1, 0.02, 0.02], dtype=torch.float64)[batch.variable_kind]
    for step in range(25):
        noise = torch.randn(variables.shape, generator=rng, dtype=torch.float64)
        variables = variables + scale * noise * (1 if step % 5 else 0.1)
        if step == 12:
            variables = batch.wrap(variables)
        walked = walker.evaluate(variables)
        fresh = loss.bind(batch).evaluate(variables)
        assert torch.allclose(walked.value, fresh.value, rtol=1e-11, atol=0)
        tolerance = 1e-10 * fresh.gradient.abs().max()
        assert torch.allclose(walked.gradient, fresh.gradient, rtol=1e-8, atol=tolerance)


def test_selecting_crystals_keeps_their_numbers(batch, problem):
    before = linearize(problem, batch, batch.variables)
    keep = torch.arange(batch.n_crystals) % 3 == 1
    smaller = batch.select(keep)
    after = linearize(problem.select(keep, smaller), smaller, smaller.variables)
    assert torch.allclose(after.value, before.value[keep], rtol=1e-12)
    assert after.curvature.shape[1] == before.curvature.shape[1]
    assert torch.allclose(after.curvature, before.curvature[keep], rtol=1e-9, atol=1e-9)
    variable_keep = keep[batch.variable_crystal]
    assert torch.allclose(after.gradient, before.gradient[variable_keep], rtol=1e-9, atol=1e-9)


def test_a_site_without_neighbours_is_called_isolated(sp2):
    """Within the cutoff, not within the skin of the neighbour list."""
    crystals = [graphite(), graphite(a=2.2 * np.sqrt(3)), puckered(a=3.9, c=40), graphite(20, 20)]
    batch = CrystalBatch.from_crystals(crystals)
    evaluation = DescriptorLoss(sp2).bind(batch).evaluate(batch.variables)
    assert evaluation.isolated.tolist() == [False, True, True, True]
    assert evaluation.gradient[2:].abs().max() == 0
    plateau = float((sp2_target() ** 2).mean())
    assert evaluation.value[1:].tolist() == pytest.approx([plateau] * 3)


def test_compounds_follow_the_calculator():
    """Two species and two references: per-species channels, the nearest reference of its own."""
    environment = LocalEnvironment.named("BN")
    sites = [("B", "c", []), ("N", "d", [])]
    crystal = SymmetricCrystal.build(194, [2.6, 6.4], sites)
    batch = CrystalBatch.from_crystals([crystal])
    value = DescriptorLoss(environment).bind(batch).evaluate(batch.variables).value.item()
    atoms = crystal.to_atoms()
    atoms.calc = DescriptorCalculator(environment)
    assert value == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
    assert value > 0.01


def test_single_precision(crystals, sp2):
    dense = [c for c in crystals if eq1(c) < 100]
    batch = CrystalBatch.from_crystals(dense, dtype=torch.float32)
    evaluation = DescriptorLoss(sp2).bind(batch).evaluate(batch.variables)
    assert evaluation.value.dtype == evaluation.gradient.dtype == torch.float32
    assert evaluation.value.numpy() == pytest.approx([eq1(c) for c in dense], rel=1e-3)
