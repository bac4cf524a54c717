from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import read, write

from asexlatent.cli.inputs import Entry, count_inputs, read_inputs, table_extras
from asexlatent.cli.settings import Settings
from asexlatent.symmetry import TABLE_COLUMNS, CrystalError, SymmetricCrystal

GRAPHITE = SymmetricCrystal.build(194, (2.46, 6.7), [("C", "b", []), ("C", "c", [])])


def entries(*names: object, species=("C",), **settings) -> tuple[list[Entry], list[str]]:
    problems: list[str] = []
    made = Settings(inputs=tuple(map(str, names)), **settings)
    found = list(read_inputs(made, species, problems.append))
    assert [entry.index for entry in found] == list(range(len(found)))
    return found, problems


def marks(found: list[Entry]) -> list[str]:
    return [
        "error" if isinstance(e.candidate, Exception) else e.candidate.info.get("mark")
        for e in found
    ]


def row(crystal: SymmetricCrystal = GRAPHITE, **changes) -> str:
    values = {**crystal.to_row(), **changes}
    return ",".join(str(values[name]) for name in TABLE_COLUMNS)


def table(path: Path, *rows: str, extra: str = "") -> Path:
    path.write_text("\n".join([",".join(TABLE_COLUMNS) + extra, *rows]) + "\n")
    return path


@pytest.fixture
def all_kinds(tmp_path, crystals):
    """The same crystals in every kind of file that keeps ``info``."""
    write(tmp_path / "c.traj", crystals)
    write(tmp_path / "c.extxyz", crystals)
    write(tmp_path / "c.xyz.gz", crystals, format="extxyz")
    with connect(tmp_path / "c.db") as database:
        for atoms in crystals:
            database.write(atoms, mark=atoms.info["mark"], data={"list": [1, 2]})
    return {kind: tmp_path / f"c.{kind}" for kind in ("traj", "extxyz", "xyz.gz", "db")}


@pytest.mark.parametrize("kind", ["traj", "extxyz", "xyz.gz", "db"])
@pytest.mark.parametrize("index", ["", "@:", "@:2", "@2", "@-1", "@1:5:2", "@-3:", "@4:100"])
def test_index_means_what_it_means_in_ase(all_kinds, crystals, kind, index):
    found, problems = entries(f"{all_kinds[kind]}{index}")
    expected = read(f"{all_kinds['traj']}{index or '@:'}")
    expected = expected if isinstance(expected, list) else [expected]
    assert problems == []
    assert marks(found) == [atoms.info["mark"] for atoms in expected]
    for entry, atoms in zip(found, expected, strict=True):
        assert np.allclose(entry.candidate.positions, atoms.positions)
        assert np.allclose(entry.candidate.cell, atoms.cell)
        assert list(entry.candidate.symbols) == list(atoms.symbols)
        number = int(atoms.info["mark"].split()[1])
        assert entry.source == f"{all_kinds[kind]}@{number + (kind == 'db')}"


def test_backwards(all_kinds):
    assert marks(entries(f"{all_kinds['traj']}@::-2")[0]) == ["number 5", "number 3", "number 1"]
    found, _ = entries(f"{all_kinds['extxyz']}@::-1")
    assert "use a positive step" in str(found[0].candidate)


def test_database_query_and_data(all_kinds):
    found, problems = entries(f"{all_kinds['db']}@mark=number 3")
    assert (marks(found), problems) == (["number 3"], [])
    assert found[0].candidate.info["data"] == {"list": [1, 2]}
    assert entries(f"{all_kinds['db']}@natoms>99") == (
        [],
        [f"{all_kinds['db']}@natoms>99: no row for the query 'natoms>99'"],
    )


@pytest.mark.parametrize("kind", ["traj", "extxyz", "db"])
def test_index_out_of_range_is_one_line(all_kinds, kind):
    name = f"{all_kinds[kind]}@77"
    assert entries(name) == ([], [f"{name}: no frame 77: there are 6"])


def test_count(all_kinds, tmp_path):
    names = [f"{path}{index}" for path in all_kinds.values() for index in ("", "@:4", "@-1")]
    plain = [name for name in names if ".gz" not in name]
    assert count_inputs(Settings(inputs=tuple(plain))) == 3 * (6 + 4 + 1)
    rows = table(tmp_path / "t.csv", row(), row())
    assert count_inputs(Settings(inputs=(str(rows), "missing.traj"))) == 2
    assert count_inputs(Settings(inputs=(str(tmp_path / "c.xyz.gz"),))) is None


