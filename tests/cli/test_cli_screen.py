from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import ase.db
import pytest
from ase.build import bulk
from ase.io import write

from asexlatent.cli.screen import build_parser, main
from asexlatent.screening.energies import Relaxer, make_relaxer
from asexlatent.screening.rows import COLUMNS
from asexlatent.symmetry import SymmetricCrystal


def crystal(group: int, cell: tuple, *sites: tuple) -> SymmetricCrystal:
    return SymmetricCrystal.build(group, cell, [("C", *site) for site in sites])


GRAPHITE = crystal(194, (2.46, 6.7), ("b", []), ("c", []))
AA = crystal(191, (2.46, 3.5), ("c", []))
SRS = crystal(214, (4.2,), ("a", []))
MAKE_RELAXER = make_relaxer  # before it is replaced
DIAMOND = bulk("C", "diamond", 3.567)


class Fake:
    """Energies are volumes per atom; counts what it relaxes, breaks off where it is told to."""

    def __init__(self) -> None:
        self.asked, self.stop_at, self.broken = 0, None, ()

    def __call__(self, crystals: Sequence[SymmetricCrystal]) -> list:
        found = []
        for made in crystals:
            if self.asked == self.stop_at:
                raise KeyboardInterrupt
            if made.space_group in self.broken:
                raise RuntimeError("no energy for this one")
            self.asked += 1
            energy = made.volume / made.n_atoms
            found.append(
                SimpleNamespace(
                    crystal=made,
                    energy=energy,
                    status="converged",
                    reason="",
                    steps=1,
                    fmax=0.0,
                    smax=0.0,
                )
            )
        return found


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    monkeypatch.chdir(tmp_path)
    made = Fake()
    monkeypatch.setattr(
        "asexlatent.screening.energies.make_relaxer",
        lambda calculator, **_: Relaxer(f"fake {calculator}", made),
    )
    return made


