"""Pictures of a screening as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

FIGURES = ("energies", "density", "yields", "rounds")
"""Names that `write_figures` may write, each as PNG and PDF."""

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from asexlatent.screening import ScreenResult


def write_figures(result: ScreenResult, folder: Path) -> None:
    """Write ``energies``, ``density``, ``yields`` and, with rounds, ``rounds`` as PNG and PDF.

    Nothing is drawn of a result without ranked crystals.
    """
    from asexlatent.plotting import plot_energies, plot_energy_density, plot_rounds, plot_yields

    if not result.ranked:
        return
    _save(plot_energies(result, emax=result.emax).figure, folder / "energies")
    _save(plot_energy_density(result, emax=result.emax).figure, folder / "density")
    _save(plot_yields({"": result}).figure, folder / "yields")
    if len(result.rounds()) > 1:
        _save(plot_rounds(result).figure, folder / "rounds")


def _save(figure: Figure, path: Path) -> None:
    for kind in ("png", "pdf"):
        figure.savefig(path.with_suffix(f".{kind}"), dpi=200)
