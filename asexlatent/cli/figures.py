"""The figures of ``--plot``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from asexlatent.cli.records import refined
from asexlatent.cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from asexlatent.descriptor import LocalEnvironment
    from asexlatent.optimize import Refinement


_CLASH = 20.0  # of the order of the loss of a site without neighbours


@dataclass(eq=False)
class Showcase:
    """Remembers the one crystal whose spectra are shown: valid if any is, of the largest gain.

    The gain is the factor between the losses. A start of clashing atoms counts as one that is
    only wrong: its spectra would dwarf the target's.
    """

    settings: Settings
    best: Refinement | None = field(default=None, init=False)

    def consider(self, results: Sequence[Refinement]) -> None:
        """Look at the results of a chunk."""
        known = [] if self.best is None else [self.best]
        candidates = known + [result for result in results if refined(result)]
        if self.settings.plot and candidates:
            self.best = max(candidates, key=_gain)

    def plot(
        self,
        folder: Path,
        environment: LocalEnvironment,
        before: Sequence[float],
        after: Sequence[float],
    ) -> None:
        """Write ``spectra`` and ``losses`` as PNG and PDF; nothing when nothing was refined."""
        from asexlatent.plotting import plot_losses, plot_spectra
        from asexlatent.symmetry import SymmetricCrystal

        if self.best is None:
            return
        start = self.best.source
        if not isinstance(start, SymmetricCrystal):
            start = SymmetricCrystal.from_atoms(
                start, symprec=self.settings.symprec, space_group=self.settings.space_group
            )
        _save(plot_spectra(start, self.best.crystal, environment).figure, folder / "spectra")
        _save(plot_losses(before, after).figure, folder / "losses")


def _gain(result: Refinement) -> tuple[bool, float]:
    return result.valid, min(result.loss_initial, _CLASH) / (result.loss + 1e-9)


def _save(figure: Figure, path: Path) -> None:
    for kind in ("png", "pdf"):
        figure.savefig(path.with_suffix(f".{kind}"), dpi=200)
