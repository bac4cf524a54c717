"""A model where it is needed."""

from __future__ import annotations

import copy
import os
from dataclasses import replace

import torch

from asexlatent.latent.model import LatentModel
from asexlatent.latent.storage import ModelError, load_model


def placed_model(
    model: LatentModel | str | os.PathLike | None, device: torch.device | str | None = None
) -> LatentModel:
    """Return a conditional model, loaded if need be, on a device.

    Parameters
    ----------
    model : LatentModel, path or None
        None is the model that ships with the package. A model of the caller's stays where it is:
        on another device a copy is used.
    device : torch.device or str, optional
        By default where the model is.

    Raises
    ------
    ModelError
        It cannot be loaded, or is no conditional model.
    """
    if not isinstance(model, LatentModel):
        model = load_model(model)
    if not model.is_conditional:
        raise ModelError(
            "latent refinement keeps the condition of a crystal: it needs a conditional model"
        )
    if device is None or model.device == torch.device(device):
        return model
    return replace(model, network=copy.deepcopy(model.network).to(device))
