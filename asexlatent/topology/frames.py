"""Coordinate frames of a placed net, and the order of the edges at a vertex as seen from a frame.

A frame is a start vertex and ``d`` edges whose vectors are independent. Only exact decisions are
taken here: which edge sets are independent, and how the edges at a vertex are ordered by their
coordinates. Numbers that fit are handled as int64, exactly. Larger ones are compared in floating
point, and whatever is closer than the rounding error could be is decided again with Python
integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from asexlatent.topology.graph import PeriodicGraph
from asexlatent.topology.integers import adjugate, adjugates, determinant
from asexlatent.topology.placement import Placement

# 3 * 2 * (2^20)^3 < 2^63: no product of three vectors of this size overflows.
_INT64_SAFE = 2**20
# Relative error of a sum of 3 x 2 products of 3 rounded numbers is below 2^-48; the rest is margin.
_ROUNDING = 2.0**-44


class TooManyFrames(RuntimeError):
    """The net has more frames than the stated limit; the message gives the numbers."""


@dataclass(frozen=True, eq=False)
class PlacedNet:
    """A periodic graph with the exact vectors along its directed edges, padded to three dimensions.

    Attributes
    ----------
    dimension : int
    target : (n, k) int
        As in :class:`~asexlatent.topology.graph.HalfEdges`.
    shift : (n, k, 3) int
    exact : (n, k, 3) object array of int
        Numerators of the edge vectors.
    fast : (n, k, 3) int64 or float64
        The same as int64 where that is safe, else scaled to at most 1 and rounded.
    """

    dimension: int
    target: np.ndarray
    shift: np.ndarray
    exact: np.ndarray
    fast: np.ndarray

    @classmethod
    def make(cls, graph: PeriodicGraph, placement: Placement) -> PlacedNet:
        """Pad and convert the vectors of a placement."""
        half = graph.half_edges
        pad = ((0, 0), (0, 0), (0, 3 - graph.dimension))
        exact = np.pad(placement.vectors, pad)
        largest = max(abs(x) for x in exact.ravel().tolist())
        if largest < _INT64_SAFE:
            fast = exact.astype(np.int64)
        else:
            scale = 1 << largest.bit_length()
            fast = np.array([x / scale for x in exact.ravel().tolist()]).reshape(exact.shape)
        return cls(graph.dimension, half.target, np.pad(half.shift, pad), exact, fast)

    @property
    def is_integer(self) -> bool:
        """Whether ``fast`` is exact."""
        return self.fast.dtype == np.int64


@dataclass(eq=False)
class Frames:
    """A set of frames of one net.

    Attributes
    ----------
    net : PlacedNet
    edges : (f, d, 2) int
        The directed edges of each frame as (vertex, slot); the first vertex is the start.
    linear : (f, 3, 3)
        ``vector @ linear[f]`` orders vectors as their coordinates in frame f do: the adjugate of
        the edge vectors, times the sign of their determinant.
    margin : (f,) float
        Differences below it may be rounding (0 for integers).
    """

    net: PlacedNet
    edges: np.ndarray
    linear: np.ndarray
    margin: np.ndarray
    _exact: dict[tuple[int, ...], list[list[int]]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.edges)

    def take(self, which: np.ndarray) -> Frames:
        """Some of the frames."""
        return Frames(
            self.net, self.edges[which], self.linear[which], self.margin[which], self._exact
        )

    def star_order(self, vertices: np.ndarray) -> np.ndarray:
        """Slots of the edges at one vertex per frame, sorted by their coordinates in the frame.

        Parameters
        ----------
        vertices : (f,) int

        Returns
        -------
        (f, k) int
            Slots, padding last.
        """
        net = self.net
        values = net.fast[vertices] @ self.linear
        padding = net.target[vertices] < 0
        if net.is_integer:
            values[padding] = np.iinfo(np.int64).max
            return np.lexsort((values[..., 2], values[..., 1], values[..., 0]), axis=-1)
        first = np.where(padding, np.inf, values[..., 0])
        order = np.argsort(first, axis=-1)
        with np.errstate(invalid="ignore"):  # inf - inf in the padding
            gaps = np.diff(np.take_along_axis(first, order, axis=-1), axis=-1)
        for f in np.flatnonzero((gaps <= self.margin[:, None]).any(axis=-1)).tolist():
            order[f] = self._exact_order(f, int(vertices[f]))
        return order

    def _exact_order(self, f: int, vertex: int) -> list[int]:
        """Order of the edges at a vertex by coordinates in frame ``f``, in Python integers."""
        name = tuple(self.edges[f].ravel().tolist())
        if name not in self._exact:
            basis = _exact_basis(self.net, self.edges[f])
            sign = 1 if determinant(basis) > 0 else -1
            self._exact[name] = (adjugate(basis) * sign).T.tolist()
        columns = self._exact[name]
        width = self.net.target.shape[1]
        keys = {
            slot: [sum(x * y for x, y in zip(vector, c, strict=True)) for c in columns]
            for slot, vector in enumerate(self.net.exact[vertex].tolist())
            if self.net.target[vertex, slot] >= 0
        }
        return sorted(keys, key=keys.__getitem__) + [s for s in range(width) if s not in keys]


def characteristic_frames(net: PlacedNet, limit: int) -> Frames:
    """The frames that the canonical form is minimal over, as Systre chooses them.

    Edges with a common source if any vertex has ``d`` independent ones; else chains of edges, each
    from the end of the one before; else any ``d`` directed edges. Three-coordinated vertices are
    coplanar with their neighbours in the placement, so nets made of them need chains.

    Parameters
    ----------
    net : PlacedNet
    limit : int
        Largest number of edge lists to look at.

    Raises
    ------
    TooManyFrames
        If there are more.
    """
    for kind, lists in (
        ("edges at a vertex", _common_source),
        ("chains of edges", _chains),
        ("edge lists", _any_edges),
    ):
        frames = _independent(net, lists(net, _Counted(limit, kind)))
        if len(frames):
            return frames
    raise ArithmeticError("a placed net has no frame: its edge vectors do not span its space")


@dataclass
class _Counted:
    """Refuses to make more edge lists than the limit."""

    limit: int
    kind: str

    def check(self, number: int) -> None:
        if number > self.limit:
            raise TooManyFrames(
                f"{number} {self.kind} to try as frames, limit {self.limit}: identified by"
                " coordination sequences instead"
            )


def _common_source(net: PlacedNet, count: _Counted) -> np.ndarray:
    degree = (net.target >= 0).sum(axis=1)
    d = net.dimension
    per_vertex = np.ones(len(degree))
    for k in range(d):
        per_vertex *= np.maximum(degree - k, 0)
    count.check(int(per_vertex.sum()))
    parts = []
    for k in np.unique(degree).tolist():
        slots = np.array(list(permutations(range(k), d)), dtype=np.int64).reshape(-1, d)
        vertices = np.flatnonzero(degree == k)
        lists = np.empty((len(vertices), len(slots), d, 2), dtype=np.int64)
        lists[..., 0] = vertices[:, None, None]
        lists[..., 1] = slots
        parts.append(lists.reshape(-1, d, 2))
    return np.concatenate(parts)


def _chains(net: PlacedNet, count: _Counted) -> np.ndarray:
    vertex, slot = np.nonzero(net.target >= 0)
    chains = np.stack([vertex, slot], axis=-1)[:, None, :]
    degree = (net.target >= 0).sum(axis=1)
    for _ in range(net.dimension - 1):
        end = net.target[chains[:, -1, 0], chains[:, -1, 1]]
        count.check(int(degree[end].sum()))
        repeat = np.repeat(np.arange(len(chains)), degree[end])
        following = np.concatenate([np.arange(k) for k in degree[end].tolist()])
        link = np.stack([end[repeat], following], axis=-1)
        chains = np.concatenate([chains[repeat], link[:, None]], axis=1)
    return chains


def _any_edges(net: PlacedNet, count: _Counted) -> np.ndarray:
    edges = np.stack(np.nonzero(net.target >= 0), axis=-1)
    number = 1
    for k in range(net.dimension):
        number *= max(len(edges) - k, 0)
    count.check(number)
    return edges[np.array(list(permutations(range(len(edges)), net.dimension)), dtype=np.int64)]


def _basis(vectors: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Edge vectors of frames (f, 3, 3), completed by unit vectors in the padding dimensions."""
    basis = vectors[edges[..., 0], edges[..., 1]]
    d = edges.shape[1]
    rest = np.eye(3, dtype=basis.dtype)[d:]
    return np.concatenate([basis, np.broadcast_to(rest, (len(basis), 3 - d, 3))], axis=1)


