"""Generative models of crystals under a fixed space group and Wyckoff positions.

The names load on first use: torch and the tables of the networks are imported only when needed.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Condition": "conditions",
    "ConditionNetwork": "condition_model",
    "ConditionalVAE": "cvae",
    "Dataset": "dataset",
    "DualLevelRun": "dual_level",
    "EmpiricalConditions": "condition_model",
    "LatentModel": "model",
    "LatentOptions": "stage",
    "LatentRefiner": "refiner",
    "MixtureTransform": "transform",
    "ModelError": "storage",
    "NetworkSettings": "networks",
    "PRESETS": "presets",
    "PreparedConditions": "model",
    "Round": "dual_level",
    "TabularVAE": "tabular_vae",
    "Training": "training",
    "TrainingSettings": "presets",
    "Vocabulary": "conditions",
    "load_model": "storage",
    "refine_dual_level": "dual_level",
    "save_model": "storage",
    "standardize": "standard",
    "train": "training",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_PUBLIC)