def test_an_at_sign_in_a_name(tmp_path, crystals):
    path = tmp_path / "run@2.traj"
    write(tmp_path / "plain.traj", crystals[0])
    (tmp_path / "plain.traj").rename(path)
    assert marks(entries(path)[0]) == ["number 0"]
    folder = tmp_path / "me@home"
    folder.mkdir()
    write(folder / "x.traj", crystals)
    assert marks(entries(f"{folder / 'x.traj'}@0")[0]) == ["number 0"]


def test_folder_of_cifs_in_order_of_names(tmp_path):
    for name, group in (("b", 225), ("a", 227), ("C", 229)):
        a = {225: 3.0, 227: 3.57, 229: 2.4}[group]
        label = {225: "a", 227: "a", 229: "a"}[group]
        SymmetricCrystal.build(group, [a], [("C", label, [])]).to_cif(tmp_path / f"{name}.cif")
    (tmp_path / "bad.cif").write_text("data_x\n_cell_length_a nonsense\n")
    (tmp_path / "empty.cif").write_text("")
    (tmp_path / "notes.txt").write_text("not a crystal")
    found, problems = entries(tmp_path)
    assert problems == []
    assert [Path(e.source.split("@")[0]).name for e in found] == [
        "C.cif", "a.cif", "b.cif", "bad.cif", "empty.cif",
    ]  # fmt: skip
    assert [len(e.candidate) for e in found[:3]] == [2, 8, 4]
    assert "cannot be read" in str(found[3].candidate)
    assert "the file is empty" in str(found[4].candidate)
    assert len(entries(f"{tmp_path}@:2")[0]) == 2


def test_cif_with_partial_occupancy_and_with_two_structures(tmp_path):
    text = GRAPHITE.to_cif()
    (tmp_path / "half.cif").write_text(text.replace(" 1.0\n", " 0.5\n"))
    found, _ = entries(tmp_path / "half.cif")
    assert "partial occupancies" in str(found[0].candidate)
    (tmp_path / "two.cif").write_text(text + text.replace("data_crystal", "data_second"))
    assert [len(e.candidate) for e in entries(tmp_path / "two.cif")[0]] == [4, 4]


def test_table(tmp_path):
    path = table(
        tmp_path / "t.csv",
        row() + ",-9.1,first",
        row(spg=231) + ",,second",
        row(wp0=40) + ",1,third",
        row() + ",2",
        row(a="nan") + ",3,fifth",
        row() + ",-9.2,007",
        extra=",energy,label",
    )
    found, problems = entries(path)
    assert problems == []
    kinds = [type(e.candidate) for e in found]
    assert kinds == [SymmetricCrystal, *[CrystalError] * 4, SymmetricCrystal]
    assert found[0].candidate.info == {"energy": -9.1, "label": "first"}
    assert found[1].extra == {"energy": "", "label": "second"}
    assert table_extras(Settings(inputs=(str(path), "none.csv"))) == ["energy", "label"]
    assert [e.source for e in found] == [f"{path}@{k}" for k in range(6)]
    assert [e.source[-1] for e in entries(f"{path}@-2:")[0]] == ["4", "5"]
    assert [e.source[-1] for e in entries(f"{path}@1:6:2")[0]] == ["1", "3", "5"]


def test_table_options(tmp_path):
    path = table(tmp_path / "t.csv", row(wp1=40))
    assert isinstance(entries(path)[0][0].candidate, CrystalError)
    entry = entries(path, bad_sites="drop")[0][0]
    assert entry.candidate.wyckoffs == ["2b"]
    assert "Wyckoff index 40" in entry.notes[0]
    path = table(tmp_path / "d.csv", row(alpha=90, beta=90, gamma=120))
    entry = entries(path, degrees=True)[0][0]
    assert np.allclose(entry.candidate.free_variables, GRAPHITE.free_variables)


