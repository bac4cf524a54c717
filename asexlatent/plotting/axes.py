"""Colours and axes that all pictures share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which stay apart for the colour-blind and in grey; lines differ in their
# markers too. The yellow is left out: it is lost on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^vP"
BEFORE, AFTER = "#E69F00", "#0072B2"


def one_panel() -> Axes:
    """Axes of a new figure that no window and no ``pyplot`` knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(5.0, 3.4), layout="constrained").subplots()


def two_panels() -> list[Axes]:
    """Two, one above the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.0), layout="constrained")
    return list(figure.subplots(2, 1, sharex=True))


def headroom(ax: Axes) -> None:
    """Leave room for a legend above the bars, and count in whole crystals."""
    ax.yaxis.get_major_locator().set_params(integer=True)
    top = ax.get_ylim()[1]
    ax.set_ylim(0, max(top, 1) * 1.25)


def tidy(ax: Axes) -> None:
    """Axes left and below only."""
    ax.spines[["top", "right"]].set_visible(False)
