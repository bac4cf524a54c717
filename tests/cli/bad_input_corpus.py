"""Inputs that are wrong in every way that we know of, one function each.

A builder writes its files into the current folder and returns the arguments of the command. What
is wrong lies between two good crystals wherever the format has room for them: they must come out
refined. `scripts/bad_input_table.py` prints what a user sees.
"""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.db import connect
from ase.io import write

from asexlatent.symmetry import TABLE_COLUMNS, SymmetricCrystal

GRAPHITE = SymmetricCrystal.build(194, (2.46, 6.7), [("C", "b", []), ("C", "c", [])])
K4 = SymmetricCrystal.build(214, [4.1], [("C", "8a", [])])


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes
    ----------
    name, about : what is wrong, for a test and for a reader.
    build : writes the files; returns the arguments.
    says : what must stand on standard error or in the log, one regular expression.
    code : exit code.
    good, failed : candidates that come out refined, and as failed.
    """

    name: str
    about: str
    build: Callable[[], list[str]]
    says: str
    code: int = 0
    good: int = 2
    failed: int = 1


CASES: list[Case] = []
USAGE = {"code": 2, "good": 0, "failed": 0}


def case(about: str, says: str, code: int = 0, good: int = 2, failed: int = 1) -> Callable:
    """Register a builder."""

    def register(build: Callable[[], list[str]]) -> Callable[[], list[str]]:
        CASES.append(Case(build.__name__, about, build, says, code, good, failed))
        return build

    return register


def between(bad: Atoms, name: str = "in.traj") -> list[str]:
    """A file with the bad structure between two good ones."""
    write(name, [GRAPHITE.to_atoms(), bad, K4.to_atoms()])
    return [name]


def diamond() -> Atoms:
    return bulk("C", "diamond", 3.57, cubic=True)


# -- structures ------------------------------------------------------------------------------------


@case("a position is NaN", r"in\.traj@1: .*not finite")
def nan_position() -> list[str]:
    bad = diamond()
    bad.positions[3, 1] = np.nan
    return between(bad)


@case("a position is infinite", r"in\.extxyz@1: .*not finite")
def infinite_position() -> list[str]:
    bad = diamond()
    bad.positions[3, 1] = np.inf
    return between(bad, "in.extxyz")


@case("a cell without volume", r"in\.traj@1: the cell has no volume: three independent")
def flat_cell() -> list[str]:
    bad = diamond()
    bad.cell[2] = bad.cell[0] + bad.cell[1]
    return between(bad)


@case("no cell at all", r"in\.traj@1: .*not periodic along a, b, c: .*needed")
def no_cell() -> list[str]:
    return between(molecule("C60"))


@case("a left-handed cell", "", good=3, failed=0)
def left_handed() -> list[str]:
    bad = GRAPHITE.to_atoms()
    bad.set_cell(bad.cell.array[[1, 0, 2]], scale_atoms=False)
    return between(bad)


@case("two atoms on one point", r"in\.traj@1: atoms . \(C\) and . \(C\) are .* apart.*: remove")
def coincident_atoms() -> list[str]:
    bad = diamond()
    bad.positions[1] = bad.positions[0]
    return between(bad)


@case(
    "two atoms nearer than --symprec (it is lowered)",
    r"in\.traj@1: atoms are nearer to each other than --symprec: symmetry looked for at 0\.00",
    good=3,
    failed=0,
)
def nearly_coincident() -> list[str]:
    sites = [("C", "4c", [0.1, 0.2]), ("C", "4c", [0.101, 0.2])]
    return between(SymmetricCrystal.build(62, (4.0, 5.0, 6.0), sites).to_atoms())


@case("one atom in the cell", "", good=3, failed=0)
def one_atom() -> list[str]:
    return between(bulk("C", "sc", 2.0))


@case("5832 atoms in the cell", "", good=3, failed=0)
def many_atoms() -> list[str]:
    return [*between(diamond() * (9, 9, 9)), "--symprec", "0.001"]


@case("periodic along two axes only", r"in\.traj@1: the atoms are not periodic along c: .*pbc=True")
def slab() -> list[str]:
    bad = diamond()
    bad.pbc = (True, True, False)
    return between(bad)


@case("an unknown element (X)", r"in\.traj@1: .*(X|unknown)")
def unknown_element() -> list[str]:
    bad = diamond()
    bad.numbers[0] = 0
    return between(bad)


@case("no atoms", r"in\.traj@1: there are no atoms")
def no_atoms() -> list[str]:
    return between(Atoms(cell=[3, 3, 3], pbc=True))


@case("another element than the target has", r"in\.traj@1: .*contains Si, but environment sp2 has")
def mixed_composition() -> list[str]:
    return between(bulk("SiC", "zincblende", 4.36))


@case("lattice planes that nearly coincide", r"in\.csv@1: impossible cell: lattice planes")
def flat_rhombohedron() -> list[str]:
    flat = SymmetricCrystal.build(5, (3.0, 3.0, 3.0, 1.57), [("C", "a", [0.0])])
    return table(row(GRAPHITE), row(flat, beta=3.138), row(K4))


@case("a cell length of 0.001 Å", r"in\.csv@1: cell length a = 0.001 Å is not that of a crystal")
def tiny_length() -> list[str]:
    return table(row(GRAPHITE), row(GRAPHITE, a=0.001), row(K4))


# -- files -----------------------------------------------------------------------------------------


def cifs(text: str) -> list[str]:
    """A folder of CIFs, the bad one in the middle."""
    Path("in").mkdir(exist_ok=True)
    GRAPHITE.to_cif("in/a.cif")
    Path("in/b.cif").write_text(text)
    K4.to_cif("in/c.cif")
    return ["in"]


@case("a CIF with partial occupancies", r"in/b\.cif.*: .*partial occupancies: only ordered")
def partial_occupancy() -> list[str]:
    return cifs(GRAPHITE.to_cif().replace(" 1.0\n", " 0.5\n"))


@case("a disordered CIF: two elements on one site", r"in/b\.cif.*: .*partial occupancies")
def disordered() -> list[str]:
    lines = GRAPHITE.to_cif().replace(" 1.0\n", " 0.5\n").splitlines()
    return cifs("\n".join([*lines, lines[-1].replace("C2 C", "Si1 Si")]) + "\n")


@case("an empty CIF", r"in/b\.cif: cannot be read: the file is empty")
def empty_cif() -> list[str]:
    return cifs("")


@case("a CIF without atoms", r"in/b\.cif.*: ")
def cif_without_atoms() -> list[str]:
    return cifs(GRAPHITE.to_cif().partition("loop_\n_atom_site_label")[0])


@case("a CIF cut short", r"in/b\.cif.*: ")
def cut_cif() -> list[str]:
    text = GRAPHITE.to_cif()
    return cifs(text[: text.index("_atom_site_fract_z")])


@case("a .traj cut short", r"in\.traj@2: cannot be read: buffer is smaller")
def cut_trajectory() -> list[str]:
    write("in.traj", [GRAPHITE.to_atoms(), diamond(), K4.to_atoms()])
    Path("in.traj").write_bytes(Path("in.traj").read_bytes()[:-300])
    return ["in.traj"]


@case("an extended XYZ file cut short", r"in\.extxyz@2: nothing from here on can be read: the file")
def cut_frames() -> list[str]:
    write("in.extxyz", [GRAPHITE.to_atoms(), K4.to_atoms(), diamond()])
    lines = Path("in.extxyz").read_text().splitlines()
    Path("in.extxyz").write_text("\n".join(lines[:-2]) + "\n")
    return ["in.extxyz"]


@case("a .db cut short", r"in\.db.*: cannot be read: ", code=1, good=0)
def cut_database() -> list[str]:
    with connect("in.db") as database:
        for _ in range(40):
            database.write(diamond())
    Path("in.db").write_bytes(Path("in.db").read_bytes()[:9000])
    return ["in.db"]


@case("a broken row of a .db", r"in\.db@2: cannot be read: ")
def broken_row() -> list[str]:
    with connect("in.db") as database:
        for atoms in (GRAPHITE.to_atoms(), diamond(), K4.to_atoms()):
            database.write(atoms)
    with sqlite3.connect("in.db") as raw:
        raw.execute("UPDATE systems SET positions = ? WHERE id = 2", (b"123",))
    return ["in.db"]


@case("an input that is not there", r"none\.traj: no such file or folder", failed=0)
def missing_file() -> list[str]:
    write("in.traj", [GRAPHITE.to_atoms(), K4.to_atoms()])
    return ["in.traj", "none.traj"]


@case("a folder without CIFs", r"empty: no CIF file in this folder", failed=0)
def folder_without_cifs() -> list[str]:
    Path("empty").mkdir()
    write("in.traj", [GRAPHITE.to_atoms(), K4.to_atoms()])
    return ["in.traj", "empty"]


@case("rubbish with the ending of a structure file", r"rubbish\.vasp: cannot be read: ")
def rubbish() -> list[str]:
    write("in.traj", [GRAPHITE.to_atoms(), K4.to_atoms()])
    Path("rubbish.vasp").write_bytes(os.urandom(3) + b"\x00\xff rubbish\n" * 9)
    return ["in.traj", "rubbish.vasp"]


# -- tables ----------------------------------------------------------------------------------------


def row(crystal: SymmetricCrystal, **changes: object) -> dict:
    return {**crystal.to_row(), **changes}


def table(*rows: dict, columns: tuple[str, ...] = TABLE_COLUMNS, lines: tuple = ()) -> list[str]:
    text = [",".join(str(values[name]) for name in columns) for values in rows]
    Path("in.csv").write_text("\n".join([",".join(columns), *text, *lines]) + "\n")
    return ["in.csv"]


@case("a table lacks a column", r"in\.csv: the header lacks the column gamma", 1, 0, 0)
def missing_column() -> list[str]:
    columns = tuple(name for name in TABLE_COLUMNS if name != "gamma")
    return table(row(GRAPHITE), columns=columns)


@case("a table repeats a column", r"in\.csv: the header has the column 'a' more than once", 1, 0, 0)
def repeated_column() -> list[str]:
    return table(row(GRAPHITE), columns=(*TABLE_COLUMNS, "a"))


@case("a table with further columns, in another order", "", failed=0)
def extra_and_reordered_columns() -> list[str]:
    columns = ("note", *reversed(TABLE_COLUMNS))
    return table(row(GRAPHITE, note="x"), row(K4, note="y"), columns=columns)


@case("a field of a table is no number", r"in\.csv@1: column b is not a number: 'wide'")
def not_a_number() -> list[str]:
    return table(row(GRAPHITE), row(GRAPHITE, b="wide"), row(K4))


@case("a field of a table is empty", r"in\.csv@1: column c is empty")
def empty_field() -> list[str]:
    return table(row(GRAPHITE), row(GRAPHITE, c=""), row(K4))


@case("a field of a table is NaN", r"in\.csv@1: column a is nan")
def nan_field() -> list[str]:
    return table(row(GRAPHITE), row(GRAPHITE, a="nan"), row(K4))


@case("a line of a table is too short", r"in\.csv@2: 3 fields in a line of a table with 39 columns")
def short_line() -> list[str]:
    return table(row(GRAPHITE), row(K4), lines=("194,2.4,2.4",))


@case(
    "a Wyckoff index that does not exist", r"in\.csv@1: .*Wyckoff index 40; space group 194 has 0"
)
def wrong_wyckoff() -> list[str]:
    return table(row(GRAPHITE), row(GRAPHITE, wp1=40), row(K4))


@case("space group 0", r"in\.csv@1: .*space group 0")
def space_group_0() -> list[str]:
    return table(row(GRAPHITE), row(GRAPHITE, spg=0), row(K4))


@case("space group 231", r"in\.csv@1: .*space group 231")
def space_group_231() -> list[str]:
    return table(row(GRAPHITE), row(GRAPHITE, spg=231), row(K4))


@case("a compressed table cut short", r"in\.csv\.gz@1: nothing from here on can be read", good=1)
def cut_table() -> list[str]:
    import gzip

    table(row(GRAPHITE), row(K4), row(GRAPHITE))
    data = gzip.compress(Path("in.csv").read_bytes())
    Path("in.csv.gz").write_bytes(data[: len(data) - 30])
    return ["in.csv.gz"]


# -- the rest of the command line ------------------------------------------------------------------


def good_file() -> str:
    write("in.traj", [GRAPHITE.to_atoms(), K4.to_atoms()])
    return "in.traj"


@case(
    "a target without neighbours in the cutoff", r"--target far\.cif: .*(neighbo|cutoff)", 2, 0, 0
)
def lonely_target() -> list[str]:
    SymmetricCrystal.build(221, [9.0], [("C", "1a", [])]).to_cif("far.cif")
    return [good_file(), "--target", "far.cif", "--rcut", "2.0"]


@case("a cutoff that reaches no neighbour", r"--target sp2: .*(neighbo|cutoff)", **USAGE)
def cutoff_too_small() -> list[str]:
    return [good_file(), "--rcut", "1.0"]


@case(
    "an output folder where none can be", r"cannot write to in\.traj/out: Not a directory", 2, 0, 0
)
def unwritable_output() -> list[str]:
    return [good_file(), "-o", "in.traj/out"]


@case(
    "a config with an unknown key",
    r"c\.yaml: unknown setting 'stepz'; did you mean steps\?",
    2,
    0,
    0,
)
def unknown_setting() -> list[str]:
    Path("c.yaml").write_text("stepz: 3\n")
    return [good_file(), "--config", "c.yaml"]


@case("a config that is no YAML", r"the config c\.yaml is not YAML", **USAGE)
def broken_config() -> list[str]:
    Path("c.yaml").write_text("a: [1,\n")
    return [good_file(), "--config", "c.yaml"]


def model(**changes: object) -> list[str]:
    """A folder that looks like a model; `changes` of its description."""
    Path("m").mkdir()
    head = {"format": "asexlatent-model", "schema": 1, "tensors_sha256": "0" * 64}
    Path("m/model.json").write_text(json.dumps(head | changes))
    Path("m/model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    return [good_file(), "--rounds", "1", "--model", "m"]


@case(
    "a model whose tensors are cut short", r"model\.safetensors is damaged.*hash differs", 2, 0, 0
)
def cut_model() -> list[str]:
    return model()


@case("a model whose description is cut short", r"m/model\.json is damaged: it is no JSON", **USAGE)
def cut_description() -> list[str]:
    words = model()
    Path("m/model.json").write_text(Path("m/model.json").read_text()[:40])
    return words


@case(
    "a model of another version",
    r"schema 99; this version .* train the model again",
    2,
    0,
    0,
)
def other_version() -> list[str]:
    return model(schema=99)


class Trap:
    """Unpickling it leaves a file behind."""

    def __reduce__(self) -> tuple:
        return Path("trapped").touch, ()


@case("a pickle posing as a model", r"model\.safetensors is damaged|it is no JSON", **USAGE)
def pickled_model() -> list[str]:
    words = model()
    Path("m/model.safetensors").write_bytes(pickle.dumps(Trap()))
    return words


@case("a file in place of the folder of a model", r"no model in m: model\.json is missing", **USAGE)
def model_is_a_file() -> list[str]:
    Path("m").write_bytes(pickle.dumps(Trap()))
    return [good_file(), "--rounds", "1", "--model", "m"]
