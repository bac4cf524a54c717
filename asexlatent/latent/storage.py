"""Models on disk: tensors as safetensors, everything else as JSON; nothing is unpickled.

A model is a folder with ``model.safetensors`` and ``model.json``. The JSON names its schema, the
sizes of the networks, the vocabulary, the columns and their mixtures, the conditions of the
training set, the hash of the data and the settings of the training, and the SHA-256 of the
tensors, so that two files that do not belong together are noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from asexlatent.latent.condition_model import ConditionNetwork, EmpiricalConditions
from asexlatent.latent.conditions import Condition, Vocabulary
from asexlatent.latent.cvae import ConditionalVAE
from asexlatent.latent.features import condition_width
from asexlatent.latent.model import LatentModel
from asexlatent.latent.networks import NetworkSettings
from asexlatent.latent.tabular_vae import TabularVAE
from asexlatent.latent.transform import MixtureTransform

FORMAT, SCHEMA = "asexlatent-model", 1
DEFAULT_MODEL = Path(__file__).parents[1] / "models" / "sp2"
KINDS = ("cvae", "tabular")


class ModelError(ValueError):
    """A model that cannot be loaded; the message says why and what to do."""


def make_network(
    kind: str,
    vocabulary: Vocabulary,
    transform: MixtureTransform,
    settings: NetworkSettings,
    seed: int = 0,
) -> ConditionalVAE | TabularVAE:
    """Return a network with fresh weights; torch's global generator is left as it was."""
    present = torch.as_tensor(transform.weights > 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "cvae":
            return ConditionalVAE(condition_width(vocabulary), present, settings)
        if kind == "tabular":
            return TabularVAE(vocabulary, present, settings)
    raise ValueError(f"the kind of a model is cvae or tabular, not {kind!r}")


def save_model(model: LatentModel, folder: str | os.PathLike) -> None:
    """Write a model into a folder, which is made if need be."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"network.{k}": v for k, v in model.network.state_dict().items()}
    tensors |= {f"transform.{k}": torch.as_tensor(v) for k, v in model.transform.tensors().items()}
    if model.proposer is not None:
        tensors |= {f"proposer.{k}": v for k, v in model.proposer.state_dict().items()}
    proposer = model.proposer and {
        "max_atoms": model.proposer.max_atoms,
        "counts": model.proposer.counts,
        "hidden": model.proposer.hidden,
    }
    description = {
        "kind": "cvae" if model.is_conditional else "tabular",
        "network": asdict(model.network.settings),
        "vocabulary": asdict(model.vocabulary),
        "columns": model.transform.columns,
        "conditions": {
            str(c): n
            for c, n in zip(model.empirical.conditions, model.empirical.counts, strict=True)
        },
        "proposer": proposer,
        "info": model.info,
    }
    write_pair(folder, "model", FORMAT, tensors, description)


def load_model(folder: str | os.PathLike | None = None) -> LatentModel:
    """Load a model.

    Parameters
    ----------
    folder : path, optional
        Folder of a model; by default the sp2 carbon model that ships with the package.

    Raises
    ------
    ModelError
        There is no model, it is damaged, or it is none of ours.
    """
    folder = DEFAULT_MODEL if folder is None else Path(folder)
    tensors, description = read_pair(folder, "model", FORMAT)

    def build() -> LatentModel:
        vocabulary = _vocabulary(description["vocabulary"])
        transform = MixtureTransform.from_tensors(
            description["columns"],
            {k: v.numpy() for k, v in _part(tensors, "transform").items()},
        )
        settings = NetworkSettings(**description["network"])
        network = make_network(description["kind"], vocabulary, transform, settings)
        network.load_state_dict(_part(tensors, "network"))
        counts = description["conditions"]
        empirical = EmpiricalConditions(tuple(map(Condition.parse, counts)), tuple(counts.values()))
        proposer = description["proposer"] and ConditionNetwork(
            vocabulary, **description["proposer"]
        )
        if proposer is not None:
            proposer.load_state_dict(_part(tensors, "proposer"))
            proposer.eval()
        return LatentModel(
            network.eval(), transform, vocabulary, empirical, proposer, description["info"]
        )

    with torch.random.fork_rng(devices=[]):
        return _fitting(build, folder / "model.json")


def write_pair(
    folder: Path, name: str, kind: str, tensors: dict[str, Tensor], description: dict[str, Any]
) -> None:
    """Write NAME.safetensors and NAME.json; a reader finds the old pair or the new one.

    The new JSON is complete as NAME.json.part before the tensors are replaced: where a process dies
    between the two files, that is the one that fits. Tensors of any shapes, by name.
    """
    data = tensor_bytes({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    head = {"format": kind, "schema": SCHEMA, "tensors_sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps({**head, **description}, indent=1, default=_plain) + "\n"
    contents = {folder / f"{name}.safetensors": data, folder / f"{name}.json": text.encode()}
    parts = {path: path.with_name(path.name + ".part") for path in contents}
    try:
        for path, content in contents.items():
            with open(parts[path], "wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
    except OSError:
        for part in parts.values():  # room for what is to be said about it
            part.unlink(missing_ok=True)
        raise
    for path, part in parts.items():
        os.replace(part, path)


def has_pair(folder: Path, name: str) -> bool:
    """Whether `write_pair` has written there."""
    return any((folder / f"{name}.json{part}").is_file() for part in ("", ".part"))


def remove_pair(folder: Path, name: str) -> None:
    """Remove what `write_pair` has written."""
    for suffix in (".safetensors", ".json"):
        for part in ("", ".part"):
            (folder / f"{name}{suffix}{part}").unlink(missing_ok=True)


def read_pair(folder: Path, name: str, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_pair` wrote: tensors by name, in their shapes and on the CPU, and the JSON.

    Raises
    ------
    ModelError
        That is not what is there.
    """
    described, stored = folder / f"{name}.json", folder / f"{name}.safetensors"
    data = stored.read_bytes() if stored.is_file() else b""
    fitting = _description(described.with_name(described.name + ".part"), kind, data)
    if fitting is not None:  # the writer died between the two files
        return load_tensors(data), fitting
    for path in (described, stored):
        if not path.is_file():
            raise ModelError(
                f"no model in {folder}: {path.name} is missing; asexlatent-train makes one"
            )
    try:
        description = json.loads(described.read_text(encoding="utf-8"))
        assert isinstance(description, dict)
    except (ValueError, AssertionError):
        raise ModelError(f"{described} is damaged: it is no JSON object") from None
    if description.get("format") != kind:
        raise ModelError(f"{described} is not a file of {kind}")
    if description.get("schema") != SCHEMA:
        raise ModelError(
            f"{described} has schema {description.get('schema')!r}; this version of asexlatent "
            f"reads {SCHEMA}: train the model again, or install the version that wrote it"
        )
    if hashlib.sha256(data).hexdigest() != description.get("tensors_sha256"):
        raise ModelError(
            f"{stored} is damaged, or does not belong to {described.name}: its hash differs"
        )
    try:
        return load_tensors(data), description
    except SafetensorError as error:
        raise ModelError(f"{stored} is damaged: {error}") from None


def _description(path: Path, kind: str, data: bytes) -> dict[str, Any] | None:
    """What a JSON file says, if it is whole and belongs to these tensors."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        fits = found["tensors_sha256"] == hashlib.sha256(data).hexdigest()
        return found if fits and (found["format"], found["schema"]) == (kind, SCHEMA) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fitting(build: Callable[[], LatentModel], path: Path) -> LatentModel:
    """Call a function that trusts the JSON; whatever goes wrong there is the file's fault."""
    try:
        return build()
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        line = " ".join(what.split())[:200]
        raise ModelError(f"{path} is damaged: {line}") from error


def _vocabulary(saved: dict[str, Any]) -> Vocabulary:
    return Vocabulary(
        tuple(saved["species"]), tuple(saved["space_groups"]), int(saved["max_sites"])
    )


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{name}.")}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be kept in JSON")
