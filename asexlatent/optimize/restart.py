"""Crystals and their place in the caller's cells, as plain data for a restart file."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from ase import Atoms

from asexlatent.symmetry import SymmetricCrystal, cell_from_parameters, parameters_from_cell
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


def is_at_some_step(frame: SymmetrizedAtoms, atoms: Atoms) -> bool:
    """Whether `atoms` are the embedded crystal at any values of its free variables.

    So are the atoms a run began with and every frame of its trajectory, wrapped or not. A file
    left over from another structure would otherwise silently replace the caller's atoms.
    """
    if not atoms.cell.volume > 1e-6:
        return False
    crystal, embedding = frame.crystal, frame.embedding
    limit = 1e-3 + 2 * max(frame.displacement, frame.cell_change)  # Å
    given = np.linalg.solve(embedding.transformation, atoms.cell.array)
    free = crystal.lattice.project(parameters_from_cell(given))
    cell = cell_from_parameters(crystal.lattice.parameters(free))
    if not np.linalg.norm(cell @ embedding.rotation - given, axis=1).max() <= limit:
        return False
    scaled = np.linalg.solve(given.T, atoms.positions.T).T + embedding.origin
    for k, site in enumerate(crystal.sites):
        points = scaled[embedding.site == k]
        orbit = site.position.expand(site.position.project(points[0], cell).free)
        away = points[:, None] - orbit
        distance = np.linalg.norm((away - np.rint(away)) @ cell, axis=2).min(axis=1)
        if not distance.max() <= limit:
            return False
    return True
