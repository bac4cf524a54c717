"""Crystals that fall apart into molecules are told from nets."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.build import graphene
from ase.lattice.hexagonal import Graphite

from asexlatent import CrystalBatch, LocalEnvironment, SymmetricCrystal, refine
from asexlatent.optimize import Restarts
from asexlatent.optimize.molecules import finite_components, molecular
from asexlatent.topology.components import connected_components
from asexlatent.topology.graph import PeriodicGraph


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


def test_finite_components_are_those_of_dimension_zero():
    """Against the lattices that `topology` computes, on random graphs with loops and doublets."""
    rng = np.random.default_rng(0)
    for _ in range(150):
        n, n_edges = rng.integers(1, 9), rng.integers(0, 10)
        first, second = rng.integers(0, n, (2, n_edges))
        shifts = rng.integers(-1, 2, (n_edges, 3))
        real = (first != second) | shifts.any(1)
        both = np.concatenate((first[real], second[real]))
        other = np.concatenate((second[real], first[real]))
        hops = np.concatenate((shifts[real], -shifts[real]))
        label, finite = finite_components(int(n), both, other, hops)
        graph = PeriodicGraph.build(int(n), np.stack((both, other), 1), hops)
        expected = connected_components(graph)
        assert sorted(finite) == sorted(part.graph.dimension == 0 for part in expected)
        assert len(np.unique(label)) == len(finite)
