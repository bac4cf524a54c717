"""Bonds and the gap beyond them, against pymatgen's neighbour search."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from nets_for_tests import diamond, graphite
from pymatgen.core import Lattice, Structure

from asexlatent.topology import bonded_graph, identify_net
from asexlatent.topology.bonds import pair_cutoffs


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 6))
def test_bonds_of_random_cells_agree_with_pymatgen(seed, n):
    rng = np.random.default_rng(seed)
    cell = rng.normal(size=(3, 3)) * 2 + 2 * np.eye(3)
    if abs(np.linalg.det(cell)) < 3:
        cell = np.diag([1.3, 2.1, 3.7])
    scaled = rng.uniform(-2, 2, (n, 3))  # not wrapped
    atoms = Atoms(f"C{n}", scaled_positions=scaled, cell=cell, pbc=True)
    graph = bonded_graph(atoms, 2.5).graph
    structure = Structure(Lattice(cell), ["C"] * n, scaled)
    expected = structure.get_neighbor_list(2.5)
    assert graph.half_edges.degree.sum() == len(expected[0])
    degree = np.bincount(expected[0], minlength=n)
    if graph.n_vertices == n:
        assert np.array_equal(graph.half_edges.degree, degree)


def test_tiny_cells_have_loops_and_several_edges():
    graph = bonded_graph(bulk("C", "sc", a=1.5), 1.6).graph
    assert (graph.n_vertices, graph.n_edges) == (1, 3)
    graph = bonded_graph(Atoms("C", cell=[1, 9, 9], pbc=True), 3.5).graph
    assert graph.n_edges == 3


def test_supercells_are_reduced_and_atoms_keep_their_vertex():
    atoms = diamond() * (2, 3, 2)
    bonded = bonded_graph(atoms)
    assert bonded.graph.n_vertices == 2
    assert np.bincount(bonded.vertex).tolist() == [12, 12]


def test_gap_of_diamond():
    gap = bonded_graph(diamond()).gap
    assert gap.pair == "C-C"
    assert gap.longest_bond == pytest.approx(3.567 * np.sqrt(3) / 4)
    assert gap.shortest_nonbond == pytest.approx(3.567 / np.sqrt(2))
    assert gap.width == pytest.approx(gap.shortest_nonbond - gap.longest_bond)
    assert not gap.narrow


def test_narrow_gap_is_flagged():
    close = Atoms("C3", positions=[[0, 0, 0], [1.8, 0, 0], [3.7, 0, 0]])
    gap = identify_net(close).gap
    assert gap.width == pytest.approx(0.1)
    assert gap.narrow


def test_gap_without_bonds_or_without_other_distances():
    alone = identify_net(Atoms("C", cell=[9, 9, 9], pbc=True)).gap
    assert (alone.longest_bond, alone.width, alone.narrow) == (None, None, False)
    pair = identify_net(Atoms("C2", positions=[[0, 0, 0], [1.4, 0, 0]])).gap
    assert pair.shortest_nonbond is None
    assert pair.width == pytest.approx(2.85 - 1.4)


def test_cutoffs_by_pair():
    assert pair_cutoffs({6}) == {(6, 6): 1.85}
    assert pair_cutoffs({1, 6})[1, 6] == pytest.approx(1.2 * (0.31 + 0.76))
    for key in ("H-C", ("C", "H"), frozenset(["C", "H"]), (6, 1)):
        assert pair_cutoffs({1, 6}, {key: 1.3})[1, 6] == 1.3
    assert pair_cutoffs({1, 6}, {frozenset(["C"]): 1.7})[6, 6] == 1.7
    assert set(pair_cutoffs({1, 6}, 1.5).values()) == {1.5}


def test_cutoff_decides_the_net():
    assert identify_net(graphite(), 3.4).dimension == 3


@pytest.mark.parametrize("cutoff", [0, -1.0, float("nan"), float("inf"), {"C-C": -1}])
def test_cutoffs_that_are_no_lengths(cutoff):
    with pytest.raises(ValueError, match="positive length"):
        identify_net(diamond(), cutoff)


def test_pairs_that_are_no_species():
    with pytest.raises(ValueError, match="no pair of species"):
        identify_net(diamond(), {"C-Xx": 1.0})


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "no atoms"),
        (Atoms("C", positions=[[np.nan, 0, 0]]), "no numbers"),
        (Atoms("C", pbc=True), "no cell vector"),
        (Atoms("C", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=True), "not independent"),
    ],
)
def test_atoms_without_bonds_to_speak_of(atoms, message):
    with pytest.raises(ValueError, match=message):
        identify_net(atoms)
