from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import read, write
from refine_cases import EXAMPLE, GRAPHITE, csv_file, rows_of

from asexlatent.symmetry import TABLE_COLUMNS, SymmetricCrystal, wyckoff_positions

# -- what comes out -------------------------------------------------------------------------------


def test_example_comes_out_whole_and_better(refine):
    out = refine(EXAMPLE, steps=30)
    assert out.code == 0
    before, after = read(EXAMPLE, ":"), out.frames
    assert len(before) >= 50
    assert [a.info["name"] for a in after] == [b.info["name"] for b in before]
    assert [a.info["asx_index"] for a in after] == list(range(len(before)))
    for a, b in zip(after, before, strict=True):
        assert list(a.symbols) == list(b.symbols)
        assert a.info["asx_status"] in ("converged", "stalled", "step_limit")
        assert a.info["asx_loss"] <= a.info["asx_loss_initial"]
        assert a.info["space_group_number"] == b.info["space_group_number"]  # the user's own
    losses = [[f.info[k] for f in after] for k in ("asx_loss_initial", "asx_loss")]
    assert np.median(losses[1]) < 0.5 * np.median(losses[0])
    assert out.counts["median_loss"] == pytest.approx(np.median(losses[1]))
    valid = read(out.folder / "valid.extxyz", ":")
    assert [v.info["name"] for v in valid] == [a.info["name"] for a in after if a.info["asx_valid"]]
    assert out.counts["valid"] == len(valid)
    assert out.counts["candidates"] == len(before)


def test_the_imposed_operations_hold(refine):
    """Judged by spglib alone: the group, or one with more operations, at 1e-3 Å."""
    out = refine(EXAMPLE, steps=30)
    for frame, row in zip(out.frames, rows_of(out.folder / "table.csv"), strict=True):
        cell = (frame.cell.array, frame.get_scaled_positions(), frame.numbers)
        found = spglib.get_symmetry_dataset(cell, symprec=1e-3)
        imposed = frame.info["asx_space_group_number"]
        assert found.number == frame.info.get("asx_space_group_found", imposed)
        again = SymmetricCrystal.from_atoms(frame, symprec=1e-3, space_group=imposed)
        assert again.space_group == imposed
        crystal = SymmetricCrystal.from_row(row)
        order = wyckoff_positions(imposed)[0].multiplicity
        assert len(found.rotations) / len(frame) >= order / crystal.n_atoms - 1e-9
        assert frame.get_volume() / len(frame) == pytest.approx(crystal.volume / crystal.n_atoms)


def test_more_symmetry_is_reported(refine):
    diamond = SymmetricCrystal.build(70, (3.57, 3.57, 3.57), [("C", "a", [])])
    rows = csv_file(Path("t.csv"), diamond.to_row())
    (frame,) = refine(rows, steps=0).frames
    assert frame.info["asx_space_group_number"] == 70
    assert frame.info["asx_space_group_found"] == 227


def test_the_users_atoms_keep_everything_but_cell_and_positions(refine, crystals):
    crystals[0].info |= {"text": 'a "quoted"\nline = {x}', "asx_reason": "of an earlier run"}
    crystals[0].calc = SinglePointCalculator(crystals[0], energy=-3.0)
    crystals[1].set_positions(crystals[1].positions + 7.0)  # not wrapped
    write("in.traj", crystals)
    out = refine("in.traj", steps=2)
    for frame, atoms in zip(out.frames, crystals, strict=True):
        assert frame.info["mark"] == atoms.info["mark"]
        assert np.array_equal(frame.get_tags(), atoms.get_tags())
        assert np.abs(frame.positions - atoms.positions).max() < 1.0
        assert frame.calc is None
    assert out.frames[0].info["text"] == 'a "quoted" line = {x}'
    assert out.frames[0].info["asx_input_energy"] == -3.0
    assert "asx_reason" not in out.frames[0].info
    assert out.frames[2].info["asx_source"] == "in.traj@2"


def test_bad_rows_keep_their_places(refine):
    good = GRAPHITE.to_row()
    rows = [
        good | {"energy": -9.0, "label": "first"},
        good | {"spg": 231, "energy": -8.0, "label": 'of "no" use, {really}'},
        good | {"wp1": 77},
        good | {"a": "", "label": "=x"},
        good | {"spg": 194, "label": "last"},
    ]
    path = csv_file(Path("t.csv"), *rows, extra=("energy", "label"))
    out = refine(path)
    assert out.code == 0
    frames = out.frames
    assert [len(f) for f in frames] == [4, 0, 0, 0, 4]
    assert [f.info["asx_status"] == "failed" for f in frames] == [False, True, True, True, False]
    assert "space group" in frames[1].info["asx_reason"]
    assert "Wyckoff index 77" in frames[2].info["asx_reason"]
    assert [f.info["label"] for f in frames if "label" in f.info] == [
        "first", 'of "no" use, {really}', "=x", "last",
    ]  # fmt: skip
    assert [f.info.get("asx_input_energy") for f in frames] == [-9.0, -8.0, None, None, None]
    table = rows_of(out.folder / "table.csv")
    assert list(table[0])[:39] == list(TABLE_COLUMNS)
    assert [r["label"] for r in table] == [str(r.get("label", "")) for r in rows]
    assert [r["energy"] for r in table] == ["-9.0", "-8.0", "", "", ""]
    assert all(table[1][name] == "" for name in TABLE_COLUMNS)
    assert table[1]["asx_reason"] == frames[1].info["asx_reason"]
    assert out.counts["failed"] == 3


