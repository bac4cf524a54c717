"""``asexlatent-generate`` with models; what models do is tested with them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from asexlatent.cli.generate import main
from asexlatent.latent import Dataset, TrainingSettings, save_model, train
from asexlatent.symmetry import RandomCrystals, read_table

GROUPS = (2, 62, 166, 194)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of models trained for a moment: carbon, silica and an unconditional one."""
    torch.set_num_threads(1)
    tiny = TrainingSettings().but(
        latent=4, embedding=8, hidden=16, components=3, epochs=2, batch=32, max_sites=4,
        held_out=0.2, condition_epochs=1,
    )  # fmt: skip
    folder, made = tmp_path_factory.mktemp("models"), {}
    for name, composition, kind in (
        ("carbon", "C", "cvae"),
        ("silica", "SiO2", "cvae"),
        ("plain", "C", "tabular"),
    ):
        source = RandomCrystals(composition, GROUPS, max_sites=4, max_atoms=48, seed=1)
        data = Dataset.from_candidates(source.crystals(40), max_sites=4)
        made[name] = folder / name
        save_model(train(data, tiny, kind), made[name])
    return made


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows_of(name: str) -> list:
    return [row.crystal(row.extra["species"].split()) for row in read_table(name)]


def generate(models: dict[str, Path], which: str, *words: object) -> int:
    return main(["--model", str(models[which]), "-q", *map(str, words)])


def test_samples(models):
    assert generate(models, "carbon", "-n", 30, "--seed", 2, "-o", "a.csv") == 0
    made = rows_of("a.csv")
    assert 10 <= len(made) <= 30
    assert {c.space_group for c in made} <= set(GROUPS)
    places = [int(c.info["asx_generated"].removeprefix("carbon:2:")) for c in made]
    assert places == sorted(places)
    assert generate(models, "carbon", "-n", 30, "--seed", 2, "-o", "b.csv") == 0
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()


def test_groups_and_conditions(models):
    assert generate(models, "carbon", "-n", 9, "--space-group", "166", "-o", "a.csv") == 0
    assert {c.space_group for c in rows_of("a.csv")} == {166}
    Path("c.txt").write_text("62: C 8d, C 4c\n194 12k\n")
    assert generate(models, "carbon", "-n", 8, "--conditions", "c.txt", "-o", "b.csv") == 0
    found = Counter((c.space_group, tuple(sorted(c.wyckoffs))) for c in rows_of("b.csv"))
    assert set(found) <= {(62, ("4c", "8d")), (194, ("12k",))}


def test_composition(models, capsys):
    assert generate(models, "silica", "-n", 5, "--composition", "SiO2", "-o", "a.csv") == 0
    for crystal in rows_of("a.csv"):
        counts = Counter(crystal.symbols)
        assert counts["O"] == 2 * counts["Si"]
    assert generate(models, "carbon", "-n", 5, "--composition", "SiO2", "-o", "b.csv") == 2
    assert "trained on C" in capsys.readouterr().err
    assert generate(models, "silica", "-n", 2, "--composition", "Si997O", "-o", "b.csv") == 2
    assert "give --conditions" in capsys.readouterr().err


def test_unconditional_model(models, capsys):
    assert generate(models, "plain", "-n", 4, "--space-group", "62", "-o", "a.csv") == 2
    assert "unconditional" in capsys.readouterr().err
    code = generate(models, "plain", "-n", 40, "-o", "a.csv")
    written = len(rows_of("a.csv")) if Path("a.csv").exists() else 0
    said = capsys.readouterr().err
    assert code == (0 if written else 1)
    assert written == 40 or "left out" in said


def test_a_group_that_the_model_does_not_know(models, capsys):
    code = generate(models, "carbon", "-n", 3, "--space-group", "225", "-o", "a.csv")
    assert code in (1, 2)
    assert capsys.readouterr().err
