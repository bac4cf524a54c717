from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path

import pytest
from ase.io import read, write
from ase.neighborlist import neighbor_list

from asexlatent.cli.generate import main
from asexlatent.cli.options import neighbors, numbers
from asexlatent.symmetry import RandomCrystals, SymmetricCrystal, read_table


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def generate(*words: object) -> int:
    return main([*map(str, words), "-q"])


def crystals_of(name: str) -> list[SymmetricCrystal]:
    made = []
    for row in read_table(name):
        made.append(row.crystal(row.extra["species"].split()))
    return made


def test_random_carbon_for_sp2():
    assert generate("--random", "-n", 25, "--seed", 3, "-o", "a.csv") == 0
    made = crystals_of("a.csv")
    assert len(made) == 25
    source = RandomCrystals("C", neighbors=3, seed=3, volume=(0.68 * 8.7789, 1.36 * 8.7789))
    for index, (crystal, expected) in enumerate(zip(made, source.crystals(25), strict=True)):
        assert crystal.wyckoffs == expected.wyckoffs
        assert crystal.info["asx_generated"] == f"random:3:{index}"
        assert crystal.n_atoms <= 200


def test_the_same_again_and_more_of_it():
    generate("--random", "-n", 6, "-o", "a.csv")
    generate("--random", "-n", 6, "-o", "b.csv")
    generate("--random", "-n", 9, "-o", "c.csv")
    few = Path("a.csv").read_text()
    assert few == Path("b.csv").read_text()
    assert Path("c.csv").read_text().startswith(few)


def test_compound_compressed():
    words = ["--random", "-n", "20", "--target", "SiO4", "--max-atoms", "60", "-o", "a.csv.gz"]
    assert generate(*words) == 0
    with gzip.open("a.csv.gz", "rt") as handle:
        assert len(list(csv.DictReader(handle))) == 20
    for crystal in crystals_of("a.csv.gz"):
        counts = Counter(crystal.symbols)
        assert counts["O"] == 2 * counts["Si"] > 0
        assert 0.67 < crystal.volume / crystal.n_atoms / 12.6 < 1.4


def test_frames():
    words = "--random -n 8 --composition TiO2 --neighbors Ti=6,O=3 --space-group 136,141 "
    words += "--formula-units 2-4 --min-distance 1.4 --volume 8 14 -o a.extxyz"
    assert generate(*words.split()) == 0
    frames = read("a.extxyz", ":")
    assert len(frames) == 8
    for atoms in frames:
        assert atoms.info["space_group_number"] in (136, 141)
        counts = Counter(atoms.get_chemical_symbols())
        assert counts["O"] == 2 * counts["Ti"]
        assert counts["Ti"] in (2, 3, 4)
        assert 8 <= atoms.get_volume() / len(atoms) <= 14
        assert not len(neighbor_list("i", atoms, 1.4))


def test_more_than_a_row_holds_goes_to_frames():
    words = ["--random", "-n", 20, "--max-sites", 12, "--space-group", 2]
    assert generate(*words, "-o", "a.csv") == 2
    assert generate(*words, "-o", "a.extxyz") == 0
    assert max(len(a.info["wyckoffs"].split()) for a in read("a.extxyz", ":")) > 8


@pytest.mark.parametrize("kind", ["txt", "csv", "extxyz"])
def test_conditions(kind):
    wanted = [(166, ["6c", "18h"]), (227, ["96g"])]
    if kind == "txt":
        Path("in.txt").write_text("# two of them\n166: C 6c, C 18h\n\n227 96g  # large\n")
    else:
        source = RandomCrystals(min_distance=0.5, seed=8)
        sites = {
            166: [("C", "6c", [0.11]), ("C", "18h", [0.21, 0.37])],
            227: [("C", "96g", [0.06, 0.31])],
        }
        cells = {166: [6.1, 9.7], 227: [11.3]}
        start = [SymmetricCrystal.build(g, cells[g], sites[g]) for g, _ in wanted]
        assert source.redrawn(start[0], 0).wyckoffs == wanted[0][1]
        if kind == "csv":
            with open("in.csv", "w", newline="") as handle:
                table = csv.DictWriter(handle, start[0].to_row())
                table.writeheader()
                table.writerows(c.to_row() for c in start)
        else:
            write("in.extxyz", [c.to_atoms() for c in start])
    assert generate("--random", "-n", 5, "--conditions", f"in.{kind}", "-o", "a.csv") == 0
    made = [(c.space_group, sorted(c.wyckoffs)) for c in crystals_of("a.csv")]
    expected = [(g, sorted(w)) for g, w in wanted]
    if kind == "extxyz":  # detected: the letters of an equivalent description
        expected = [(g, len(w)) for g, w in expected]
        made = [(g, len(w)) for g, w in made]
    assert made == [expected[k % 2] for k in range(5)]


