"""``asexlatent-refine --screen``: refined and screened in one go, and again after any kill."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import ase.db
import pytest
from ase.io import read, write
from refine_cases import EXAMPLE, GRAPHITE

from asexlatent.cli import parts, screening_stage
from asexlatent.cli.refine import main
from asexlatent.cli.screen import main as screen_command
from asexlatent.screening.energies import Relaxer
from asexlatent.screening.store import ChunkStore
from asexlatent.symmetry import SymmetricCrystal

AA = SymmetricCrystal.build(191, (2.46, 3.5), [("C", "c", [])])
SRS = SymmetricCrystal.build(214, (4.2,), [("C", "a", [])])
OPTIONS = ["--chunk-size", "3", "--restarts", "0", "--steps", "3", "--workers", "1", "--screen"]
RANKING = {"ranked.db", "ranked.csv", "screened.csv", "cif"}
REFINED = {
    "config.yaml", "log", "refined.extxyz", "summary.json", "table.csv", "valid.extxyz",
}  # fmt: skip


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


class Fake:
    """Energies are volumes per atom; counts what it relaxes, is interrupted where it is told to."""

    def __init__(self) -> None:
        self.asked, self.stop_at = 0, None

    def __call__(self, crystals: Sequence) -> list:
        found = []
        for made in crystals:
            if self.asked == self.stop_at:
                raise KeyboardInterrupt
            self.asked += 1
            end = {"status": "converged", "reason": "", "steps": 1, "fmax": 0.0, "smax": 0.0}
            energy = made.volume / made.n_atoms
            found.append(SimpleNamespace(crystal=made, energy=energy, **end))
        return found


def fake_relaxers(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setattr(
        "asexlatent.screening.energies.make_relaxer",
        lambda calculator, **_: Relaxer(f"fake {calculator}", made),
    )
    monkeypatch.setattr("asexlatent.screening.pipeline.RELAXED_TOGETHER", 1)
    return made


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    return fake_relaxers(monkeypatch)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight candidates, among them three nets that are valid, one of them twice."""
    monkeypatch.chdir(tmp_path)
    write_inputs()
    return tmp_path


def write_inputs() -> None:
    swollen = GRAPHITE.to_atoms()
    swollen.set_cell(swollen.cell * 1.02, scale_atoms=True)
    first, second, third, fourth = read(EXAMPLE, ":4")
    known = [swollen, GRAPHITE.to_atoms(), AA.to_atoms(), SRS.to_atoms()]
    write("in.extxyz", [known[0], first, known[1], second, third, *known[2:], fourth])


def call(*arguments: str, output: str = "out") -> int:
    return main(["in.extxyz", *OPTIONS, "-o", output, "-q", *arguments])