def _exact_basis(net: PlacedNet, edges: np.ndarray) -> np.ndarray:
    """Edge vectors of one frame in Python integers (3, 3)."""
    return _basis(net.exact, edges[None])[0]


def _independent(net: PlacedNet, lists: np.ndarray) -> Frames:
    """Keep the edge lists with independent vectors and prepare their linear forms."""
    kept, linear, margins = [], [], []
    for part in _blocks(lists):
        basis = _basis(net.fast, part)
        inverse = adjugates(basis)
        volume = (basis[:, 0] * inverse[:, :, 0]).sum(axis=-1)
        margin = np.zeros(len(part))
        sign = np.sign(volume)
        if not net.is_integer:
            size = np.abs(basis).max(axis=(1, 2))
            margin = _ROUNDING * size**2
            for f in np.flatnonzero(np.abs(volume) <= margin * size).tolist():
                exact = determinant(_exact_basis(net, part[f]))
                sign[f] = (exact > 0) - (exact < 0)
        good = sign != 0
        kept.append(part[good])
        linear.append(inverse[good] * sign[good, None, None])
        margins.append(margin[good])
    return Frames(net, np.concatenate(kept), np.concatenate(linear), np.concatenate(margins))


def _blocks(lists: np.ndarray, size: int = 100_000) -> Iterator[np.ndarray]:
    """Pieces of bounded size, at least one."""
    for first in range(0, max(len(lists), 1), size):
        yield lists[first : first + size]
