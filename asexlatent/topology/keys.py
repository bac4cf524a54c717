"""The key of one connected net: exact where the theory gives one, marked where it does not."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from asexlatent.topology.canonical import MAX_WORK, NumbersTooLarge, canonical_graph
from asexlatent.topology.finite import TooManyNumberings, canonical_molecule
from asexlatent.topology.frames import TooManyFrames
from asexlatent.topology.graph import PeriodicGraph
from asexlatent.topology.placement import PlacementError, barycentric_placement
from asexlatent.topology.sequences import sequence_key
from asexlatent.topology.translations import UnstableNet, labelled_stars, minimal_image

#: Largest number of vertices that are placed exactly; the cost grows with its third power.
MAX_VERTICES = 2000


@dataclass(frozen=True, eq=False)
class NetKey:
    """Identity of a connected net.

    Attributes
    ----------
    text : str
        The key.
    exact : bool
        True: two nets are the same exactly when their keys are. False: different keys are different
        nets, equal keys are probably the same net.
    reason : str or None
        Why the key is not exact.
    graph : PeriodicGraph
        The canonical form; where there is none, the graph as given.
    """

    text: str
    exact: bool
    reason: str | None
    graph: PeriodicGraph

    @property
    def short(self) -> str:
        """Dimension and ten hexadecimal digits of a hash of the key; ``~`` in front if inexact."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:10]
        return f"{'' if self.exact else '~'}{self.graph.dimension}-{digest}"


def net_key(
    graph: PeriodicGraph, max_vertices: int = MAX_VERTICES, max_work: int = MAX_WORK
) -> NetKey:
    """Key of a connected periodic graph written in its cycle lattice.

    Parameters
    ----------
    graph : PeriodicGraph
        As :func:`~asexlatent.topology.components.connected_components` returns them.
    max_vertices, max_work : int
        Above these the key is not computed exactly; ``reason`` says so.

    Returns
    -------
    NetKey
    """
    try:
        canonical = _canonical(graph, max_vertices, max_work)
    except (
        UnstableNet,
        TooManyFrames,
        TooManyNumberings,
        PlacementError,
        NumbersTooLarge,
        _TooManyVertices,
    ) as error:
        return NetKey(sequence_key(graph), False, str(error), graph)
    return NetKey(canonical.text, True, None, canonical)


class _TooManyVertices(RuntimeError):
    pass


def _canonical(graph: PeriodicGraph, max_vertices: int, max_work: int) -> PeriodicGraph:
    if graph.dimension == 0:
        return canonical_molecule(graph)
    if graph.n_vertices > max_vertices:
        raise _TooManyVertices(
            f"{graph.n_vertices} vertices in the translation cell, limit {max_vertices}"
        )
    placement = barycentric_placement(graph)
    minimal = minimal_image(graph, labelled_stars(graph, placement.vectors))
    if minimal is not graph:
        placement = barycentric_placement(minimal)
    return canonical_graph(minimal, placement, max_work)
