"""The corpus of bad inputs through the other commands: nothing ends them, everything is named."""

from __future__ import annotations

import csv
import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
from bad_input_corpus import CASES, GRAPHITE, Trap, diamond
from safetensors.torch import save

from asexlatent.cli import augment, generate, screen, train
from asexlatent.screening.energies import Relaxer

LARGE = {"many_atoms"}  # subgroups and nets of it take long, and it is not bad


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All inputs of the corpus that are files, each in a folder of its own."""
    root = tmp_path_factory.mktemp("corpus")
    here = os.getcwd()
    try:
        for case in CASES:
            if case.code != 2 and case.name not in LARGE:
                (root / case.name).mkdir()
                os.chdir(root / case.name)
                case.build()
    finally:
        os.chdir(here)
    return root


def inputs_of(root: Path) -> list[str]:
    """Files and folders of the corpus, and one that is not there."""
    paths = [path for folder in sorted(root.iterdir()) for path in sorted(folder.iterdir())]
    return [*(os.path.relpath(path) for path in paths if path.name != "in.csv.tmp"), "none.traj"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def names_of_failures() -> set[str]:
    """Cases with something that no command can use, whatever its target."""
    targets = {"unknown_element", "mixed_composition", "flat_rhombohedron"}
    return {c.name for c in CASES if c.failed and c.code != 2} - targets


def test_augment(corpus, capsys, monkeypatch):
    monkeypatch.setattr(augment, "_SHOWN", 10**6)
    words = ["-o", "rows.csv", "--max-index", "1", "--workers", "1"]
    assert augment.main([*inputs_of(corpus), *words]) == 0
    said = capsys.readouterr().err
    for name in names_of_failures():
        assert f"/{name}/" in said, name
    assert "none.traj: no such file or folder" in said
    assert "Traceback" not in said


def test_train(corpus, capsys):
    words = ["-o", "m", "--epochs", "1", "--latent", "2", "--hidden", "8", "--embedding", "4"]
    words += ["--components", "2", "--threads", "1", "--held-out", "0", "-q"]
    assert train.main([*inputs_of(corpus), *words]) == 0
    with open("m/skipped.csv", newline="") as handle:
        skipped = list(csv.DictReader(handle))
    for name in names_of_failures():
        assert any(f"/{name}/" in row["source"] for row in skipped), name
    assert all(row["reason"] for row in skipped)
    assert "Traceback" not in capsys.readouterr().err


@pytest.fixture
def _no_energies(monkeypatch: pytest.MonkeyPatch) -> None:
    def relax(crystals: list) -> list:
        end = {"status": "converged", "reason": "", "steps": 1, "fmax": 0.0, "smax": 0.0}
        return [SimpleNamespace(crystal=c, energy=c.volume / c.n_atoms, **end) for c in crystals]

    monkeypatch.setattr(
        "asexlatent.screening.energies.make_relaxer", lambda *_, **__: Relaxer("volumes", relax)
    )


@pytest.mark.usefixtures("_no_energies")
def test_screen(corpus, capsys):
    assert screen.main([*inputs_of(corpus), "-o", "out", "-v", "--workers", "1"]) == 0
    said = capsys.readouterr().err
    with open("out/screened.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    failed = [row for row in rows if row["status"] in ("failed", "invalid")]
    for name in names_of_failures() - {"missing_column", "repeated_column"}:
        assert any(f"/{name}/" in row["source"] for row in failed), name
    assert all(row["reason"] for row in rows if row["status"] == "failed")
    assert any(row["status"] == "ranked" for row in rows)
    assert "none.traj: no such file or folder" in said
    assert "missing_column/in.csv: the header lacks the column gamma" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("other_version", "schema 99"),
        ("cut_model", "hash differs"),
        ("cut_description", "no JSON object"),
        ("pickled_model", "damaged"),
        ("model_is_a_file", "model.json is missing"),
    ],
)
def test_generate_with_a_bad_model(name, words, capsys):
    next(case for case in CASES if case.name == name).build()
    assert generate.main(["--model", "m", "-n", "2", "-q"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert not Path("candidates.csv").exists()
    assert not Path("trapped").exists()


@pytest.mark.parametrize("kind", ["nan_position", "space_group_231", "wrong_wyckoff", "cut_cif"])
def test_generate_under_bad_conditions(kind, capsys):
    """Those that are some are used; the others are counted, and one is named."""
    (name, *_) = next(case for case in CASES if case.name == kind).build()
    assert generate.main(["--random", "--conditions", name, "-n", "2", "-q"]) == 0
    assert f"1 of {name} are no conditions, such as {name}" in capsys.readouterr().err


def calculator(kind: str) -> tuple[str, str]:
    """A file or folder that is no model of energies, and what is to be said about it."""
    if kind == "pickle":
        Path("evil.model").write_bytes(pickle.dumps(Trap()))
        return "evil.model", "no model file"
    if kind == "cut":
        import torch

        torch.save({"a": torch.zeros(900)}, "cut.model")
        Path("cut.model").write_bytes(Path("cut.model").read_bytes()[:700])
        return "cut.model", "no model file"
    if kind == "other":
        import torch

        torch.save({"a": torch.zeros(9)}, "other.model")
        return "other.model", "holds no MACE model but dict"
    Path("m").mkdir()
    Path("m/weights.safetensors").write_bytes(save({}))
    text = json.dumps({"schema": "?", "version": 99, "sha256": ""})
    Path("m/model.json").write_text(text[: 9 if kind == "cut json" else None])
    return "m", "m/model.json"


@pytest.mark.parametrize("kind", ["pickle", "cut", "other", "cut json", "version"])
def test_screen_with_a_bad_calculator(kind, capsys):
    from ase.io import write

    write("in.traj", [GRAPHITE.to_atoms(), diamond()])
    name, words = calculator(kind)
    assert screen.main(["in.traj", "--calculator", name, "-o", "out"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"asexlatent-screen: error: --calculator {name}: ")
    assert words in said
    assert len(said.splitlines()) == 1
    assert not Path("out").exists()
    assert not Path("trapped").exists()


@pytest.mark.usefixtures("_no_energies")
@pytest.mark.parametrize("command", [augment, train, screen])
def test_outputs_where_none_can_be(command, capsys):
    from ase.io import write

    write("in.traj", [GRAPHITE.to_atoms(), diamond()])
    suffix = "/rows.csv" if command is augment else "/out"
    assert command.main(["in.traj", "-o", f"in.traj{suffix}", "-q"]) == 2
    assert "in.traj" in capsys.readouterr().err
