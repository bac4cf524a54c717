"""Names: the shipped table, Systre archives, and CrystalNets through a stand-in."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from nets_for_tests import diamond, graphene_layer, scrambled, srs, systre_keys

from asexlatent.topology import NetArchive, PeriodicGraph, identify_net, net_key, net_name
from asexlatent.topology.crystalnets import CrystalNetsMissing
from asexlatent.topology.names import ARCHIVE_VARIABLE, named_table, open_archive, shipped_names

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_net_names.py"


def write_archive(path: Path, nets: dict[str, str]) -> Path:
    blocks = [
        f"key      {key}\nversion  1.0\nid       {name}\nchecksum 0\nref      \ndesc     \nend\n"
        for name, key in nets.items()
    ]
    path.write_text("\n".join(blocks))
    return path


def test_table_is_sound():
    text = resources.files("asexlatent.topology").joinpath("names.json").read_text("utf-8")
    nets = json.loads(text)["nets"]
    assert {"dia", "lon", "hcb", "srs", "ths", "pcu", "sod", "bcu", "fcu", "nbo", "qtz", "sql"} <= {
        net["name"] for net in nets
    }
    assert {net["dimension"] for net in nets} == {0, 1, 2, 3}
    for net in nets:
        if net["exact"] and net["dimension"] and len(net["key"]) < 800:
            assert net_key(PeriodicGraph.from_key(net["key"])).text == net["key"], net["name"]


@pytest.mark.slow
def test_table_is_what_the_script_makes():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_names_for_one_net_are_refused():
    with pytest.raises(ValueError, match="a and b are the same net"):
        named_table([("a", "1 1 1 -1", 1, True, ""), ("b", "1 1 1 -1", 1, True, "")])


def test_names_from_an_archive(tmp_path):
    archive = write_archive(tmp_path / "my.arc", {"mine": systre_keys()["srs"]})
    assert identify_net(srs()).label == "srs"
    assert identify_net(srs(), archive=archive).label == "mine"
    assert identify_net(diamond(), archive=archive).label == "dia"  # falls back on the table


def test_archive_from_the_environment(tmp_path, monkeypatch):
    archive = write_archive(tmp_path / "my.arc", {"mine": systre_keys()["dia"]})
    monkeypatch.setenv(ARCHIVE_VARIABLE, str(archive))
    assert identify_net(diamond()).label == "mine"
    monkeypatch.setenv(ARCHIVE_VARIABLE, str(tmp_path / "gone.arc"))
    with pytest.raises(FileNotFoundError, match=r"no Systre archive at .*gone\.arc"):
        identify_net(diamond())


def test_archive_of_another_program(tmp_path):
    """Its keys are other texts for the same nets: they are computed again and compared."""
    rng = np.random.default_rng(0)
    other = {
        name: scrambled(PeriodicGraph.from_key(systre_keys()[name]), rng).text
        for name in ("srs", "hcb", "dia", "cds")
    }
    archive = NetArchive.read(write_archive(tmp_path / "other.arc", other))
    for name in other:
        assert archive.lookup(systre_keys()[name]) == name
    assert archive.lookup(systre_keys()["nbo"]) is None
    assert identify_net(graphene_layer(), archive=archive).label == "hcb"


def test_archives_that_are_none(tmp_path):
    empty = tmp_path / "empty.arc"
    empty.write_text("nothing\n")
    with pytest.raises(ValueError, match="no nets in"):
        open_archive(empty)


def test_no_name():
    assert net_name("3 1 1 -1 0 0") is None
    assert "cs10 3 1*1" not in shipped_names()


@pytest.fixture
def stand_in(monkeypatch):
    """A juliacall whose CrystalNets knows one net."""
    calls = []

    class Module:
        def seval(self, text):
            calls.append(text)
            if "->" in text:
                return lambda key: "dia" if key == systre_keys()["dia"] else f"UNKNOWN {key}"
            return None

    module = types.ModuleType("juliacall")
    module.newmodule = lambda name: Module()
    monkeypatch.setitem(sys.modules, "juliacall", module)
    return calls


def test_crystalnets_names(stand_in):
    assert identify_net(diamond(), backend="crystalnets").label == "dia"
    assert stand_in[0] == "using CrystalNets, PeriodicGraphs"
    unknown = identify_net(srs(), backend="crystalnets").components[0]
    assert unknown.name is None
    assert unknown.key == systre_keys()["srs"]  # the key is ours


def test_crystalnets_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "juliacall", None)
    with pytest.raises(CrystalNetsMissing, match="pip install juliacall"):
        identify_net(diamond(), backend="crystalnets")


def test_crystalnets_broken(monkeypatch):
    class Module:
        def seval(self, text):
            raise RuntimeError("Package CrystalNets not found")

    module = types.ModuleType("juliacall")
    module.newmodule = lambda name: Module()
    monkeypatch.setitem(sys.modules, "juliacall", module)
    with pytest.raises(CrystalNetsMissing, match="did not load: Package CrystalNets not found"):
        identify_net(diamond(), backend="crystalnets")
