"""The spring model's second derivative against springs stretched by hand."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list
from energy_cases import make_model, roomy_crystal
from scipy.linalg import polar

from asexlatent.optimize import CrystalBatch
from asexlatent.optimize.metric import Metric
from asexlatent.screening import MACEEnergy
from asexlatent.screening.bond_model import _FLOOR_ATOM, _FLOOR_STRAIN

RADIUS = 0.76  # of carbon, Å, as in ASE
REACH = 2.1 * 2 * RADIUS


@cache
def energy():
    return MACEEnergy(make_model(r_max=3.6, atomic_numbers=[6], atomic_energies=[-1.0]))


def curvature(crystals):
    batch = CrystalBatch.from_crystals(crystals)
    problem = energy().bind(batch)
    metric = Metric.at(batch, batch.variables)
    return batch, metric, problem.evaluate(batch.variables, metric).curvature


def spring_energy(crystal, step, h=1e-5):
    """Twice the energy per atom of springs along `step`, to second order, without rotation."""
    start = crystal.free_variables
    atoms = crystal.to_atoms()
    i, j, shifts, vectors = neighbor_list("ijSD", atoms, REACH)
    changed = []
    for sign in (1, -1):
        moved = crystal.with_free_variables(start + sign * h * step)
        deformation = np.linalg.solve(atoms.cell[:], moved.cell)  # rows: C' = C F
        rotation, _ = polar(deformation)
        scaled = moved.scaled_positions()
        changed.append((scaled[j] - scaled[i] + shifts) @ moved.cell @ rotation.T)
    change = (changed[0] - changed[1]) / (2 * h)
    length = np.linalg.norm(vectors, axis=1)
    along = np.einsum("pk,pk->p", change, vectors) / length
    across = np.linalg.norm(change, axis=1) ** 2 - along**2
    ratio2 = (length / (2 * RADIUS)) ** 2
    k_across = 6.0 * np.exp(2.3 * (1 - ratio2))
    k_along = np.maximum(21.0 * np.exp(0.82 * (1 - ratio2)), k_across)
    return 0.5 * (k_along * along**2 + k_across * across).sum() / len(atoms)


@pytest.mark.parametrize("group", [2, 14, 62, 152, 166, 186, 229])
def test_quadratic_form(group):
    crystal = roomy_crystal(group, 7, species=("C",), nearest=1.2)
    batch, metric, matrix = curvature([crystal])
    step = np.random.default_rng(group).normal(size=batch.n_variables)
    step[batch.variable_kind.numpy() == 2] *= 0.1
    moved, strain = floor_lengths(batch, metric, step)
    expected = spring_energy(crystal, step) + _FLOOR_ATOM * moved + _FLOOR_STRAIN * strain
    found = step @ matrix[0].numpy() @ step
    assert found == pytest.approx(expected, rel=1e-5)


def floor_lengths(batch, metric, step):
    """Mean square displacement of the atoms at fixed cell, and square of the strain."""
    step = torch.as_tensor(step)
    only_cell = torch.where(batch.variable_kind < 2, step, 0.0)
    _, strain = metric.step_lengths(batch, only_cell)
    moved = 0.0
    for s in range(batch.n_sites):
        own = torch.zeros_like(step)
        index = batch.site_index[s]
        own[index[index < batch.n_variables]] = step[index[index < batch.n_variables]]
        length, _ = metric.step_lengths(batch, own)
        moved += float(length[0] ** 2 * batch.site_share[s])
    return moved, float(strain[0] ** 2)


def test_positive_definite_and_apart():
    """In a batch every crystal has the matrix that it has alone, and all can be inverted."""
    crystals = [roomy_crystal(group, 8, species=("C",)) for group in (2, 14, 62, 194, 227)]
    batch, _, matrices = curvature(crystals)
    assert torch.linalg.eigvalsh(matrices).min() > 1e-3
    for b, crystal in enumerate(crystals):
        alone = curvature([crystal])[2][0]
        n = len(alone)
        torch.testing.assert_close(matrices[b, :n, :n], alone, rtol=1e-10, atol=1e-10)
        rest = matrices[b, n:, n:]
        torch.testing.assert_close(rest, torch.eye(len(rest), dtype=rest.dtype))
        assert not matrices[b, :n, n:].any()
    assert int(batch.variables_per_crystal().max()) == matrices.shape[1]
