"""Pictures: spectra before and after, losses, convergence, energies, yields.

Every function takes Matplotlib axes and returns them. Without axes it makes a figure of its own
that belongs to no window and no ``pyplot`` state, so that it works without a display and leaves the
caller's settings alone: ``plot_losses(a, b).figure.savefig("losses.png")``.
"""

from asexlatent.plotting.descriptor import plot_convergence, plot_losses, plot_spectra
from asexlatent.plotting.screening import (
    plot_energies,
    plot_energy_density,
    plot_rounds,
    plot_yields,
)

__all__ = [
    "plot_convergence",
    "plot_energies",
    "plot_energy_density",
    "plot_losses",
    "plot_rounds",
    "plot_spectra",
    "plot_yields",
]
