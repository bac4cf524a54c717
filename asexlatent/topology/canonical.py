"""The canonical form of a periodic net: its exact identity.

Delgado-Friedrichs and O'Keeffe, Acta Cryst. A59, 351 (2003). From every frame the net is walked in
one fixed way: breadth first, the edges at each vertex in the order of their coordinates in the
frame, vertices numbered as they appear, lattice vectors in the basis of the first independent ones
that appear. The smallest list of edges over all frames depends on the net alone. The frames, the
order of the walk and the final change of basis are those of Systre 1.0, so that the text is
Systre's too.

All frames walk in step; after every vertex only those with the smallest list so far go on. Those
that are left at the end are related by symmetry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from asexlatent.topology.frames import Frames, PlacedNet, characteristic_frames
from asexlatent.topology.graph import PeriodicGraph
from asexlatent.topology.integers import adjugates, cross
from asexlatent.topology.placement import Placement

#: Largest number of edge lists tried as frames, times the largest number of edges at a vertex.
MAX_WORK = 2_000_000
# Two different quotients of integers below this differ as float64, and keep their order.
_EXACT_QUOTIENT = 2**26
# Entries of the state of one batch of frames; 48 bytes each at most.
_STATE_ENTRIES = 2_000_000

Script = list[np.ndarray]


class NumbersTooLarge(ArithmeticError):
    """The lattice vectors of a net are too long for exact float comparison of their quotients."""


def canonical_graph(
    graph: PeriodicGraph, placement: Placement, max_work: int = MAX_WORK
) -> PeriodicGraph:
    """Canonical form of a connected, locally stable net in its largest translation lattice.

    Parameters
    ----------
    graph : PeriodicGraph
        A minimal image (:func:`~asexlatent.topology.translations.minimal_image`), dimension 1 to 3.
    placement : Placement
        Its barycentric placement.
    max_work : int
        Largest number of edge lists to try as frames, times the largest number of edges at a
        vertex.

    Returns
    -------
    PeriodicGraph
        Its ``text`` is the key: equal for two nets exactly when they are the same net.

    Raises
    ------
    TooManyFrames
        Above ``max_work``.
    NumbersTooLarge
        If lattice vectors exceed what is compared exactly (not seen in practice).
    """
    net = PlacedNet.make(graph, placement)
    frames = characteristic_frames(net, max_work // net.target.shape[1])
    best: Script | None = None
    scale = 1
    for batch in _batches(frames, graph.n_vertices):
        walk = _Walk.begin(batch)
        script = walk.run(best)
        if script is not None:
            best, scale = script, int(walk.size[0])
    assert best is not None  # there is a frame, and the first batch always returns a script
    return _finish(best, scale, graph.n_vertices, graph.dimension)


def _batches(frames: Frames, n_vertices: int) -> Iterator[Frames]:
    size = max(1, _STATE_ENTRIES // n_vertices)
    for first in range(0, len(frames), size):
        yield frames.take(np.arange(first, min(first + size, len(frames))))


@dataclass(eq=False)
class _Walk:
    """State of a batch of frames that walk the net in step.

    ``label``: number of each vertex, from 1, 0 if not met; ``cell``: in which cell it was met;
    ``queue``: vertices in the order met; ``basis``, ``rank``: the first independent lattice
    vectors; ``inverse``, ``size``: adjugate and determinant (> 0) of ``basis`` completed to three
    vectors.
    """

    frames: Frames
    label: np.ndarray
    cell: np.ndarray
    queue: np.ndarray
    met: np.ndarray
    basis: np.ndarray
    rank: np.ndarray
    inverse: np.ndarray
    size: np.ndarray

    @classmethod
    def begin(cls, frames: Frames) -> _Walk:
        f, n = len(frames), len(frames.net.target)
        start = frames.edges[:, 0, 0]
        label = np.zeros((f, n), dtype=np.int32)
        label[np.arange(f), start] = 1
        queue = np.zeros((f, n), dtype=np.int32)
        queue[:, 0] = start
        unit = np.broadcast_to(np.eye(3, dtype=np.int64), (f, 3, 3))
        ones = np.ones(f, dtype=np.int64)
        cell = np.zeros((f, n, 3), dtype=np.int64)
        return cls(
            frames, label, cell, queue, ones.copy(), unit.copy(), ones * 0, unit.copy(), ones
        )

    def run(self, best: Script | None) -> Script | None:
        """Walk to the end; None as soon as every frame is behind ``best``."""
        script: Script = []
        behind = best is not None
        for step in range(len(self.frames.net.target)):
            rows = self._advance(step)
            smallest, keep = _smallest(rows)
            if behind and best is not None:
                sign = _compare(smallest, best[step])
                if sign > 0:
                    return None
                behind = sign == 0
            script.append(smallest)
            if not keep.all():
                self._keep(keep)
        return None if behind else script

    def _keep(self, keep: np.ndarray) -> None:
        self.frames = self.frames.take(keep)
        for name in ("label", "cell", "queue", "met", "basis", "rank", "inverse", "size"):
            setattr(self, name, getattr(self, name)[keep])

    def _advance(self, step: int) -> np.ndarray:
        """Edges that leave vertex ``step`` of every frame: (f, k, 4), filled up with inf."""
        net = self.frames.net
        here = self.queue[:, step]
        order = self.frames.star_order(here)
        f, width = order.shape
        everyone = np.arange(f)
        rows = np.full((f, width, 4), np.inf)
        filled = np.zeros(f, dtype=np.int64)
        for k in range(width):
            slot = order[:, k]
            there = net.target[here, slot]
            number = self.label[everyone, there]
            arrival = self.cell[everyone, here] + net.shift[here, slot]
            new = (there >= 0) & (number == 0)
            if new.any():
                who = np.flatnonzero(new)
                self._meet(who, there[who], arrival[who])
                rows[who, filled[who]] = 0
                rows[who, filled[who], 0] = self.met[who]
                filled[who] += 1
            old = (there >= 0) & (number >= step + 1)
            if old.any():
                who = np.flatnonzero(old)
                vector = arrival[who] - self.cell[who, there[who]]
                quotient = self._coordinates(who, vector)
                # Of the two directions of a loop the negative one is listed.
                listed = (number[who] > step + 1) | (_sign(quotient) < 0)
                who, quotient = who[listed], quotient[listed]
                rows[who, filled[who], 0] = number[who]
                rows[who, filled[who], 1:] = quotient
                filled[who] += 1
        return rows

    def _meet(self, who: np.ndarray, vertex: np.ndarray, cell: np.ndarray) -> None:
        self.queue[who, self.met[who]] = vertex
        self.met[who] += 1
        self.label[who, vertex] = self.met[who]
        self.cell[who, vertex] = cell

    def _coordinates(self, who: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """Coordinates (len(who), 3) of lattice vectors in the bases, extended if need be."""
        number = (vector[:, None] @ self.inverse[who])[:, 0]
        d = self.frames.net.dimension
        if (self.rank[who] < d).any():
            axis = np.arange(3)
            beyond = (axis >= self.rank[who][:, None]) & (axis < d) & (number != 0)
            fresh = beyond.any(axis=1)
            if fresh.any():
                self._extend(who[fresh], vector[fresh])
            number = (vector[:, None] @ self.inverse[who])[:, 0]
        size = self.size[who]
        if max(np.abs(number).max(initial=0), size.max(initial=0)) >= _EXACT_QUOTIENT:
            raise NumbersTooLarge("the lattice vectors of the net are too long to be compared")
        return number / size[:, None]

    def _extend(self, who: np.ndarray, vector: np.ndarray) -> None:
        """Make vectors (len(who), 3) the next basis vectors of frames."""
        rank = self.rank[who]
        self.basis[who, rank] = vector
        self.rank[who] = rank = rank + 1
        basis = self.basis[who]
        # The rows beyond the rank may be anything that makes the three independent.
        one, two = np.flatnonzero(rank == 1), np.flatnonzero(rank == 2)
        unit = np.eye(3, dtype=np.int64)
        axis = np.abs(basis[one, 0]).argmax(axis=1)
        basis[one, 1:] = np.stack([np.delete(unit, k, axis=0) for k in range(3)])[axis]
        axis = np.abs(cross(basis[two, 0], basis[two, 1])).argmax(axis=1)
        basis[two, 2] = unit[axis]
        inverse = adjugates(basis)
        size = (basis[:, 0] * inverse[:, :, 0]).sum(axis=-1)
        self.inverse[who] = inverse * np.sign(size)[:, None, None]
        self.size[who] = np.abs(size)


def _smallest(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lexicographically smallest block of rows, and who has it."""
    flat = rows.reshape(len(rows), -1)
    keep = np.ones(len(rows), dtype=bool)
    if len(flat) > 1 and not (flat == flat[0]).all():
        for column in flat.T:
            keep &= column == column[keep].min()
    return rows[keep.argmax()], keep


