"""Coordination sequences: an independent, inexact description of a net.

Used where the exact key does not exist (vertices that collide in the placement) and as a check on
it. Two nets with different sequences are different; the converse is not guaranteed.
"""

from __future__ import annotations

from collections import Counter
from math import gcd

import numpy as np

from asexlatent.topology.graph import PeriodicGraph

#: Shells counted.
SHELLS = 10
#: Shells counted for chains: ten do not reach around a wide nanotube.
CHAIN_SHELLS = 40
# A sequence ends with the shell in which this many vertices have been counted. Nets of at most four
# neighbours rarely reach it in ten shells; it bounds the work where the cutoff joins almost
# everything.
_BALL = 1500


def coordination_sequences(graph: PeriodicGraph, shells: int = SHELLS) -> np.ndarray:
    """Number of vertices at each graph distance from every vertex.

    Parameters
    ----------
    graph : PeriodicGraph
    shells : int
        Longest distance.

    Returns
    -------
    (n, shells) int array
        Entry ``[v, k - 1]`` counts the vertices at distance k from v; 0 beyond the edge of a
        molecule, and after a vertex has counted 1500.
    """
    counts = np.zeros((graph.n_vertices, shells), dtype=np.int64)
    degree = max(1, graph.half_edges.target.shape[1])
    at_once = max(1, 20_000 // (degree * degree))
    for first in range(0, graph.n_vertices, at_once):
        sources = np.arange(first, min(first + at_once, graph.n_vertices))
        _count(graph, sources, counts[first : first + at_once])
    return counts


def _count(graph: PeriodicGraph, sources: np.ndarray, counts: np.ndarray) -> None:
    """Breadth-first search from several vertices at once; fills ``counts`` (sources, shells)."""
    half = graph.half_edges
    shells, d = counts.shape[1], graph.dimension
    reach = shells * int(np.abs(graph.shifts).max(initial=0)) + 1
    base = 2 * reach + 1
    # One integer per visit: source, vertex and cell, so that duplicates are found by sorting.
    cell = np.full(d, reach)
    place = base ** np.arange(d)[::-1]
    code = (np.arange(len(sources)) * graph.n_vertices + sources) * base**d + cell @ place
    before, current = code[:0], np.sort(code)
    step = half.shift @ place
    for shell in range(shells):
        owner, vertex, rest = _decode(current, graph.n_vertices, base**d)
        target = half.target[vertex]
        following = (owner[:, None] * graph.n_vertices + target) * base**d
        following = following + rest[:, None] + step[vertex]
        following = np.unique(following[target >= 0])
        following = np.setdiff1d(following, before, assume_unique=True)
        following = np.setdiff1d(following, current, assume_unique=True)
        owner = following // (base**d * graph.n_vertices)
        counts[:, shell] = np.bincount(owner, minlength=len(sources))
        going_on = counts.sum(axis=1) < _BALL
        before, current = current, following[going_on[owner]]


def _decode(code: np.ndarray, n: int, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    place, rest = np.divmod(code, cells)
    owner, vertex = np.divmod(place, n)
    return owner, vertex, rest


def sequence_key(graph: PeriodicGraph) -> str:
    """Text that stands in for the key of a connected net that has none.

    Parameters
    ----------
    graph : PeriodicGraph
        Connected.

    Returns
    -------
    str
        ``cs10 dimension`` (``cs40 1`` for chains) and the different sequences with their
        multiplicities, as smallest whole numbers, so that it does not depend on the cell (for a
        molecule: as they are).
    """
    shells = CHAIN_SHELLS if graph.dimension == 1 else SHELLS
    sequences = Counter(map(tuple, coordination_sequences(graph, shells).tolist()))
    common = gcd(*sequences.values()) if graph.dimension else 1
    parts = [
        f"{number // common}*{'.'.join(map(str, sequence))}"
        for sequence, number in sorted(sequences.items())
    ]
    return f"cs{shells} {graph.dimension} " + " ".join(parts)
