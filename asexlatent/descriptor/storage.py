"""A `LocalEnvironment` as a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from ase import Atoms

from asexlatent.descriptor.environment import LocalEnvironment
from asexlatent.descriptor.motif import MotifRule

SCHEMA = "asexlatent.LocalEnvironment"
VERSION = 1


def save_environment(environment: LocalEnvironment, path: str | Path) -> None:
    """Write an environment; numbers keep all their digits."""
    content = {
        "schema": SCHEMA,
        "version": VERSION,
        "name": environment.name,
        "source": environment.source,
        "descriptor": environment.descriptor,
        "species": list(environment.species),
        "spectra": environment.spectra.tolist(),
        "rule": environment.rule.to_dict(),
    }
    atoms = environment.structure
    if atoms is not None:
        content["structure"] = {
            "numbers": atoms.numbers.tolist(),
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell.array.tolist(),
            "pbc": atoms.pbc.tolist(),
        }
        content["centers"] = list(environment.centers)
    Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_environment(path: str | Path) -> LocalEnvironment:
    """Read what `save_environment` wrote.

    Raises
    ------
    ValueError
        When the file is missing, not JSON, of another kind or version, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8 or not JSON
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a saved local environment (its schema is not {SCHEMA})")
    if content.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {content.get('version')!r}, but this release reads {VERSION}"
        )
    try:
        return LocalEnvironment(
            name=str(content["name"]),
            spectra=torch.tensor(content["spectra"], dtype=torch.float64),
            species=tuple(content["species"]),
            rule=MotifRule(**content["rule"]),
            descriptor=dict(content["descriptor"]),
            source=str(content.get("source", "")),
            structure=Atoms(**content["structure"]) if "structure" in content else None,
            centers=tuple(content.get("centers", ())),
        )
    except KeyError as error:
        raise ValueError(f"{path} is damaged: {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
