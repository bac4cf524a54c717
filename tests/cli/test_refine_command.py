from __future__ import annotations

import csv
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import spglib
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import read, write

from asexlatent.cli import chunks
from asexlatent.cli.refine import main
from asexlatent.symmetry import TABLE_COLUMNS, SymmetricCrystal, wyckoff_positions

EXAMPLE = Path(__file__).parents[2] / "asexlatent" / "examples" / "random_sp2.extxyz"
GRAPHITE = SymmetricCrystal.build(194, (2.46, 6.7), [("C", "b", []), ("C", "c", [])])


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def csv_file(path: Path, *rows: dict, extra: tuple[str, ...] = ()) -> Path:
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, [*TABLE_COLUMNS, *extra])
        writer.writeheader()
        writer.writerows(rows)
    return path


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


# -- the same again, chunks, interruption ---------------------------------------------------------


def same_results(one, two) -> None:
    a, b = ((o.folder / "refined.extxyz").read_text() for o in (one, two))
    assert a == b
    assert (one.folder / "table.csv").read_text() == (two.folder / "table.csv").read_text()


def test_config_gives_the_same_results(refine):
    first = refine(f"{EXAMPLE}@:8", "--symprec", "0.005", "--lmax", "3", "--seed", 4, steps=4)
    config = first.folder / "config.yaml"
    assert "rcut: 2.1" in config.read_text()
    again = refine("--config", config, steps=None, output="again")
    same_results(first, again)
    assert (again.folder / "config.yaml").read_text() == config.read_text()
    other = refine("--config", config, "--lmax", "4", steps=2, output="other")
    assert "lmax: 4" in (other.folder / "config.yaml").read_text()
    assert "steps: 2" in (other.folder / "config.yaml").read_text()
    assert other.summary["settings"]["symprec"] == 0.005


def test_batches_do_not_change_the_results(refine):
    whole = refine(f"{EXAMPLE}@:12", steps=5)
    parts = refine(f"{EXAMPLE}@:12", "--batch-size", "5", "--threads", "1", steps=5, output="b")
    for a, b in zip(whole.frames, parts.frames, strict=True):
        assert a.info["asx_loss"] == pytest.approx(b.info["asx_loss"], rel=1e-6)


def test_restarts_reach_more_and_say_how(refine):
    few = refine(EXAMPLE, steps=40)
    many = refine(EXAMPLE, "--restarts", "3", "--seed", "3", steps=40, output="many")
    assert many.counts["valid"] > few.counts["valid"]
    for frame in many.frames:
        assert ("asx_path" in frame.info) == frame.info["asx_valid"]
    paths = [f.info["asx_path"] for f in many.frames if f.info["asx_valid"]]
    assert set(paths) - {"descent"}
    assert many.counts["valid_by_path"] == Counter(paths)


def test_results_do_not_depend_on_the_chunks(refine, monkeypatch):
    whole = refine(f"{EXAMPLE}@:12", "--restarts", "2", steps=10)
    monkeypatch.setattr(chunks, "CHUNK", 5)
    parts = refine(f"{EXAMPLE}@:12", "--restarts", "2", steps=10, output="parts")
    for a, b in zip(whole.frames, parts.frames, strict=True):
        assert a.info.get("asx_path") == b.info.get("asx_path")
        assert a.info["asx_loss"] == pytest.approx(b.info["asx_loss"], rel=1e-5, abs=1e-10)


def test_chunks_are_written_as_they_finish(refine, monkeypatch, crystals):
    from asexlatent.cli.outputs import OutputFolder

    monkeypatch.setattr(chunks, "CHUNK", 4)
    seen = []
    write_chunk = OutputFolder.write

    def spy(self, entries, results):
        notes = write_chunk(self, entries, results)
        seen.append((len(entries), len(read(self.folder / "refined.extxyz", ":"))))
        return notes

    monkeypatch.setattr(OutputFolder, "write", spy)
    out = refine(f"{EXAMPLE}@:10", steps=2)
    assert seen == [(4, 4), (4, 8), (2, 10)]
    assert [f.info["asx_index"] for f in out.frames] == list(range(10))


def test_inputs_are_streamed(refine, monkeypatch, crystals):
    """No more candidates are alive than one chunk holds."""
    import gc
    import weakref

    from asexlatent.cli import run

    monkeypatch.setattr(chunks, "CHUNK", 3)
    alive: list[weakref.ref] = []
    most = 0
    original = run.refine_chunk

    def spy(candidates, *rest):
        nonlocal most
        alive.extend(weakref.ref(c) for c in candidates)
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        return original(candidates, *rest)

    monkeypatch.setattr(run, "refine_chunk", spy)
    write("in.traj", crystals * 4)
    assert len(refine("in.traj", steps=0).frames) == 24
    assert most <= 6


