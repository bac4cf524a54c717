"""The exact placement against its defining equations and a floating-point solution."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asexlatent.topology import PeriodicGraph, connected_components
from asexlatent.topology.placement import barycentric_placement


def random_net(seed: int, n: int, extra: int) -> PeriodicGraph:
    rng = np.random.default_rng(seed)
    tree = [(int(rng.integers(0, v)), v) for v in range(1, n)]
    edges = np.array([*tree, *rng.integers(0, n, (extra, 2)).tolist()])
    shifts = rng.integers(-1, 2, (len(edges), 3))
    proper = edges[:, 0] != edges[:, 1]
    return PeriodicGraph.build(n, edges[proper], shifts[proper])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 40))
def test_every_vertex_is_the_mean_of_its_neighbours(seed, n):
    graph = random_net(seed, n, n // 2 + 3)
    placement = barycentric_placement(graph)
    position = [
        [Fraction(x, q) for x, q in zip(row, placement.denominators, strict=True)]
        for row in placement.positions.tolist()
    ]
    assert position[0] == [0, 0, 0]
    total = [[Fraction(0)] * 3 for _ in range(n)]
    for (i, j), shift in zip(graph.edges.tolist(), graph.shifts.tolist(), strict=True):
        for k in range(3):
            vector = position[j][k] + shift[k] - position[i][k]
            total[i][k] += vector
            total[j][k] -= vector
    assert all(x == 0 for row in total for x in row)


def test_diamond():
    graph = PeriodicGraph.from_key("3 1 2 0 0 0 1 2 0 0 1 1 2 0 1 0 1 2 1 0 0")
    placement = barycentric_placement(graph)
    assert placement.denominators == (4, 4, 4)
    assert placement.positions.tolist() == [[0, 0, 0], [-1, -1, -1]]


@pytest.mark.parametrize("n", [3, 150, 400])
def test_large_nets_agree_with_floating_point(n):
    graph = random_net(n, n, n // 2 + 3)
    placement = barycentric_placement(graph)
    found = np.array(
        [
            [x / q for x, q in zip(r, placement.denominators, strict=True)]
            for r in placement.positions
        ]
    )
    i, j = graph.edges.T
    laplacian = np.zeros((n, n))
    right = np.zeros((n, 3))
    for a, b, s in zip(i, j, graph.shifts, strict=True):
        laplacian[[a, b], [a, b]] += 1
        laplacian[[a, b], [b, a]] -= 1
        right[a] += s
        right[b] -= s
    expected = np.linalg.lstsq(laplacian, right, rcond=None)[0]
    assert np.abs(found - (expected - expected[0])).max() < 1e-8


def test_lower_dimensions_are_placed_in_their_own_lattice():
    atoms = PeriodicGraph.build(2, [(0, 1), (0, 1), (0, 1)], [(0, 0, 0), (1, 0, 0), (0, 1, 0)])
    (part,) = connected_components(atoms)
    placement = barycentric_placement(part.graph)
    assert part.graph.dimension == 2
    assert placement.denominators == (3, 3)