def test_the_table_can_be_read_again(refine):
    first = refine(EXAMPLE, steps=3)
    again = refine(first.folder / "table.csv", steps=0, output="again")
    assert again.counts["failed"] == 0
    for a, b in zip(first.frames, again.frames, strict=True):
        assert a.info["asx_wyckoffs"] == b.info["asx_wyckoffs"]
        assert b.info["asx_loss_initial"] == pytest.approx(a.info["asx_loss"], rel=1e-6, abs=1e-9)
    assert list(rows_of(again.folder / "table.csv")[0]) == list(
        rows_of(first.folder / "table.csv")[0]
    )


def test_more_than_eight_sites_are_refined_but_no_row(refine, rng_crystal):
    write("p1.traj", rng_crystal(12))
    out = refine("p1.traj", "--space-group", 1)
    (frame,) = out.frames
    assert frame.info["asx_wyckoffs"].split() == ["1a"] * 12
    (row,) = rows_of(out.folder / "table.csv")
    assert all(row[name] == "" for name in TABLE_COLUMNS)
    assert "12 inequivalent sites" in row["asx_reason"]
    assert float(row["asx_loss"]) == pytest.approx(frame.info["asx_loss"])
    assert frame.info["asx_status"] != "failed"


@pytest.fixture
def rng_crystal():
    rng = np.random.default_rng(5)

    def make(n: int) -> Atoms:
        cell = np.diag([n * 0.9, 3.0, 3.2]) + rng.normal(0, 0.1, (3, 3))
        return Atoms(f"C{n}", scaled_positions=rng.random((n, 3)), cell=cell, pbc=True)

    return make


# -- all kinds of input ---------------------------------------------------------------------------


def test_kinds_of_input_together_in_order(refine, crystals):
    write("a.traj", crystals[:3])
    write("b.extxyz", crystals[3:5])
    with connect("c.db") as database:
        database.write(crystals[5], mark="in the database")
    Path("cifs").mkdir()
    GRAPHITE.to_cif("cifs/graphite.cif")
    csv_file(Path("d.csv"), GRAPHITE.to_row())
    out = refine("b.extxyz@1", "missing.traj", "a.traj@:2", "c.db", "cifs", "d.csv")
    assert out.code == 0
    assert [f.info["asx_source"] for f in out.frames] == [
        "b.extxyz@1", "a.traj@0", "a.traj@1", "c.db@1", "cifs/graphite.cif@0", "d.csv@0",
    ]  # fmt: skip
    assert out.frames[3].info["mark"] == "in the database"
    assert out.summary["problems"] == ["missing.traj: no such file or folder"]
    assert out.frames[4].info["asx_valid"]
    assert [r["asx_source"] for r in rows_of(out.folder / "table.csv")] == [
        f.info["asx_source"] for f in out.frames
    ]


def test_what_is_no_crystal_is_one_line_each(refine, crystals, capfd):
    slab = crystals[0].copy()
    slab.pbc = (True, True, False)
    broken = crystals[0].copy()
    broken.positions[0] = np.nan
    foreign = bulk("NaCl", "rocksalt", a=5.6)
    water = molecule("H2O")
    write("in.traj", [water, slab, broken, foreign, crystals[1]])
    Path("empty.traj").touch()
    Path("rubbish.cif").write_text("rubbish")
    out = refine("in.traj", "empty.traj", "rubbish.cif", "none.vasp")
    assert out.code == 0
    frames = out.frames
    assert [len(f) for f in frames] == [3, 8, 8, 2, 2, 0]
    assert [f.info["asx_status"] for f in frames][:4] == ["failed"] * 4
    assert frames[4].info["asx_status"] != "failed"
    assert np.allclose(frames[0].positions, water.positions)
    assert np.allclose(frames[1].positions, slab.positions)
    lines = [line for line in capfd.readouterr().err.splitlines() if "asexlatent-refine" in line]
    for source in (*(f"in.traj@{k}" for k in range(4)), "empty.traj", "rubbish.cif", "none.vasp"):
        assert sum(f"asexlatent-refine: {source}: " in line for line in lines) == 1, source
    assert len(lines) == 7


def test_a_failed_frame_keeps_its_results(refine, crystals):
    water = molecule("H2O")
    water.calc = SinglePointCalculator(water, energy=-14.0, forces=np.ones((3, 3)))
    write("in.traj", [water, crystals[1]])
    frame = refine("in.traj").frames[0]
    assert frame.get_potential_energy() == -14.0
    assert np.allclose(frame.get_forces(), 1.0)


def test_other_targets(refine, crystals):
    write("diamond.cif", bulk("C", cubic=True))
    write("in.traj", crystals[:2])
    by_name = refine("in.traj", "--target", "sp3", "--rcut", "2.2", output="name")
    by_file = refine("in.traj", "--target", "diamond.cif:C", "--rcut", "2.2", output="file")
    assert by_name.code == by_file.code == 0
    from asexlatent import LocalEnvironment
    from asexlatent import refine as library

    environment = LocalEnvironment.from_file("diamond.cif", rcut=2.2)
    expected = [r.loss for r in library(read("in.traj", ":"), environment, steps=3)]
    assert [f.info["asx_loss"] for f in by_file.frames] == pytest.approx(expected, rel=1e-9)
    LocalEnvironment.named("sp3", rcut=2.2).save("sp3.json")
    by_json = refine("in.traj", "--target", "sp3.json", output="json")
    assert [f.info["asx_loss"] for f in by_json.frames] == pytest.approx(
        [f.info["asx_loss"] for f in by_name.frames], abs=1e-12
    )
    assert refine("in.traj", "--target", "sp3.json", "--rcut", "2.1", output="x").code == 2
