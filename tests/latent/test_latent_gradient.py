"""The way from z to Eq. 1 and its derivatives, against differences and independent evaluations."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from latent_cases import random_crystals, tiny_model

from asexlatent.descriptor import LocalEnvironment
from asexlatent.latent import Condition, LatentModel
from asexlatent.latent.space import LatentBatch, LatentLoss, LatentMetric
from asexlatent.optimize import DescriptorCalculator, DescriptorLoss, refine

CHOICE = (0, 3, 7, 11, 20)


@cache
def precise_model() -> LatentModel:
    """Double precision, so that differences mean something."""
    model = tiny_model()
    return replace(model, network=copy.deepcopy(model.network).double())


@pytest.fixture
def objective() -> DescriptorLoss:
    return DescriptorLoss(LocalEnvironment.named("sp2", rcut=3.0))


def batch_of(mode: str, scale: float = 0.7) -> LatentBatch:
    crystals = [random_crystals()[k] for k in CHOICE]
    noise = np.random.default_rng(2).standard_normal((len(crystals), 4))
    made = LatentBatch.of(tiny_model(), crystals, torch.as_tensor(scale * noise), mode)
    # what conditions look like to the network, in double precision from here on
    prepared = made.prepared._replace(embedded=made.prepared.embedded.double())
    return replace(made, model=precise_model(), prepared=prepared)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_gradient_against_differences(objective, weight):
    """Through decoder, inverse mixtures, Wyckoff maps and descriptor, crystal by crystal."""
    batch = batch_of("soft")
    problem = LatentLoss(objective, weight).bind(batch)
    z = batch.variables
    found = problem.evaluate(z)
    step = 1e-5
    for k in range(len(z)):
        moved = [z + sign * step * torch.eye(len(z))[k] for sign in (1, -1)]
        up, down = (problem.evaluate(m).value for m in moved)
        difference = (up - down) / (2 * step)
        owner = int(batch.variable_crystal[k])
        scale = 1 + float(found.gradient[batch.variable_crystal == owner].abs().max())
        assert float(found.gradient[k]) == pytest.approx(float(difference[owner]), abs=1e-5 * scale)
        assert all(difference[i] == 0 for i in range(len(CHOICE)) if i != owner)


def test_second_order_agrees_with_first(objective):
    """Gradient by the Jacobian and by backpropagation; curvature from differences of residuals."""
    batch = batch_of("soft")
    problem = LatentLoss(objective, 0.2).bind(batch)
    z = batch.variables
    first, second = problem.evaluate(z), problem.evaluate(z, LatentMetric.at(batch, z))
    torch.testing.assert_close(second.value, first.value)
    torch.testing.assert_close(second.gradient, first.gradient, rtol=1e-6, atol=1e-6)
    curvature = second.curvature
    torch.testing.assert_close(curvature, curvature.transpose(1, 2))
    jacobian = batch.jacobian(z)
    step = 1e-6
    for k in range(4):
        shift = step * torch.eye(4)[k].repeat(batch.n_crystals)
        difference = (batch.decode(z + shift) - batch.decode(z - shift)) / (2 * step)
        torch.testing.assert_close(jacobian[:, k], difference, rtol=1e-5, atol=1e-7)
    assert (torch.linalg.eigvalsh(curvature) > 0.19).all()  # at least the prior's


def test_the_loss_is_that_of_the_decoded_crystal():
    """Eq. 1 of what `LatentModel.decode` makes of z, by two other ways."""
    environment = LocalEnvironment.named("sp2")
    batch = batch_of("straight_through")
    value = LatentLoss(DescriptorLoss(environment)).bind(batch).evaluate(batch.variables).value
    conditions = [Condition.from_crystal(random_crystals()[k]) for k in CHOICE]
    decoded = tiny_model().decode(batch.z.float(), conditions)
    for crystal, loss, result in zip(
        decoded, value.tolist(), refine(decoded, steps=0), strict=True
    ):
        assert result.loss == pytest.approx(loss, rel=2e-3)  # the model computes in float32
        atoms = crystal.to_atoms()
        atoms.calc = DescriptorCalculator(environment)
        per_site = len(atoms) * atoms.get_potential_energies()[_first_atoms(crystal)]
        assert per_site.mean() == pytest.approx(result.loss, rel=1e-8)


def test_straight_through_has_the_gradient_of_soft_where_one_component_rules(objective):
    """With probabilities near 0 and 1 the two are the same function."""
    model = precise_model()
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        half = network.head.output.out_features // 2
        network.head.output.weight[:half] *= 0
        order = torch.randperm(half, generator=torch.Generator().manual_seed(0))
        network.head.output.bias[:half] = 50.0 * order
    sharp = replace(model, network=network)
    found = []
    for mode in ("straight_through", "soft"):
        batch = replace(batch_of(mode), model=sharp)
        found.append(LatentLoss(objective).bind(batch).evaluate(batch.variables))
    torch.testing.assert_close(found[0].value, found[1].value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[0].gradient, found[1].gradient, rtol=1e-4, atol=1e-5)


def test_selection_changes_nothing(objective):
    batch = batch_of("soft")
    problem = LatentLoss(objective).bind(batch)
    whole = problem.evaluate(batch.variables)
    keep = torch.tensor([True, False, True, True, False])
    part = batch.select(keep)
    found = problem.select(keep, part).evaluate(part.variables)
    torch.testing.assert_close(found.value, whole.value[keep])
    torch.testing.assert_close(found.gradient, whole.gradient[keep[batch.variable_crystal]])


def _first_atoms(crystal) -> list[int]:
    sizes = [site.position.multiplicity for site in crystal.sites]
    return list(np.cumsum([0, *sizes[:-1]]))
