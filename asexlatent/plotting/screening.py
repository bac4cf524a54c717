"""Pictures of screenings: energies, yields, rounds, densities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asexlatent.plotting.axes import COLORS, MARKERS, headroom, one_panel, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from asexlatent.screening import ScreenResult

COUNTS = ("N_valid_env", "N_unique", "N_lowE")
_DIMENSIONS = {3: "frameworks", 2: "layers", 1: "chains", 0: "molecules"}


def plot_energies(
    energies: ArrayLike | ScreenResult | Mapping[str, ArrayLike | ScreenResult],
    ax: Axes | None = None,
    *,
    bins: int | ArrayLike = 40,
    emax: float | None = None,
) -> Axes:
    """Histogram of energies as counts, all runs in the same bins.

    Parameters
    ----------
    energies
        eV/atom, shape (n,), or a result of `asexlatent.screening.screen` (then above its
        reference); or several of them by name. NaN is left out.
    ax : Axes, optional
    bins : int or array
        Number of bins over the range of all runs together, or their edges.
    emax : float, optional
        A dashed line at this energy: up to here counts as low.

    Returns
    -------
    Axes
    """
    ax = one_panel() if ax is None else ax
    runs = energies if isinstance(energies, Mapping) else {"": energies}
    series = {name: _energies(values) for name, values in runs.items()}
    every = np.concatenate([*series.values(), np.empty(0)])
    edges = _edges(every, bins)
    for number, (name, values) in enumerate(series.items()):
        color = COLORS[number % len(COLORS)]
        look = {"color": color, "alpha": 0.45} if number == 0 else {"edgecolor": color}
        ax.hist(
            values,
            edges,
            histtype="stepfilled" if number == 0 else "step",
            linewidth=1.8,
            label=f"{name} ({len(values)})" if name else None,
            **look,
        )
    if emax is not None:
        ax.axvline(emax, color="0.3", linestyle=(0, (4, 2)), linewidth=1.2)
    above = any(hasattr(values, "ranked") for values in runs.values())
    ax.set_xlabel("energy above the reference (eV/atom)" if above else "energy (eV/atom)")
    ax.set_ylabel("crystals")
    tidy(ax)
    headroom(ax)
    _legend(ax)
    return ax


def plot_yields(
    runs: Mapping[str, Mapping[str, int] | ScreenResult],
    ax: Axes | None = None,
    *,
    counts: Sequence[str] = COUNTS,
) -> Axes:
    """Bars of the counts of one or several runs, with their numbers.

    Parameters
    ----------
    runs : mapping of str to counts or ScreenResult
        Counts as in ``summary.json``, by name of the run.
    ax : Axes, optional
    counts : sequence of str
        Which counts.

    Returns
    -------
    Axes
    """
    ax = one_panel() if ax is None else ax
    width = 0.8 / max(len(runs), 1)
    for number, (name, values) in enumerate(runs.items()):
        found = _counts(values)
        left = np.arange(len(counts)) + (number - (len(runs) - 1) / 2) * width
        bars = ax.bar(
            left,
            [found[count] for count in counts],
            0.92 * width,
            color=COLORS[number % len(COLORS)],
            label=name,
        )
        ax.bar_label(bars, fontsize="small", padding=1)
    ax.set_xticks(range(len(counts)), counts)
    ax.set_ylabel("crystals")
    tidy(ax)
    headroom(ax)
    if len(runs) > 1:
        _legend(ax)
    return ax


def plot_rounds(
    rounds: Sequence[Mapping[str, int]] | ScreenResult,
    ax: Axes | None = None,
    *,
    counts: Sequence[str] = COUNTS,
) -> Axes:
    """Cumulative yield of each round of the refinement.

    Parameters
    ----------
    rounds : list of dict or ScreenResult
        As `ScreenResult.rounds` gives them.
    ax : Axes, optional
    counts : sequence of str
        Which counts.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        There are no rounds.
    """
    rows = rounds.rounds() if hasattr(rounds, "rounds") else list(rounds)
    if not rows:
        raise ValueError("no rounds: the candidates do not say in which round they were made")
    ax = one_panel() if ax is None else ax
    numbers = [row["round"] for row in rows]
    for place, count in enumerate(counts):
        ax.plot(
            numbers,
            [row[count] for row in rows],
            color=COLORS[place % len(COLORS)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=5,
            linewidth=1.8,
            label=count,
        )
    ax.set_xticks(numbers)
    ax.set_xlabel("round")
    ax.set_ylabel("crystals, cumulative")
    tidy(ax)
    headroom(ax)
    _legend(ax)
    return ax


def plot_energy_density(
    result: ScreenResult | Sequence[Any], ax: Axes | None = None, *, emax: float | None = None
) -> Axes:
    """Energy above the reference against density, coloured by dimension.

    Parameters
    ----------
    result : ScreenResult or rows
        Rows have ``density_relaxed`` (g/cm^3), ``above_reference`` (eV/atom) and
        ``dimension_relaxed``; of a result, its ranked crystals are drawn. Those that lost the
        motif have open markers.
    ax : Axes, optional
    emax : float, optional
        A dashed line at this energy.

    Returns
    -------
    Axes
    """
    ax = one_panel() if ax is None else ax
    rows = result.ranked if hasattr(result, "ranked") else list(result)
    for place, (dimension, name) in enumerate(_DIMENSIONS.items()):
        part = [row for row in rows if row.dimension_relaxed == dimension]
        for kept in (True, False):
            mine = [row for row in part if bool(row.valid_relaxed) is kept]
            if not mine:
                continue
            color = COLORS[place]
            ax.scatter(
                [row.density_relaxed for row in mine],
                [row.above_reference for row in mine],
                s=18,
                marker=MARKERS[place],
                facecolor=color if kept else "none",
                edgecolor=color,
                linewidth=0.8,
                label=f"{name}{'' if kept else ', motif lost'} ({len(mine)})",
            )
    if emax is not None:
        ax.axhline(emax, color="0.3", linestyle=(0, (4, 2)), linewidth=1.2)
    ax.set_xlabel("density (g/cm³)")
    ax.set_ylabel("energy above the reference (eV/atom)")
    tidy(ax)
    _legend(ax)
    return ax


def _energies(values: ArrayLike | ScreenResult) -> NDArray[np.float64]:
    if hasattr(values, "ranked"):
        values = [row.above_reference for row in values.ranked]
    series = np.asarray(values, dtype=float).ravel()
    return series[np.isfinite(series)]


def _edges(values: NDArray[np.float64], bins: int | ArrayLike) -> NDArray[np.float64]:
    if not isinstance(bins, int):
        return np.asarray(bins, dtype=float)
    low, high = (0.0, 1.0) if not values.size else (values.min(), values.max())
    if high - low < 1e-9 * max(1.0, math.fabs(high)):
        low, high = low - 0.05, high + 0.05
    return np.linspace(low, high, bins + 1)


def _counts(values: Mapping[str, int] | ScreenResult) -> Mapping[str, int]:
    return values.counts if hasattr(values, "ranked") else values


def _legend(ax: Axes) -> None:
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize="small")
