"""Whatever is wrong with the input: one clear line, everything else done, the right exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from bad_input_corpus import CASES, Case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asexlatent.cli.inputs import read_inputs
from asexlatent.cli.refine import main
from asexlatent.cli.settings import Settings
from asexlatent.optimize import refine
from asexlatent.symmetry import TABLE_COLUMNS

FEW = ["--steps", "2", "--restarts", "0", "--workers", "1", "-v"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refine(case: Case, capfd):
    words = case.build()
    output = [] if "-o" in words else ["-o", "out"]
    assert main([*words, *FEW, *output]) == case.code
    said = capfd.readouterr().err
    log = Path("out/log").read_text() if Path("out/log").exists() else ""
    assert re.search(case.says, said + log), said
    assert "Traceback" not in said
    assert not Path("trapped").exists()
    if case.code == 2:
        assert not Path("out").exists()
        assert len(said.splitlines()) == 1
        return
    frames = read("out/refined.extxyz", ":") if case.good + case.failed else []
    statuses = [frame.info["asx_status"] for frame in frames]
    assert statuses.count("failed") == case.failed, statuses
    assert len(statuses) - statuses.count("failed") == case.good
    counts = json.loads(Path("out/summary.json").read_text())["counts"]
    assert counts["failed"] == case.failed
    for frame in frames:
        if frame.info["asx_status"] == "failed":
            assert frame.info["asx_reason"]


# -- anything at all -------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.sampled_from(
        ["", "nan", "inf", "-inf", "1e400", "0", "-1", "1e-300", "x", "0x1", "½", " 2 "]
    ),
    st.integers(-5, 300).map(str),
    st.floats(width=32).map(str),
)
QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(st.lists(st.lists(NUMBERS, min_size=39, max_size=39), min_size=1, max_size=3))
def test_any_row_is_a_crystal_or_a_failed_candidate(rows):
    text = [",".join(TABLE_COLUMNS), *(",".join(values) for values in rows)]
    Path("any.csv").write_text("\n".join(text) + "\n")
    problems: list[str] = []
    found = list(read_inputs(Settings(inputs=("any.csv",)), ["C"], problems.append))
    assert len(found) == len(rows)
    assert not problems
    results = refine([entry.candidate for entry in found], steps=1)
    assert len(results) == len(rows)
    for result in results:
        assert str(result.status) != "failed" or result.reason


COORDINATES = st.one_of(
    st.floats(-10, 10), st.sampled_from([np.nan, np.inf, 0.0, 1e-9, 1e9, -1e300, 5e-324])
)


@QUICK
@given(
    st.lists(st.tuples(COORDINATES, COORDINATES, COORDINATES), min_size=0, max_size=5),
    st.lists(COORDINATES, min_size=9, max_size=9),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.integers(0, 118),
)
def test_any_atoms_come_out_in_their_place(positions, cell, pbc, number):
    atoms = Atoms([number] * len(positions), positions, cell=np.reshape(cell, (3, 3)), pbc=pbc)
    same = Atoms("C" * len(positions), positions, cell=np.reshape(cell, (3, 3)), pbc=True)
    results = refine([atoms, same], steps=1)
    assert [result.source for result in results] == [atoms, same]
    for result in results:
        assert str(result.status) != "failed" or result.reason


@QUICK
@given(st.binary(max_size=300), st.sampled_from(["traj", "extxyz", "cif", "db", "csv", "csv.gz"]))
def test_any_bytes_are_said_to_be_unreadable(data, kind):
    path = Path(f"any.{kind}")
    path.write_bytes(data)
    problems: list[str] = []
    found = list(read_inputs(Settings(inputs=(str(path),)), ["C"], problems.append))
    assert found or problems
    assert not any("\n" in line for line in problems)
    results = refine([entry.candidate for entry in found], steps=0)
    assert all(result.reason for result in results if str(result.status) == "failed")
