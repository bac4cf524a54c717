"""The command from data files to a model that samples."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.db
import pytest
import torch
from ase.build import bulk
from ase.io import write

from asexlatent.cli.datasets import read_dataset
from asexlatent.cli.train import main
from asexlatent.latent import load_model
from asexlatent.symmetry import RandomCrystals, SymmetricCrystal

SMALL = ["--latent", "3", "--hidden", "16", "--embedding", "8", "--components", "3"]
SMALL += ["--epochs", "3", "--threads", "1"]


@pytest.fixture(scope="module")
def crystals() -> list[SymmetricCrystal]:
    source = RandomCrystals("C", space_groups=[62, 139, 166], max_sites=3, max_atoms=36, seed=1)
    return list(source.crystals(30))


@pytest.fixture(scope="module")
def table(crystals, tmp_path_factory) -> Path:
    """Rows of a table, one of them broken."""
    path = tmp_path_factory.mktemp("data") / "rows.csv"
    rows = [crystal.to_row() for crystal in crystals]
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        writer.writerow({**rows[0], "spg": 231})
    return path


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_from_a_table_to_a_model(table, tmp_path, capsys):
    folder = tmp_path / "model"
    assert main([str(table), "-o", str(folder), *SMALL, "--held-out", "0.3"]) == 0
    shown = capsys.readouterr()
    assert "30 rows of 30 crystals" in shown.out
    assert "1 candidates left out" in shown.err
    assert "space group 231 does not exist" in shown.err
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "model.json", "model.safetensors", "history.csv", "curves.png", "reconstruction.json",
        "skipped.csv",
    }  # fmt: skip
    history = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [line["epoch"] for line in history] == ["1", "2", "3"]
    skipped = list(csv.DictReader((folder / "skipped.csv").read_text().splitlines()))
    assert [line["source"] for line in skipped] == [f"{table}@30"]
    errors = json.loads((folder / "reconstruction.json").read_text())
    assert errors["all"]["rows"] == sum(e["rows"] for k, e in errors.items() if k != "all")
    model = load_model(folder)
    assert model.info["settings"]["network"]["hidden"] == 16
    assert all(isinstance(c, SymmetricCrystal) for c in model.sample(n=10, source="training"))


def test_a_model_is_not_replaced_unasked(table, tmp_path, capsys):
    folder = tmp_path / "model"
    command = [str(table), "-o", str(folder), "-q", *SMALL]
    assert main(command) == 0
    first = (folder / "model.safetensors").read_bytes()
    assert main([*command, "--seed", "1"]) == 2
    assert "has a model" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert (folder / "model.safetensors").read_bytes() == first
    assert main([*command, "--overwrite", "--seed", "1"]) == 0
    assert (folder / "model.safetensors").read_bytes() != first


def test_the_same_command_goes_on(table, tmp_path, capsys, monkeypatch):
    """Ctrl-C after the second epoch, then the same again: the model of an uninterrupted run."""
    from asexlatent.latent import Training

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([str(table), "-o", str(whole), "-q", *SMALL]) == 0
    epoch = Training._epoch

    def interrupted(self):
        if len(self.history) == 2:
            raise KeyboardInterrupt
        epoch(self)

    monkeypatch.setattr(Training, "_epoch", interrupted)
    assert main([str(table), "-o", str(parts), *SMALL]) == 130
    assert "interrupted after epoch 2" in capsys.readouterr().err
    monkeypatch.setattr(Training, "_epoch", epoch)
    assert main([str(table), "-o", str(parts), *SMALL, "--seed", "3"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert main([str(table), "-o", str(parts), *SMALL]) == 0
    assert "going on after epoch 2" in capsys.readouterr().out
    name = "model.safetensors"
    assert (whole / name).read_bytes() == (parts / name).read_bytes()
    assert not (parts / "checkpoint.json").exists()


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint(table, tmp_path, start_process):
    """A real signal to a real process."""
    folder = tmp_path / "model"
    command = [sys.executable, "-m", "asexlatent.cli.train", str(table), "-o", str(folder)]
    command += [*SMALL, "--epochs", "1000000", "--held-out", "0"]
    process = start_process(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    while not (folder / "checkpoint.json").exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert b"goes on from there" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert len(json.loads((folder / "checkpoint.json").read_text())["history"]) > 1


def test_every_kind_of_input(crystals, table, tmp_path):
    few = [crystal.to_atoms() for crystal in crystals[:3]]
    write(tmp_path / "few.extxyz", few)
    folder = tmp_path / "cifs"
    folder.mkdir()
    for k, crystal in enumerate(crystals[:3]):
        crystal.to_cif(folder / f"{k}.cif")
    with ase.db.connect(tmp_path / "few.db") as database:
        for atoms in few:
            database.write(atoms)
    hashes = set()
    for name in ("few.extxyz", "cifs", "few.db"):
        data = read_dataset(tmp_path / name)
        assert len(data) == 3
        assert not data.skipped
        hashes.add(tuple(map(str, data.conditions)))
    assert len(hashes) == 1
    both = read_dataset([table, tmp_path / "few.db", tmp_path / "missing.cif"])
    assert len(both) == 33
    assert [s.source for s in both.skipped] == [str(tmp_path / "missing.cif"), f"{table}@30"]


def test_subgroups_share_their_parent(tmp_path):
    write(tmp_path / "diamond.extxyz", bulk("C", "diamond", a=3.57))
    data = read_dataset(tmp_path / "diamond.extxyz", augment_index=3)
    assert len(data) > 2
    assert len(set(data.parents)) == 1
    assert 227 in {condition.space_group for condition in data.conditions}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--held-out", "1"], "must be below 1"),
        (["--epochs", "0"], "at least 1"),
        (["--species", "Xx"], "unknown chemical symbol"),
        (["--preset", "huge"], "invalid choice"),
        (["--augment", "x"], "whole number"),
        (["--device", "warp"], "--device warp"),
    ],
)
def test_wrong_usage(words, message, table, tmp_path, capsys):
    assert main([str(table), "-o", str(tmp_path / "m"), *words]) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_train_on(tmp_path, capsys):
    (tmp_path / "empty.csv").write_text("")
    assert main([str(tmp_path / "empty.csv"), "-o", str(tmp_path / "m")]) == 1
    assert "no crystal to train on" in capsys.readouterr().err


def test_input_in_the_way(table, tmp_path, capsys):
    rows = tmp_path / "history.csv"
    rows.write_text(table.read_text())
    assert main([str(rows), "-o", str(tmp_path)]) == 2
    assert "would be overwritten" in capsys.readouterr().err
