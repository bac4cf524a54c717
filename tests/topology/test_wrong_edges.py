"""Demonstration: a deliberately wrong edge changes the key."""

from __future__ import annotations

import numpy as np
import pytest
from nets_for_tests import cover, scrambled, systre_keys

from asexlatent.topology import (
    PeriodicGraph,
    connected_components,
    coordination_sequences,
    net_key,
)

NETS = ["srs", "dia", "nbo", "acs-f", "acs-g", "gavrog-1", "sss", "ssb", "hcb"]


def keys_of(graph: PeriodicGraph) -> list[str]:
    return sorted(net_key(part.graph).text for part in connected_components(graph))


def without(graph: PeriodicGraph, which: int) -> PeriodicGraph:
    keep = np.arange(graph.n_edges) != which
    return PeriodicGraph.build(graph.n_vertices, graph.edges[keep], graph.shifts[keep])


@pytest.mark.parametrize("name", NETS)
def test_a_missing_edge(name):
    graph = PeriodicGraph.from_key(systre_keys()[name])
    for which in range(graph.n_edges):
        assert keys_of(without(graph, which)) != keys_of(graph)


def crossed(graph: PeriodicGraph, first: int, second: int) -> PeriodicGraph:
    """Two bonds exchange their far ends: every atom keeps its number of neighbours."""
    edges, shifts = graph.edges.copy(), graph.shifts.copy()
    edges[[first, second], 1] = edges[[second, first], 1]
    shifts[[first, second]] = shifts[[second, first]]
    return PeriodicGraph.build(graph.n_vertices, edges, shifts)


@pytest.mark.parametrize("name", ["srs", "dia", "nbo", "acs-f", "gavrog-1", "hcb"])
def test_crossed_edges(name):
    """One pair of bonds crossed in a 2 x 2 x 2 cell, coordination numbers as they were."""
    plain = PeriodicGraph.from_key(systre_keys()[name])
    graph = cover(plain, (2,) * plain.dimension)
    rng = np.random.default_rng(1)
    sequences = {tuple(row) for row in coordination_sequences(graph).tolist()}
    tried = 0
    while tried < 3:
        first, second = rng.choice(graph.n_edges, 2, replace=False)
        if len({*graph.edges[first], *graph.edges[second]}) < 4:
            continue
        wrong = crossed(graph, first, second)
        if wrong.n_edges < graph.n_edges:  # the new bond was there already
            continue
        tried += 1
        assert np.array_equal(wrong.half_edges.degree, graph.half_edges.degree)
        # Coordination sequences see the difference too; they know nothing of placements or frames.
        assert {tuple(row) for row in coordination_sequences(wrong).tolist()} != sequences
        assert keys_of(wrong) != keys_of(graph)
        assert keys_of(scrambled(wrong, rng)) == keys_of(wrong)


@pytest.mark.parametrize("name", NETS)
def test_an_additional_edge(name):
    graph = PeriodicGraph.from_key(systre_keys()[name])
    rng = np.random.default_rng(0)
    for _ in range(5):
        edge = rng.integers(0, graph.n_vertices, 2)
        shift = rng.integers(1, 4, graph.dimension)
        more = PeriodicGraph.build(
            graph.n_vertices,
            np.vstack([graph.edges, [edge]]),
            np.vstack([graph.shifts, [shift]]),
        )
        if more.n_edges > graph.n_edges:
            assert keys_of(more) != keys_of(graph)
