"""Losses of both autoencoders against torch.distributions, and what must not matter to them."""

from __future__ import annotations

import pytest
import torch
from latent_cases import tiny_data, tiny_model
from torch.distributions import Categorical, Normal, kl_divergence

from asexlatent.latent import NetworkSettings
from asexlatent.latent.networks import kl_divergence as ours


def test_kl_against_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    mu = torch.randn((9, 5), generator=generator)
    logvar = torch.randn((9, 5), generator=generator)
    expected = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(ours(mu, logvar), expected)
    assert not ours(torch.zeros(2, 3), torch.zeros(2, 3)).any()


def test_reconstruction_terms_against_torch_distributions():
    model = tiny_model()
    network, rows = model.network, model.rows(tiny_data().pick(range(20)))
    with torch.no_grad():
        mu, _ = network.encode(rows)
        logits, residuals = network.decode(mu, network.embed(rows.condition))
        losses = network.losses(rows)
    entropy = -Categorical(logits=logits).log_prob(rows.component)
    chosen = residuals.gather(2, rows.component[..., None])[..., 0]
    nll = -Normal(chosen, network.head.scale()).log_prob(rows.residual)
    torch.testing.assert_close(losses.component, (entropy * rows.mask).sum(1))
    torch.testing.assert_close(losses.residual, (nll * rows.mask).sum(1))
    torch.testing.assert_close(losses.total(0.5), losses[0] + losses[1] + 0.5 * losses[2])


@pytest.mark.parametrize("kind", ["cvae", "tabular"])
def test_masked_columns_have_no_say(kind):
    """Neither the loss nor any gradient changes with what stands where nothing is meant."""
    model = tiny_model(kind)
    rows = model.rows(tiny_data().pick(range(20)))
    other = rows._replace(
        residual=torch.where(rows.mask, rows.residual, 7.0),
        component=torch.where(rows.mask, rows.component, 1),
    )
    found = []
    for given in (rows, other):
        model.network.zero_grad()
        total = model.network.losses(given).total().sum()
        total.backward()
        found.append([total.detach(), *(p.grad.clone() for p in model.network.parameters())])
    model.network.zero_grad()
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_absent_components_have_no_probability():
    model = tiny_model()
    rows = model.rows(tiny_data().pick(range(5)))
    with torch.no_grad():
        logits, _ = model.network.decode(
            torch.randn(5, model.network.settings.latent), model.network.embed(rows.condition)
        )
    share = torch.softmax(logits, dim=2)
    assert share[:, torch.as_tensor(model.transform.weights == 0)].max() == 0


def test_tabular_labels_are_those_of_the_conditions():
    model = tiny_model("tabular")
    data = tiny_data().pick(range(20))
    groups, kinds = model.network.labels(model.rows(data).condition)
    for condition, group, row in zip(data.conditions, groups.tolist(), kinds.tolist(), strict=True):
        assert model.network.condition((group, row))[0] == condition


@pytest.mark.parametrize("change", [{"latent": 0}, {"layers": 0}, {"dropout": 1.0}])
def test_sizes_that_cannot_be(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        NetworkSettings(**change)
