"""Nets: the exact identity of a bonded crystal.

Needs numpy, ase and spglib, and nothing of the other rooms.
"""

from asexlatent.topology.bonds import BondedGraph, BondGap, bonded_graph
from asexlatent.topology.components import Component, connected_components
from asexlatent.topology.graph import PeriodicGraph
from asexlatent.topology.identify import (
    NetComponent,
    NetIdentity,
    identify_graph,
    identify_net,
)
from asexlatent.topology.keys import NetKey, net_key
from asexlatent.topology.names import NetArchive, net_name
from asexlatent.topology.sequences import coordination_sequences

__all__ = [
    "BondGap",
    "BondedGraph",
    "Component",
    "NetArchive",
    "NetComponent",
    "NetIdentity",
    "NetKey",
    "PeriodicGraph",
    "bonded_graph",
    "connected_components",
    "coordination_sequences",
    "identify_graph",
    "identify_net",
    "net_key",
    "net_name",
]
