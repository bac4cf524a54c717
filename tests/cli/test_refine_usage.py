from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ase.build import molecule
from ase.io import read, write
from refine_cases import EXAMPLE, GRAPHITE

from asexlatent.cli import chunks
from asexlatent.cli.refine import main


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


def test_console_script_and_a_real_ctrl_c(tmp_path, start_process):
    write(tmp_path / "in.traj", read(EXAMPLE, ":20"))
    process = start_process(
        [*START, "in.traj", "--steps", "1000000", "--ftol", "0", "--threads", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = tmp_path / "in-asexlatent"
    for _ in range(600):
        time.sleep(0.1)
        if (folder / "refined.extxyz.part").exists():
            break
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert len(read(folder / "refined.extxyz", ":")) == 20
    assert json.loads((folder / "summary.json").read_text())["interrupted"]
    assert err.count("interrupted") == 1
    assert "Traceback" not in err