def test_ctrl_c_writes_what_is_done(refine, monkeypatch, capfd):
    from asexlatent.cli.progress import Bar

    monkeypatch.setattr(chunks, "CHUNK", 5)
    watched = []

    def watch(self, state, run):
        watched.append(state)
        if self._finished == 5 and state.step == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Bar, "watch", watch)
    handler = signal.getsignal(signal.SIGINT)
    out = refine(f"{EXAMPLE}@:14", steps=4)
    assert signal.getsignal(signal.SIGINT) is handler
    assert out.code == 130
    frames = out.frames
    before = read(EXAMPLE, ":14")
    assert [f.info["name"] for f in frames] == [b.info["name"] for b in before]
    assert not any(f.info.get("asx_reason") == "interrupted" for f in frames[:5])
    assert all("asx_loss" in f.info for f in frames[:10])
    half = [f for f in frames[5:10] if f.info["asx_status"] == "step_limit"]
    assert half
    assert all(f.info["asx_reason"] == "interrupted" for f in half)
    assert all(f.info["asx_steps"] == 2 for f in half)
    for frame, atoms in zip(frames[10:], before[10:], strict=True):
        assert frame.info["asx_status"] == "step_limit"
        assert frame.info["asx_reason"] == "interrupted"
        assert "asx_loss" not in frame.info
        assert np.array_equal(frame.positions, atoms.positions)
    assert out.summary["interrupted"] is True
    assert "interrupted" in capfd.readouterr().err


def test_interrupted_table(refine, monkeypatch):
    from asexlatent.cli.progress import Bar

    monkeypatch.setattr(chunks, "CHUNK", 1)
    monkeypatch.setattr(Bar, "watch", lambda *_: signal.raise_signal(signal.SIGINT))
    good = GRAPHITE.to_row() | {"a": 2.9, "b": 2.9}
    csv_file(Path("t.csv"), good, good, good | {"spg": 0})
    out = refine("t.csv")
    assert out.code == 130
    table = rows_of(out.folder / "table.csv")
    assert [r["asx_status"] for r in table] == ["step_limit", "step_limit", "failed"]
    assert float(table[1]["a"]) == pytest.approx(2.9)
    assert [len(f) for f in out.frames] == [4, 4, 0]


def test_an_internal_error_costs_one_candidate(refine, monkeypatch):
    import asexlatent.optimize as optimize

    class Fragile(optimize.RefinementRun):
        def __init__(self, candidates, *rest, **options):
            if any(c.info.get("name") == "random-003" for c in candidates):
                raise MemoryError("out of memory\n(sort of)")
            super().__init__(candidates, *rest, **options)

    monkeypatch.setattr(optimize, "RefinementRun", Fragile)
    out = refine(f"{EXAMPLE}@:7")
    assert out.code == 0
    failed = [f.info["asx_status"] == "failed" for f in out.frames]
    assert failed == [k == 3 for k in range(7)]
    assert "internal error: out of memory (sort of)" in out.frames[3].info["asx_reason"]
    assert "Traceback" in out.log


# -- usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "no INPUT"),
        (["x.traj", "--steps", "many"], "--steps: must be a whole number"),
        (["x.traj", "--space-group", "231"], "must be 1 to 230"),
        (["x.traj", "--bad-sites", "ignore"], "must be fail or drop"),
        (["x.traj", "--dtype", "float16"], "must be float64 or float32"),
        (["x.traj", "--batch-size", "none"], "must be auto or"),
        (["x.traj", "--solver", "magic"], "unknown solver 'magic'"),
        (["x.traj", "--target", "sp9"], "unknown environment 'sp9'"),
        (["x.traj", "--target", "no/such.cif"], "no such file"),
        (["x.traj", "--device", "warp"], "--device warp"),
        (["x.traj", "--config", "none.yaml"], "cannot read the config none.yaml"),
        (["x.traj", "-q", "-v"], "not allowed with"),
        (["x.traj", "--nonsense"], "--nonsense"),
    ],
)
def test_wrong_usage_is_exit_code_2(refine, crystals, capfd, arguments, expected):
    write("x.traj", crystals[0])
    out = refine(*arguments, steps=None)
    assert out.code == 2
    assert expected in capfd.readouterr().err
    assert not out.folder.exists()


def test_nothing_to_refine_is_exit_code_1(refine, capfd):
    assert refine("no.traj", "none").code == 1
    assert not Path("out").exists()
    assert capfd.readouterr().err.count("no such file or folder") == 2
    write("water.traj", molecule("H2O"))
    out = refine("water.traj")
    assert out.code == 1
    assert len(out.frames) == 1
    assert "nothing could be refined" in capfd.readouterr().err
    Path("empty.extxyz").touch()
    out = refine("empty.extxyz", output="e")
    assert out.code == 1
    assert (out.folder / "refined.extxyz").read_text() == ""


