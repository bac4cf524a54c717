"""The conditional variational autoencoder of the method (section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asexlatent.latent.networks import (
    Losses,
    MixtureHead,
    NetworkSettings,
    Rows,
    encoder_input,
    kl_divergence,
    mlp,
    split_posterior,
)


class ConditionalVAE(nn.Module):
    """Continuous columns given the condition: x -> z -> x, with the condition embedding e_c.

    Parameters
    ----------
    condition_width : int
        Length U of the condition vectors.
    present : Tensor of bool, shape (C, K)
        Which mixture components each column has.
    settings : NetworkSettings
        Sizes.
    """

    def __init__(self, condition_width: int, present: Tensor, settings: NetworkSettings):
        super().__init__()
        self.settings = settings
        n_columns, n_components = present.shape
        self.n_components = n_components
        hidden = [settings.hidden] * settings.layers
        seen = settings.embedding if settings.condition_in_encoder else 0
        self.embedding = mlp([condition_width, settings.embedding, settings.embedding])
        self.encoder = mlp(
            [n_columns * (n_components + 1) + seen, *hidden, 2 * settings.latent],
            settings.dropout,
        )
        self.decoder = mlp(
            [settings.latent + settings.embedding, *hidden, settings.hidden], settings.dropout
        )
        self.head = MixtureHead(settings.hidden, present)

    def embed(self, condition: Tensor) -> Tensor:
        """Condition embedding e_c (n, embedding) of condition vectors (n, U)."""
        return self.embedding(condition)

    def encode(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x), each (n, latent)."""
        given = encoder_input(rows, self.n_components)
        if self.settings.condition_in_encoder:
            given = torch.cat((given, self.embed(rows.condition)), dim=1)
        return split_posterior(self.encoder(given))

    def decode(self, z: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Mixture logits and residuals, each (n, C, K), from z (n, latent) and e_c."""
        features = self.decoder(torch.cat((z, embedded), dim=1))
        return self.head(nn.functional.silu(features))

    def losses(self, rows: Rows, noise: Tensor | None = None) -> Losses:
        """Terms of the objective; z = mu + sigma * noise, noise (n, latent), or mu without."""
        mu, logvar = self.encode(rows)
        z = mu if noise is None else mu + torch.exp(0.5 * logvar) * noise
        logits, residuals = self.decode(z, self.embed(rows.condition))
        return Losses(*self.head.losses(rows, logits, residuals), kl_divergence(mu, logvar))
