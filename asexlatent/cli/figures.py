"""The figures of ``--plot``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asexlatent.cli.records import refined
from asexlatent.cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from asexlatent.descriptor import LocalEnvironment
    from asexlatent.optimize import Refinement
    from asexlatent.symmetry import SymmetricCrystal

_CLASH = 20.0  # of the order of the loss of a site without neighbours


@dataclass(frozen=True)
class Shown:
    """A refined crystal that may be shown, as JSON can hold it; `start` is what it came from."""

    valid: bool
    gain: float
    start: dict[str, Any]
    crystal: dict[str, Any]

    @classmethod
    def best_of(cls, results: Sequence[Refinement], settings: Settings) -> Shown | None:
        """Valid if any is, of the largest gain; None when nothing was refined.

        The gain is the factor between the losses. A start of clashing atoms counts as one that
        is only wrong: its spectra would dwarf the target's.
        """
        from asexlatent.symmetry import SymmetricCrystal

        candidates = [result for result in results if refined(result)]
        if not candidates:
            return None
        best = max(candidates, key=_gain)
        start = best.source
        if not isinstance(start, SymmetricCrystal):
            start = SymmetricCrystal.from_atoms(
                start, symprec=settings.symprec, space_group=settings.space_group
            )
        return cls(*_gain(best), _plain(start), _plain(best.crystal))

    def better(self, other: Shown | None) -> Shown:
        """The one to show of two; this one in doubt."""
        if other is None or (self.valid, self.gain) >= (other.valid, other.gain):
            return self
        return other

    def plot(
        self,
        folder: Path,
        environment: LocalEnvironment,
        before: Sequence[float],
        after: Sequence[float],
    ) -> None:
        """Write ``spectra`` and ``losses`` as PNG and PDF."""
        from asexlatent.plotting import plot_losses, plot_spectra

        spectra = plot_spectra(_crystal(self.start), _crystal(self.crystal), environment)
        _save(spectra.figure, folder / "spectra")
        _save(plot_losses(before, after).figure, folder / "losses")


def _plain(crystal: SymmetricCrystal) -> dict[str, Any]:
    return {
        "space_group": crystal.space_group,
        "cell_free": crystal.cell_free.tolist(),
        "sites": [(s.species, s.position.index, s.free.tolist()) for s in crystal.sites],
    }


def _crystal(plain: dict[str, Any]) -> SymmetricCrystal:
    from asexlatent.symmetry import SymmetricCrystal

    return SymmetricCrystal.build(**plain)


def _gain(result: Refinement) -> tuple[bool, float]:
    return result.valid, min(result.loss_initial, _CLASH) / (result.loss + 1e-9)


def _save(figure: Figure, path: Path) -> None:
    for kind in ("png", "pdf"):
        figure.savefig(path.with_suffix(f".{kind}"), dpi=200)
