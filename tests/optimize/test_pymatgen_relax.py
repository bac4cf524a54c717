"""Handed over as a class where a library takes an ASE optimizer."""

from __future__ import annotations

import numpy as np
import pytest
from optimize_cases import eq1, orthorhombic

from asexlatent.optimize import DescriptorCalculator, SymmetricDescriptorOptimizer
from asexlatent.symmetry import SymmetricCrystal

pytest.importorskip("pymatgen.core")


@pytest.fixture
def structure():
    return orthorhombic().to_structure()


@pytest.mark.parametrize("calculator", [None, DescriptorCalculator, DescriptorCalculator()])
def test_relax_cell(structure, calculator):
    """A FrechetCellFilter is what pymatgen hands over; any calculator will do, or none."""
    relaxed = structure.relax(
        calculator=calculator, optimizer=SymmetricDescriptorOptimizer, fmax=0.05, stress_weight=0.02
    )
    assert relaxed.dynamics["optimizer"] == "SymmetricDescriptorOptimizer"
    crystal = SymmetricCrystal.from_structure(relaxed, space_group=63)
    assert eq1(crystal) < 1e-3 < eq1(orthorhombic())
    assert not np.allclose(relaxed.lattice.abc, structure.lattice.abc, atol=1e-3)
    assert list(relaxed.species) == list(structure.species)


def test_relax_positions_only(structure):
    relaxed = structure.relax(
        calculator=DescriptorCalculator(),
        optimizer=SymmetricDescriptorOptimizer,
        relax_cell=False,
        fmax=0.05,
        # without a filter ours would free the cell too
        opt_kwargs={"fix_cell": True, "solver": "adam"},
    )
    assert np.allclose(relaxed.lattice.matrix, structure.lattice.matrix, rtol=0, atol=1e-12)
    assert np.abs(relaxed.frac_coords - structure.frac_coords).max() > 1e-3


def test_the_filter_of_pymatgen_means_what_it_says(structure):
    relaxed = structure.relax(
        calculator=None,
        optimizer=SymmetricDescriptorOptimizer,
        asecellfilter_kwargs={"mask": [1, 0, 0, 0, 0, 0]},
    )
    change = np.abs(np.array(relaxed.lattice.abc) - structure.lattice.abc)
    assert change[0] > 1e-3
    assert change[1:].max() < 1e-9


def test_return_trajectory(structure, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # pymatgen writes opt.traj here
    relaxed, frames = structure.relax(
        calculator=None,
        optimizer=SymmetricDescriptorOptimizer,
        return_trajectory=True,
        steps=4,
        fmax=1e-9,
        verbose=True,
    )
    assert len(frames) == 5
    assert np.allclose(frames[-1].cell, relaxed.lattice.matrix)
    assert len(capsys.readouterr().out.splitlines()) == 6
