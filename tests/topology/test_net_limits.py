"""Nets without an exact key, and structures on which the exact method would take too long."""

from __future__ import annotations

import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from nets_for_tests import diamond, graphite, srs

from asexlatent.topology import PeriodicGraph, identify_graph, identify_net, net_key


def test_ladder_has_a_translation_of_finite_order():
    ladder = PeriodicGraph.build(2, [(0, 0), (1, 1), (0, 1)], [(1,), (1,), (0,)])
    key = net_key(ladder)
    assert not key.exact
    assert "finite order" in key.reason
    (net,) = identify_graph(ladder)
    assert net.name == "ladder"


def test_moebius_ladder_is_the_same_ladder():
    plain = PeriodicGraph.build(2, [(0, 0), (1, 1), (0, 1)], [(1,), (1,), (0,)])
    twisted = PeriodicGraph.build(2, [(0, 1), (0, 1), (0, 1)], [(1,), (-1,), (0,)])
    assert net_key(twisted).text == net_key(plain).text


def test_bilayer_bonded_on_top_is_marked():
    layer = graphite()
    layer.positions[:, 2] = np.where(layer.positions[:, 2] > 3, 0, layer.positions[:, 2])
    top = Atoms(
        "C4",
        scaled_positions=[[0, 0, 0.4], [1 / 3, 2 / 3, 0.4], [0, 0, 0.55], [1 / 3, 2 / 3, 0.55]],
        cell=[2.46, 2.46, 10, 90, 90, 120],
        pbc=True,
    )
    (net,) = identify_net(top).components
    assert (net.dimension, net.exact) == (2, False)
    assert net.key.startswith("cs10 2 ")
    (again,) = identify_net(top * (2, 2, 1)).components
    assert again.key == net.key


def test_two_dangling_atoms_on_one_neighbour():
    chain = Atoms(
        "C3", positions=[[0, 0, 0], [0.9, 1.1, 0], [0.9, -1.1, 0]], cell=[1.5, 9, 9], pbc=True
    )
    chain.positions[1:, 0] = 0.3
    net = identify_net(chain)
    assert not net.exact
    assert "collide" in net.components[0].reason


def test_limits_are_stated_and_marked():
    net = identify_net(srs(), max_vertices=3).components[0]
    assert not net.exact
    assert "4 vertices in the translation cell, limit 3" in net.reason
    net = identify_net(diamond(), max_work=10).components[0]
    assert not net.exact
    assert "limit" in net.reason
    assert net.key == identify_net(diamond() * (2, 1, 1), max_work=10).components[0].key


def test_molecule_with_too_many_numberings():
    n = 9
    edges = [(i, j) for i in range(n) for j in range(i)]
    net = net_key(PeriodicGraph.build(n, edges, np.zeros((len(edges), 0))))
    assert not net.exact
    assert "numberings" in net.reason


@pytest.mark.parametrize("cutoff", [1.3, 1.85, 2.5, 3.5])
def test_disordered_cells_take_bounded_time(cutoff):
    rng = np.random.default_rng(0)
    positions = rng.uniform(0, 12, (200, 3))
    atoms = Atoms("C200", positions=positions, cell=[12] * 3, pbc=True)
    start = time.perf_counter()
    net = identify_net(atoms, cutoff)
    assert time.perf_counter() - start < 20  # a second on an idle core
    # Together the components hold every atom once.
    assert sorted(np.concatenate([c.atoms for c in net.components])) == list(range(200))


def test_one_vertex_with_many_neighbours():
    net = identify_net(bulk("Cu", "fcc", a=1.0), 1.05).components[0]
    assert net.exact
    assert net.coordination == {18: 1}


def test_rattled_supercell_of_diamond_is_exact():
    atoms = diamond() * (5, 5, 4)
    rng = np.random.default_rng(3)
    atoms.positions += rng.uniform(-0.02, 0.02, atoms.positions.shape)
    net = identify_net(atoms).components[0]
    assert (net.name, net.graph.n_vertices, net.exact) == ("dia", 2, True)


def test_unknown_backend():
    with pytest.raises(ValueError, match="no backend 'topospro'"):
        identify_net(diamond(), backend="topospro")
