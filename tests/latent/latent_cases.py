"""Small data and models for the tests of the generative models; nothing here is a good crystal."""

from __future__ import annotations

from functools import cache

import torch

from asexlatent.latent import Dataset, LatentModel, TrainingSettings, train
from asexlatent.symmetry import RandomCrystals, SymmetricCrystal

GROUPS = (2, 5, 15, 62, 65, 99, 139, 166, 176, 194, 225)

TINY = TrainingSettings().but(
    latent=4, embedding=8, hidden=24, components=4, epochs=6, batch=32, max_sites=4,
    held_out=0.2, condition_epochs=2, kl_weight=0.1,
)  # fmt: skip


@cache
def random_crystals(
    n: int = 60, composition: str = "C", groups: tuple[int, ...] = GROUPS, max_sites: int = 4
) -> tuple[SymmetricCrystal, ...]:
    """Random crystals of these groups."""
    source = RandomCrystals(
        composition, space_groups=groups, max_sites=max_sites, max_atoms=48, seed=7
    )
    return tuple(source.crystals(n))


@cache
def tiny_data() -> Dataset:
    """The same as a data set."""
    return Dataset.from_candidates(random_crystals(), max_sites=4)


@cache
def tiny_model(kind: str = "cvae", composition: str = "C") -> LatentModel:
    """Trained for a moment; never change it."""
    torch.set_num_threads(1)
    crystals = random_crystals(40 if composition != "C" else 60, composition)
    # The baseline needs a while before any of its rows is a crystal.
    settings = TINY.but(epochs=60, learning_rate=0.01) if kind == "tabular" else TINY
    return train(Dataset.from_candidates(crystals, max_sites=4), settings, kind)
