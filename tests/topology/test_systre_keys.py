"""The key is Systre's: published keys come out literally, however the net is written."""

from __future__ import annotations

import numpy as np
import pytest
from nets_for_tests import scrambled, systre_keys

from asexlatent.topology import PeriodicGraph, frames, net_key
from asexlatent.topology.names import shipped_names

PUBLISHED = systre_keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_key_is_reproduced(name):
    key = PUBLISHED[name]
    rng = np.random.default_rng(len(key))
    found = net_key(scrambled(PeriodicGraph.from_key(key), rng))
    assert found.exact
    assert found.text == key


@pytest.mark.parametrize("name", ["dia", "srs", "nbo", "cds", "hcb", "acs-f", "acs-g"])
def test_structures_of_the_table_have_the_published_keys(name):
    assert shipped_names()[PUBLISHED[name]] == name


def test_published_keys_are_different_nets():
    assert len(set(PUBLISHED.values())) == len(PUBLISHED)


@pytest.mark.parametrize("text", ["", "x", "3 1 2 0 0", "3 0 1 0 0 0", "-1", "2 1 2 0 0 1"])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(ValueError, match="not the key of a net"):
        PeriodicGraph.from_key(text)


def test_an_atom_bonded_to_itself_is_refused():
    with pytest.raises(ValueError, match="joined to itself"):
        PeriodicGraph.build(1, [(0, 0)], [(0, 0, 0)])


@pytest.mark.parametrize("name", PUBLISHED)
def test_large_numbers_take_the_other_road_to_the_same_key(name, monkeypatch):
    """Floating point with exact decisions in Python integers, as placements of large nets need."""
    monkeypatch.setattr(frames, "_INT64_SAFE", 1)
    key = PUBLISHED[name]
    graph = PeriodicGraph.from_key(key)
    if graph.half_edges.degree.max() > 8:
        pytest.skip("many frames, each decided in Python")
    assert net_key(graph).text == key
