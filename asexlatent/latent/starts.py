"""Where latent refinement begins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asexlatent.latent.model import LatentModel
from asexlatent.latent.streams import stream
from asexlatent.symmetry import CrystalError, SymmetricCrystal

STARTS = ("prior", "encoder", "both")


def check_starts(starts: str, samples: int) -> None:
    """Raise ValueError for starts that do not exist, or too few samples for them."""
    if starts not in STARTS:
        raise ValueError(f"starts must be {', '.join(STARTS)}, not {starts!r}")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    if starts == "both" and samples < 2:
        raise ValueError(
            "starts='both' needs samples=2 or more: one of the encoder, the others of the prior"
        )


def latent_starts(
    model: LatentModel,
    crystals: Sequence[SymmetricCrystal],
    keys: Sequence[int],
    starts: str = "prior",
    samples: int = 1,
    seed: int = 0,
    number: int = 1,
) -> Tensor:
    """Latent variables at which the refinement of each crystal begins.

    Parameters
    ----------
    model : LatentModel
    crystals : sequence of SymmetricCrystal
        Within the vocabulary of the model.
    keys : sequence of int
        Index of each crystal in the whole input: random numbers are keyed by (seed, key, number).
    starts : str
        "prior": drawn from the unit normal, as the method does; what the crystal is like does not
        matter. "encoder": the mean of q(z | crystal) first, further samples drawn from q. "both":
        that mean first, further samples from the prior.
    samples : int
        Starts for each crystal, S.
    seed, number : int
        Of the random numbers; `number` is that of the round.

    Returns
    -------
    Tensor, shape (B, S, L), float64
    """
    check_starts(starts, samples)
    shape = (samples, model.network.settings.latent)
    noise = [stream(seed, key, f"latent {number}").standard_normal(shape) for key in keys]
    z = torch.as_tensor(np.array(noise).reshape(-1, *shape))
    if starts == "prior" or not crystals:
        return z
    mean, log_variance = _encode(model, crystals)
    known = torch.isfinite(mean).all(dim=1)
    if starts == "encoder":
        spread = torch.exp(0.5 * log_variance)[:, None, :]
        z = torch.where(known[:, None, None], mean[:, None, :] + spread * z, z)
    z[known, 0] = mean[known]
    return z


def _encode(model: LatentModel, crystals: Sequence[SymmetricCrystal]) -> tuple[Tensor, Tensor]:
    """Mean and log variance of q, (B, L), float64; NaN where a crystal has no standard form."""
    try:
        mean, log_variance = model.encode(crystals)
        if len(mean) == len(crystals):
            return mean.double().cpu(), log_variance.double().cpu()
    except CrystalError:
        pass
    if len(crystals) > 1:  # find the one that cannot be encoded
        half = len(crystals) // 2
        parts = [_encode(model, part) for part in (crystals[:half], crystals[half:])]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    nothing = torch.full((1, model.network.settings.latent), torch.nan, dtype=torch.float64)
    return nothing, nothing.clone()
