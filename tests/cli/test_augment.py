from __future__ import annotations

import csv
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write
from pymatgen.analysis.structure_matcher import StructureMatcher

from asexlatent.cli.augment import main
from asexlatent.symmetry import SymmetricCrystal, read_table

GRAPHITE = SymmetricCrystal.build(194, [2.46, 6.7], [("C", "2b", []), ("C", "2c", [])])
K4 = SymmetricCrystal.build(214, [4.1], [("C", "8a", [])])


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("in.extxyz", [GRAPHITE.to_atoms(), bulk("Si"), K4.to_atoms()])


def augment(*words: object) -> int:
    return main([*map(str, words), "-q"])


def rows_of(name: str) -> list[SymmetricCrystal]:
    return [row.crystal(row.extra["species"].split()) for row in read_table(name)]


def test_rows_are_the_parents():
    assert augment("in.extxyz", "-o", "a.csv", "--max-index", 4, "--workers", 1) == 0
    made = rows_of("a.csv")
    parents = {"in.extxyz@0": GRAPHITE, "in.extxyz@2": K4}
    assert [c.info["asx_subgroup"] for c in made].count(194) == 1
    assert len(made) > 30
    names = [c.info["asx_parent"] for c in made]
    assert names == sorted(names)  # in the order of the input
    assert set(names) == {"in.extxyz@0", "in.extxyz@1", "in.extxyz@2"}
    assert {s for c in made if c.info["asx_parent"] == "in.extxyz@1" for s in c.symbols} == {"Si"}
    matcher = StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.1, scale=False)
    for crystal in made[::4]:
        parent = parents.get(crystal.info["asx_parent"])
        if parent is not None:
            assert matcher.fit(parent.to_structure(), crystal.to_structure())


def test_processes_change_nothing():
    words = ["in.extxyz", "--max-index", 3, "--descriptions", 2, "--seed", 4]
    assert augment(*words, "--workers", 1, "-o", "a.csv") == 0
    assert augment(*words, "--workers", 2, "-o", "b.csv") == 0
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()
    assert augment(*words[:3], "--workers", 1, "-o", "c.csv") == 0
    assert len(rows_of("c.csv")) < len(rows_of("a.csv"))


def test_tables_keep_their_columns():
    with open("in.csv", "w", newline="") as handle:
        table = csv.DictWriter(handle, [*GRAPHITE.to_row(), "net", "asx_parent"])
        table.writeheader()
        table.writerow(GRAPHITE.to_row() | {"net": "hcb", "asx_parent": "older"})
    assert augment("in.csv", "-o", "a.csv.gz", "--max-index", 2, "--kinds", "t") == 0
    made = rows_of("a.csv.gz")
    assert {c.info["net"] for c in made} == {"hcb"}
    assert {c.info["asx_parent"] for c in made} == {"in.csv@0"}
    assert all(" k" not in str(c.info["asx_subgroup"]) for c in made)
    assert augment("a.csv.gz", "-o", "b.csv", "--max-index", 1) == 0  # and can be read again
    assert len(rows_of("b.csv")) == len(made)


def test_limits_are_reported(capsys):
    words = "in.extxyz -o a.csv --max-index 4 --max-sites 2 --max-atoms 12 --workers 1"
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    assert "3 crystals," in out
    assert "subgroups left out: more sites than allowed" in out
    assert "subgroups left out: more atoms than allowed" in out
    assert all(c.n_sites <= 2 and c.n_atoms <= 12 for c in rows_of("a.csv"))


def test_what_cannot_be_read_is_named(capsys):
    Path("broken.extxyz").write_text("2\nnonsense\nC 0 0 0\n")
    words = "in.extxyz broken.extxyz missing.cif -o a.csv --max-index 1 --workers 1"
    assert main(words.split()) == 0
    captured = capsys.readouterr()
    assert "broken.extxyz" in captured.err
    assert "missing.cif" in captured.err
    assert "3 crystals, 3 rows: a.csv" in captured.out
    assert "2 inputs could not be read" in captured.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("in.extxyz", 2, "required"),
        ("-o a.csv", 2, "required"),
        ("in.extxyz -o a.extxyz", 2, "must end in"),
        ("in.extxyz -o taken.csv", 2, "exists"),
        ("in.extxyz -o a.csv --max-sites 9", 2, "1 to 8"),
        ("taken.csv -o taken.csv --overwrite", 2, "would be overwritten"),
        ("missing.cif -o a.csv", 1, "no crystal could be read"),
    ],
)
def test_wrong_usage(words, code, message, capsys):
    Path("taken.csv").write_text("mine")
    assert main(words.split()) == code
    assert message in capsys.readouterr().err
    assert Path("taken.csv").read_text() == "mine"
