"""Which refined crystals are different, and which are low in energy."""

from __future__ import annotations

import importlib
from typing import Any

# Where each public name lives. MACE and pymatgen take seconds to import: only when they are used.
_LATER = {
    "get_calculator": "calculators",
    "describe_calculator": "calculators",
    "MaceModel": "mace_model",
    "load_mace_model": "mace_model",
    "save_mace_model": "mace_model",
    "MACEEnergy": "mace_energy",
    "Relaxation": "relaxation",
    "relax": "relaxation",
    "relax_with_calculator": "relaxation",
    "MatchTolerances": "duplicates",
    "Relaxer": "energies",
    "ScreenOptions": "options",
    "ScreenProgress": "options",
    "ScreenResult": "result",
    "ScreenRow": "rows",
    "ScreenRun": "pipeline",
    "screen": "pipeline",  # no module of that name: it would hide the function
    "structure_duplicates": "duplicates",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])
