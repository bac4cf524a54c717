"""Models on disk: the same model comes back, and everything else is a clear error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from latent_cases import tiny_model

import asexlatent.latent
from asexlatent.latent import ModelError, load_model, save_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "new" / "folder"
    save_model(tiny_model(), folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.parametrize("kind", ["cvae", "tabular"])
def test_same_samples_after_loading(kind, tmp_path):
    model = tiny_model(kind)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.is_conditional == (kind == "cvae")
    assert again.vocabulary == model.vocabulary
    assert again.empirical.conditions == model.empirical.conditions
    assert again.info == json.loads(json.dumps(model.info))
    for one, other in zip(model.sample(n=20, seed=1), again.sample(n=20, seed=1), strict=True):
        assert str(one) == str(other)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model.safetensors"}


def test_what_is_kept_beside_the_weights(saved):
    kept = json.loads((saved / "model.json").read_text())
    assert kept["format"] == "asexlatent-model"
    assert kept["schema"] == 1
    assert len(kept["info"]["data_sha256"]) == 64
    assert kept["info"]["settings"]["network"]["latent"] == 4


def test_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"no model in .*model\.json is missing; asexlatent-train"):
        load_model(tmp_path / "nothing")


def test_flipped_byte(copied):
    path = copied / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="is damaged, or does not belong to"):
        load_model(copied)


def test_cut_json(copied):
    path = copied / "model.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(ModelError, match="no JSON object"):
        load_model(copied)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "is not a file of asexlatent-model"),
        ({"schema": 99}, "schema 99"),
        ({"kind": "gan"}, "damaged: the kind of a model"),
        ({"network": {"latent": 4}}, "damaged"),
        ({"network": None}, "damaged"),
        ({"vocabulary": {}}, "species is missing"),
        ({"columns": ["a"]}, "do not fit the columns"),
        ({"conditions": {"999: C 1a": 1}}, "space group 999"),
    ],
)
def test_wrong_json(copied, change, words):
    path = copied / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=words):
        load_model(copied)


def test_a_pickle_is_not_opened(copied):
    """A torch pickle under our name is a damaged file, and nothing in the package unpickles."""
    torch.save({"a": 1}, copied / "model.safetensors")
    with pytest.raises(ModelError, match="damaged"):
        load_model(copied)
    for path in Path(asexlatent.latent.__file__).parent.glob("*.py"):
        text = path.read_text()
        assert "torch.load" not in text, path
        assert "pickle" not in text.replace("unpickled", ""), path