@pytest.fixture
def frames(fake: Fake) -> str:
    atoms = [SRS.to_atoms(), DIAMOND, GRAPHITE.to_atoms(), AA.to_atoms(), SRS.to_atoms()]
    write("refined.extxyz", atoms)
    return "refined.extxyz"


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_run(frames, fake, capsys):
    assert main([frames, "-o", "out", "--emax", "1", "--top", "2"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "N_unique" in said.out
    assert "results in out/" in said.out
    names = {path.name for path in Path("out").iterdir()} - {".lock"}
    assert names == {
        "ranked.db", "ranked.csv", "screened.csv", "summary.json", "cif", "log", "config.json",
        "chunks",
    }  # fmt: skip
    assert ase.db.connect("out/ranked.db").count() == 3
    rows = rows_of("out/screened.csv")
    assert [row["source"] for row in rows] == [f"refined.extxyz@{k}" for k in range(5)]
    assert [row["status"] for row in rows] == [
        "ranked", "invalid", "ranked", "ranked", "duplicate",
    ]  # fmt: skip
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["inputs"] == [frames]
    assert summary["calculator"] == "fake None"
    assert set(summary["seconds"]) == {"nets", "relaxations", "matching", "wall"}
    assert summary["versions"]["asexlatent"]
    assert summary["emax"] == 1
    assert len(list(Path("out/cif").iterdir())) == 2


def test_again_adds_nothing_and_relaxes_nothing(frames, fake):
    assert main([frames, "-q"]) == 0
    before, asked = rows_of("refined-screened/ranked.csv"), fake.asked
    assert main([frames, "-q", "--top", "1"]) == 0
    assert fake.asked == asked
    assert rows_of("refined-screened/ranked.csv") == before
    assert ase.db.connect("refined-screened/ranked.db").count() == 3


def test_interrupted_run_goes_on(frames, fake, capsys, monkeypatch):
    monkeypatch.setattr("asexlatent.screening.pipeline.RELAXED_TOGETHER", 1)
    fake.stop_at = 2
    assert main([frames, "-o", "out", "--workers", "1"]) == 130
    assert "interrupted" in capsys.readouterr().err
    statuses = [row["status"] for row in rows_of("out/screened.csv")]
    assert statuses == ["ranked", "invalid", "pending", "pending", "duplicate"]
    assert json.loads(Path("out/summary.json").read_text())["interrupted"] is True
    fake.stop_at = None
    assert main([frames, "-o", "out", "--workers", "1"]) == 0
    assert fake.asked == 4  # three nets and the reference, each once
    assert [row["status"] for row in rows_of("out/screened.csv")].count("ranked") == 3


def test_what_fails_is_said_and_costs_nothing_else(frames, fake, capsys):
    fake.broken = (191,)
    assert main([frames, "-o", "out"]) == 0
    said = capsys.readouterr().err
    assert "refined.extxyz@3: relaxation: RuntimeError" in said or "no energy" in said
    assert ase.db.connect("out/ranked.db").count() == 2
    assert "no energy for this one" in Path("out/log").read_text()


def test_other_settings_need_another_folder(frames, fake, capsys):
    assert main([frames, "-q", "-o", "out"]) == 0
    assert main([frames, "-q", "-o", "out", "--emax", "0.2"]) == 2
    assert "other emax" in capsys.readouterr().err
    asked = fake.asked
    assert main([frames, "-q", "-o", "out", "--emax", "0.2", "--overwrite"]) == 0
    assert fake.asked == asked  # relaxations do not depend on it
    Path("mine").mkdir()
    Path("mine/file").write_text("mine")
    assert main([frames, "-q", "-o", "mine"]) == 2
    assert os.listdir("mine") == ["file"]


def test_one_process_at_a_time(frames, fake, capsys):
    fcntl = pytest.importorskip("fcntl")
    assert main([frames, "-q", "-o", "out"]) == 0
    with open("out/.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert main([frames, "-q", "-o", "out"]) == 2
    assert "another process" in capsys.readouterr().err
    assert main([frames, "-q", "-o", "out"]) == 0


def test_any_input(fake, capsys):
    with ase.db.connect("in.db") as database:
        database.write(GRAPHITE.to_atoms())
    Path("cifs").mkdir()
    SRS.to_cif("cifs/a.cif")
    Path("cifs/b.cif").write_text("nonsense")
    columns = {**GRAPHITE.to_row(), "asx_round": 3, "asx_path": "latent", "asx_valid": "True"}
    with open("table.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(columns))
        writer.writeheader()
        writer.writerow(columns)
    assert main(["in.db", "cifs", "table.csv", "-o", "out", "-q"]) == 0
    rows = rows_of("out/screened.csv")
    assert [row["source"] for row in rows] == [
        "in.db@1", "cifs/a.cif@0", "cifs/b.cif", "table.csv@0",
    ]  # fmt: skip
    assert rows[2]["status"] == "failed"
    assert (rows[3]["round"], rows[3]["path"]) == ("3", "latent")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.xyz"], "no such file"),
        ([], "the following arguments are required"),
        (["F", "--emax", "-1"], "not negative"),
        (["F", "--target", "sp7"], "--target sp7"),
        (["F", "--device", "warp"], "--device warp"),
        (["F", "--reference", "gold"], "write auto, lowest or an energy"),
    ],
)
def test_wrong_usage(frames, capsys, arguments, words):
    arguments = [frames if word == "F" else word for word in arguments]
    assert main([*arguments]) == 2
    assert words in capsys.readouterr().err
    assert not Path("refined-screened").exists()


def test_a_calculator_that_is_none(frames, capsys, monkeypatch):
    monkeypatch.setattr("asexlatent.screening.energies.make_relaxer", MAKE_RELAXER)
    assert main([frames, "--calculator", "magic", "-o", "out"]) == 2
    said = capsys.readouterr().err
    assert not Path("out").exists()
    assert said.startswith("asexlatent-screen: error: --calculator magic: ")
    assert len(said.splitlines()) == 1


def test_workers_elsewhere_find_the_model(frames, fake):
    Path("model").mkdir()
    assert main([frames, "--calculator", "model", "-q", "-o", "out"]) == 0
    used = json.loads(Path("out/summary.json").read_text())["calculator"]
    assert used == f"fake {Path('model').absolute()}"


def test_nothing_valid(fake, capsys):
    write("diamond.extxyz", [DIAMOND])
    assert main(["diamond.extxyz", "-o", "out"]) == 1
    assert "nothing to rank" in capsys.readouterr().err
    assert rows_of("out/screened.csv")[0]["status"] == "invalid"


def test_pictures(frames, fake):
    assert main([frames, "-o", "out", "-q", "--plot"]) == 0
    for name in ("energies", "density", "yields"):
        assert Path(f"out/{name}.png").stat().st_size > 5000
        assert Path(f"out/{name}.pdf").read_bytes()[:4] == b"%PDF"


def test_the_docs_show_every_option_as_it_is():
    text = (Path(__file__).parents[2] / "docs" / "screening.md").read_text(encoding="utf-8")
    shown = " ".join(text.split())
    for group in build_parser()._action_groups[2:]:
        for action in group._group_actions:
            assert action.option_strings[-1] in shown
            assert " ".join(action.help.split()) in shown, f"docs/screening.md: {action.help}"


def test_the_docs_name_every_column():
    text = (Path(__file__).parents[2] / "docs" / "screening.md").read_text(encoding="utf-8")
    for name in COLUMNS:
        assert f"`{name}`" in text or "net_key" in name, name


def test_help_is_quick():
    code = (
        "import sys; from asexlatent.cli.screen import main; main(['--help']); "
        "assert not {'torch', 'mace', 'pymatgen', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--calculator" in done.stdout
