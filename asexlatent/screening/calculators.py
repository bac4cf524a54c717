"""Where energies come from: one door to the model that ships, to other models and calculators."""

from __future__ import annotations

import os
from importlib import metadata, util
from typing import TYPE_CHECKING

import torch

from asexlatent.screening.mace_model import load_mace_model

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

_DTYPES = {"float64": torch.float64, "float32": torch.float32}
_NOTE = "asx_model"  # where a calculator made here keeps what it is


def get_calculator(
    name: str | os.PathLike | Calculator | None = None,
    device: str = "cpu",
    dtype: str = "float64",
) -> Calculator:
    """Return an ASE calculator.

    Parameters
    ----------
    name : str, path or Calculator, optional
        - ``None``: the small model for carbon that ships with the package. Needs no network.
        - "mace-mp", or with a size "mace-mp-small", "mace-mp-medium", "mace-mp-large",
          "mace-mp-medium-mpa-0", ...: MACE's foundation models for all elements, from MACE's cache,
          or downloaded by MACE.
        - a path: any model file of MACE, or a folder made by `save_mace_model`. A file of MACE is
          a pickle, and opening one runs what is in it: only from people you trust.
        - "chgnet": CHGNet, for all elements, with the weights that come in its package.
        - an ASE calculator: returned as it is.
    device : str
        Such as "cpu", "cuda". Not for a calculator that is one already.
    dtype : str
        "float64" or "float32". CHGNet computes in float32 whatever is asked.

    Raises
    ------
    ValueError
        For a name that means nothing, a file that cannot be read, another ``dtype``.
    RuntimeError
        A foundation model is not in MACE's cache and cannot be downloaded.
    ImportError
        CHGNet is not installed.
    """
    if hasattr(name, "get_potential_energy") or hasattr(name, "calculate"):
        return name  # type: ignore[return-value]
    if name is not None and not isinstance(name, (str, os.PathLike)):
        raise ValueError(
            f"{name!r} is no calculator: give a name, a path or an ASE calculator instance"
        )
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be float64 or float32, not {dtype!r}")
    if isinstance(name, str) and name.lower() == "chgnet" and not os.path.exists(name):
        return _chgnet(device)
    return load_mace_model(name, device, _DTYPES[dtype]).calculator()


def describe_calculator(calculator: str | os.PathLike | Calculator | None = None) -> str:
    """Say in a few words what computes energies, for records.

    Of a model that `get_calculator` loads: its name and the beginning of the checksum of its
    weights. Of another calculator: its class and the settings it reports.

    Parameters
    ----------
    calculator
        As for `get_calculator`, or what that returned.

    Examples
    --------
    >>> describe_calculator(EMT())
    'EMT'
    >>> describe_calculator(LennardJones(sigma=3.0))
    "LennardJones {'rc': 9.0, 'ro': 5.94, 'sigma': 3.0}"
    """
    if calculator is None or isinstance(calculator, (str, os.PathLike)):
        if isinstance(calculator, str) and calculator.lower() == "chgnet":
            return _chgnet_name()
        return load_mace_model(calculator).description
    parameters = dict(getattr(calculator, "parameters", None) or {})
    if _NOTE in parameters:
        return str(parameters[_NOTE])
    kind = type(calculator)
    if kind.__name__ == "CHGNetCalculator":
        return _chgnet_name()
    defaults = getattr(calculator, "default_parameters", None) or {}
    changed = {
        key: value
        for key, value in sorted(parameters.items())
        if isinstance(value, (str, int, float, bool)) and defaults.get(key) != value
    }
    return f"{kind.__name__} {changed}" if changed else kind.__name__


def _chgnet(device: str) -> Calculator:
    if util.find_spec("chgnet") is None:
        raise ImportError(
            "calculator 'chgnet' needs CHGNet: pip install asexlatent[chgnet], or give no "
            "calculator for the carbon model that ships with the package"
        )
    from chgnet.model import CHGNet
    from chgnet.model.dynamics import CHGNetCalculator

    model = CHGNet.load(use_device=device, verbose=False)
    return CHGNetCalculator(model=model, use_device=device)


def _chgnet_name() -> str:
    try:
        return f"CHGNet {metadata.version('chgnet')}"
    except metadata.PackageNotFoundError:
        return "CHGNet"
