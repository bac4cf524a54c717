"""Versions of what results depend on, for the record."""

from __future__ import annotations

import platform
from importlib.metadata import version

from asexlatent import __version__

REFINEMENT = ("torch", "numpy", "scipy", "ase", "spglib", "pyxtal")
SCREENING = ("torch", "mace-torch", "numpy", "ase", "spglib", "pymatgen")


def versions(names: tuple[str, ...] = REFINEMENT) -> dict[str, str]:
    """Versions of this package, of Python and of some distributions."""
    return {
        "asexlatent": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
