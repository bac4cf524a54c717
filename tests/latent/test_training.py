"""Training: deterministic, resumable, stopped in time, and it does learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from latent_cases import TINY, random_crystals, tiny_data

from asexlatent.latent import (
    PRESETS,
    Dataset,
    ModelError,
    Training,
    TrainingSettings,
    standardize,
)
from asexlatent.symmetry import CrystalError


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def finished(training: Training) -> Training:
    for _ in training:
        pass
    return training


def same_weights(one: Training, other: Training) -> bool:
    a, b = one.network.state_dict(), other.network.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["cvae", "tabular"])
def test_seed_decides(kind):
    settings = TINY.but(dropout=0.1)
    one, two = (finished(Training(tiny_data(), settings, kind)) for _ in range(2))
    assert same_weights(one, two)
    assert [e.held_out for e in one.history] == [e.held_out for e in two.history]
    other = finished(Training(tiny_data(), settings.but(seed=1), kind))
    assert not same_weights(one, other)


def test_global_random_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    finished(Training(tiny_data(), TINY.but(dropout=0.1))).model()
    torch.testing.assert_close(torch.rand(2), expected)


@pytest.mark.parametrize("stop_after", [1, 4])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, stop_after):
    whole = finished(Training(tiny_data(), TINY))
    first = Training(tiny_data(), TINY, folder=tmp_path)
    for epoch in first:
        if epoch.epoch == stop_after:
            break
    second = Training(tiny_data(), TINY, folder=tmp_path)
    assert second.resumed
    assert len(second.history) == stop_after
    finished(second)
    assert same_weights(whole, second)
    assert (whole.best_epoch, whole.best_loss) == (second.best_epoch, second.best_loss)
    for one, other in zip(whole.model().sample(n=5), second.model().sample(n=5), strict=True):
        assert str(one) == str(other)
    again = Training(tiny_data(), TINY, folder=tmp_path)
    assert again.finished


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    finished(Training(tiny_data(), TINY, folder=tmp_path))
    with pytest.raises(ModelError, match="with other settings"):
        Training(tiny_data(), TINY.but(latent=5), folder=tmp_path)
    with pytest.raises(ModelError, match="with other data"):
        Training(tiny_data().pick(range(50)), TINY, folder=tmp_path)
    with pytest.raises(ModelError, match="with other kind"):
        Training(tiny_data(), TINY, "tabular", folder=tmp_path)
    path = tmp_path / "checkpoint.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "history": [{"epoch": 1}]}))
    with pytest.raises(ModelError, match="delete it to start afresh"):
        Training(tiny_data(), TINY, folder=tmp_path)


def test_a_checkpoint_is_of_a_kind_of_device(tmp_path):
    """One that names none is from before there was a choice: of the CPU."""
    finished(Training(tiny_data(), TINY, folder=tmp_path))
    path = tmp_path / "checkpoint.json"
    saved = json.loads(path.read_text())
    assert saved["device"] == "cpu"
    path.write_text(json.dumps({**saved, "device": "cuda"}))
    with pytest.raises(ModelError, match="with other device"):
        Training(tiny_data(), TINY, folder=tmp_path)
    del saved["device"]
    path.write_text(json.dumps(saved))
    assert Training(tiny_data(), TINY, folder=tmp_path).resumed


def test_early_stop_gives_the_best_epoch():
    settings = TINY.but(epochs=400, patience=15, learning_rate=0.02, kl_warmup=0.0)
    training = finished(Training(tiny_data(), settings))
    assert len(training.history) < 400
    weight = settings.kl_weight  # 0.1: what is minimised is not the bound
    losses = [e.held_component + e.held_residual + weight * e.held_kl for e in training.history]
    assert training.best_epoch == int(np.argmin(losses)) + 1
    assert training.best_loss == pytest.approx(min(losses))
    assert len(losses) - training.best_epoch == 15
    assert training.model().info["best"]["epoch"] == training.best_epoch


def test_without_held_out_rows_the_last_epoch_counts():
    training = finished(Training(tiny_data(), TINY.but(held_out=0.0)))
    assert training.best_epoch == TINY.epochs
    assert all(math.isnan(epoch.held_out) for epoch in training.history)
    assert training.model().info["best"]["held_out"] is None


def test_learns_a_few_crystals_by_heart():
    """Reconstruction of what was trained on: cells to a percent, coordinates to 0.02."""
    crystals = random_crystals(12)
    data = Dataset.from_candidates(crystals, max_sites=4)
    settings = TINY.but(
        epochs=500, hidden=64, latent=8, kl_weight=1e-3, held_out=0.0, learning_rate=5e-3
    )
    training = finished(Training(data, settings))
    first, last = training.history[0], training.history[-1]
    assert last.component + last.residual < first.component + first.residual - 10
    model = training.model()
    mu, _ = model.encode(crystals)
    for crystal, found in zip(crystals, model.decode(mu, data.conditions), strict=True):
        known = standardize(crystal)
        np.testing.assert_allclose(found.volume, known.volume, rtol=0.05)
        difference = (found.free_variables - known.free_variables)[len(known.cell_free) :]
        assert np.abs(difference - np.rint(difference)).max(initial=0) < 0.03


def test_weight_of_the_kl_term_rises():
    settings = TrainingSettings(epochs=10, kl_weight=0.4, kl_warmup=0.5)
    weights = [settings.kl_weight_at(epoch) for epoch in range(10)]
    np.testing.assert_allclose(weights, [0.08, 0.16, 0.24, 0.32] + 6 * [0.4])
    assert TrainingSettings(kl_warmup=0.0).kl_weight_at(0) == TrainingSettings().kl_weight


def test_published_sizes():
    paper = PRESETS["paper"]
    network = paper.network
    assert (network.latent, network.embedding, network.hidden) == (128, 128, 1024)
    assert (paper.batch, paper.epochs) == (2048, 250)
    assert TrainingSettings.from_dict(json.loads(json.dumps(paper.to_dict()))) == paper


def test_nothing_to_train_on():
    with pytest.raises(CrystalError, match="no row"):
        Training(Dataset.from_candidates([CrystalError("broken")]), TINY)


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"held_out": 1.0}, {"learning_rate": -1.0}, {"hidden": 0}]
)
def test_settings_that_cannot_be(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TrainingSettings().but(**change)
