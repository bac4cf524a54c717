"""Relaxed crystals and their energies, from whatever calculator; a failure costs one crystal."""

from __future__ import annotations

import contextlib
import io
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from asexlatent.screening.identity import one_line
from asexlatent.screening.mace_model import load_mace_model
from asexlatent.screening.store import pack_crystal
from asexlatent.symmetry import SymmetricCrystal

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

    from asexlatent.screening.relaxation import Relaxation

Relax = Callable[[Sequence[SymmetricCrystal]], "list[Relaxation]"]


@dataclass(frozen=True)
class Relaxer:
    """A way to relax crystals, with its name for the record.

    Attributes
    ----------
    name : str
        What goes into every record.
    relax : callable
        Crystals to as many relaxations, in order.
    recipe : tuple of (str, object) or None
        Arguments of `make_relaxer` that make the same one again. With them it can be sent to
        other processes, which make it once each.
    """

    name: str
    relax: Relax
    recipe: tuple[tuple[str, Any], ...] | None = None

    def __reduce__(self) -> tuple:
        if self.recipe is None:
            return Relaxer, (self.name, self.relax)
        return _made_once, (self.recipe,)

    def records(self, crystals: Sequence[SymmetricCrystal]) -> list[dict[str, Any]]:
        """Relax crystals; one record each, as JSON can hold it.

        An error that stops the whole list is hunted down by halving, so that it costs the
        crystal that causes it and no other.
        """
        if not crystals:
            return []
        try:
            found = self.relax(crystals)
            if len(found) != len(crystals):
                raise RuntimeError(
                    f"{len(found)} relaxations of {len(crystals)} crystals came back"
                )
        except Exception as error:
            if len(crystals) == 1:
                return [_failed(one_line(error))]
            half = len(crystals) // 2
            return [r for part in (crystals[:half], crystals[half:]) for r in self.records(part)]
        return [_record(relaxation) for relaxation in found]


def make_relaxer(
    calculator: Calculator | str | None = None,
    *,
    fmax: float = 0.02,
    smax: float | None = None,
    steps: int = 300,
    device: str = "cpu",
    dtype: str = "float64",
    memory: float = 2.0,
) -> Relaxer:
    """Relaxer for a calculator: batched for MACE models, one by one through ASE for others.

    Parameters
    ----------
    calculator : Calculator, str or None
        As for `asexlatent.screening.get_calculator`.
    fmax, smax : float
        Thresholds in eV/Å and eV/Å^3; without `smax` that of the relaxation.
    steps : int
        Most steps of one crystal.
    device, dtype : str
        Of the computation.
    memory : float
        GiB for one batch.
    """
    from asexlatent.screening import relaxation
    from asexlatent.screening.calculators import describe_calculator, get_calculator

    settings = {"fmax": fmax, "smax": smax, "steps": steps}
    recipe = None
    if calculator is None or isinstance(calculator, str | os.PathLike):
        machine = {"device": device, "dtype": dtype, "memory": memory}
        recipe = tuple({"calculator": calculator, **settings, **machine}.items())
        if str(calculator).lower() != "chgnet":
            with _quietly():
                model = load_mace_model(calculator, device, getattr(torch, dtype))
                return _batched(model.module, model.description, settings, machine, recipe)
    with _quietly():
        made = get_calculator(calculator, device=device, dtype=dtype)
    name, module = describe_calculator(made), mace_module(made)
    if module is not None:
        parameter = next(module.parameters())
        own = {"device": str(parameter.device), "dtype": str(parameter.dtype).split(".")[-1]}
        return _batched(module, name, settings, {**own, "memory": memory}, recipe)
    if smax is None:
        settings.pop("smax")
    return Relaxer(name, lambda c: relaxation.relax_with_calculator(c, made, **settings), recipe)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """MACE, e3nn and CHGNet print and warn while they load, of what a user can do nothing about."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _batched(
    module: torch.nn.Module,
    name: str,
    settings: dict[str, Any],
    machine: dict[str, Any],
    recipe: tuple[tuple[str, Any], ...] | None,
) -> Relaxer:
    """Relaxer of a MACE model."""
    from asexlatent.screening.mace_energy import MACEEnergy
    from asexlatent.screening.relaxation import relax

    dtype, memory = getattr(torch, machine["dtype"]), machine["memory"]
    energy = MACEEnergy(module, dtype=dtype, memory=memory)
    how = {"device": machine["device"], "dtype": dtype, "memory": memory}
    return Relaxer(name, lambda c: relax(c, energy, **settings, **how), recipe)


@lru_cache(maxsize=1)
def _made_once(recipe: tuple[tuple[str, Any], ...]) -> Relaxer:
    """Relaxer from its recipe; a process that works on many chunks makes it once."""
    return make_relaxer(**dict(recipe))


def mace_module(calculator: Calculator) -> Any | None:
    """Torch module of a MACE calculator of one model; None for any other calculator."""
    models = getattr(calculator, "models", None)
    if type(calculator).__name__ != "MACECalculator" or not models or len(models) != 1:
        return None
    if not all(hasattr(models[0], name) for name in ("r_max", "atomic_numbers", "interactions")):
        return None
    return models[0]


def usable(record: Mapping[str, Any]) -> bool:
    """Whether a record holds a relaxed crystal with an energy."""
    return record["relax_status"] != "failed"


def _record(relaxation: Relaxation) -> dict[str, Any]:
    """Plain values; what has no finite energy has failed, whatever it says."""
    status, reason = str(relaxation.status), relaxation.reason or ""
    if status == "failed" or relaxation.crystal is None:
        return _failed(reason or "the relaxation failed")
    if not math.isfinite(relaxation.energy):
        return _failed(reason or "the calculator gives no finite energy")
    return {
        "relax_status": status,
        "relax_reason": reason,
        "crystal": pack_crystal(relaxation.crystal),
        "energy": float(relaxation.energy),
        "relax_steps": int(relaxation.steps),
        "force_max": float(relaxation.fmax),
        "stress_max": float(relaxation.smax),
    }


def _failed(reason: str) -> dict[str, Any]:
    return {"relax_status": "failed", "relax_reason": reason}
