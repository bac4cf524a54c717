"""MACE models as a folder of safetensors and JSON, and from any other place they come from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from mace.calculators import MACECalculator

SCHEMA = "asexlatent.MaceModel"
VERSION = 1
SETTINGS, WEIGHTS, CARD = "model.json", "weights.safetensors", "CARD.md"
SHIPPED = Path(__file__).parents[1] / "models" / "mace_carbon"


@dataclass(frozen=True, eq=False)
class MaceModel:
    """A MACE model in memory, and what it is.

    Attributes
    ----------
    module : torch.nn.Module
        The network (``mace.modules.ScaleShiftMACE`` or a relative), in evaluation mode; its
        parameters take no gradients.
    name : str
        For records.
    sha256 : str
        Of the file with the weights; 64 hexadecimal digits.
    """

    module: torch.nn.Module
    name: str
    sha256: str

    @property
    def r_max(self) -> float:
        """Cutoff of one layer of the network, Å."""
        return float(self.module.r_max)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Atomic numbers that the model knows."""
        return tuple(int(number) for number in self.module.atomic_numbers)

    @property
    def description(self) -> str:
        """Name and the beginning of the checksum, as it goes into records."""
        return f"{self.name} (sha256 {self.sha256[:12]})"

    def calculator(self) -> MACECalculator:
        """Return an ASE calculator on the device and in the precision of the module.

        It has the module itself, not a copy.
        """
        from mace.calculators import MACECalculator

        parameter = next(self.module.parameters())
        calculator = MACECalculator(
            models=[self.module],
            device=str(parameter.device),
            default_dtype=str(parameter.dtype).removeprefix("torch."),
        )
        calculator.parameters["asx_model"] = self.description
        return calculator


def load_mace_model(
    name: str | os.PathLike | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
) -> MaceModel:
    """Load a MACE model.

    Parameters
    ----------
    name : str or path, optional
        Default: the carbon model that ships with the package. A folder made by `save_mace_model`,
        a file of MACE itself (that is a pickle: opening one runs what is in it, so only from
        people you trust), or "mace-mp", "mace-mp-small", ... (see `get_calculator`).
    device, dtype
        Of the module.

    Raises
    ------
    ValueError
        A name that means nothing; a file or folder that is missing, damaged or of another kind.
    """
    from asexlatent.screening.foundation import is_foundation, load_foundation

    if is_foundation(name):
        module, path = load_foundation(str(name), device)
        model = MaceModel(module, str(name), _sha256(path))
    else:
        path = SHIPPED if name is None else Path(name).expanduser()
        model = load_folder(path) if path.is_dir() else _load_file(path)
    model.module.to(device=device, dtype=dtype).eval().requires_grad_(False)
    return model


# -------------------------------------------------------------------------- folders: no pickle


def save_mace_model(
    module: torch.nn.Module, folder: str | os.PathLike, settings: Mapping[str, Any], card: str
) -> None:
    """Write a model to a folder: ``weights.safetensors``, ``model.json`` and ``CARD.md``.

    Parameters
    ----------
    module : mace.modules.ScaleShiftMACE
        Built by `build_mace` from ``settings["architecture"]``. Its parameters are stored in
        float32; all else follows from the architecture.
    folder : path
        Made when it is not there; what it holds under these names is replaced.
    settings : mapping
        JSON-able: "name", "architecture" (see `build_mace`); whatever else is carried along.
    card : str
        What the model is, what it is not, how it was made.
    """
    from safetensors.torch import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        key: value.detach().to("cpu", torch.float32).contiguous()
        for key, value in module.named_parameters()
    }
    data = save(weights)
    content = {
        "schema": SCHEMA,
        "version": VERSION,
        **settings,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (folder / WEIGHTS).write_bytes(data)
    (folder / SETTINGS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")


def load_folder(folder: str | os.PathLike) -> MaceModel:
    """Rebuild what `save_mace_model` wrote, float64 on the CPU.

    Raises
    ------
    ValueError
        For a folder that holds something else, or whose files are damaged or do not belong
        together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = Path(folder)
    content = _settings(folder / SETTINGS)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{folder} is no complete model: {WEIGHTS} is missing")
    data = path.read_bytes()
    try:
        weights = load(data)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != content.get("sha256"):
        raise ValueError(f"{path} does not belong to {SETTINGS} beside it: the checksum differs")
    try:
        module = build_mace(content["architecture"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{folder / SETTINGS} describes no model: {error!r}") from error
    _fill(module, weights, path)
    module.eval().requires_grad_(False)
    return MaceModel(module, str(content.get("name", folder.name)), sha256)


def build_mace(
    architecture: Mapping[str, Any], dtype: torch.dtype = torch.float64
) -> torch.nn.Module:
    """Build a ``mace.modules.ScaleShiftMACE`` from arguments that JSON can hold.

    Parameters
    ----------
    architecture : mapping
        The arguments of ``ScaleShiftMACE``, with classes and functions by their names
        ("interaction_cls": "RealAgnosticResidualInteractionBlock", "gate": "silu") and irreps as
        text ("hidden_irreps": "16x0e + 16x1o"). "num_elements" follows from "atomic_numbers".
    dtype : torch.dtype
        Of the module.
    """
    from mace import modules  # first: without it torch >= 2.6 refuses a file that e3nn opens

    # isort: split
    from e3nn import o3

    arguments = dict(architecture)
    for key in ("interaction_cls", "interaction_cls_first"):
        arguments[key] = modules.interaction_classes[arguments[key]]
    for key in ("hidden_irreps", "MLP_irreps"):
        arguments[key] = o3.Irreps(arguments[key])
    arguments["gate"] = modules.gate_dict[arguments["gate"]]
    arguments["num_elements"] = len(arguments["atomic_numbers"])
    # as wide as its table of elements: one row, one head
    energies = torch.tensor([arguments["atomic_energies"]], dtype=torch.float64)
    arguments["atomic_energies"] = energies.numpy()
    with _default_dtype(dtype):
        return modules.ScaleShiftMACE(**arguments)


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path.parent} is no folder of a model: {SETTINGS} is missing")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8 or not JSON
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a saved MACE model (its schema is not {SCHEMA})")
    if content.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {content.get('version')!r}, but this release reads {VERSION}"
        )
    return content


def _fill(module: torch.nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    own = dict(module.named_parameters())
    wrong = sorted(own.keys() ^ weights.keys())
    wrong += [key for key in own if key in weights and own[key].shape != weights[key].shape]
    if wrong:
        raise ValueError(
            f"{path} does not fit the architecture in {SETTINGS}, or this release of mace-torch "
            f"builds it in another way: {', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}"
        )
    if not all(value.isfinite().all() for value in weights.values()):
        raise ValueError(f"{path} is damaged: it holds weights that are not numbers")
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(weights[key])


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """MACE takes the precision of what it builds from torch's global default: lend it one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# ---------------------------------------------------------------------------- files of MACE


def _load_file(path: Path) -> MaceModel:
    from asexlatent.screening.foundation import unpickle

    if not path.is_file():
        raise ValueError(
            f"no such model: {path}; give the file of a MACE model, a folder with {SETTINGS}, "
            '"mace-mp", or nothing for the carbon model that ships with the package'
        )
    return MaceModel(unpickle(path), path.name, _sha256(path))


def _sha256(path: str | os.PathLike) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