def test_elements_of_a_table(tmp_path):
    rows = [row() + end for end in (",B N", ",C", ",", ",B N C")]
    path = table(tmp_path / "t.csv", *rows, extra=",species")
    found, _ = entries(path, species=("B", "N"))
    assert [site.species for site in found[0].candidate.sites] == ["B", "N"]
    assert [site.species for site in found[1].candidate.sites] == ["C", "C"]
    assert "add a column 'species'" in str(found[2].candidate)
    assert "3 species were given" in str(found[3].candidate)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "a,b\n1,2\n", "the header lacks the columns spg"),
        ("a.csv", "", "the file is empty"),
        ("a.extxyz", "", "the file is empty"),
        ("a.extxyz", "\n\n", "it is empty"),
    ],
)
def test_files_without_candidates(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_text(content)
    found, problems = entries(path)
    assert found == []
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}: {expected}")


def test_missing_file_and_folder_without_cifs(tmp_path):
    found, problems = entries(tmp_path / "no.traj", tmp_path)
    assert found == []
    assert problems == [
        f"{tmp_path / 'no.traj'}: no such file or folder",
        f"{tmp_path}: no CIF file in this folder",
    ]


@pytest.mark.parametrize("name", ["x.unheard-of", "x.traj", "x.db", "x.cif", "x.vasp", "x.json"])
def test_a_file_of_rubbish_is_a_failed_candidate(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"some rubbish\n" * 40)
    found, problems = entries(path)
    assert problems == []
    assert len(found) == 1
    assert isinstance(found[0].candidate, CrystalError)
    assert "\n" not in str(found[0].candidate)


def test_a_broken_frame_keeps_its_place_and_the_rest_goes_on(tmp_path, crystals):
    path = tmp_path / "c.extxyz"
    write(path, crystals)
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace("C ", "Xy", 1)  # an atom of the first frame
    path.write_text("\n".join(lines) + "\n")
    found, _ = entries(path)
    assert marks(found) == ["error", *(f"number {k}" for k in range(1, 6))]
    assert "cannot be read" in str(found[0].candidate)


def test_blank_lines_do_not_end_an_xyz_file(tmp_path, crystals):
    path = tmp_path / "c.extxyz"
    for atoms in crystals:
        write(path, atoms, append=True)
        with open(path, "a") as handle:
            handle.write("\n")
    assert len(entries(path)[0]) == 6


@pytest.mark.parametrize("damage", ["cut", "header"])
def test_what_cannot_be_followed_is_one_failed_candidate(tmp_path, crystals, damage):
    path = tmp_path / "c.extxyz"
    write(path, crystals)
    lines = path.read_text().splitlines()
    start = [k for k, line in enumerate(lines) if line.strip().isdigit()][3]
    lines = lines[: start + 3] if damage == "cut" else [*lines[:start], "rubbish", *lines[start:]]
    path.write_text("\n".join(lines) + "\n")
    found, _ = entries(path)
    assert marks(found) == ["number 0", "number 1", "number 2", "error"]
    assert "nothing from here on can be read" in str(found[3].candidate)


def test_truncated_trajectory(tmp_path, crystals):
    path = tmp_path / "c.traj"
    write(path, crystals)
    path.write_bytes(path.read_bytes()[:-1200])
    found, problems = entries(path)
    assert found or problems
    assert all(isinstance(e.candidate, Atoms | CrystalError) for e in found)
    assert any(isinstance(e.candidate, CrystalError) for e in found) or problems


def test_broken_row_of_a_database(tmp_path, crystals):
    import sqlite3

    path = tmp_path / "c.db"
    with connect(path) as database:
        for atoms in crystals[:3]:
            database.write(atoms)
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE systems SET positions = ? WHERE id = 2", (b"123",))
    found, _ = entries(path)
    assert [isinstance(e.candidate, Exception) for e in found] == [False, True, False]


def test_results_and_constraints_of_the_input(tmp_path):
    atoms = bulk("C")
    atoms.calc = SinglePointCalculator(atoms, energy=-3.0)
    atoms.set_constraint(FixAtoms([0]))
    write(tmp_path / "a.traj", atoms)
    entry = entries(tmp_path / "a.traj")[0][0]
    assert entry.candidate.get_potential_energy() == -3.0
    assert entry.notes == ("its constraints (FixAtoms) are kept but not obeyed",)
