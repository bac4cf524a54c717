"""One net, one key: however the crystal is drawn. Different nets, different keys."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from nets_for_tests import CRYSTALS, cover, disguised, graphite, scrambled, srs, systre_keys

from asexlatent.topology import (
    PeriodicGraph,
    connected_components,
    coordination_sequences,
    identify_net,
    net_key,
)

SEEDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("name", CRYSTALS)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_key_survives_every_disguise(name, seed):
    rng = np.random.default_rng(seed)
    plain = CRYSTALS[name]()
    net = identify_net(plain)
    other = identify_net(disguised(plain, rng))
    assert net.label == name
    assert [c.key for c in other.components] == [c.key for c in net.components]
    assert other.exact
    if net.dimension == 3:
        assert other.components[0].multiplicity == 1


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_undistorted_graphite_has_two_layers_in_any_cell(seed):
    other = identify_net(disguised(graphite(), np.random.default_rng(seed), rattle=0))
    assert [(c.name, c.multiplicity) for c in other.components] == [("hcb", 2)]


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, name=st.sampled_from(sorted(systre_keys())))
def test_key_does_not_depend_on_the_cell_of_the_graph(seed, name):
    rng = np.random.default_rng(seed)
    key = systre_keys()[name]
    graph = PeriodicGraph.from_key(key)
    assume(graph.n_vertices <= 16)
    size = tuple(rng.integers(1, 3, graph.dimension))
    large = scrambled(cover(graph, size), rng)
    (part,) = connected_components(large)
    assert part.translates == 1
    assert net_key(part.graph).text == key


@st.composite
def random_graphs(draw, dimension):
    """Connected quotient graphs with random lattice vectors, loops and multiple edges included."""
    n = draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(SEEDS))
    tree = [(int(rng.integers(0, v)), v) for v in range(1, n)]
    more = rng.integers(0, n, (draw(st.integers(dimension, dimension + 5)), 2))
    edges = np.array([*tree, *more.tolist()], dtype=int).reshape(-1, 2)
    shifts = rng.integers(-1, 2, (len(edges), dimension))
    proper = (edges[:, 0] != edges[:, 1]) | shifts.any(axis=1)
    return PeriodicGraph.build(n, edges[proper], shifts[proper])


@pytest.mark.parametrize("dimension", [1, 2, 3])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data(), seed=SEEDS)
def test_random_graphs_keep_their_key(dimension, data, seed):
    graph = data.draw(random_graphs(dimension))
    first = connected_components(graph)
    assume(len(first) == 1 and first[0].graph.dimension == dimension)
    rng = np.random.default_rng(seed)
    (other,) = connected_components(scrambled(graph, rng))
    key, again = net_key(first[0].graph), net_key(other.graph)
    assert (key.text, key.exact) == (again.text, again.exact)
    assert other.translates == first[0].translates
    if key.exact:
        assert net_key(key.graph).text == key.text  # canonical means: its own canonical form
        mine = coordination_sequences(first[0].graph)
        reduced = coordination_sequences(key.graph)
        # The reduced net has the same kinds of vertices: an independent check of the quotient.
        assert {tuple(row) for row in mine} == {tuple(row) for row in reduced}


def test_mirror_images_of_a_chiral_net_are_one_net():
    atoms = srs()
    mirror = atoms.copy()
    mirror.set_cell(atoms.cell[:] * [-1, 1, 1], scale_atoms=False)
    mirror.positions = atoms.positions * [-1, 1, 1]
    assert identify_net(mirror).key == identify_net(atoms).key


def test_different_nets_have_different_keys():
    keys = {name: identify_net(make()).key for name, make in CRYSTALS.items()}
    assert len(set(keys.values())) == len(CRYSTALS)


def test_species_do_not_matter_for_the_net_but_for_the_bonds():
    blende = CRYSTALS["dia"]()
    blende.symbols = ["Zn", "S"]
    blende.set_cell(blende.cell[:] * 5.41 / 3.567, scale_atoms=True)
    assert identify_net(blende).label == "dia"
