"""Models of others: MACE's foundation models for all elements, and files that MACE wrote."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from pathlib import Path

import torch

PREFIX = "mace-mp"
ALTERNATIVES = (
    "give the path of a model file that you have, calculator='chgnet' (its weights come with "
    "pip install asexlatent[chgnet]), or none for the carbon model that ships with the package"
)


def is_foundation(name: object) -> bool:
    """Whether a name means one of the models of `mace.calculators.mace_mp`, and no file."""
    means_one = isinstance(name, str) and (name == PREFIX or name.startswith(f"{PREFIX}-"))
    return means_one and not os.path.exists(str(name))


def load_foundation(name: str, device: str | torch.device = "cpu") -> tuple[torch.nn.Module, Path]:
    """Load "mace-mp" (MACE's present default), "mace-mp-small", "mace-mp-medium", ... .

    They are looked for in MACE's cache (``$XDG_CACHE_HOME/mace``, else ``~/.cache/mace``) and
    downloaded into it by MACE when they are not there.

    Returns
    -------
    module : torch.nn.Module
    path : Path
        The file it came from.

    Raises
    ------
    ValueError
        For a size that MACE does not have; lists those it has.
    RuntimeError
        When the model is not in the cache and cannot be downloaded.
    """
    from mace.calculators import foundations_models as foundations

    size = name.removeprefix(PREFIX).removeprefix("-") or None
    if size not in foundations.mace_mp_names:
        known = ", ".join(f"{PREFIX}-{key}" for key in foundations.mace_mp_urls)
        raise ValueError(f"unknown model {name!r}; mace-torch knows {PREFIX}, {known}")
    chatter = io.StringIO()
    try:
        with contextlib.redirect_stdout(chatter):
            path = Path(foundations.download_mace_mp_checkpoint(size))
            module = foundations.mace_mp(
                str(path), device=str(device), default_dtype="", return_raw_model=True
            )
    except Exception as error:  # urllib, socket, ssl, http and mace's own: all mean the same here
        reason = error.__cause__ or error
        raise RuntimeError(f"{name} cannot be had ({reason}): {ALTERNATIVES}") from error
    return module, path


def unpickle(path: str | os.PathLike) -> torch.nn.Module:
    """Open a model file of MACE. It is a pickle: only from people you trust.

    Raises
    ------
    ValueError
        When there is no MACE model in it.
    """
    import mace.modules  # noqa: F401  (the classes that the file refers to)

    if not zipfile.is_zipfile(path):  # a bare pickle is not even opened
        raise ValueError(f"{path} is no model file that torch.save has written, or it is cut short")
    try:
        module = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle can fail in any way
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is no model file that MACE can open: {reason}") from error
    if not (isinstance(module, torch.nn.Module) and hasattr(module, "r_max")):
        raise ValueError(f"{path} holds no MACE model but {type(module).__name__}")
    return module
