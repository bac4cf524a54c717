"""The published solver against torch.optim, and what it does differently."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from optimize_cases import GROUPS, Quadratic, graphite, orthorhombic, puckered, random_crystal

from asexlatent.optimize import Adam, BatchMinimizer, CellBounds, CrystalBatch, DescriptorLoss
from asexlatent.optimize.metric import Metric
from asexlatent.optimize.objective import Iterate
from asexlatent.symmetry import SymmetricCrystal

TRICLINIC = [2.4, 2.6, 2.8, 1.4, 1.5, 1.7]


def triclinic(cell=TRICLINIC) -> SymmetricCrystal:
    return SymmetricCrystal.build(1, cell, [("C", 0, [0.1, 0.2, 0.3]), ("C", 0, [0.4, 0.6, 0.8])])


def path(solver: Adam, batch: CrystalBatch, objective, n_steps: int) -> list[torch.Tensor]:
    """Proposals of a solver that is on its own, without a driver."""
    problem, state = objective.bind(batch), solver.start(batch)
    variables, visited = batch.variables, []
    for _ in range(n_steps):
        here = Iterate(variables, Metric.at(batch, variables), problem.evaluate(variables))
        variables = solver.propose(batch, state, here, here)
        visited.append(variables)
    return visited


def test_the_defaults_are_the_published_settings():
    solver = Adam()
    assert solver.learning_rate == 2e-3
    assert (solver.beta1, solver.beta2, solver.epsilon) == (0.9, 0.999, 1e-8)
    assert (solver.length_scale, solver.angle_scale) == (35.0, 180.0)
    assert solver.clip == 10.0
    assert (solver.plateau_patience, solver.plateau_factor) == (10, 0.5)
    assert solver.plateau_minimum == 0.1


@pytest.mark.parametrize("make", [orthorhombic, puckered, triclinic])
def test_is_torch_adam_on_scaled_variables(make, sp2):
    """torch.optim.AdamW without decay, the gradient clipped, no plateau."""
    batch = CrystalBatch.from_crystals([make()])
    solver = Adam(plateau_patience=10**6)
    ours = path(solver, batch, DescriptorLoss(sp2), 40)

    unit = torch.tensor([35.0, math.pi, 1.0], dtype=torch.float64)[batch.variable_kind]
    scaled = (batch.variables / unit).requires_grad_(True)
    theirs = torch.optim.AdamW([scaled], lr=2e-3, weight_decay=0.0)
    problem = DescriptorLoss(sp2).bind(batch)
    clipped = 0
    for mine in ours:
        theirs.zero_grad()
        problem.value(scaled * unit)[0].sum().backward()
        norm = scaled.grad.norm()
        clipped += norm > 10
        scaled.grad *= min(1.0, 10.0 / norm)
        theirs.step()
        assert torch.allclose(mine, (scaled * unit).detach(), rtol=0, atol=1e-9)
    assert clipped > 0


def test_the_first_step_is_as_long_as_documented(sp2):
    batch = CrystalBatch.from_crystals([triclinic()])
    gradient = DescriptorLoss(sp2).bind(batch).evaluate(batch.variables).gradient
    assert gradient.abs().min() > 1e-3
    (first,) = path(Adam(), batch, DescriptorLoss(sp2), 1)
    moved = (first - batch.variables) * -torch.sign(gradient)
    expected = [0.07] * 3 + [math.radians(0.36)] * 3 + [0.002] * 6
    assert moved.tolist() == pytest.approx(expected, rel=1e-5)


def test_steps_shrink_on_a_plateau_as_in_torch():
    """The scale per crystal is torch's ReduceLROnPlateau; a published factor never shrank."""
    batch = CrystalBatch.from_crystals([graphite(), puckered()])
    solver = Adam()
    state = solver.start(batch)
    values = [np.concatenate([np.linspace(3, 1, 12), np.full(70, 1.0)]), np.ones(82)]
    values[1][40:] = 0.9
    dummies = [torch.nn.Parameter(torch.zeros(1)) for _ in values]
    schedules = []
    for dummy in dummies:
        optimizer = torch.optim.SGD([dummy], lr=1.0)
        # torch waits for more than `patience` bad steps, we for as many
        schedules.append(
            torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=0.5, patience=9, threshold=1e-4, min_lr=0.1
            )
        )
    seen = []
    for pair in zip(*values, strict=True):
        scale = solver._condition(state, torch.tensor(pair, dtype=torch.float64))
        for schedule, value in zip(schedules, pair, strict=True):
            schedule.step(value)
        expected = [schedule.get_last_lr()[0] for schedule in schedules]
        assert scale.tolist() == pytest.approx(expected)
        seen.append(scale.tolist())
    assert seen[-1] == [0.1, 0.1]
    assert any(a != b for a, b in seen)


def test_a_shrunk_scale_makes_shorter_steps():
    """On a slope where Adam's own normalisation would undo a factor on the gradient."""
    batch = CrystalBatch.from_crystals([triclinic()])
    objective = Quadratic(target=-1e4, strength=1e-4)
    steep = Adam(plateau_patience=1, plateau_tolerance=1.0)
    steps = torch.stack([batch.variables, *path(steep, batch, objective, 12)]).diff(dim=0).abs()
    expected = [1e-3, 5e-4, 2.5e-4, *[2e-4] * 9]
    assert steps[:, -1].tolist() == pytest.approx(expected, rel=1e-3)


