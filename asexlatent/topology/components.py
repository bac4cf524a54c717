"""Connected components of a periodic graph, and how far each one extends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asexlatent.topology.graph import PeriodicGraph
from asexlatent.topology.integers import coordinates, lattice_basis, saturation_index


@dataclass(frozen=True, eq=False)
class Component:
    """One connected component of the quotient graph, written in its own lattice.

    Attributes
    ----------
    graph : PeriodicGraph
        Connected also as an infinite graph: its lattice is its cycle lattice.
    vertices : (n,) int array
        Its vertices in the graph it was taken from.
    translates : int
        How many disjoint infinite copies this component of the quotient stands for within the
        space it spans: the index of the cycle lattice in the lattice of that space.
    """

    graph: PeriodicGraph
    vertices: np.ndarray
    translates: int


def connected_components(graph: PeriodicGraph) -> list[Component]:
    """Split a periodic graph; every part comes back in a basis of its own cycle lattice.

    The dimension of a part is the rank of its cycle lattice: the lattice of the vectors collected
    along closed walks of the quotient graph.

    Parameters
    ----------
    graph : PeriodicGraph

    Returns
    -------
    list of Component, ordered by their first vertex.
    """
    root, offset = _spanning_forest(graph)
    i, j = graph.edges.T
    # In the gauge where tree edges carry no vector, the others carry the cycles.
    gauged = offset[i] + graph.shifts - offset[j]
    parts = []
    for first in np.flatnonzero(root == np.arange(graph.n_vertices)):
        vertices = np.flatnonzero(root == first)
        mine = root[i] == first
        basis = lattice_basis(gauged[mine])
        index = np.full(graph.n_vertices, -1)
        index[vertices] = np.arange(len(vertices))
        part = PeriodicGraph.build(
            len(vertices), index[graph.edges[mine]], coordinates(gauged[mine], basis)
        )
        parts.append(Component(part, vertices, saturation_index(basis)))
    return parts


def _spanning_forest(graph: PeriodicGraph) -> tuple[np.ndarray, np.ndarray]:
    """First vertex of the component (n,) and lattice vector along the tree (n, d), per vertex."""
    n, d = graph.n_vertices, graph.dimension
    stars = graph.half_edges.lists
    root = [-1] * n
    offset: list[tuple[int, ...]] = [(0,) * d] * n
    for start in range(n):
        if root[start] >= 0:
            continue
        root[start] = start
        queue = [start]
        for v in queue:
            for w, shift in stars[v]:
                if root[w] < 0:
                    root[w] = start
                    offset[w] = tuple(a + b for a, b in zip(offset[v], shift, strict=True))
                    queue.append(w)
    return np.array(root, dtype=np.int64), np.array(offset, dtype=np.int64).reshape(n, d)
