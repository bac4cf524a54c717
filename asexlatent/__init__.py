"""asexlatent: steer candidate crystals to a wanted local environment, space group exact.

The public names load on first use, so that ``import asexlatent`` costs milliseconds:
torch, pyxtal and spglib are imported only by what needs them.
"""

from __future__ import annotations

import importlib
from typing import Any

from asexlatent._version import __version__

_PUBLIC = {
    "CrystalBatch": "asexlatent.optimize",
    "DescriptorCalculator": "asexlatent.optimize",
    "DescriptorLoss": "asexlatent.optimize",
    "LatentRefiner": "asexlatent.latent",
    "LocalEnvironment": "asexlatent.descriptor",
    "PowerSpectrum": "asexlatent.descriptor",
    "SymmetricCrystal": "asexlatent.symmetry",
    "SymmetricDescriptorOptimizer": "asexlatent.optimize",
    "identify_net": "asexlatent.topology",
    "refine": "asexlatent.optimize",
    "refine_dual_level": "asexlatent.latent",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
