"""Coordination sequences against published ones and a plain search on a finite piece."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from nets_for_tests import lonsdaleite, srs

from asexlatent.topology import PeriodicGraph, coordination_sequences, identify_net
from asexlatent.topology.names import shipped_names

# RCSR (O'Keeffe et al., Acc. Chem. Res. 41, 1782, 2008).
PUBLISHED = {
    "dia": [4, 12, 24, 42, 64, 92, 124, 162, 204, 252],
    "lon": [4, 12, 25, 44, 67, 96, 130, 170, 214, 264],
    "sod": [4, 10, 20, 34, 52, 74, 100, 130, 164, 202],
    "pcu": [6, 18, 38, 66, 102, 146, 198, 258, 326, 402],
    "srs": [3, 6, 12, 24, 35, 48, 69, 86, 108, 138],
    "hcb": [3, 6, 9, 12, 15, 18, 21, 24, 27, 30],
    "sql": [4, 8, 12, 16, 20, 24, 28, 32, 36, 40],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sequences(name):
    key = {n: k for k, n in shipped_names().items()}[name]
    found = coordination_sequences(PeriodicGraph.from_key(key))
    assert {tuple(row) for row in found.tolist()} == {tuple(PUBLISHED[name])}


@pytest.mark.parametrize("make", [lonsdaleite, srs])
def test_against_a_search_on_a_finite_piece(make):
    graph = identify_net(make()).components[0].graph
    shells, size = 4, 11
    piece = nx.Graph()
    cells = np.stack(np.meshgrid(*[np.arange(size)] * 3), -1).reshape(-1, 3)
    for (i, j), shift in zip(graph.edges.tolist(), graph.shifts, strict=True):
        piece.add_edges_from(
            ((i, *c), (j, *d))
            for c, d in zip(cells.tolist(), (cells + shift).tolist(), strict=True)
        )
    found = coordination_sequences(graph, shells)
    for v in range(graph.n_vertices):
        length = nx.single_source_shortest_path_length(piece, (v, *[size // 2] * 3), shells)
        expected = np.bincount(list(length.values()), minlength=shells + 1)[1:]
        assert found[v].tolist() == expected.tolist()


def test_molecules_end():
    ring = PeriodicGraph.from_key("0 1 2 1 3 2 4 3 5 4 6 5 6")
    assert coordination_sequences(ring).tolist() == [[2, 2, 1, 0, 0, 0, 0, 0, 0, 0]] * 6
