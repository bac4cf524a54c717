"""The threshold means what ASE's FrechetCellFilter would show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import make_supercell
from ase.filters import FrechetCellFilter
from ase.geometry import cellpar_to_cell
from optimize_cases import GROUPS, graphite, puckered, random_crystal

from asexlatent.optimize import (
    CrystalBatch,
    DescriptorCalculator,
    DescriptorLoss,
    generalized_gradient,
)
from asexlatent.optimize.metric import Metric
from asexlatent.symmetry import SymmetricCrystal


def shown_by_ase(atoms: Atoms, sp2) -> np.ndarray:
    """Rows of the forces of a FrechetCellFilter on the extensive loss."""
    atoms = atoms.copy()
    atoms.calc = DescriptorCalculator(sp2, extensive=True)
    return np.linalg.norm(FrechetCellFilter(atoms).get_forces(), axis=1)


def shown_by_us(crystals: list[SymmetricCrystal], sp2) -> np.ndarray:
    batch = CrystalBatch.from_crystals(crystals)
    loss = DescriptorLoss(sp2, site_weights="multiplicity")
    gradient = loss.bind(batch).evaluate(batch.variables).gradient
    return generalized_gradient(batch, batch.variables, gradient).numpy()


@pytest.mark.parametrize("space_group", GROUPS)
def test_equals_the_largest_row_of_the_frechet_filter(space_group, sp2):
    rng = np.random.default_rng(space_group)
    crystals = [random_crystal(space_group, rng, max_atoms=32) for _ in range(3)]
    ours = shown_by_us(crystals, sp2)
    theirs = [shown_by_ase(crystal.to_atoms(), sp2).max() for crystal in crystals]
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_sites_and_cell_each_count(sp2):
    """Crystals in which the largest row is an atom's, and in which it is the cell's."""
    stretched, pushed = graphite(a=2.6), puckered(z=0.1, a=2.46, c=8.0)
    for crystal, atom_wins in ((stretched, False), (pushed, True)):
        rows = shown_by_ase(crystal.to_atoms(), sp2)
        assert (rows.argmax() < crystal.n_atoms) == atom_wins
        assert shown_by_us([crystal], sp2)[0] == pytest.approx(rows.max(), rel=1e-9)


def test_a_supercell_and_a_rotated_cell_show_the_same(sp2):
    crystal = random_crystal(62, np.random.default_rng(2))
    atoms = crystal.to_atoms()
    larger = make_supercell(atoms, [[1, 1, 0], [0, 2, 0], [1, 0, 1]])
    larger.rotate(40, (1, 2, 3), rotate_cell=True)
    ours = shown_by_us([crystal], sp2)[0]
    rows = shown_by_ase(larger, sp2)[: len(larger)]
    assert rows.max() == pytest.approx(shown_by_ase(atoms, sp2)[: len(atoms)].max(), rel=1e-9)
    assert ours >= rows.max() * (1 - 1e-9)


def test_held_variables_do_not_count(sp2):
    crystal = puckered(z=0.1, a=2.46, c=8.0)
    batch = CrystalBatch.from_crystals([crystal])
    gradient = DescriptorLoss(sp2).bind(batch).evaluate(batch.variables).gradient
    rows = shown_by_ase(crystal.to_atoms(), sp2)
    only = {
        kind: generalized_gradient(batch, batch.variables, gradient, kinds)
        for kind, kinds in (("cell", batch.variable_kind < 2), ("site", batch.variable_kind == 2))
    }
    assert only["cell"].item() == pytest.approx(rows[crystal.n_atoms :].max(), rel=1e-9)
    assert only["site"].item() == pytest.approx(rows[: crystal.n_atoms].max(), rel=1e-9)


def test_strains_by_finite_differences():
    """Symmetric strain of each free cell parameter, from two cells made by ASE."""
    cell = [5.0, 6.0, 7.0, 1.3, 1.5, 1.8]
    crystal = SymmetricCrystal.build(1, cell, [("C", 0, [0.1, 0.2, 0.3])])
    batch = CrystalBatch.from_crystals([crystal])
    strain = Metric.at(batch, batch.variables).cell_strain[0].numpy()
    here = _cell(cell)
    for k in range(6):
        step = np.eye(6)[k] * 1e-5
        up, down = (np.linalg.solve(here, _cell(cell + s * step)) for s in (1, -1))
        # U of F = R U: the rotation of the standard form does not count
        numeric = (_stretch(up) - _stretch(down)) / 2e-5
        assert strain[k] == pytest.approx(numeric, abs=1e-8)


def test_steps_are_measured_in_angstrom():
    """A step of the free variables against the movement of the atoms it makes."""
    rng = np.random.default_rng(4)
    crystals = [random_crystal(g, rng) for g in GROUPS]
    batch = CrystalBatch.from_crystals(crystals)
    step = torch.randn(batch.n_variables, dtype=torch.float64) * 1e-6
    step[batch.variable_kind < 2] = 0
    moved, strain = Metric.at(batch, batch.variables).step_lengths(batch, step)
    cells, before = batch.geometry(batch.variables)
    after = batch.geometry(batch.variables + step)[1]
    distance = ((after - before)[:, None] @ cells[batch.atom_crystal])[:, 0].norm(dim=1)
    for b in range(batch.n_crystals):
        largest = distance[batch.atom_crystal == b].max().item()
        assert moved[b].item() == pytest.approx(largest, abs=1e-12)
    assert strain.abs().max() == 0


def _cell(parameters) -> np.ndarray:
    return np.asarray(cellpar_to_cell([*parameters[:3], *np.degrees(parameters[3:])]))


def _stretch(deformation: np.ndarray) -> np.ndarray:
    """Symmetric square root of F F^T for row vectors x' = x F, that is U."""
    value, vector = np.linalg.eigh(deformation @ deformation.T)
    return vector * np.sqrt(value) @ vector.T