def test_stalls_after_the_patience_at_the_smallest_step():
    batch = CrystalBatch.from_crystals([puckered()])
    solver = Adam(stall_patience=30)
    minimizer = BatchMinimizer(batch, Quadratic(strength=0.0), solver, fmax=0.0)
    while minimizer.step():
        pass
    # one improvement on nothing, 4 times 10 steps to reach 0.1, then the patience
    assert minimizer.steps.item() == 1 + 4 * 10 + 30
    assert minimizer.reports() == [("stalled", "no improvement at the smallest step")]


@pytest.mark.parametrize("lengths", [(2.38, 6.7), (2.55, 9.0)])
def test_what_the_loss_does_not_see_stays_put(lengths, sp2):
    """The distance of graphite's layers, in three symmetries, with the in-plane bond wrong."""
    a, c = lengths
    flat = SymmetricCrystal.build(
        63, [a, a * np.sqrt(3), c], [("C", "c", [0.0]), ("C", "c", [1 / 3])]
    )
    cell = [a, a, c, np.pi / 2, np.pi / 2, 2 * np.pi / 3]
    in_p1 = SymmetricCrystal.build(
        1, cell, [("C", 0, p) for p in graphite().scaled_positions() % 1]
    )
    batch = CrystalBatch.from_crystals([graphite(a, c), flat, in_p1])
    minimizer = BatchMinimizer(batch, DescriptorLoss(sp2), Adam(), fmax=0.02)
    for _ in range(200):
        minimizer.step()
    assert (minimizer.losses < 1e-2).all()
    before, after = (batch.cell_parameters(v) for v in (batch.variables, minimizer.variables))
    assert torch.allclose(after[:, 2], before[:, 2], rtol=0, atol=1e-6)
    assert torch.allclose(after[:, 3:5], before[:, 3:5], rtol=0, atol=1e-6)
    assert (after[:, 0] - before[:, 0]).abs().min() > 0.01


# ----------------------------------------------------------------------------------------- bounds


def bounded(trial, previous=TRICLINIC, **limits) -> list[float]:
    batch = CrystalBatch.from_crystals([triclinic(previous)])
    variables = batch.variables.clone()
    variables[:6] = torch.as_tensor(trial, dtype=torch.float64)
    result = CellBounds(**limits).apply(batch, variables, batch.variables)
    assert torch.equal(result[6:], variables[6:])
    return result[:6].tolist()


def test_a_possible_cell_is_left_alone():
    assert bounded([2.5, 2.4, 3.2, 1.3, 1.6, 1.8]) == [2.5, 2.4, 3.2, 1.3, 1.6, 1.8]


def test_lengths_and_angles_stay_within_the_limits():
    trial = bounded([0.2, 300, 5, 0.1, 1.5, 1.5])
    assert trial[:3] == pytest.approx([1.0, 100, 5])
    assert trial[3] == pytest.approx(math.radians(20))
    assert bounded([4, 4, 5, 1.5, 3.1, 1.5])[4] == pytest.approx(math.radians(160))


def test_a_crystal_that_comes_in_beyond_a_limit_may_stay():
    large = [150, 4.5, 0.8, 1.4, 1.5, 1.7]
    assert bounded(large, previous=large) == pytest.approx(large)
    assert bounded([160, 4.5, 0.7, 1.4, 1.5, 1.7], previous=large)[0] == pytest.approx(150)
    assert bounded([160, 4.5, 0.7, 1.4, 1.5, 1.7], previous=large)[2] == pytest.approx(0.8)


@pytest.mark.parametrize("angles", [(2.5, 2.5, 2.5), (0.5, 1.5, 2.6), (1.0, 1.0, 2.0)])
def test_angles_that_make_no_cell_fall_back(angles):
    trial = bounded([4.2, 4.4, 5.2, *angles])
    assert trial == pytest.approx([4.2, 4.4, 5.2, 1.4, 1.5, 1.7])


def test_a_collapsing_cell_is_expanded_isotropically():
    trial = bounded([1.2, 1.0, 1.1, 1.4, 1.5, 1.7], min_volume_per_atom=3.0)
    batch = CrystalBatch.from_crystals([triclinic(trial)])
    volume = torch.linalg.det(batch.cells(batch.variables)).item()
    assert volume == pytest.approx(6.0)
    assert np.array(trial[:3]) / trial[0] == pytest.approx(np.array([1.2, 1.0, 1.1]) / 1.2)
    assert trial[3:] == [1.4, 1.5, 1.7]


@pytest.mark.parametrize("target", [-50.0, 0.0, math.pi, 500.0])
def test_no_objective_gets_a_cell_out_of_bounds(target):
    """Pull every variable of crystals of all lattice systems far away for a hundred steps."""
    rng = np.random.default_rng(0)
    crystals = [random_crystal(g, rng) for g in GROUPS]
    batch = CrystalBatch.from_crystals(crystals)
    n_atoms = torch.bincount(batch.atom_crystal)
    for variables in path(Adam(learning_rate=0.05), batch, Quadratic(target), 100):
        cells = batch.cells(variables)
        assert torch.isfinite(variables).all()
        volume = torch.linalg.det(cells) / n_atoms
        assert (volume > 0.999).all()
        parameters = batch.cell_parameters(variables)
        assert (parameters[:, :3] > 0.999).all()
        assert (parameters[:, 3:] > math.radians(19.99)).all()
        assert (parameters[:, 3:] < math.radians(160.01)).all()


def test_a_broken_trial_breaks_no_other():
    batch = CrystalBatch.from_crystals([graphite(), triclinic(), puckered()])
    trial = batch.variables.clone()
    trial[batch.variable_crystal == 1] = torch.nan
    result = CellBounds().apply(batch, trial, batch.variables)
    others = batch.variable_crystal != 1
    assert torch.equal(result[others], batch.variables[others])
