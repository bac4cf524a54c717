"""The sp2 carbon model that ships with the package: what a user with no database gets."""

from __future__ import annotations

import csv
import gzip
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from asexlatent.cli.generate import main
from asexlatent.latent import Condition, Dataset, LatentModel, load_model
from asexlatent.latent.storage import DEFAULT_MODEL
from asexlatent.symmetry import SymmetricCrystal, read_table

ROWS = DEFAULT_MODEL.parents[1] / "data" / "sp2_nets.csv.gz"


@pytest.fixture(scope="module")
def model() -> LatentModel:
    return load_model()


@pytest.fixture(scope="module")
def samples(model) -> list:
    return model.sample(n=300, seed=5)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("the network was asked for")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_it_is_small_and_says_what_it_was_made_of(model):
    assert sum(path.stat().st_size for path in DEFAULT_MODEL.iterdir()) < 8e6
    assert model.is_conditional
    assert model.vocabulary.species == ("C",)
    assert model.vocabulary.max_sites == 8
    assert len(model.vocabulary.space_groups) > 130
    with gzip.open(ROWS, "rt", newline="") as handle:
        total = sum(1 for _ in csv.DictReader(handle))
    info = model.info
    assert info["rows"] + info["held_out_rows"] + info["held_out_unknown"] == total


@pytest.mark.slow
def test_it_was_trained_on_the_rows_that_ship(model):
    with gzip.open(ROWS, "rt", newline="") as handle:
        rows = list(csv.DictReader(handle))
    crystals = [SymmetricCrystal.from_row(row) for row in rows]
    data = Dataset.from_candidates(crystals, parents=[row["net"] for row in rows])
    assert data.hash() == model.info["data_sha256"]


def test_samples_build_and_have_the_density_of_sp2_carbon(samples):
    built = [s for s in samples if isinstance(s, SymmetricCrystal)]
    assert len(built) >= 0.99 * len(samples)
    volumes = [1 / _density(s) for s in built]
    # graphite has 8.8 Å^3; random candidates are drawn from 6 to 12
    assert 6.5 < np.median(volumes) < 11
    assert len({Condition.from_crystal(s) for s in built}) > 0.5 * len(built)
    assert max(s.n_atoms for s in built) > 100


def test_sampling_is_deterministic(model, samples):
    for one, again in zip(samples, model.sample(n=len(samples), seed=5), strict=True):
        assert one.wyckoffs == again.wyckoffs
        np.testing.assert_array_equal(one.free_variables, again.free_variables)


def test_a_sample_does_not_depend_on_how_many_are_drawn(model, samples):
    for one, again in zip(samples[:7], model.sample(n=7, seed=5), strict=True):
        assert one.wyckoffs == again.wyckoffs
        # a product of float32 matrices rounds as its size asks for
        np.testing.assert_allclose(one.free_variables, again.free_variables, rtol=1e-5, atol=1e-5)
    other = model.sample(n=7, seed=6)
    assert any(a.wyckoffs != b.wyckoffs for a, b in zip(samples, other, strict=False))


def test_z_says_which_crystal_it_is(model):
    """Own z against that of another row, under the same condition: what refinement moves counts."""
    crystals = [row.crystal() for row in list(read_table(ROWS))[:300]]
    data = Dataset.from_candidates([c for c in crystals if model.problem(c) is None])
    rows = model.rows(data)
    with torch.no_grad():
        mean, _ = model.network.encode(rows)
        embedded = model.network.embed(rows.condition)
        right = []
        for z in (mean, mean.roll(1, 0)):
            component = model.network.decode(z, embedded)[0].argmax(2)
            right.append(float((component == rows.component)[rows.mask].double().mean()))
    assert right[0] > 0.4
    assert right[1] < 0.5 * right[0]


def _density(crystal: SymmetricCrystal) -> float:
    return crystal.n_atoms / np.linalg.det(crystal.cell)


def test_the_command_needs_no_model_and_no_network(tmp_path: Path, no_network, capsys):
    for name in ("a.csv", "b.csv", "c.extxyz"):
        assert main(["-n", "20", "--seed", "3", "-o", str(tmp_path / name)]) == 0
    assert "20 candidates" in capsys.readouterr().out
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    from ase.io import read

    frames = read(tmp_path / "c.extxyz", index=":")
    rows = [row.crystal() for row in read_table(tmp_path / "a.csv")]
    assert [len(f) for f in frames] == [c.n_atoms for c in rows]
    assert {f.info["space_group_number"] for f in frames} == {c.space_group for c in rows}
