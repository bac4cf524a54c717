"""The baseline: an unconditional variational autoencoder over the whole row.

What the method compares with (section 4.2): discrete and continuous columns are encoded together
and decoded together from z alone, each column by itself, so that nothing makes the decoded group
and the decoded Wyckoff positions fit each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asexlatent.latent.conditions import MAX_POSITIONS, Condition, Vocabulary
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
from asexlatent.symmetry import CrystalError


class DecodedTable(NamedTuple):
    """Decoded rows; n rows, M slots.

    Attributes
    ----------
    logits, residuals : (n, C, K) of the continuous columns.
    group : (n, G) logits of the space group.
    slots : (n, M, S * 27 + 1) logits of species and position of each slot; the last: unused.
    """

    logits: Tensor
    residuals: Tensor
    group: Tensor
    slots: Tensor


class TabularVAE(nn.Module):
    """Discrete and continuous columns through one latent space.

    Parameters
    ----------
    vocabulary : Vocabulary
    present : Tensor of bool, shape (C, K)
        Which mixture components each continuous column has.
    settings : NetworkSettings
        Sizes; there is no condition embedding.
    """

    def __init__(self, vocabulary: Vocabulary, present: Tensor, settings: NetworkSettings):
        super().__init__()
        self.settings, self.vocabulary = settings, vocabulary
        n_columns, n_components = present.shape
        self.n_components = n_components
        self.n_kinds = len(vocabulary.species) * MAX_POSITIONS + 1
        self.n_discrete = len(vocabulary.space_groups) + vocabulary.max_sites * self.n_kinds
        hidden = [settings.hidden] * settings.layers
        self.encoder = mlp(
            [n_columns * (n_components + 1) + self.n_discrete, *hidden, 2 * settings.latent],
            settings.dropout,
        )
        self.decoder = mlp([settings.latent, *hidden, settings.hidden], settings.dropout)
        self.head = MixtureHead(settings.hidden, present)
        self.discrete = nn.Linear(settings.hidden, self.n_discrete)

    def labels(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Group (n,) and kind of each slot (n, M) as numbers, from condition vectors (n, U)."""
        n_groups, n_species = len(self.vocabulary.space_groups), len(self.vocabulary.species)
        one_hot = condition[:, : self.vocabulary.width]
        slots = one_hot[:, n_groups:].reshape(
            len(condition), self.vocabulary.max_sites, n_species + MAX_POSITIONS
        )
        species, position = slots[..., :n_species].argmax(2), slots[..., n_species:].argmax(2)
        kind = species * MAX_POSITIONS + position
        used = slots.sum(dim=2) > 0
        return one_hot[:, :n_groups].argmax(1), torch.where(used, kind, self.n_kinds - 1)

    def encode(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x), each (n, latent)."""
        group, kinds = self.labels(rows.condition)
        one_hot = nn.functional.one_hot
        discrete = torch.cat(
            (
                one_hot(group, len(self.vocabulary.space_groups)),
                one_hot(kinds, self.n_kinds).flatten(1),
            ),
            dim=1,
        )
        given = torch.cat((encoder_input(rows, self.n_components), discrete), dim=1)
        return split_posterior(self.encoder(given))

    def decode(self, z: Tensor) -> DecodedTable:
        """Decode z (n, latent)."""
        features = nn.functional.silu(self.decoder(z))
        n_groups = len(self.vocabulary.space_groups)
        discrete = self.discrete(features)
        slots = discrete[:, n_groups:].reshape(len(z), -1, self.n_kinds)
        return DecodedTable(*self.head(features), discrete[:, :n_groups], slots)

    def losses(self, rows: Rows, noise: Tensor | None = None) -> Losses:
        """Terms of the objective; z = mu + sigma * noise, noise (n, latent), or mu without."""
        mu, logvar = self.encode(rows)
        z = mu if noise is None else mu + torch.exp(0.5 * logvar) * noise
        decoded = self.decode(z)
        component, residual = self.head.losses(rows, decoded.logits, decoded.residuals)
        group, kinds = self.labels(rows.condition)
        entropy = nn.functional.cross_entropy(decoded.group, group, reduction="none")
        per_slot = nn.functional.cross_entropy(
            decoded.slots.flatten(0, 1), kinds.flatten(), reduction="none"
        ).reshape(kinds.shape)
        discrete = entropy + per_slot.sum(dim=1)
        return Losses(component + discrete, residual, kl_divergence(mu, logvar))

    def choices(self, decoded: DecodedTable) -> list[tuple[int, list[int]]]:
        """Most probable group and kinds of each row, as numbers."""
        groups = decoded.group.argmax(1).tolist()
        return list(zip(groups, decoded.slots.argmax(2).tolist(), strict=True))

    def condition(self, choice: tuple[int, Sequence[int]]) -> tuple[Condition, list[int]]:
        """Condition of a decoded row, and the slots that it uses; CrystalError if there is none."""
        group, kinds = choice
        used = [slot for slot, kind in enumerate(kinds) if kind < self.n_kinds - 1]
        if not used:
            raise CrystalError("the row has no site")
        sites = tuple(
            (self.vocabulary.species[kinds[k] // MAX_POSITIONS], kinds[k] % MAX_POSITIONS)
            for k in used
        )
        return Condition(self.vocabulary.space_groups[group], sites), used
