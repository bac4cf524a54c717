"""Sums of objectives: energy and descriptor together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from energy_cases import mace_calculator, make_model, roomy_crystal
from screening_cases import crystal

from asexlatent import CrystalBatch, DescriptorLoss, LocalEnvironment, SymmetricDescriptorOptimizer
from asexlatent.optimize import DescriptorCalculator
from asexlatent.optimize.driver import Status
from asexlatent.optimize.metric import Metric
from asexlatent.screening import MACEEnergy, load_mace_model

SP2 = LocalEnvironment.named("sp2")
LOSS = DescriptorLoss(SP2)
WEIGHT = 0.3
CMCM = crystal(63, (2.53, 4.2, 6.4), ("c", [0.02]), ("c", [0.34]))
THS = crystal(141, (2.54, 8.7), ("e", [0.29]))


@pytest.fixture(scope="module")
def small():
    return MACEEnergy(make_model(atomic_numbers=[6], atomic_energies=[-1.0]))


@pytest.fixture(scope="module")
def energy():
    return MACEEnergy(load_mace_model())


def evaluate(objective, crystals, with_curvature=False):
    batch = CrystalBatch.from_crystals(crystals)
    metric = Metric.at(batch, batch.variables) if with_curvature else None
    return objective.bind(batch).evaluate(batch.variables, metric)


def test_value_and_gradient_are_weighted_sums(small):
    crystals = [roomy_crystal(group, 5, species=("C",)) for group in (14, 62, 152)]
    both = evaluate(LOSS + WEIGHT * small, crystals, True)
    loss, energy = evaluate(LOSS, crystals, True), evaluate(small, crystals, True)
    for name in ("value", "gradient", "curvature"):
        expected = getattr(loss, name) + WEIGHT * getattr(energy, name)
        torch.testing.assert_close(getattr(both, name), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda a, b: a + b * 0.5,
        lambda a, b: 0.5 * (a + a + b),
        lambda a, b: 0.5 * b + a,
    ],
)
def test_ways_to_write_a_sum(make, small):
    found = evaluate(make(LOSS, small), [CMCM]).value
    parts = evaluate(LOSS, [CMCM]).value + 0.5 * evaluate(small, [CMCM]).value
    torch.testing.assert_close(found, parts)


class TestRefusals:
    @pytest.mark.parametrize("weight", [-1.0, np.inf, np.nan])
    def test_weights(self, weight, small):
        with pytest.raises(ValueError, match="must be finite and not negative"):
            LOSS + weight * small

    def test_what_is_no_objective(self, small):
        with pytest.raises(TypeError):
            LOSS + 3
        with pytest.raises(TypeError):
            small * small


# ------------------------------------------------------------------------------ the optimizer


def total(atoms, energy):
    """Eq. 1 and weighted energy per atom, each by an ASE calculator."""
    parts = []
    for calculator, factor in (
        (DescriptorCalculator(SP2), 1.0),
        (mace_calculator(energy.model.module), WEIGHT / len(atoms)),
    ):
        copy = atoms.copy()
        copy.calc = calculator
        parts.append(factor * copy.get_potential_energy())
    return sum(parts)


@pytest.mark.parametrize("solver", ["lm", "lbfgs"])
def test_optimizer_ends_where_the_sum_is_stationary(energy, solver):
    atoms = CMCM.to_atoms()
    optimizer = SymmetricDescriptorOptimizer(
        atoms, objective=LOSS + WEIGHT * energy, solver=solver, logfile=None
    )
    assert optimizer.run(fmax=5e-3, steps=100)
    assert optimizer.losses[0] == pytest.approx(total(atoms, energy), rel=1e-6)
    made = optimizer.crystals[0]
    slope = []
    for k in range(made.free_variables.size):
        h = 1e-4 * np.eye(made.free_variables.size)[k]
        ends = [made.with_free_variables(made.free_variables + s) for s in (h, -h)]
        values = [total(end.to_atoms(), energy) for end in ends]
        slope.append((values[0] - values[1]) / 2e-4)
    assert np.abs(slope).max() < 2e-2
    assert total(CMCM.to_atoms(), energy) > total(atoms, energy)


def test_the_sum_is_a_compromise(energy):
    """Each term is lowest where it alone is minimised; the sum is lowest for the sum."""
    ends = {}
    for name, objective in (
        ("loss", LOSS),
        ("energy", WEIGHT * energy),
        ("both", LOSS + WEIGHT * energy),
    ):
        atoms = THS.to_atoms()
        SymmetricDescriptorOptimizer(atoms, objective=objective, solver="lbfgs", logfile=None).run(
            fmax=1e-3, steps=200
        )
        ends[name] = [evaluate(LOSS, [read(atoms)]).value.item()]
        ends[name].append(WEIGHT * evaluate(energy, [read(atoms)]).value.item())
    assert ends["loss"][0] < ends["both"][0] < ends["energy"][0]
    assert ends["energy"][1] < ends["both"][1] < ends["loss"][1]
    assert sum(ends["both"]) < min(sum(ends["loss"]), sum(ends["energy"]))


def read(atoms):
    from asexlatent.symmetry import symmetrize

    return symmetrize(atoms, symprec=1e-3).crystal


def test_a_list_of_crystals_that_finish_at_different_times(energy):
    """Crystals leave the batch one by one, each with both terms."""
    frames = [made.to_atoms() for made in (THS, CMCM, crystal(194, (2.55, 5.0), ("f", [0.03])))]
    optimizer = SymmetricDescriptorOptimizer(frames, objective=LOSS + WEIGHT * energy, logfile=None)
    assert optimizer.run(fmax=0.01, steps=200)
    assert optimizer.statuses == [Status.CONVERGED] * 3
    expected = [total(atoms, energy) for atoms in frames]
    np.testing.assert_allclose(optimizer.losses, expected, rtol=1e-6)
