"""Crystals and their place in the caller's cells, as plain data for a restart file."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from asexlatent.symmetry import SymmetricCrystal
from asexlatent.symmetry.detect import Embedding, SymmetrizedAtoms


def frame_to_dict(frame: SymmetrizedAtoms) -> dict[str, Any]:
    """Crystal, embedding and displacement as numbers, strings and arrays."""
    crystal = frame.crystal
    return {
        "space_group": crystal.space_group,
        "cell_free": crystal.cell_free,
        "sites": [[s.species, s.position.index, list(s.free)] for s in crystal.sites],
        "embedding": {f.name: getattr(frame.embedding, f.name) for f in fields(Embedding)},
        "displacement": frame.displacement,
        "cell_change": frame.cell_change,
    }


def frame_from_dict(data: dict[str, Any]) -> SymmetrizedAtoms:
    """Undo `frame_to_dict`.

    Raises
    ------
    KeyError, ValueError
        When the data are incomplete or describe no crystal.
    """
    crystal = SymmetricCrystal.build(
        data["space_group"],
        np.asarray(data["cell_free"], dtype=float),
        [(species, int(index), np.asarray(free, float)) for species, index, free in data["sites"]],
    )
    embedding = Embedding(**{k: np.asarray(v) for k, v in data["embedding"].items()})
    return SymmetrizedAtoms(crystal, embedding, data["displacement"], data["cell_change"])


def atom_symbols(frame: SymmetrizedAtoms) -> list[str]:
    """Chemical symbols in the order of the caller's atoms."""
    return [frame.crystal.sites[k].species for k in frame.embedding.site]
