"""Crystals that fall apart into molecules are told from nets."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.build import graphene
from ase.lattice.hexagonal import Graphite

from asexlatent import CrystalBatch, LocalEnvironment, SymmetricCrystal, refine
from asexlatent.optimize import Restarts
from asexlatent.optimize.molecules import molecular


def cubes(cell: float = 6.0) -> SymmetricCrystal:
    """C8 cubes: every atom has three neighbours, and nothing goes on."""
    corners = np.array(np.meshgrid(*[[-0.75, 0.75]] * 3)).reshape(3, -1).T
    return SymmetricCrystal.from_atoms(Atoms("C8", corners, cell=[cell] * 3, pbc=True))


def sheet() -> SymmetricCrystal:
    atoms = graphene(a=2.46)
    atoms.center(vacuum=4.0, axis=2)
    atoms.pbc = True
    return SymmetricCrystal.from_atoms(atoms)


def graphite() -> SymmetricCrystal:
    return SymmetricCrystal.from_atoms(Graphite("C", latticeconstant={"a": 2.46, "c": 6.70}))


def test_cubes_are_molecules_and_sheets_are_not():
    crystals = [graphite(), cubes(), sheet(), cubes()]
    batch = CrystalBatch.from_crystals(crystals)
    rule = LocalEnvironment.named("sp2").rule
    everything = torch.ones(4, dtype=torch.bool)
    assert molecular(rule, batch, batch.variables, everything).tolist() == [0, 1, 0, 1]
    only = torch.tensor([True, True, False, False])
    assert molecular(rule, batch, batch.variables, only).tolist() == [0, 1, 0, 0]
    assert not molecular(rule, batch, batch.variables, ~everything).any()


def test_atoms_split_by_the_cell_boundary_are_still_one_molecule():
    crystal = cubes()
    batch = CrystalBatch.from_crystals([crystal])
    moved = batch.variables.clone()
    moved[batch.variable_kind == 2] += 1.0  # the next cell; the cube itself is unchanged
    rule = LocalEnvironment.named("sp2").rule
    assert bool(molecular(rule, batch, moved, torch.tensor([True])))


def test_a_molecule_is_tried_again_and_kept_when_nothing_else_is_found():
    # Eight atoms on the corners of a cube, with two free variables: no other net is found.
    (result,) = refine([cubes()], "sp2", restarts=Restarts(2), steps=30)
    assert result.valid
    assert "molecules" in result.reason