def test_rows_that_are_no_conditions_are_counted(capsys):
    crystal = SymmetricCrystal.build(227, [11.3], [("C", "96g", [0.06, 0.31])])
    good, bad = crystal.to_row(), crystal.to_row() | {"wp0": 99}
    for name, rows in (("some.csv", [bad, good, bad]), ("none.csv", [bad])):
        with open(name, "w", newline="") as handle:
            table = csv.DictWriter(handle, good)
            table.writeheader()
            table.writerows(rows)
    assert generate("--random", "-n", 3, "--conditions", "some.csv", "-o", "a.csv") == 0
    assert "2 of some.csv are no conditions, such as some.csv@0" in capsys.readouterr().err
    assert [c.space_group for c in crystals_of("a.csv")] == [227] * 3
    assert generate("--random", "-n", 3, "--conditions", "none.csv", "-o", "b.csv") == 2
    assert "Wyckoff index 99" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max-atoms 5", "--random only"),
        ("--random --model x", "not allowed with"),
        ("--random --conditions a.txt --space-group 5", "not allowed with"),
        ("--random --conditions missing.txt", "missing.txt"),
        ("--random --conditions bad.txt", "line 2"),
        ("--random --conditions empty.txt", "no condition"),
        ("--random --conditions bad.txt --composition C", "say this already"),
        ("--random --composition Qq", "no formula"),
        ("--random --composition SiO2 --formula-units 1 --space-group 227", "relax one of these"),
        ("--random --space-group 0", "1 to 230"),
        ("--random --space-group 9-5", "empty range"),
        ("--random --neighbors Si=x", "write 3"),
        ("--random --neighbors Si=4", "not in C"),
        ("--random --target nonsense", "nonsense"),
        ("--random -n 0", "at least 1"),
        ("--random -o a.cif", "must end in"),
        ("--random -o taken.csv", "exists"),
        ("--random -o none/a.csv", "no folder"),
        ("--random --volume 5 2", "no range"),
        ("--model none", "none"),
    ],
)
def test_wrong_usage(words, message, capsys):
    Path("bad.txt").write_text("166 6c\n166 9q\n")
    Path("empty.txt").write_text("# nothing\n")
    Path("taken.csv").write_text("mine")
    assert main(words.split()) == 2
    assert message in capsys.readouterr().err
    assert Path("taken.csv").read_text() == "mine"
    assert sorted(p.name for p in Path().iterdir()) == ["bad.txt", "empty.txt", "taken.csv"]


def test_overwrite_and_report(capsys):
    Path("a.csv").write_text("old")
    assert main(["--random", "-n", "3", "-o", "a.csv", "--overwrite"]) == 0
    assert capsys.readouterr().out == "3 candidates: a.csv\n"
    assert len(crystals_of("a.csv")) == 3


def test_what_cannot_be_made_is_said(capsys):
    Path("c.txt").write_text("1 1a\n225 192l\n")
    words = "--random -n 4 --conditions c.txt --min-distance 1.2 --volume 4 5 -o a.csv"
    assert main(words.split()) == 0
    captured = capsys.readouterr()
    assert "2 candidates left out: no crystal with 192l in space group 225" in captured.err
    assert captured.out == "2 candidates: a.csv\n"


def test_help_is_quick_and_complete(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--random", "--model", "--conditions", "--space-group", "--composition", "--seed"):
        assert word in text


def test_readers_of_values():
    assert numbers(1, 230)("166,194") == (166, 194)
    assert numbers(1)("2-4,3,7") == (2, 3, 4, 7)
    assert neighbors("3") == 3
    assert neighbors("Ti=6,O=3,O=2") == {"Ti": (6,), "O": (3, 2)}
