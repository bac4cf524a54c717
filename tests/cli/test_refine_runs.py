from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write
from refine_cases import EXAMPLE, GRAPHITE, csv_file, rows_of

from asexlatent.cli import chunks


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

    def spy(self, part):
        write_chunk(self, part)
        so_far = read(self.folder / "refined.extxyz.part", ":", format="extxyz")
        seen.append((len(part.outcomes), len(so_far)))

    monkeypatch.setattr(OutputFolder, "write", spy)
    out = refine(f"{EXAMPLE}@:10", steps=2)
    assert seen == [(4, 4), (4, 8), (2, 10)]
    assert [f.info["asx_index"] for f in out.frames] == list(range(10))


def test_inputs_are_streamed(refine, monkeypatch, crystals):
    """No more candidates are alive than one chunk holds."""
    import gc
    import weakref

    from asexlatent.cli import job

    monkeypatch.setattr(chunks, "CHUNK", 3)
    alive: list[weakref.ref] = []
    most = 0
    original = job.refine_chunk

    def spy(candidates, *rest):
        nonlocal most
        alive.extend(weakref.ref(c) for c in candidates)
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        return original(candidates, *rest)

    monkeypatch.setattr(job, "refine_chunk", spy)
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