def test_a_folder_that_is_not_empty_is_refused(refine, crystals, capfd):
    write("in.traj", crystals[:2])
    Path("out").mkdir()
    Path("out/mine.txt").write_text("precious")
    assert refine("in.traj").code == 2
    assert "out is not empty" in capfd.readouterr().err
    assert os.listdir("out") == ["mine.txt"]
    assert refine("in.traj", "--overwrite", "--plot").code == 0
    assert refine("in.traj@0", "--overwrite").code == 0
    assert Path("out/mine.txt").read_text() == "precious"
    assert sorted(os.listdir("out")) == sorted(
        ["mine.txt", "config.yaml", "log", "refined.extxyz", "summary.json", "table.csv",
         "valid.extxyz"]
    )  # fmt: skip
    assert len(read("out/refined.extxyz", ":")) == 1
    assert refine("out/refined.extxyz", "--overwrite").code == 2
    assert "would be overwritten" in capfd.readouterr().err
    assert len(read("out/refined.extxyz", ":")) == 1


def test_a_folder_that_cannot_be(refine, crystals, capfd):
    write("in.traj", crystals[0])
    Path("file").touch()
    assert refine("in.traj", output="file").code == 2
    assert refine("in.traj", output="file/below").code == 2
    assert capfd.readouterr().err.count("cannot write to file") == 2


def test_default_folder(tmp_path, monkeypatch, crystals):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    write("data/run.traj", crystals[:2])
    assert main(["data/run.traj@:1", "--steps", "1", "-q"]) == 0
    assert len(read("run-asexlatent/refined.extxyz", ":")) == 1
    GRAPHITE.to_cif("data/g.cif")
    assert main(["data", "--steps", "1", "-q"]) == 0
    assert len(read("data-asexlatent/refined.extxyz", ":")) == 1


def test_terminal_and_logging(refine, crystals, capfd):
    handlers = list(logging.getLogger(chunks.LOGGER).handlers)
    threads = torch.get_num_threads()
    write("in.traj", [*crystals, *[molecule("H2O")] * 15])
    out = refine("in.traj", "--threads", "1")
    shown = capfd.readouterr()
    assert "median loss" in shown.out
    assert out.code == 0
    assert "converged" in shown.out or "step_limit" in shown.out
    assert shown.err.count("not periodic") == 10
    assert "further failures are listed in" in shown.err
    assert out.log.count("not periodic") == 15
    refine("in.traj", "-v", output="v")
    assert capfd.readouterr().err.count("not periodic") == 15
    refine("in.traj", "-q", output="q")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger(chunks.LOGGER).handlers == handlers
    assert torch.get_num_threads() == threads


def test_summary_and_plots(refine):
    out = refine(f"{EXAMPLE}@:9", "--plot", "--seed", "17", steps=20)
    summary = out.summary
    assert summary["seed"] == 17
    assert set(summary["versions"]) >= {
        "asexlatent", "torch", "ase", "spglib", "pyxtal", "numpy", "python",
    }  # fmt: skip
    assert summary["seconds"]["wall"] > 0
    assert summary["settings"]["rcut"] == 2.1
    counts = summary["counts"]
    assert sum(counts[s] for s in ("converged", "stalled", "step_limit", "failed")) == 9
    for name in ("spectra", "losses"):
        assert (out.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out.folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_bar_says_how_far_it_is(refine, monkeypatch):
    import io

    from tqdm import tqdm

    from asexlatent.cli import progress

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setattr(progress.sys, "stderr", screen)
    monkeypatch.setattr(progress, "_REFRESH", 0.0)
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    refine(f"{EXAMPLE}@:20", "--restarts", "1", steps=30)
    shown = screen.getvalue().split("\r")
    assert "0/20" in shown[1]
    assert any("20/20" in text and " valid, median loss " in text for text in shown)
    text = screen.getvalue()
    medians = [float(number) for number in re.findall(r"median loss ([\d.e+-]+)", text)]
    assert medians[-1] < medians[0]
    done = [int(number) for number in re.findall(r"(\d+)/20 ", text)]
    assert done == sorted(done)


# -- as a program of its own ----------------------------------------------------------------------

COMMAND = shutil.which("asexlatent-refine", path=str(Path(sys.executable).parent))
START = [COMMAND] if COMMAND else [sys.executable, "-m", "asexlatent.cli.refine"]


def test_help_is_quick_and_light():
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        done = subprocess.run([*START, "--help"], capture_output=True, text=True, check=True)
        best = min(best, time.perf_counter() - begin)
    assert "asexlatent-refine INPUT..." in done.stdout
    assert best < 1.0
    code = (
        "import sys, asexlatent.cli.refine as r; r.main(['--help']); print('modules', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "argparse" in loaded
    assert not loaded & {"torch", "pyxtal", "pymatgen", "numpy", "scipy", "ase", "matplotlib"}


def test_console_script_and_a_real_ctrl_c(tmp_path):
    write(tmp_path / "in.traj", read(EXAMPLE, ":20"))
    process = subprocess.Popen(
        [*START, "in.traj", "--steps", "1000000", "--ftol", "0", "--threads", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = tmp_path / "in-asexlatent"
    for _ in range(600):
        time.sleep(0.1)
        if (folder / "refined.extxyz").exists():
            break
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert len(read(folder / "refined.extxyz", ":")) == 20
    assert json.loads((folder / "summary.json").read_text())["interrupted"]
    assert err.count("interrupted") == 1
    assert "Traceback" not in err