def rows_of(path: str | Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def contents(folder: str) -> dict:
    """All that must be the same whatever happened."""
    names = ("refined.extxyz", "valid.extxyz", "table.csv", "ranked.csv", "screened.csv")
    found: dict = {name: Path(folder, name).read_bytes() for name in names}
    found["cif"] = {path.name: path.read_bytes() for path in Path(folder, "cif").iterdir()}
    rows = ase.db.connect(f"{folder}/ranked.db").select()
    found["db"] = [(row.key_value_pairs, row.energy, row.data["duplicates"]) for row in rows]
    summary = json.loads(Path(folder, "summary.json").read_text())
    del summary["seconds"], summary["screening"]["seconds"]
    return found | {"summary": summary}


def test_one_folder_holds_everything(inputs, fake, capsys):
    assert main(["in.extxyz", *OPTIONS, "-o", "out", "--emax", "3", "--top", "1", "--plot"]) == 0
    said = capsys.readouterr()
    assert said.err == "asexlatent-refine: lower than graphite by this calculator: 1\n"
    assert "N_unique" in said.out
    assert said.out.count("results in out/") == 1
    pictures = {f"{name}.{kind}" for name in ("spectra", "losses", "energies", "density", "yields")
                for kind in ("png", "pdf")}  # fmt: skip
    assert set(os.listdir("out")) == REFINED | RANKING | pictures
    screened = rows_of("out/screened.csv")
    assert [row["source"] for row in screened] == [f"in.extxyz@{k}" for k in range(len(screened))]
    valid = [row["asx_valid"] == "True" for row in rows_of("out/table.csv")]
    assert [row["valid"] == "True" for row in screened] == valid
    summary = json.loads(Path("out/summary.json").read_text())
    counts = summary["screening"]["counts"]
    assert counts["N_valid_env"] == summary["counts"]["valid"] == sum(valid)
    assert counts["N_unique"] == ase.db.connect("out/ranked.db").count() == 3
    assert summary["screening"]["emax"] == 3
    assert summary["screening"]["calculator"] == "fake None"
    assert len(os.listdir("out/cif")) == 1
    assert {"relaxations", "matching"} <= set(summary["screening"]["seconds"])


def test_the_same_as_two_commands(inputs, fake):
    assert call() == 0
    assert screen_command(["out/refined.extxyz", "-o", "again", "-q", "--workers", "1"]) == 0
    for name in ("ranked.csv", "screened.csv"):
        assert Path("again", name).read_bytes() == Path("out", name).read_bytes()


def test_the_settings_are_kept_and_repeat_the_run(inputs, fake):
    assert call("--calculator", "mine", "--emax", "0.3", "--top", "2") == 0
    assert main(["--config", "out/config.yaml", "-o", "again", "-q"]) == 0
    assert contents("again") == contents("out")
    assert json.loads(Path("again/summary.json").read_text())["settings"]["emax"] == 0.3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict]:
    """How many relaxations an undisturbed run takes, and what it leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        made = fake_relaxers(patch)
        write_inputs()
        assert call() == 0
        return made.asked, contents("out")


MOMENTS = {
    "in the refinement": (parts.Parts, "save", 2),
    "before the screening": (screening_stage.ScreenWork, "go", 0),
    "before the first relaxation": (ChunkStore, "add", 1),
    "in the relaxations": (ChunkStore, "add", 2),
    "before the ranking": ("asexlatent.screening.database", "write_ranking", 0),
    "between database and tables": ("asexlatent.screening.database", "write_whole", 0),
    "before the CIFs": ("asexlatent.screening.database", "_write_cifs", 0),
    "before the summary": ("asexlatent.cli.run", "write_whole", 2),
    "at the very end": (parts.Parts, "finish", 0),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_on(inputs, fake, whole, monkeypatch, moment):
    owner, name, count = MOMENTS[moment]
    with monkeypatch.context() as patch:
        kill_after(patch, owner, name, count)
        with pytest.raises(Killed):
            call()
    assert call() == 0
    assert contents("out") == whole[1]
    assert set(os.listdir("out")) == REFINED | RANKING
    assert whole[0] <= fake.asked <= whole[0] + 1  # what was at work when it was killed
    assert call() == 2  # it is finished now


def kill_after(patch: pytest.MonkeyPatch, owner: object, name: str, count: int) -> None:
    """Let a function be called a number of times, then die."""
    if isinstance(owner, str):
        owner = sys.modules[owner]
    function, seen = getattr(owner, name), []

    def called(*arguments, **options):
        seen.append(1)
        if len(seen) > count:
            raise Killed
        return function(*arguments, **options)

    patch.setattr(owner, name, called)


def test_ctrl_c_keeps_what_is_done(inputs, fake, whole):
    fake.stop_at = 2  # graphite as the reference, one crystal
    assert call() == 130
    assert [row["status"] for row in rows_of("out/screened.csv")].count("pending") == 2
    assert ase.db.connect("out/ranked.db").count() == 1
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["interrupted"] is True
    assert summary["screening"]["counts"]["pending"] == 2
    fake.stop_at = None
    assert call() == 0
    assert fake.asked == whole[0]
    assert contents("out") == whole[1]


def test_ctrl_c_in_the_refinement_screens_nothing(inputs, fake, monkeypatch):
    from asexlatent.cli.progress import Bar

    with monkeypatch.context() as patch:
        patch.setattr(Bar, "watch", lambda self, state, run: signal.raise_signal(signal.SIGINT))
        assert call() == 130
    assert set(os.listdir("out")) == REFINED | {"parts"}
    assert fake.asked == 0
    assert call() == 0
    assert set(os.listdir("out")) == REFINED | RANKING


def test_another_calculator_costs_no_second_refinement(inputs, fake, monkeypatch):
    with monkeypatch.context() as patch:
        kill_after(patch, screening_stage.ScreenWork, "go", 0)
        with pytest.raises(Killed):
            call()
    kept = {path.name: path.stat().st_mtime_ns for path in Path("out/parts").glob("*.gz")}
    assert len(kept) == 3
    with monkeypatch.context() as patch:
        kill_after(patch, parts.Parts, "save", 0)  # there is nothing to refine
        assert call("--calculator", "other") == 0
    assert json.loads(Path("out/summary.json").read_text())["screening"]["calculator"] == (
        "fake other"
    )


def test_overwrite_takes_the_old_ranking_away(inputs, fake):
    assert call() == 0
    Path("out/energies.png").touch()
    Path("out/cif/mine.cif").write_text("mine")
    plain = [word for word in OPTIONS if word != "--screen"]
    assert main(["in.extxyz", *plain, "-o", "out", "-q", "--overwrite"]) == 0
    assert set(os.listdir("out")) == REFINED | {"cif"}
    assert os.listdir("out/cif") == ["mine.cif"]


def test_nothing_to_rank(inputs, fake, capsys):
    write("in.extxyz", read(EXAMPLE, ":1"))
    assert call("--target", "sp") == 1
    assert "nothing to rank" in capsys.readouterr().err
    assert ase.db.connect("out/ranked.db").count() == 0
    assert not Path("out/parts").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--calculator", "magic"], "--calculator magic: "),
        (["--emax", "-1"], "--emax: must be finite and not negative"),
        (["--top", "half"], "--top: must be a whole number"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_done(inputs, capsys, arguments, words):
    assert call(*arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert not Path("out").exists()


@pytest.mark.parametrize("option", [("--calculator", "x"), ("--emax", "1"), ("--top", "1")])
def test_options_of_a_screening_that_is_not_wanted(inputs, capsys, option):
    assert main(["in.extxyz", *option, "-o", "out"]) == 2
    assert f"{option[0]} is for a screening: --screen" in capsys.readouterr().err
    assert not Path("out").exists()


def tiny_model(folder: str) -> None:
    """A MACE model with random weights that hardly moves an atom."""
    import torch

    from asexlatent.screening.mace_model import build_mace, save_mace_model

    architecture = {
        "r_max": 3.0,
        "num_bessel": 3,
        "num_polynomial_cutoff": 5,
        "max_ell": 1,
        "interaction_cls": "RealAgnosticResidualInteractionBlock",
        "interaction_cls_first": "RealAgnosticInteractionBlock",
        "num_interactions": 2,
        "hidden_irreps": "2x0e",
        "MLP_irreps": "2x0e",
        "atomic_energies": [-9.0],
        "avg_num_neighbors": 12.0,
        "atomic_numbers": [6],
        "correlation": 1,
        "gate": "silu",
        "pair_repulsion": False,
        "radial_MLP": [4],
        "atomic_inter_scale": 0.005,
        "atomic_inter_shift": 0.0,
    }
    torch.manual_seed(0)
    save_mace_model(
        build_mace(architecture), folder, {"name": "tiny", "architecture": architecture}, "tiny"
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_process_that_is_really_killed_goes_on(inputs):
    """With a MACE model, from a shell, killed once in each stage."""
    tiny_model("tiny")
    command = [sys.executable, "-m", "asexlatent.cli.refine", "in.extxyz", *OPTIONS]
    command += ["--calculator", "tiny", "-o"]
    done = subprocess.run([*command, "whole"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("status")  # not with what MACE prints
    for sign in ("*.json.gz", "screening/*.json"):
        process = subprocess.Popen([*command, "out"], stdout=subprocess.DEVNULL)
        while process.poll() is None and not list(Path("out/parts").glob(sign)):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    done = subprocess.run([*command, "out"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "going on with the unfinished run in out/" in done.stdout
    assert contents("out") == contents("whole")
