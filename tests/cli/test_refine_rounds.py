"""asexlatent-refine --rounds: rows of the summary, records, models that cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from refine_cases import EXAMPLE, csv_file, rows_of

from asexlatent.cli import chunks
from asexlatent.latent import save_model
from asexlatent.symmetry import RandomCrystals

sys.path.insert(0, str(Path(__file__).parents[1] / "latent"))
from latent_cases import GROUPS, tiny_model

ROUNDS = ("--rounds", 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(tiny_model(), folder)
    return folder


@pytest.fixture
def table(tmp_path) -> Path:
    source = RandomCrystals("C", GROUPS, max_sites=3, max_atoms=24, neighbors=3, seed=4)
    return csv_file(tmp_path / "t.csv", *[c.to_row() for c in source.crystals(8)])


def test_rounds_with_a_model(refine, model, table, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 5)  # rows add up over chunks
    out = refine(table, *ROUNDS, "--model", model, steps=30)
    assert out.code == 0
    rows = out.summary["rounds"]
    assert [row["round"] for row in rows] == list(range(len(rows)))
    assert rows[0]["tried"] == 8
    assert rows[-1]["valid"] == out.counts["valid"] == sum(row["new"] for row in rows)
    assert rows[1]["latent"] == rows[1]["tried"] == 8 - rows[0]["new"]
    assert all(row["cpu_seconds"] > 0 for row in rows)
    records = rows_of(out.folder / "table.csv")
    valid = [r for r in records if r["asx_valid"] == "True"]
    assert sum(row["new"] for row in rows[1:]) == sum(int(r["asx_round"]) > 0 for r in valid)
    for record in valid:
        assert record["asx_path"].startswith("latent") == (int(record["asx_round"]) > 0)
    frames = out.frames
    assert [f.info.get("asx_round") for f in frames] == [int(r["asx_round"]) for r in records]


def test_rounds_without_a_model(refine, table):
    out = refine(table, *ROUNDS, "--no-latent", steps=30)
    assert out.code == 0
    assert all(row["latent"] == 0 for row in out.summary["rounds"])
    assert not any("latent" in path for path in out.counts["valid_by_path"])
    again = refine(table, "--config", out.folder / "config.yaml", output="again", steps=30)
    assert again.counts == out.counts


def test_crystals_that_the_model_does_not_know_say_so(refine, model, tmp_path):
    source = RandomCrystals("C", (12, 63), max_sites=3, max_atoms=24, neighbors=3, seed=4)
    path = csv_file(tmp_path / "t.csv", *[c.to_row() for c in source.crystals(6)])
    out = refine(path, "--rounds", 1, "--model", model, steps=30)
    row = out.summary["rounds"][1]
    assert row["latent"] + sum(row["skipped"].values()) == row["tried"]
    assert row["skipped"]
    records = rows_of(out.folder / "table.csv")
    assert any("no latent stage: space group" in r["asx_reason"] for r in records)


def test_no_rounds_no_rows(refine):
    assert refine(f"{EXAMPLE}@:2").summary["rounds"] == []


def test_models_that_cannot_be_used(refine, tmp_path, table, capsys):
    out = refine(table, *ROUNDS, "--model", tmp_path / "none")
    assert out.code == 2
    assert "no model in" in capsys.readouterr().err
    assert not out.folder.exists()
    assert refine(table, "--model", tmp_path / "none").code == 2
    assert "--rounds" in capsys.readouterr().err
    save_model(tiny_model("tabular"), tmp_path / "tabular")
    assert refine(table, *ROUNDS, "--model", tmp_path / "tabular").code == 2
    assert "conditional" in capsys.readouterr().err