def _compare(a: np.ndarray, b: np.ndarray) -> int:
    """Sign of the lexicographic comparison of two blocks of rows."""
    different = np.flatnonzero(a.ravel() != b.ravel())
    if len(different) == 0:
        return 0
    return -1 if a.ravel()[different[0]] < b.ravel()[different[0]] else 1


def _sign(rows: np.ndarray) -> np.ndarray:
    first = (rows != 0).argmax(axis=1)
    return np.sign(rows[np.arange(len(rows)), first])


def _finish(script: Script, scale: int, n_vertices: int, dimension: int) -> PeriodicGraph:
    """Turn the smallest list into a graph, in a basis of the lattice that its vectors span."""
    filled = [block[block[:, 0] < np.inf].tolist() for block in script]
    rows = [(i, *row) for i, block in enumerate(filled) for row in block]
    table = np.array(rows)
    edges = np.stack([table[:, 0], table[:, 1] - 1], axis=1).astype(np.int64)
    vectors = np.rint(table[:, 2 : 2 + dimension] * scale).astype(np.int64)
    basis = _triangulate(vectors)
    shifts = np.zeros_like(vectors)
    for k in range(dimension):
        shifts[:, k], rest = np.divmod(vectors[:, k], basis[k, k])
        if rest.any():
            raise ArithmeticError("an edge of the net does not fit its translation lattice")
        vectors = vectors - shifts[:, k, None] * basis[k]
    return PeriodicGraph.build(n_vertices, edges, shifts)


def _triangulate(vectors: np.ndarray) -> np.ndarray:
    """Triangular lattice basis by Euclid's algorithm, columns in turn, smallest pivot first.

    The result depends on the order of the rows; Systre's keys are written in just this basis.
    """
    a = vectors.copy()
    row = column = 0
    while row < len(a) and column < a.shape[1]:
        entries = np.abs(a[row:, column])
        if not entries.any():
            column += 1
            continue
        pivot = row + int(np.where(entries == 0, np.iinfo(np.int64).max, entries).argmin())
        a[[row, pivot]] = a[[pivot, row]]
        if a[row, column] < 0:
            a[row] *= -1
        quotient = a[row + 1 :, column] // a[row, column]
        if a[row + 1 :, column].any():
            a[row + 1 :] -= quotient[:, None] * a[row]
        else:
            row += 1
            column += 1
    return a[: a.shape[1]]
