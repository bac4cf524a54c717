"""Periodic graphs, given by their quotient by a translation lattice.

A crystal net is an infinite graph with a lattice of translations. Chung, Hahn and Klee (Acta Cryst.
A40, 42, 1984) write it down as a finite quotient graph whose edges carry integer vectors: the edge
``(i, j, s)`` joins vertex ``i`` in every cell ``c`` to vertex ``j`` in cell ``c + s``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class HalfEdges:
    """Directed edges of a periodic graph, grouped by source and padded to the largest degree.

    Every edge appears once from either end, a loop in both directions.

    Attributes
    ----------
    degree : (n,) int
        Number of directed edges that leave each vertex.
    target : (n, k) int
        Where they lead; -1 in the padding.
    shift : (n, k, d) int
        Their lattice vectors; 0 in the padding.
    """

    degree: np.ndarray
    target: np.ndarray
    shift: np.ndarray

    @cached_property
    def lists(self) -> list[list[tuple[int, tuple[int, ...]]]]:
        """The same as Python lists: per vertex, ``(target, shift)`` in the order of the arrays."""
        return [
            [(t, tuple(s)) for t, s in zip(ts[:k], ss[:k], strict=True)]
            for k, ts, ss in zip(
                self.degree.tolist(), self.target.tolist(), self.shift.tolist(), strict=True
            )
        ]


@dataclass(frozen=True, eq=False)
class PeriodicGraph:
    """A periodic graph by its labelled quotient graph.

    Make one with :meth:`build`, which brings the edges into normal form.

    Attributes
    ----------
    n_vertices : int
        Vertices of the quotient graph.
    edges : (m, 2) int array
        End vertices, ``i <= j``.
    shifts : (m, d) int array
        Lattice vector of each edge; ``d`` is the rank of the lattice the graph is written in.
    """

    n_vertices: int
    edges: np.ndarray
    shifts: np.ndarray

    @classmethod
    def build(cls, n_vertices: int, edges: np.ndarray, shifts: np.ndarray) -> PeriodicGraph:
        """Bring edges into normal form: ``i <= j``, loops negative, sorted, each edge once.

        Parameters
        ----------
        n_vertices : int
        edges : (m, 2) int array
            End vertices, in any direction and order; doubles are merged.
        shifts : (m, d) int array

        Raises
        ------
        ValueError
            For a loop with a zero lattice vector (an atom bonded to itself).
        """
        edges = np.array(edges, dtype=np.int64).reshape(-1, 2)
        shifts = np.array(shifts, dtype=np.int64)
        loop = edges[:, 0] == edges[:, 1]
        if loop.any() and not shifts[loop].any(axis=1).all():
            raise ValueError("a vertex is joined to itself: drop edges (i, i) without a shift")
        flip = edges[:, 0] > edges[:, 1]
        flip |= loop & (_sign(shifts) > 0)
        edges[flip] = edges[flip][:, ::-1]
        shifts[flip] *= -1
        rows = np.unique(np.hstack([edges, shifts]), axis=0)
        return cls(int(n_vertices), rows[:, :2], rows[:, 2:])

    @classmethod
    def from_key(cls, key: str) -> PeriodicGraph:
        """Read the text form ``dimension i j s1 .. sd  i j s1 .. sd ...`` (vertices from 1).

        Raises
        ------
        ValueError
            If the text is not of this form.
        """
        try:
            numbers = [int(x) for x in key.split()]
            dimension = numbers[0]
            rows = np.array(numbers[1:], dtype=np.int64).reshape(-1, dimension + 2)
        except (ValueError, IndexError):
            raise ValueError(f"not the key of a net: {key[:60]!r}") from None
        if dimension < 0 or (len(rows) and rows[:, :2].min() < 1):
            raise ValueError(f"not the key of a net: {key[:60]!r}")
        n = int(rows[:, :2].max()) if len(rows) else 1
        return cls.build(n, rows[:, :2] - 1, rows[:, 2:])

    @property
    def dimension(self) -> int:
        """Rank of the lattice the graph is written in."""
        return self.shifts.shape[1]

    @property
    def n_edges(self) -> int:
        """Edges of the quotient graph."""
        return len(self.edges)

    @property
    def text(self) -> str:
        """The text form that :meth:`from_key` reads; a key only if the graph is canonical."""
        rows = np.hstack([self.edges + 1, self.shifts])
        return " ".join([str(self.dimension), *map(str, rows.ravel().tolist())])

    @cached_property
    def half_edges(self) -> HalfEdges:
        """Directed edges by source vertex."""
        source = np.concatenate([self.edges[:, 0], self.edges[:, 1]])
        target = np.concatenate([self.edges[:, 1], self.edges[:, 0]])
        shift = np.concatenate([self.shifts, -self.shifts])
        degree = np.bincount(source, minlength=self.n_vertices)
        order = np.argsort(source, kind="stable")
        source, target, shift = source[order], target[order], shift[order]
        first = np.cumsum(degree) - degree
        column = np.arange(len(source)) - first[source]
        width = int(degree.max(initial=0))
        targets = np.full((self.n_vertices, width), -1, dtype=np.int64)
        shifts = np.zeros((self.n_vertices, width, self.dimension), dtype=np.int64)
        targets[source, column] = target
        shifts[source, column] = shift
        return HalfEdges(degree, targets, shifts)


def _sign(rows: np.ndarray) -> np.ndarray:
    """Sign of the first non-zero entry of every row (0 for a zero row)."""
    if rows.shape[1] == 0:
        return np.zeros(len(rows), dtype=np.int64)
    first = (rows != 0).argmax(axis=1)
    return np.sign(rows[np.arange(len(rows)), first])
