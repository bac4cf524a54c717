"""What becomes of a crystal in a relaxation, and how its progress is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from asexlatent.symmetry import SymmetricCrystal


@dataclass(eq=False)
class Relaxation:
    """What became of one crystal.

    Attributes
    ----------
    crystal : SymmetricCrystal
        Relaxed, in the space group it came in with; of a failed one, where it started.
    energy : float
        eV per atom, of `crystal`; NaN if it failed.
    status : str
        "converged", "stalled" (no lower energy at the smallest step), "step_limit" or "failed".
    reason : str or None
        Why it failed or stalled.
    steps : int
        Evaluations of the energy after the first.
    fmax : float
        Largest force on an atom, eV/Å.
    smax : float
        Largest row of the stress tensor, eV/Å^3.
    initial_energy : float
        eV per atom, before the relaxation.
    """

    crystal: SymmetricCrystal
    energy: float = math.nan
    status: str = "failed"
    reason: str | None = None
    steps: int = 0
    fmax: float = math.nan
    smax: float = math.nan
    initial_energy: float = math.nan


class Reporter:
    """Progress as the caller wants it: a bar, a function, or nothing. A context manager."""

    def __init__(self, progress: bool | Callable[[int, int], None], total: int):
        self._wanted, self._total, self._done = progress, total, 0
        self._bar = None

    def __enter__(self) -> Callable[[int], None]:
        if self._wanted is True:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, unit="crystal")
        return self._add

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _add(self, number: int) -> None:
        if not number:
            return
        self._done += number
        if self._bar is not None:
            self._bar.update(number)
        elif callable(self._wanted):
            self._wanted(self._done, self._total)
