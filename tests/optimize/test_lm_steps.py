"""Levenberg-Marquardt where the answer is known: bowls, plateaus, walls, and company."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from optimize_cases import GROUPS, Quadratic, graphite, orthorhombic, puckered, random_crystal

from asexlatent.optimize import (
    BatchMinimizer,
    CellBounds,
    CrystalBatch,
    DescriptorLoss,
    LevenbergMarquardt,
)
from asexlatent.optimize.objective import Evaluation

FREE = CellBounds(0.0, 1e9, 0.0, 0.0)
WIDE = LevenbergMarquardt(damping=1e-14, max_displacement=1e9, max_strain=1e9, bounds=FREE)


def minimizer(crystals, objective, solver=None, fmax=0.0) -> BatchMinimizer:
    solver = LevenbergMarquardt() if solver is None else solver
    return BatchMinimizer(CrystalBatch.from_crystals(crystals), objective, solver, fmax)


def test_one_step_to_the_bottom_of_a_bowl():
    """The model is exact there, for each crystal with its own number of unknowns."""
    crystals = [graphite(), orthorhombic(), puckered()]
    one = minimizer(crystals, Quadratic(target=3.0, strength=40.0), WIDE)
    one.step()
    # but for the floor of the damping, 1e-9 of the largest curvature
    assert one.variables.numpy() == pytest.approx(3.0, abs=3e-6)
    assert one.losses.max() < 1e-9


def test_a_step_at_the_limit_moves_atoms_and_cell_by_it():
    """Measured in space, on the crystals, and not by the metric of the solver."""
    rng = np.random.default_rng(1)
    solver = LevenbergMarquardt(damping=1e-14, max_displacement=1e-3, max_strain=5e-4, bounds=FREE)
    for group in GROUPS:
        crystal = random_crystal(group, rng, max_atoms=24)
        batch = CrystalBatch.from_crystals([crystal])
        one = BatchMinimizer(batch, Quadratic(target=30.0, strength=2.0), solver, 0.0)
        one.step()
        before, after = batch.variables, one._work.current.variables
        held = torch.where(batch.variable_kind == 2, after, before)
        cell, scaled = batch.geometry(before)
        _, shifted = batch.geometry(held)
        moved = ((shifted - scaled) @ cell[0]).norm(dim=1).max().item()
        deformation = torch.linalg.solve(cell, batch.cells(after))[0] - torch.eye(3)
        strain = (0.5 * (deformation + deformation.T)).norm().item()
        reached = max(moved / solver.max_displacement, strain / solver.max_strain)
        assert reached == pytest.approx(1.0, rel=2e-2)


def test_damping_grows_with_each_failure_and_eases_after_a_success():
    """Nielsen's rule: 2, 4, 8 times as much; back by at most a third."""

    @dataclass
    class Wall:
        """A bowl by its derivatives whose values rise until `failures` steps have been taken."""

        failures: int

        def bind(self, batch):
            self.bowl = Quadratic(target=3.0).bind(batch)
            self.start = batch.variables
            return self

        def evaluate(self, variables, metric=None):
            there = self.bowl.evaluate(variables, metric)
            moved = not torch.equal(variables, self.start)
            if not moved or self.failures <= 0:
                return there
            self.failures -= 1
            return Evaluation(there.value + 1e3, there.gradient, there.isolated, there.curvature)

    one = minimizer([graphite(5.0, 6.0)], Wall(3), LevenbergMarquardt(bounds=FREE))
    dampings = []
    for _ in range(6):
        one.step()
        dampings.append(one._state.per_crystal["damping"].item())
    ratios = np.array(dampings[1:]) / np.array(dampings[:-1])
    assert ratios[:3] == pytest.approx([2.0, 4.0, 8.0])
    assert (ratios[3:] < 1.0).all()
    assert (ratios[3:] > 1 / 3 - 1e-9).all()


def test_rejected_for_ever_is_a_stall_and_not_an_overflow():
    """Damping that doubles its own doubling leaves float64 within some 45 rejections."""

    class Pit:
        """Values rise wherever one goes, whatever the gradient promises."""

        def bind(self, batch):
            self.bowl, self.start = Quadratic(target=3.0).bind(batch), batch.variables
            return self

        def evaluate(self, variables, metric=None):
            there = self.bowl.evaluate(variables, metric)
            higher = float((variables - self.start).abs().max() > 0) * 1e3
            return Evaluation(there.value + higher, there.gradient, there.isolated, there.curvature)

    solver = LevenbergMarquardt(stall_patience=150, bounds=FREE)
    one = minimizer([graphite(5.0, 6.0)], Pit(), solver)
    while one.step():
        assert one.steps.max() < 200
    ((status, _),) = one.reports()
    assert str(status) == "stalled"
    assert torch.isfinite(one._state.per_crystal["damping"]).all()


def test_no_progress_is_called_a_stall():
    """A loss that does not fall by the tolerance within the patience; another crystal goes on."""

    class Flat:
        """Constant for the first crystal, a bowl for the second."""

        def bind(self, batch):
            self.batch, self.bowl = batch, Quadratic(target=2.0).bind(batch)
            return self

        def evaluate(self, variables, metric=None):
            there = self.bowl.evaluate(variables, metric)
            flat = torch.tensor([True, False])
            owner = flat[self.batch.variable_crystal]
            return Evaluation(
                there.value.masked_fill(flat, 1.0),
                there.gradient.masked_fill(owner, 1e-3),
                there.isolated,
                there.curvature,
            )

    solver = LevenbergMarquardt(stall_patience=4, max_displacement=0.01, max_strain=0.001)
    one = minimizer([graphite(8.0, 9.0), graphite(8.0, 9.0)], Flat(), solver)
    one.repack_fraction = 2.0
    for _ in range(9):
        one.step()
    (first, why), (second, _) = one.reports()
    assert str(first) == "stalled"
    assert why
    assert str(second) == "step_limit"
    assert one.steps.tolist() == [5, 9]


def test_the_path_is_the_same_in_any_company(sp2):
    """Step after step, to rounding, with other crystals before and behind."""
    rng = np.random.default_rng(7)
    others = [random_crystal(group, rng) for group in (2, 62, 148, 227)]
    for crystal in (orthorhombic(), random_crystal(14, rng), random_crystal(166, rng)):
        alone = minimizer([crystal], DescriptorLoss(sp2))
        among = minimizer([*others[:2], crystal, *others[2:]], DescriptorLoss(sp2))
        for _ in range(6):
            alone.step()
            among.step()
            here = among.batch.split(among.variables)[2]
            assert here == pytest.approx(alone.variables.numpy(), abs=1e-10)
            assert among.losses[2].item() == pytest.approx(alone.losses.item(), rel=1e-10)


def test_nothing_free_is_nothing_to_do(sp2):
    """A crystal whose atoms cannot move has its cell alone; a held one has nothing."""
    batch = CrystalBatch.from_crystals([graphite(2.6)])
    held = torch.zeros_like(batch.variable_kind) > 0
    one = BatchMinimizer(batch, DescriptorLoss(sp2), LevenbergMarquardt(), 0.0, held)
    for _ in range(3):
        one.step()
    assert torch.equal(one.variables, batch.variables)
    free = minimizer([graphite(2.6)], DescriptorLoss(sp2), fmax=1e-6)
    for _ in range(30):
        free.step()
    assert free.variables[0].item() == pytest.approx(2.46, abs=1e-3)
