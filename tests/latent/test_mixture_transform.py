from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture

from asexlatent.latent.transform import MODES, MixtureTransform


@pytest.fixture(scope="module")
def bimodal() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    first = np.where(rng.random(600) < 0.3, rng.normal(-2, 0.1, 600), rng.normal(3, 0.5, 600))
    values = np.column_stack([first, rng.random(600), np.full(600, 1.5)])
    mask = np.ones(values.shape, dtype=bool)
    mask[::3, 1] = False
    values[~mask] = 1e6  # must not matter
    return values, mask


@pytest.fixture(scope="module")
def transform(bimodal) -> MixtureTransform:
    return MixtureTransform.fit(*bimodal, ["a", "b", "c"], max_components=5, seed=1)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_inverse_is_exact(seed, transform):
    values = np.random.default_rng(seed).normal(0, 5, (20, 3))
    component, residual = transform.forward(values)
    np.testing.assert_allclose(transform.inverse(component, residual), values, rtol=0, atol=1e-12)
    assert (np.take_along_axis(transform.weights.T, component, axis=0) > 0).all()


def test_components_are_those_of_scikit_learn(transform, bimodal):
    """GaussianMixture with our parameters assigns every value as we do."""
    values, mask = bimodal
    component, _ = transform.forward(values)
    for column in range(2):
        k = int((transform.weights[column] > 0).sum())
        theirs = GaussianMixture(k)
        theirs.weights_ = transform.weights[column, :k]
        theirs.means_ = transform.means[column, :k, None]
        theirs.covariances_ = transform.scales[column, :k, None, None] ** 2
        theirs.precisions_cholesky_ = 1 / transform.scales[column, :k, None, None]
        use = mask[:, column]
        np.testing.assert_array_equal(
            component[use, column], theirs.predict(values[use, column, None])
        )


def test_a_fit_is_that_of_scikit_learn(bimodal):
    """The variational predictions of the same fit agree but for values between components."""
    values = bimodal[0][:, :1]
    ours = MixtureTransform.fit(values, values > -np.inf, ["a"], max_components=2, seed=3)
    theirs = BayesianGaussianMixture(n_components=2, random_state=0, max_iter=500).fit(values)
    order = np.argsort(np.argsort(theirs.means_[:, 0]))
    agree = ours.forward(values)[0][:, 0] == order[theirs.predict(values)]
    assert agree.mean() > 0.995
    np.testing.assert_allclose(ours.means[0], [-2, 3], atol=0.1)
    np.testing.assert_allclose(ours.scales[0], [0.1, 0.5], atol=0.05)


def test_residuals_are_standardised(transform, bimodal):
    values, mask = bimodal
    _, residual = transform.forward(values)
    for column in range(2):
        used = residual[mask[:, column], column]
        assert 0.7 < used.std() < 1.1
        assert np.abs(used).max() < 6


def test_constant_and_empty_columns():
    values = np.column_stack([np.full(50, 2.5), np.zeros(50)])
    mask = np.column_stack([np.ones(50, bool), np.zeros(50, bool)])
    transform = MixtureTransform.fit(values, mask, ["a", "b"], max_components=4)
    np.testing.assert_array_equal((transform.weights > 0).sum(axis=1), [1, 1])
    np.testing.assert_allclose(transform.inverse(*transform.forward(values)), values, atol=1e-12)


def test_same_seed_same_mixtures(bimodal, transform):
    again = MixtureTransform.fit(*bimodal, ["a", "b", "c"], max_components=5, seed=1)
    np.testing.assert_array_equal(again.means, transform.means)


def decoder_output(transform: MixtureTransform, n: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    shape = (n, *transform.means.shape)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    logits = logits.masked_fill(torch.as_tensor(transform.weights == 0), -1e4)
    return logits, torch.randn(shape, generator=generator, dtype=torch.float64)


def test_modes_against_numpy(transform):
    logits, residuals = decoder_output(transform)
    component = logits.argmax(dim=2).numpy()
    chosen = np.take_along_axis(residuals.numpy(), component[..., None], axis=2)[..., 0]
    exact = transform.inverse(component, chosen)
    for mode in ("hard", "straight_through"):
        np.testing.assert_allclose(transform.values(logits, residuals, mode), exact, atol=1e-12)
    share = np.exp(logits.numpy())
    share /= share.sum(axis=2, keepdims=True)
    mean = (share * (transform.means + transform.scales * residuals.numpy())).sum(axis=2)
    np.testing.assert_allclose(transform.values(logits, residuals, "soft"), mean, atol=1e-12)


def test_soft_gradient_against_differences(transform):
    logits, residuals = decoder_output(transform, 3)
    logits = logits.clamp(min=-20)
    inputs = (logits.requires_grad_(True), residuals.requires_grad_(True))
    assert torch.autograd.gradcheck(lambda a, b: transform.values(a, b, "soft"), inputs)


def test_straight_through_gradient(transform):
    """Of the logits as "soft" has it (checked above), of the residuals as "hard" has it."""
    gradients = {}
    for mode in MODES:
        logits, residuals = (part.requires_grad_(True) for part in decoder_output(transform))
        total = transform.values(logits, residuals, mode).sum()
        gradients[mode] = torch.autograd.grad(total, (logits, residuals), allow_unused=True)
    torch.testing.assert_close(gradients["straight_through"][0], gradients["soft"][0])
    torch.testing.assert_close(gradients["straight_through"][1], gradients["hard"][1])
    assert gradients["hard"][0] is None


def test_unknown_mode(transform):
    with pytest.raises(ValueError, match="hard, straight_through, soft"):
        transform.values(*decoder_output(transform), "firm")


def test_storage(transform):
    again = MixtureTransform.from_tensors(transform.columns, transform.tensors())
    np.testing.assert_array_equal(again.scales, transform.scales)
    with pytest.raises(ValueError, match="do not fit"):
        MixtureTransform.from_tensors(["a"], transform.tensors())
