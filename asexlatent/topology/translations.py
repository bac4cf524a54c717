"""All translations of a net, and the net reduced by them (its minimal image).

A translation of the placed net is an automorphism that keeps the vector along every edge. In a
locally stable net the edges at a vertex all have different vectors, so the image of one vertex
fixes the image of every other one, and a candidate is confirmed or refuted by one walk over the
edges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from math import lcm

import numpy as np

from asexlatent.topology.graph import PeriodicGraph
from asexlatent.topology.integers import Row, echelon_basis

Star = dict[Hashable, tuple[int, tuple[int, ...]]]


class UnstableNet(ValueError):
    """The placement of the net does not tell its vertices apart; the message says how."""


@dataclass(frozen=True)
class Translation:
    """An automorphism that keeps every edge vector.

    Vertex ``v`` of cell 0 goes to vertex ``image[v]`` of cell ``offset[v]``; repeated ``order``
    times it is the lattice translation ``total``.
    """

    image: list[int]
    offset: list[tuple[int, ...]]
    order: int
    total: tuple[int, ...]


def labelled_stars(graph: PeriodicGraph, vectors: np.ndarray) -> list[Star]:
    """Directed edges at each vertex by the vector along them.

    Parameters
    ----------
    graph : PeriodicGraph
    vectors : (n, k, d) object array of int
        Vectors in the order of ``graph.half_edges``.

    Raises
    ------
    UnstableNet
        If two edges at one vertex have the same vector: the net is not locally stable.
    """
    stars: list[Star] = []
    for ends, labels in zip(graph.half_edges.lists, vectors.tolist(), strict=True):
        star = {tuple(x): end for x, end in zip(labels[: len(ends)], ends, strict=True)}
        if len(star) < len(ends):
            raise UnstableNet("two neighbours of a vertex collide in the barycentric placement")
        stars.append(star)
    return stars


def minimal_image(graph: PeriodicGraph, stars: list[Star]) -> PeriodicGraph:
    """Quotient of a locally stable net by all its translations.

    Parameters
    ----------
    graph : PeriodicGraph
        Connected.
    stars : list of dict
        From :func:`labelled_stars`.

    Returns
    -------
    PeriodicGraph
        The same net in its largest translation lattice; ``graph`` itself if that is its own.

    Raises
    ------
    UnstableNet
        If a translation of finite order exists (a ladder): the lattice is then not unique.
    """
    found = translations(graph, stars)
    return _quotient(graph, found) if found else graph


def translations(graph: PeriodicGraph, stars: list[Star]) -> list[Translation]:
    """Translations beyond the lattice of the graph, one per vertex that vertex ``start`` can reach.

    Only vertices whose surroundings look the same are tried, from the rarest kind of vertex; images
    already reached by combining earlier finds are not tried again, they are composed.
    """
    kinds = _kinds(stars)
    counts = Counter(kinds)
    if counts and min(counts.values()) == 1:
        return []
    start = min(range(graph.n_vertices), key=lambda v: (counts[kinds[v]], v))
    found: dict[int, Translation] = {}
    for w in range(graph.n_vertices):
        if w == start or w in found or kinds[w] != kinds[start]:
            continue
        generator = _walk(graph, stars, start, w)
        if generator is not None:
            _compose(found, generator, start)
    return list(found.values())


def _kinds(stars: list[Star]) -> list[int]:
    """Integer per vertex, equal for vertices that a translation may exchange (three rounds)."""
    kinds = [0] * len(stars)
    for _ in range(3):
        names: dict[Hashable, int] = {}
        signatures = [
            frozenset((label, kinds[end[0]]) for label, end in star.items()) for star in stars
        ]
        kinds = [names.setdefault(s, len(names)) for s in signatures]
    return kinds


def _walk(graph: PeriodicGraph, stars: list[Star], start: int, goal: int) -> Translation | None:
    """The translation that takes ``start`` to ``goal``, or None if there is none."""
    n, d = graph.n_vertices, graph.dimension
    image = [-1] * n
    offset: list[tuple[int, ...]] = [(0,) * d] * n
    image[start] = goal
    queue = [start]
    for v in queue:
        there = stars[image[v]]
        if len(there) != len(stars[v]):
            return None
        for label, (w, shift) in stars[v].items():
            end = there.get(label)
            if end is None:
                return None
            moved = tuple(a + b - c for a, b, c in zip(offset[v], end[1], shift, strict=True))
            if image[w] < 0:
                image[w] = end[0]
                offset[w] = moved
                queue.append(w)
            elif image[w] != end[0] or offset[w] != moved:
                return None
    return _close(image, offset, start)


def _close(image: list[int], offset: list[tuple[int, ...]], start: int) -> Translation:
    """Complete a translation by its order: how often until ``start`` is itself again, and where."""
    total = list(offset[start])
    v, order = image[start], 1
    while v != start:
        total = [a + b for a, b in zip(total, offset[v], strict=True)]
        v, order = image[v], order + 1
    if order > 1 and not any(x % order for x in total):
        raise UnstableNet("the net has a translation of finite order (a ladder)")
    return Translation(image, offset, order, tuple(total))


def _compose(found: dict[int, Translation], generator: Translation, start: int) -> None:
    """Add a translation and its products with those found before (they commute), by image."""
    subgroup = list(found.values())
    power = generator
    while power.image[start] != start and power.image[start] not in found:
        found[power.image[start]] = power
        for other in subgroup:
            product = _product(other, power, start)
            found[product.image[start]] = product
        power = _product(generator, power, start)


def _product(second: Translation, first: Translation, start: int) -> Translation:
    """The translation ``first``, then ``second``."""
    image = [second.image[v] for v in first.image]
    offset = [
        tuple(a + b for a, b in zip(o, second.offset[v], strict=True))
        for v, o in zip(first.image, first.offset, strict=True)
    ]
    return _close(image, offset, start)


def _quotient(graph: PeriodicGraph, found: list[Translation]) -> PeriodicGraph:
    """Write the graph in the lattice that its own lattice and the translations span."""
    n, d = graph.n_vertices, graph.dimension
    # All vectors in units of 1/unit of the old lattice.
    unit = lcm(*(t.order for t in found))
    steps = [[x * unit // t.order for x in t.total] for t in found]
    lattice = echelon_basis([*steps, *(np.eye(d, dtype=int) * unit).tolist()])
    representative = [-1] * n
    position: list[Row] = [[0] * d for _ in range(n)]
    names: list[int] = []
    for v in range(n):
        if representative[v] >= 0:
            continue
        representative[v] = len(names)
        names.append(v)
        for translation, step in zip(found, steps, strict=True):
            w, o = translation.image[v], translation.offset[v]
            representative[w] = representative[v]
            position[w] = [s - unit * x for s, x in zip(step, o, strict=True)]
    edges, shifts = [], []
    for (v, w), shift in zip(graph.edges.tolist(), graph.shifts.tolist(), strict=True):
        edges.append((representative[v], representative[w]))
        vector = [b + unit * s - a for a, b, s in zip(position[v], position[w], shift, strict=True)]
        shifts.append(_echelon_coordinates(vector, lattice))
    return PeriodicGraph.build(len(names), np.array(edges), np.array(shifts))


def _echelon_coordinates(vector: Row, basis: list[Row]) -> Row:
    """Coordinates of a lattice vector in a full-rank echelon (upper triangular) basis."""
    result = []
    for k, row in enumerate(basis):
        q, rest = divmod(vector[k], row[k])
        if rest:
            raise ArithmeticError("an edge of the net does not fit its translation lattice")
        vector = [x - q * y for x, y in zip(vector, row, strict=True)]
        result.append(q)
    return result
