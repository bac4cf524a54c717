"""A run that is killed goes on, and ends as if nothing had happened."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ase.io import read, write
from refine_cases import EXAMPLE

from asexlatent.cli import parts
from asexlatent.cli.refine import main

OPTIONS = ["--chunk-size", "2", "--restarts", "1", "--steps", "10"]
START = [sys.executable, "-m", "asexlatent.cli.refine"]


def contents(folder: Path) -> dict:
    """All that must be the same whatever happened."""
    texts = {
        name: (folder / name).read_bytes()
        for name in ("refined.extxyz", "valid.extxyz", "table.csv")
    }
    summary = json.loads((folder / "summary.json").read_text())
    del summary["seconds"], summary["settings"]["workers"]
    for row in summary["rounds"]:
        del row["cpu_seconds"], row["wall_seconds"]
    return texts | {"summary": summary}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("whole")
    write(folder / "in.extxyz", read(EXAMPLE, ":12"))
    here = os.getcwd()
    os.chdir(folder)
    try:
        assert main(["in.extxyz", *OPTIONS, "-o", "out", "-q", "--workers", "1"]) == 0
        return contents(Path("out"))
    finally:
        os.chdir(here)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("in.extxyz", read(EXAMPLE, ":12"))
    return tmp_path


def call(*arguments: str, workers: int = 1) -> int:
    return main(["in.extxyz", *OPTIONS, "-o", "out", "-q", "--workers", str(workers), *arguments])


class DiskFull(OSError):
    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, "No space left on device", "somewhere")


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """Let a number of chunks be kept, then fail."""
    keep = parts.Parts.save
    seen = []

    def save(self, *arguments):
        seen.append(1)
        if len(seen) > count:
            raise error
        keep(self, *arguments)

    monkeypatch.setattr(parts.Parts, "save", save)


@pytest.mark.slow
def test_workers_change_no_bit(inputs, whole):
    assert call(workers=2) == 0
    assert contents(Path("out")) == whole
    assert not Path("out/parts").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on(inputs, whole, workers):
    command = [*START, "in.extxyz", *OPTIONS, "-o", "out", "--workers", str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(20000):
        time.sleep(0.01)
        if len(list(Path("out/parts").glob("*.json.gz"))) >= 2 or process.poll() is not None:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    kept = len(list(Path("out/parts").glob("*.json.gz")))
    assert 2 <= kept < 6
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "going on with the unfinished run in out/" in done.stdout
    assert contents(Path("out")) == whole
    assert sorted(os.listdir("out")) == [
        "config.yaml", "log", "refined.extxyz", "summary.json", "table.csv", "valid.extxyz",
    ]  # fmt: skip
    assert call() == 2  # it is finished now


def test_ctrl_c_and_on(inputs, whole, monkeypatch):
    from asexlatent.cli.progress import Bar

    with monkeypatch.context() as patch:

        def watch(self, state, run):
            if self._finished == 4 and state.step == 2:
                signal.raise_signal(signal.SIGINT)

        patch.setattr(Bar, "watch", watch)
        assert call() == 130
    assert len(read("out/refined.extxyz", ":")) == 12
    assert call() == 0
    assert contents(Path("out")) == whole


@pytest.mark.slow
def test_ctrl_c_with_workers(inputs, whole, start_process):
    command = [*START, "in.extxyz", *OPTIONS, "-o", "out", "--workers", "2"]
    process = start_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(20000):
        time.sleep(0.01)
        if list(Path("out/parts").glob("*.json.gz")):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    frames = read("out/refined.extxyz", ":")
    assert [frame.info["asx_index"] for frame in frames] == list(range(12))
    assert any(frame.info.get("asx_reason") == "interrupted" for frame in frames)
    assert any(frame.info.get("asx_reason") != "interrupted" for frame in frames)
    assert call() == 0
    assert contents(Path("out")) == whole


def test_a_full_disk(inputs, whole, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        stop_after(patch, 3, DiskFull())
        assert call() == 1
    assert "the disk is full: make room; the same command goes on" in capfd.readouterr().err
    assert not list(Path("out/parts").glob("*.tmp"))
    assert call() == 0
    assert contents(Path("out")) == whole


@pytest.mark.slow
def test_a_disk_that_is_really_full(inputs):
    """A file system of 60 kB in a name space of its own."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    script = (
        "mkdir small && mount -t tmpfs -o size=60k none small && cd small && "
        f"{sys.executable} -m asexlatent.cli.refine ../in.extxyz --workers 1 --chunk-size 2 "
        "--steps 2 --restarts 0 -o out; echo code $?; "
        "mount -o remount,size=4m none . ; "
        f"{sys.executable} -m asexlatent.cli.refine ../in.extxyz --workers 1 --chunk-size 2 "
        "--steps 2 --restarts 0 -o out; echo code $?; grep -c Lattice out/refined.extxyz"
    )
    done = subprocess.run(["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True)
    if "code" not in done.stdout:
        pytest.skip(f"no file system can be mounted: {done.stderr.strip()}")
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Logging error" not in done.stderr
    assert done.stdout.splitlines()[0] == "code 1"
    assert done.stdout.splitlines()[-2:] == ["code 0", "12"]


def test_other_settings_are_named_and_refused(inputs, whole, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        stop_after(patch, 2, DiskFull())
        assert call() == 1
    capfd.readouterr()
    before = sorted(os.listdir("out/parts"))
    for options, expected in (
        (["--seed", "5"], "seed was 0, now 5"),
        (["--chunk-size", "3"], "chunk_size was 2, now 3"),
        (["--target", "sp3"], 'target was "sp2", now "sp3"'),
        (["--restarts", "3"], "restarts was 1, now 3"),
        (["--threads", "2"], "threads was 1, now 2"),
    ):
        assert call(*options) == 2
        shown = capfd.readouterr().err
        assert expected in shown
        assert "unfinished run with other settings" in shown
        assert "--overwrite" in shown
    assert sorted(os.listdir("out/parts")) == before
    assert call("--seed", "5", "--overwrite") == 0
    assert contents(Path("out")) != whole
    assert call("--overwrite") == 0
    assert contents(Path("out")) == whole


def test_another_version_is_refused(inputs, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        stop_after(patch, 2, DiskFull())
        assert call() == 1
    path = Path("out/parts/run.json")
    saved = json.loads(path.read_text())
    saved["run"]["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(saved))
    assert call() == 2
    assert 'torch was "1.0", now' in capfd.readouterr().err
    path.write_text("{")
    assert call() == 2
    assert "damaged: --overwrite starts afresh" in capfd.readouterr().err


def test_other_inputs_are_worked_on_again(inputs, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 4, DiskFull())
        assert call() == 1
    frames = read("in.extxyz", ":")
    frames[3].positions[0] += 0.01
    frames[3].info["name"] = "another"
    write("in.extxyz", frames)
    assert call() == 0
    resumed = contents(Path("out"))
    assert "the inputs of chunk 1, from in.extxyz@2 on" in Path("out/log").read_text()
    assert call("--overwrite") == 0
    assert contents(Path("out")) == resumed
    assert read("out/refined.extxyz", 3).info["name"] == "another"


def test_a_damaged_part_is_made_again(inputs, whole, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 4, DiskFull())
        assert call() == 1
    kept = sorted(Path("out/parts").glob("*.json.gz"))
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    kept[1].write_bytes(gzip.compress(b"{}"))
    kept[2].write_bytes(b"")
    assert call() == 0
    assert contents(Path("out")) == whole


def test_two_at_a_time_are_refused(inputs, capfd):
    Path("out/parts").mkdir(parents=True)
    with parts.Parts(Path("out"), {}).alone():
        assert call("--overwrite") == 2
    assert "another process is at work in out" in capfd.readouterr().err
