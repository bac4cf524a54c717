"""Canonical form of molecules: finite graphs, where barycentric placement says nothing.

Colours are refined until vertices of one colour have the same colours around them; where that
leaves a choice, every choice is followed, and the smallest edge list counts.
"""

from __future__ import annotations

import numpy as np

from asexlatent.topology.graph import PeriodicGraph

#: Largest number of complete numberings compared.
MAX_NUMBERINGS = 500


class TooManyNumberings(RuntimeError):
    """A molecule so symmetric that more numberings than the limit would have to be compared."""


def canonical_molecule(graph: PeriodicGraph, limit: int = MAX_NUMBERINGS) -> PeriodicGraph:
    """Canonical form of a connected finite graph.

    Parameters
    ----------
    graph : PeriodicGraph
        Of dimension 0.
    limit : int
        Largest number of complete numberings to compare.

    Raises
    ------
    TooManyNumberings
        Above the limit (a complete graph of seven atoms, say).
    """
    target = graph.half_edges.target
    best: np.ndarray | None = None
    found = 0
    stack = [_refine(target, np.zeros(graph.n_vertices, dtype=np.int64))]
    while stack:
        colour = stack.pop()
        size = np.bincount(colour)
        if size.max() == 1:
            found += 1
            edges = _sorted_edges(colour, graph)
            if best is None or edges.tolist() < best.tolist():
                best = edges
            continue
        cell = int(np.where(size > 1, size, size.max() + 1).argmin())
        members = np.flatnonzero(colour == cell)
        if found + len(stack) + len(members) > limit:
            raise TooManyNumberings(f"more than {limit} numberings of the molecule to compare")
        for vertex in members:
            # Half a colour up: the chosen vertex comes before the rest of its colour.
            split = 2 * colour + (colour == cell)
            split[vertex] -= 1
            stack.append(_refine(target, split))
    assert best is not None
    return PeriodicGraph.build(graph.n_vertices, best, np.zeros((len(best), 0), dtype=np.int64))


def _sorted_edges(colour: np.ndarray, graph: PeriodicGraph) -> np.ndarray:
    edges = np.sort(colour[graph.edges], axis=1)
    return edges[np.lexsort((edges[:, 1], edges[:, 0]))]


def _refine(target: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Finest colours (0, 1, ...) that the neighbours' colours tell apart, in their own order."""
    count = -1
    while True:
        around = np.sort(np.where(target < 0, -1, colour[target]), axis=1)
        rows = np.hstack([colour[:, None], around])
        colour = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
        if colour.max() + 1 == count:
            return colour
        count = colour.max() + 1
