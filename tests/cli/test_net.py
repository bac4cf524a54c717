"""The command asexlatent-net."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, nanotube
from ase.io import write

from asexlatent.cli.net import main


@pytest.fixture
def crystals(tmp_path):
    layer = graphene("C2", a=2.46, vacuum=5)
    layer.pbc = True
    frames = [bulk("C", "diamond", 3.567), layer, bulk("C", "sc", a=1.5)]
    path = tmp_path / "crystals.extxyz"
    write(path, frames)
    return path


def table(capsys):
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_one_line_per_net(crystals, capsys):
    assert main([str(crystals)]) == 0
    assert table(capsys) == [
        [f"{crystals}@0", "3", "1", "dia"],
        [f"{crystals}@1", "2", "1", "hcb"],
        [f"{crystals}@2", "3", "1", "pcu"],
    ]


@pytest.mark.parametrize(
    ("index", "frames"), [(":2", [0, 1]), ("1", [1]), ("::2", [0, 2]), ("-1", [-1]), ("1:", [1, 2])]
)
def test_index_of_ase(crystals, capsys, index, frames):
    assert main([f"{crystals}@{index}"]) == 0
    assert [row[0] for row in table(capsys)] == [f"{crystals}@{k}" for k in frames]


def test_json(crystals, capsys):
    assert main(["--json", str(crystals)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in rows] == ["dia", "hcb", "pcu"]
    first = rows[0]
    assert first["frame"] == 0
    assert first["dimension"] == 3
    assert first["exact"]
    assert first["components"][0]["key"] == "3 1 2 0 0 0 1 2 0 0 1 1 2 0 1 0 1 2 1 0 0"
    assert first["components"][0]["multiplicity"] == 1
    assert first["gap"]["longest_bond"] == pytest.approx(1.5445, abs=1e-3)
    assert not first["gap"]["narrow"]


def test_keys(crystals, capsys):
    assert main(["--keys", f"{crystals}@1"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "\t2 1 2 0 0 1 2 0 1 1 2 1 0"


def test_cutoff(crystals, capsys):
    assert main(["--cutoff", "1.52", f"{crystals}@0"]) == 0
    assert table(capsys)[0][1:] == ["0", "2", "atom"]
    assert main(["--cutoff", "C-C=1.6", f"{crystals}@0"]) == 0
    assert table(capsys)[0][1:] == ["3", "1", "dia"]


def test_remarks(tmp_path, capsys):
    tube = nanotube(5, 0, length=1, bond=1.42)
    tube.center(vacuum=5, axis=(0, 1))
    close = Atoms("C3", positions=[[0, 0, 0], [1.8, 0, 0], [3.7, 0, 0]], cell=[20] * 3)
    path = tmp_path / "odd.extxyz"
    write(path, [tube, close])
    assert main([str(path)]) == 0
    lines = table(capsys)
    assert lines[0][3] == "nanotube (5,0)"
    assert lines[0][4].startswith("inexact: ")
    assert lines[1][4].startswith("narrow gap: C-C bonds up to 1.800 Å, next distance 0.100 Å")


def test_a_bad_frame_does_not_cost_the_others(tmp_path, capsys):
    bad = Atoms("C", positions=[[np.nan, 0, 0]], cell=[3, 3, 3], pbc=True)
    path = tmp_path / "some.extxyz"
    write(path, [bulk("C", "diamond", 3.567), bad, bulk("C", "sc", a=1.5)])
    missing = tmp_path / "missing.cif"
    assert main([str(missing), str(path)]) == 0
    printed = capsys.readouterr()
    assert [line.split("\t")[0] for line in printed.out.splitlines()] == [f"{path}@0", f"{path}@2"]
    errors = printed.err.splitlines()
    assert errors[0].startswith(f"{missing}@0: cannot be read: ")
    assert errors[1] == f"{path}@1: positions or cell contain values that are no numbers"


def test_errors_in_json(tmp_path, capsys):
    assert main(["--json", str(tmp_path / "missing.cif")]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert "cannot be read" in row["error"]


def test_nothing_identified(tmp_path, capsys):
    empty = tmp_path / "empty.xyz"
    empty.write_text("")
    assert main([str(empty)]) == 1
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--cutoff", "long", "x.cif"],
        ["--cutoff", "-1", "x.cif"],
        ["--cutoff", "1.8", "--cutoff", "C-H=1.2", "x.cif"],
        ["--archive", "/no/such/file.arc", "x.cif"],
        ["--backend", "other", "x.cif"],
    ],
)
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_backend_that_is_not_installed(crystals, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "juliacall", None)
    with pytest.raises(SystemExit) as stop:
        main(["--backend", "crystalnets", str(crystals)])
    assert stop.value.code == 2
    assert "pip install juliacall" in capsys.readouterr().err


def test_archive(crystals, tmp_path, capsys):
    archive = tmp_path / "my.arc"
    archive.write_text("key 2 1 2 0 0 1 2 0 1 1 2 1 0\nid honeycomb\nend\n")
    assert main(["--archive", str(archive), f"{crystals}@1"]) == 0
    assert table(capsys)[0][3] == "honeycomb"


def test_as_a_process(crystals):
    command = [sys.executable, "-m", "asexlatent.cli.net", str(crystals)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 3
