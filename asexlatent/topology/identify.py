"""Which net a crystal is: its components, their dimension, key, name and number."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ase import Atoms

from asexlatent.topology.bonds import BondGap, Cutoff, bonded_graph
from asexlatent.topology.canonical import MAX_WORK
from asexlatent.topology.components import Component, connected_components
from asexlatent.topology.crystalnets import CrystalNets
from asexlatent.topology.graph import PeriodicGraph
from asexlatent.topology.keys import MAX_VERTICES, NetKey, net_key
from asexlatent.topology.names import NetArchive, net_name, open_archive

Backend = Literal["native", "crystalnets"]


@dataclass(frozen=True, eq=False)
class NetComponent:
    """A connected net that occurs in a crystal, once or several times.

    Attributes
    ----------
    dimension : int
        3 framework, 2 layer, 1 chain, 0 molecule: the rank of the cycle lattice.
    key : str
        The canonical key, in the text form of Systre 1.0 for dimensions 1 to 3 (molecules: the same
        form with dimension 0); if not ``exact``, a text made of coordination sequences.
    short_key : str
        Dimension and ten digits of a hash of the key, ``~`` in front if not exact.
    multiplicity : int
        How many disjoint copies there are: of a framework in the whole crystal (its
        interpenetration), of layers, chains and molecules in one primitive cell.
    exact : bool
        Whether equal keys prove equal nets.
    reason : str or None
        Why not.
    name : str or None
        Name of the net, if it is in the archive or the shipped table.
    coordination : dict of int to int
        Number of neighbours to how many vertices of the net's smallest cell have it.
    atoms : (n,) int array
        The user's atoms that belong to it, all copies together.
    graph : PeriodicGraph
        Canonical form of the net (the bonded graph where there is none).
    """

    dimension: int
    key: str
    short_key: str
    multiplicity: int
    exact: bool
    reason: str | None
    name: str | None
    coordination: dict[int, int]
    atoms: np.ndarray
    graph: PeriodicGraph

    @property
    def label(self) -> str:
        """The name, or the short key where there is none."""
        return self.name or self.short_key

    def to_dict(self) -> dict[str, Any]:
        """Everything but the graph, as JSON can hold it."""
        return {
            "dimension": self.dimension,
            "name": self.name,
            "short_key": self.short_key,
            "multiplicity": self.multiplicity,
            "exact": self.exact,
            "reason": self.reason,
            "coordination": {str(k): n for k, n in self.coordination.items()},
            "n_atoms": len(self.atoms),
            "key": self.key,
        }


@dataclass(frozen=True, eq=False)
class NetIdentity:
    """What :func:`identify_net` found.

    Attributes
    ----------
    components : tuple of NetComponent
        The different nets, those of highest dimension first.
    gap : BondGap or None
        How clearly bonds are told from other distances; None if the bonds were given.
    """

    components: tuple[NetComponent, ...]
    gap: BondGap | None

    @property
    def dimension(self) -> int:
        """Highest dimension of a component."""
        return self.components[0].dimension

    @property
    def exact(self) -> bool:
        """Whether every component is."""
        return all(c.exact for c in self.components)

    @property
    def key(self) -> str:
        """One text for the whole crystal: ``multiplicity * key`` of its nets, joined by ``+``.

        Of one single net it is the key of the net.
        """
        parts = [
            c.key if c.multiplicity == 1 else f"{c.multiplicity} * {c.key}" for c in self.components
        ]
        return " + ".join(parts)

    @property
    def label(self) -> str:
        """Short text for people: names or short keys with multiplicities."""
        parts = [
            c.label if c.multiplicity == 1 else f"{c.multiplicity} x {c.label}"
            for c in self.components
        ]
        return " + ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        gap = None
        if self.gap is not None:
            gap = {
                "pair": self.gap.pair,
                "cutoff": self.gap.cutoff,
                "longest_bond": self.gap.longest_bond,
                "shortest_nonbond": self.gap.shortest_nonbond,
                "width": self.gap.width,
                "narrow": self.gap.narrow,
            }
        return {
            "dimension": self.dimension,
            "label": self.label,
            "exact": self.exact,
            "components": [c.to_dict() for c in self.components],
            "gap": gap,
        }


def identify_net(
    atoms: Atoms,
    cutoff: Cutoff = None,
    *,
    archive: str | os.PathLike[str] | NetArchive | None = None,
    backend: Backend = "native",
    max_vertices: int = MAX_VERTICES,
    max_work: int = MAX_WORK,
) -> NetIdentity:
    """Identify the nets of a crystal.

    Species decide which atoms are bonded, not which net it is: the net of zinc blende is ``dia``.

    Parameters
    ----------
    atoms : Atoms
        Any cell, any number of atoms, wrapped or not.
    cutoff : float, mapping or None
        Longest bond in Å, one for all or by pair of species (``{"C-H": 1.3}``). Default: 1.85 for
        carbon with carbon, else 1.2 times the sum of the covalent radii.
    archive : path, NetArchive or None
        Systre archive for the names; default the path in ``ASEXLATENT_SYSTRE_ARCHIVE``, if set.
    backend : "native" or "crystalnets"
        ``"crystalnets"``: names are asked from CrystalNets.jl (needs Julia); keys stay ours.
    max_vertices, max_work : int
        Limits of the exact method; above them a component is identified by coordination sequences,
        with ``exact`` False and the ``reason``.

    Returns
    -------
    NetIdentity

    Raises
    ------
    ValueError
        For atoms or a cutoff that no bonds can be made of; the message says what is wrong.
    FileNotFoundError
        If the archive is not there.
    CrystalNetsMissing
        If that backend is asked for and not installed.

    Examples
    --------
    >>> from ase.build import bulk
    >>> net = identify_net(bulk("C", "diamond", 3.567))
    >>> net.label, net.dimension, net.components[0].multiplicity
    ('dia', 3, 1)
    """
    bonded = bonded_graph(atoms, cutoff)
    found = identify_graph(
        bonded.graph,
        archive=archive,
        backend=backend,
        max_vertices=max_vertices,
        max_work=max_work,
        atoms_of=bonded.vertex,
    )
    return NetIdentity(found, bonded.gap)


def identify_graph(
    graph: PeriodicGraph,
    *,
    archive: str | os.PathLike[str] | NetArchive | None = None,
    backend: Backend = "native",
    max_vertices: int = MAX_VERTICES,
    max_work: int = MAX_WORK,
    atoms_of: np.ndarray | None = None,
) -> tuple[NetComponent, ...]:
    """Identify the nets of a periodic graph whose bonds are known.

    Parameters
    ----------
    graph : PeriodicGraph
        In a primitive cell, where layers, chains and molecules are to be counted per primitive
        cell.
    archive, backend, max_vertices, max_work
        As in :func:`identify_net`.
    atoms_of : (n_atoms,) int array or None
        The vertex of each atom; default: vertices are atoms.

    Returns
    -------
    tuple of NetComponent, highest dimension first, then most copies, then by key.
    """
    if backend not in ("native", "crystalnets"):
        raise ValueError(f"no backend {backend!r}: 'native' or 'crystalnets'")
    opened = open_archive(archive)
    julia = CrystalNets() if backend == "crystalnets" else None
    atoms_of = np.arange(graph.n_vertices) if atoms_of is None else atoms_of
    groups: dict[str, list[tuple[Component, NetKey]]] = {}
    for part in connected_components(graph):
        key = net_key(part.graph, max_vertices, max_work)
        groups.setdefault(key.text, []).append((part, key))
    nets = [_component(members, atoms_of, opened, julia) for members in groups.values()]
    return tuple(sorted(nets, key=lambda c: (-c.dimension, -c.multiplicity, c.key)))


def _component(
    members: list[tuple[Component, NetKey]],
    atoms_of: np.ndarray,
    archive: NetArchive | None,
    julia: CrystalNets | None,
) -> NetComponent:
    """Put the copies of one net together."""
    key = members[0][1]
    vertices = np.concatenate([part.vertices for part, _ in members])
    name = net_name(key.text, archive)
    if julia is not None and key.graph.dimension:
        name = julia.name(key.graph)
    degrees = Counter(key.graph.half_edges.degree.tolist())
    return NetComponent(
        dimension=key.graph.dimension,
        key=key.text,
        short_key=key.short,
        multiplicity=sum(part.translates for part, _ in members),
        exact=key.exact,
        reason=key.reason,
        name=name,
        coordination=dict(sorted(degrees.items())),
        atoms=np.flatnonzero(np.isin(atoms_of, vertices)),
        graph=key.graph,
    )
