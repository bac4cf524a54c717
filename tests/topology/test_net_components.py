"""Dimension and number of the parts of a crystal."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule, nanotube
from nets_for_tests import diamond, graphene_layer, graphite, polyyne, srs

from asexlatent.topology import PeriodicGraph, identify_graph, identify_net


def parts(atoms, cutoff=None):
    return [(c.dimension, c.name, c.multiplicity) for c in identify_net(atoms, cutoff).components]


def test_layers():
    assert parts(graphene_layer()) == [(2, "hcb", 1)]
    assert parts(graphite()) == [(2, "hcb", 2)]
    assert parts(graphite() * (2, 3, 2)) == [(2, "hcb", 2)]


def test_chains():
    assert parts(polyyne()) == [(1, "chain", 1)]
    alone = polyyne()
    alone.pbc = (True, False, False)
    assert parts(alone) == [(1, "chain", 1)]
    alone.pbc = False
    assert parts(alone) == [(0, "dimer", 1)]


def test_molecules():
    ball = molecule("C60", vacuum=5, pbc=True)
    assert parts(ball) == [(0, "C60", 1)]
    assert parts(Atoms("Ar", cell=[9, 9, 9], pbc=True)) == [(0, "atom", 1)]
    assert parts(Atoms("He")) == [(0, "atom", 1)]


def test_a_layer_with_a_molecule_inside():
    layer = graphene_layer() * (4, 4, 1)
    guest = molecule("C60")
    guest.positions += layer.positions.mean(axis=0) + [0, 0, 7]
    cell = layer.cell.copy()
    cell[2, 2] = 20
    layer.set_cell(cell)
    net = identify_net(layer + guest)
    assert [(c.name, c.multiplicity) for c in net.components] == [("hcb", 1), ("C60", 1)]
    assert net.dimension == 2
    assert net.components[0].atoms.tolist() == list(range(32))
    assert net.components[1].atoms.tolist() == list(range(32, 92))


def test_two_interpenetrating_srs_nets():
    """A net and its image by inversion, 1.79 Å apart: the axes of the two gyroid labyrinths."""
    one = srs()
    two = one.copy()
    two.positions = -one.positions
    both = one + two
    assert parts(both, 1.6) == [(3, "srs", 2)]
    assert parts(both * (2, 1, 1), 1.6) == [(3, "srs", 2)]
    assert len(identify_net(both, 1.6).components[0].atoms) == len(both)


def test_interpenetration_by_a_translation_is_counted():
    """NaTl: two diamond nets half a cube edge apart, as far from each other as bonded atoms."""
    net = bulk("C", "diamond", a=2.0, cubic=True)
    other = net.copy()
    other.positions += [1.0, 0, 0]
    other.symbols = ["Si"] * 8
    cutoff = {"C-C": 0.9, "Si-Si": 0.9, "C-Si": 0.1}
    assert parts(net + other, cutoff) == [(3, "dia", 2)]
    # Without the bond rule by species it is the body-centred cubic lattice.
    assert parts(net + other, 0.9) == [(3, "bcu", 1)]


@pytest.mark.parametrize(
    ("shifts", "copies"),
    [
        ([(1, 0, 0), (0, 1, 0), (0, 0, 1)], 1),
        ([(2, 0, 0), (0, 1, 0), (0, 0, 1)], 2),
        ([(1, 1, 0), (1, -1, 0), (0, 0, 3)], 6),
        ([(1, 1, 0), (0, 1, 1), (1, 0, 1)], 2),
    ],
)
def test_translates_in_one_quotient_component(shifts, copies):
    graph = PeriodicGraph.build(1, [(0, 0)] * 3, shifts)
    (net,) = identify_graph(graph)
    assert (net.name, net.multiplicity) == ("pcu", copies)


@pytest.mark.parametrize(
    ("shifts", "copies"),
    [([(1, 0, 0), (0, 1, 0)], 1), ([(2, 0, 0), (0, 1, 0)], 2), ([(1, 1, 0), (1, -1, 4)], 2)],
)
def test_translates_of_layers_within_their_plane(shifts, copies):
    (net,) = identify_graph(PeriodicGraph.build(1, [(0, 0)] * 2, shifts))
    assert (net.name, net.multiplicity) == ("sql", copies)


def test_diamond_is_not_interpenetrated_in_any_cell():
    assert parts(diamond() * (3, 1, 2)) == [(3, "dia", 1)]


@pytest.mark.parametrize(("n", "m"), [(5, 5), (6, 0)])
def test_nanotube_is_one_chain_and_marked_inexact(n, m):
    tube = nanotube(n, m, length=2, bond=1.42)
    (net,) = identify_net(tube, 1.6).components
    assert (net.dimension, net.name, net.exact) == (1, f"nanotube ({n},{m})", False)
    assert "collide" in net.reason or "ladder" in net.reason
    assert net.short_key.startswith("~1-")
    rng = np.random.default_rng(0)
    tube.positions += rng.uniform(-0.01, 0.01, tube.positions.shape)
    assert identify_net(tube[rng.permutation(len(tube))], 1.6).key == net.key


def test_order_and_text_of_several_nets():
    layer = graphene_layer() * (3, 3, 1)
    layer += Atoms("C", positions=[layer.positions[0] + [0, 0, 4]])
    net = identify_net(layer)
    assert net.label == "hcb + atom"
    assert net.key == "2 1 2 0 0 1 2 0 1 1 2 1 0 + 0"
    assert [c["name"] for c in net.to_dict()["components"]] == ["hcb", "atom"]
