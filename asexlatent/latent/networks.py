"""Pieces that both autoencoders are made of."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

_LOGVAR_LIMIT = 10.0  # exp(+-10): a variance beyond this is a run that diverges


class Rows(NamedTuple):
    """Transformed crystals as the networks take them; n crystals, C columns.

    Attributes
    ----------
    condition : (n, U) float, condition vectors.
    component : (n, C) long, mixture component of each column, 0 where masked.
    residual : (n, C) float, standardised residual, 0 where masked.
    mask : (n, C) bool, columns that mean something.
    """

    condition: Tensor
    component: Tensor
    residual: Tensor
    mask: Tensor

    @property
    def n(self) -> int:
        """Number of rows (the length of the tuple is four)."""
        return self.condition.shape[0]

    def pick(self, index: Tensor) -> Rows:
        """Rows with these indices."""
        return Rows(*(part[index] for part in self))

    def to(self, device: torch.device | str) -> Rows:
        """Return the same rows on another device."""
        return Rows(*(part.to(device) for part in self))


class Losses(NamedTuple):
    """Terms of the training objective per crystal, each (n,), in nats.

    Attributes
    ----------
    component : cross-entropy of the mixture components (and, in the tabular model, of the
        discrete columns).
    residual : Gaussian negative log-likelihood of the residuals.
    kl : Kullback-Leibler divergence of q(z | x) from the prior.
    """

    component: Tensor
    residual: Tensor
    kl: Tensor

    def total(self, kl_weight: float = 1.0) -> Tensor:
        """Objective per crystal, (n,); with weight 1 the negative evidence lower bound."""
        return self.component + self.residual + kl_weight * self.kl


@dataclass(frozen=True)
class NetworkSettings:
    """Sizes of an autoencoder.

    Parameters
    ----------
    latent : int
        Dimension of z.
    embedding : int
        Dimension of the condition embedding e_c.
    hidden : int
        Width of the hidden layers of encoder and decoder.
    layers : int
        Number of hidden layers.
    dropout : float
        Probability in the hidden layers, training only.
    condition_in_encoder : bool
        Whether the encoder sees e_c too. The method's does not.
    """

    latent: int = 32
    embedding: int = 128
    hidden: int = 512
    layers: int = 2
    dropout: float = 0.0
    condition_in_encoder: bool = True

    def __post_init__(self) -> None:
        for name in ("latent", "embedding", "hidden", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 up to 1, not {self.dropout}")


def mlp(sizes: list[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of these sizes with SiLU between them (smooth: z is optimised through it)."""
    parts: list[nn.Module] = []
    for k, (n_in, n_out) in enumerate(pairwise(sizes)):
        parts.append(nn.Linear(n_in, n_out))
        if k < len(sizes) - 2:
            parts.append(nn.SiLU())
            if dropout:
                parts.append(nn.Dropout(dropout))
    return nn.Sequential(*parts)


def encoder_input(rows: Rows, n_components: int) -> Tensor:
    """Components one-hot and residuals, zero where masked, (n, C (K + 1))."""
    one_hot = nn.functional.one_hot(rows.component, n_components).to(rows.residual.dtype)
    one_hot = one_hot * rows.mask[..., None]
    # A far outlier must not shout all else down; the loss still sees its true residual.
    residual = torch.where(rows.mask, rows.residual, 0.0).clamp(-5, 5)
    return torch.cat((one_hot.flatten(1), residual), dim=1)


def split_posterior(output: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of q(z | x), each (n, latent)."""
    mu, logvar = output.chunk(2, dim=1)
    return mu, logvar.clamp(-_LOGVAR_LIMIT, _LOGVAR_LIMIT)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL of N(mu, exp(logvar)) from N(0, 1), (n,), in nats."""
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1)


class MixtureHead(nn.Module):
    """Mixture logits and residuals of C columns from hidden features.

    Parameters
    ----------
    n_hidden : features.
    present : (C, K) bool, which components exist.
    """

    LOG_SCALE_RANGE = (-4.0, 1.0)

    def __init__(self, n_hidden: int, present: Tensor):
        super().__init__()
        self.register_buffer("present", present, persistent=False)
        self.output = nn.Linear(n_hidden, 2 * present.numel())
        # Spread of the residuals around their prediction: one per column, learned.
        self.log_scale = nn.Parameter(torch.zeros(present.shape[0]))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and residuals, each (n, C, K)."""
        logits, residuals = self.output(features).reshape(-1, 2, *self.present.shape).unbind(1)
        return logits.masked_fill(~self.present, -1e4), residuals

    def scale(self) -> Tensor:
        """Standard deviation of the residuals around the prediction, (C,)."""
        return self.log_scale.clamp(*self.LOG_SCALE_RANGE).exp()

    def losses(self, rows: Rows, logits: Tensor, residuals: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and Gaussian NLL per crystal, each (n,), over the columns in the mask."""
        chosen = rows.component[..., None]
        entropy = -torch.log_softmax(logits, dim=2).gather(2, chosen)[..., 0]
        predicted = residuals.gather(2, chosen)[..., 0]
        scale = self.scale()
        nll = 0.5 * ((rows.residual - predicted) / scale) ** 2 + scale.log() + _HALF_LOG_2PI
        zero = torch.zeros_like(nll)
        return (
            torch.where(rows.mask, entropy, zero).sum(dim=1),
            torch.where(rows.mask, nll, zero).sum(dim=1),
        )


_HALF_LOG_2PI = 0.9189385332046727
