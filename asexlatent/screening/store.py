"""Finished work kept in files, chunk by chunk, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from asexlatent._version import __version__
from asexlatent.symmetry import SymmetricCrystal
from asexlatent.whole_file import write_whole

FORMAT = 1


class ChunkStore:
    """Records by key, one file for each chunk; a file is there whole or not at all.

    A file is named after the stage, the settings and the keys of its chunk. Work done with other
    settings lies beside it and is not mixed up with it; a longer input finds what it has in common
    with a shorter one.

    Parameters
    ----------
    folder : Path or None
        Made when something is written; None keeps records in memory only.
    stage : str
        First part of the names.
    settings : mapping
        What the records depend on, as JSON can hold it.
    """

    def __init__(self, folder: Path | None, stage: str, settings: Mapping[str, Any]):
        self.folder = folder
        self.damaged: list[Path] = []
        self._prefix = (
            f"{stage}-{digest({'format': FORMAT, 'version': __version__, **settings})[:10]}"
        )
        self._records: dict[str, dict[str, Any]] = {}
        if folder is not None and folder.is_dir():
            for path in sorted(folder.glob(f"{self._prefix}-*.json")):
                self._read(path)

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._records[key]

    def add(self, records: Mapping[str, dict[str, Any]]) -> None:
        """Keep the records of a finished chunk."""
        self._records.update(records)
        if self.folder is None or not records:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self._prefix}-{digest(sorted(records))[:16]}.json"
        write_whole(path, json.dumps(dict(records)))

    def _read(self, path: Path) -> None:
        try:
            records = json.loads(path.read_text(encoding="utf-8"))
            self._records.update(records)
        except (OSError, ValueError, TypeError):  # not one of ours, or a broken disk
            self.damaged.append(path)


def digest(value: Any) -> str:
    """Hash of anything that JSON can hold, in hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def key_of(candidate: Atoms | SymmetricCrystal) -> str:
    """Hash of a structure as it is, to the last digit; what is in its ``info`` does not matter."""
    if isinstance(candidate, SymmetricCrystal):
        return digest(pack_crystal(candidate))
    parts = (
        candidate.numbers.astype(np.int64),
        candidate.positions.astype(float),
        np.asarray(candidate.cell[:], dtype=float),
        np.asarray(candidate.pbc, dtype=bool),
    )
    return hashlib.sha256(b"|".join(part.tobytes() for part in parts)).hexdigest()


def pack_crystal(crystal: SymmetricCrystal) -> dict[str, Any]:
    """Crystal as JSON can hold it, exactly; without its ``info``."""
    sites = [[s.species, s.position.index, s.free.tolist()] for s in crystal.sites]
    return {
        "space_group": crystal.space_group,
        "cell_free": crystal.cell_free.tolist(),
        "sites": sites,
    }


def unpack_crystal(packed: Mapping[str, Any]) -> SymmetricCrystal:
    """Crystal from what `pack_crystal` made."""
    return SymmetricCrystal.build(packed["space_group"], packed["cell_free"], packed["sites"])
