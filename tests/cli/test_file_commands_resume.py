"""generate, augment and train go on after a kill, and end as if there had been none."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ase.io import write
from refine_cases import EXAMPLE, GRAPHITE

from asexlatent.cli import augment, generate, parts, train
from asexlatent.latent import Training, load_model
from asexlatent.latent import storage as model_files
from asexlatent.symmetry import SymmetricCrystal

K4 = SymmetricCrystal.build(214, [4.1], [("C", "8a", [])])
GENERATE = ["--random", "-n", "9", "--seed", "4", "-q"]
AUGMENT = ["in.extxyz", "--max-index", "2", "-q"]
TRAIN = ["in.csv", "-q", "--latent", "2", "--hidden", "8", "--embedding", "4", "--components", "2"]
TRAIN += ["--epochs", "4", "--held-out", "0.2", "--threads", "1"]
COMMANDS = {"generate": (generate.main, GENERATE), "augment": (augment.main, AUGMENT)}


@pytest.fixture(autouse=True)
def _inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(generate, "_CHUNK", 2)
    monkeypatch.setattr(augment, "_CHUNK", 1)
    write("in.extxyz", [GRAPHITE.to_atoms(), K4.to_atoms(), GRAPHITE.to_atoms()])
    Path("in.extxyz").write_text(Path("in.extxyz").read_text() + "1\nbroken\nC x\n")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def call(name: str, output: str, *words: str, workers: int = 1) -> int:
    main, options = COMMANDS[name]
    return main([*options, "-o", output, "--workers", str(workers), *words])


def stop_after(patch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """Let some chunks be kept, then fail."""
    keep, seen = parts.Parts.save, []

    def save(self, *arguments):
        seen.append(1)
        if len(seen) > count:
            raise error
        keep(self, *arguments)

    patch.setattr(parts.Parts, "save", save)


ENDS = [
    (KeyboardInterrupt(), 130, "the same command goes on from here"),
    (OSError(errno.ENOSPC, "No space left on device"), 1, "the disk is full: make room"),
]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("kind", ["csv", "csv.gz"])
@pytest.mark.parametrize(("error", "code", "words"), ENDS)
def test_goes_on_and_changes_no_bit(name, kind, error, code, words, monkeypatch, capsys):
    assert call(name, f"whole.{kind}") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 2, error)
        assert call(name, f"out.{kind}") == code
    assert words in capsys.readouterr().err
    assert not Path(f"out.{kind}").exists()
    assert len(list(Path(f"out.{kind}.parts").glob("*.json.gz"))) == 2
    assert call(name, f"out.{kind}") == 0
    assert Path(f"out.{kind}").read_bytes() == Path(f"whole.{kind}").read_bytes()
    assert not Path(f"out.{kind}.parts").exists()
    assert call(name, f"out.{kind}") == 2  # it is finished now
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_processes_change_no_bit(name, monkeypatch):
    monkeypatch.setattr(generate, "_FEW", 1)
    assert call(name, "one.csv") == 0
    assert call(name, "two.csv", workers=2) == 0
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()


@pytest.mark.parametrize("name", COMMANDS)
def test_changed_arguments_are_refused(name, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_after(patch, 1, KeyboardInterrupt())
        assert call(name, "out.csv") == 130
    assert call(name, "out.csv", "--seed", "9") == 2
    said = capsys.readouterr().err
    assert f"seed was {4 if name == 'generate' else 0}, now 9" in said
    assert "--overwrite" in said
    assert call(name, "out.csv", "--seed", "9", "--overwrite") == 0
    assert call(name, "fresh.csv", "--seed", "9") == 0
    assert Path("out.csv").read_bytes() == Path("fresh.csv").read_bytes()


def test_other_inputs_are_worked_on_again(monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        assert call("augment", "out.csv") == 130
    write("in.extxyz", [K4.to_atoms(), K4.to_atoms()])
    assert call("augment", "out.csv") == 0
    assert call("augment", "fresh.csv") == 0
    assert Path("out.csv").read_bytes() == Path("fresh.csv").read_bytes()


def test_killed_after_the_file_was_written(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert call("generate", "out.csv") == 130
    made = Path("out.csv").read_bytes()
    assert call("generate", "out.csv") == 0
    assert Path("out.csv").read_bytes() == made
    assert not Path("out.csv.parts").exists()


def test_frames_too(monkeypatch):
    assert call("generate", "whole.extxyz") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        assert call("generate", "out.extxyz") == 130
    assert call("generate", "out.extxyz") == 0
    assert Path("out.extxyz").read_bytes() == Path("whole.extxyz").read_bytes()


# -- training --------------------------------------------------------------------------------------


@pytest.fixture
def trained() -> bytes:
    assert generate.main(["--random", "-n", "24", "--space-group", "62,139", "-q", "-o", "in.csv",
                          "--max-sites", "3", "--max-atoms", "36"]) == 0  # fmt: skip
    assert train.main([*TRAIN, "-o", "whole"]) == 0
    return Path("whole/model.safetensors").read_bytes()


def test_an_epoch_that_is_broken_off_leaves_no_trace(trained, monkeypatch):
    """Ctrl-C in the middle of an epoch, when the weights have moved already."""
    rate = Training._held_out

    def interrupted(self, number):
        if number == 2:
            raise KeyboardInterrupt
        return rate(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_held_out", interrupted)
        assert train.main([*TRAIN, "-o", "out"]) == 130
    assert len(json.loads(Path("out/checkpoint.json").read_text())["history"]) == 2
    assert train.main([*TRAIN, "-o", "out"]) == 0
    assert Path("out/model.safetensors").read_bytes() == trained


def test_killed_between_the_two_files_of_a_checkpoint(trained, monkeypatch):
    replace, count = os.replace, []

    def dies(source, target):
        count.append(str(target).endswith("checkpoint.json"))
        if sum(count) >= 3:  # from here on nothing happens any more
            raise SystemExit("killed")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(model_files.os, "replace", dies)
        patch.setattr(Training.__init__, "__defaults__", (None, "cvae", None, 0.0, None))
        with pytest.raises(SystemExit):
            train.main([*TRAIN, "-o", "out"])
    for name in ("checkpoint.json", "checkpoint.json.part"):
        assert Path("out", name).exists()
    assert train.main([*TRAIN, "-o", "out"]) == 0
    assert Path("out/model.safetensors").read_bytes() == trained
    assert not list(Path("out").glob("checkpoint*"))


def test_killed_after_the_model_was_written(trained, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(model_files, "remove_pair", lambda *_: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            train.main([*TRAIN, "-o", "out"])
    assert train.main([*TRAIN, "-o", "out", "--epochs", "5"]) == 2
    assert train.main([*TRAIN, "-o", "out"]) == 0
    assert Path("out/model.safetensors").read_bytes() == trained
    load_model("out")
    assert train.main([*TRAIN, "-o", "out"]) == 2  # it is finished now


# -- real kills ------------------------------------------------------------------------------------

START = [sys.executable, "-m"]
KILLED = {
    "generate": ["asexlatent.cli.generate", "--random", "-n", "7000", "-o", "OUT.csv", "-q"],
    "augment": ["asexlatent.cli.augment", str(EXAMPLE), "-o", "OUT.csv", "--max-index", "3", "-q",
                "--workers", "2"],
    "train": ["asexlatent.cli.train", str(EXAMPLE), "-o", "OUT", "-q", "--epochs", "30",
              "--threads", "1", "--hidden", "64"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_real_kills(name):
    """SIGKILL at random moments, three times; then the end.

    One that was killed when all was done but to exit is refused when it comes again (code 2).
    """
    command = [*START, *KILLED[name]]
    whole = [word.replace("OUT", "whole") for word in command]
    begun = time.monotonic()
    subprocess.run(whole, check=True, stderr=subprocess.DEVNULL)
    lasts = time.monotonic() - begun
    numbers = random.Random(name)
    for _ in range(3):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(numbers.uniform(0.3, 1.0) * lasts)
        process.send_signal(signal.SIGKILL)
        if process.wait() in (0, 2):
            break
    else:
        assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode in (0, 2)
    made, expected = ("OUT.csv", "whole.csv")
    if name == "train":
        made, expected = ("OUT/model.safetensors", "whole/model.safetensors")
    assert Path(made).read_bytes() == Path(expected).read_bytes()
    assert not Path("OUT.csv.parts").exists()
