"""Pictures of spectra, losses and convergence."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asexlatent.plotting.axes import (
    AFTER,
    BEFORE,
    COLORS,
    MARKERS,
    headroom,
    one_panel,
    tidy,
    two_panels,
)

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes

    from asexlatent.descriptor import LocalEnvironment
    from asexlatent.symmetry import SymmetricCrystal

    Crystal = Atoms | SymmetricCrystal

_TARGET = "#333333"
_SAME = 1e-3  # spectra nearer than this are one line
_MOST_LABELS = 8  # a longer legend hides the lines


def plot_spectra(
    before: Crystal,
    after: Crystal,
    environment: LocalEnvironment,
    ax: Sequence[Axes] | Axes | None = None,
) -> Axes:
    """Power spectra of the inequivalent sites before and after, with the target dashed.

    Parameters
    ----------
    before, after : Atoms or SymmetricCrystal
        A `SymmetricCrystal` gives one line for each of its sites, and its loss in the title; of
        `Atoms`, atoms with equal spectra share a line.
    environment : LocalEnvironment
        Its descriptor and its reference spectra (those of the species that occur).
    ax : two Axes, or one, optional
        Two: before in the first, after in the second. One: both in it, before in thin lines with
        open markers. Default: a new figure with two panels, each with its own scale.

    Returns
    -------
    Axes
        The last one drawn into; ``.figure`` is the figure.
    """
    axes = two_panels() if ax is None else list(np.atleast_1d(np.asarray(ax, dtype=object)))
    if len(axes) not in (1, 2):
        raise ValueError(f"give one or two Axes, not {len(axes)}")
    parts, single = ((before, "before"), (after, "after")), len(axes) == 1
    for number, (crystal, name) in enumerate(parts):
        panel = axes[min(number, len(axes) - 1)]
        faint = single and number == 0
        loss = _draw_sites(panel, crystal, environment, f"{name}, " if single else "", faint)
        if not single:
            shown = name if loss is None else f"{name}: loss {loss:.3g}"
            panel.set_title(shown, loc="left", fontsize="medium")
    species = {symbol for crystal, _ in parts for symbol in _symbols(crystal)}
    labels = _component_labels(environment)
    for panel in axes:
        _draw_target(panel, environment, species)
        panel.set_ylabel("power spectrum")
        panel.set_xlim(-0.6, len(labels) - 0.4)
        panel.set_xticks(range(len(labels)), labels, rotation=90, fontsize="small")
        panel.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        tidy(panel)
        _legend(panel)
    if not single:
        axes[0].tick_params(labelbottom=False)
    axes[-1].set_xlabel("component (n n' l)")
    return axes[-1]


def plot_losses(before: ArrayLike, after: ArrayLike, ax: Axes | None = None) -> Axes:
    """Distribution of the losses of many crystals before and after, in logarithmic bins.

    Parameters
    ----------
    before, after : array_like, shape (n,)
        Losses (Eq. 1 of the method). Zeros go into the lowest bin; NaN (failed) is left out and
        counted in the legend.
    ax : Axes, optional

    Returns
    -------
    Axes
    """
    ax = one_panel() if ax is None else ax
    series = [np.asarray(values, dtype=float).ravel() for values in (before, after)]
    finite = [values[np.isfinite(values)] for values in series]
    edges = _log_edges(np.concatenate(finite), max(map(len, finite)))
    styles = (("before", BEFORE, True), ("after", AFTER, False))
    for values, kept, (name, color, filled) in zip(series, finite, styles, strict=True):
        median = f", median {np.median(kept):.2g}" if kept.size else ""
        missing = f", {values.size - kept.size} failed" if values.size > kept.size else ""
        shown = np.clip(kept, edges[0], edges[-1])
        look = {"color": color, "alpha": 0.55} if filled else {"edgecolor": color}
        ax.hist(
            shown,
            edges,
            histtype="stepfilled" if filled else "step",
            linewidth=1.8,
            label=f"{name} ({kept.size}{median}{missing})",
            **look,
        )
    ax.set_xscale("log")
    ax.set_xlabel("loss")
    ax.set_ylabel("crystals")
    tidy(ax)
    headroom(ax)
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    return ax


def plot_convergence(
    losses: ArrayLike | Sequence[Atoms] | Mapping[str, ArrayLike] | str | os.PathLike,
    ax: Axes | None = None,
) -> Axes:
    """Loss against step.

    Parameters
    ----------
    losses
        One of: losses per step, shape (n,) or (n, crystals) (then the median and the range from
        the 10th to the 90th percentile are drawn); a mapping from names to such series; a list of
        `Atoms` with ``asx_loss`` in ``info``, the frames of a trajectory of one crystal; the path
        of a trajectory or of a log file of `SymmetricDescriptorOptimizer`.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        There are no losses in what was given.
    """
    ax = one_panel() if ax is None else ax
    named = losses if isinstance(losses, Mapping) else {"": losses}
    for number, (name, values) in enumerate(named.items()):
        color = COLORS[number % len(COLORS)]
        series = _loss_series(values)
        steps = np.arange(len(series))
        if series.ndim == 1:
            ax.plot(steps, series, color=color, linewidth=1.8, label=name or None)
            continue
        low, middle, high = np.nanpercentile(series, (10, 50, 90), axis=1)
        ax.fill_between(steps, low, high, color=color, alpha=0.25, linewidth=0)
        label = f"{name}: median" if name else "median"
        ax.plot(steps, middle, color=color, linewidth=1.8, label=f"{label}, 10 to 90 %")
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    tidy(ax)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize="small")
    return ax


# -- spectra --------------------------------------------------------------------------------------


def _draw_sites(
    ax: Axes, crystal: Crystal, environment: LocalEnvironment, prefix: str, faint: bool
) -> float | None:
    """Draw one line per site; returns Eq. 1 of the method where the sites are known."""
    spectra, names = _site_spectra(crystal, environment)
    for k, (spectrum, name) in enumerate(zip(spectra, names, strict=True)):
        ax.plot(
            spectrum,
            color=COLORS[k % len(COLORS)],
            marker=MARKERS[k % len(MARKERS)],
            markersize=4,
            markerfacecolor="white" if faint else None,
            linewidth=0.8 if faint else 1.5,
            alpha=0.8 if faint else 1.0,
            label=prefix + name,
        )
    return _loss(crystal, spectra, environment)


def _loss(
    crystal: Crystal, spectra: NDArray[np.float64], environment: LocalEnvironment
) -> float | None:
    import torch
    from ase.data import atomic_numbers

    if not hasattr(crystal, "sites"):
        return None
    numbers = torch.tensor([atomic_numbers[site.species] for site in crystal.sites])
    target = environment.target_for(torch.as_tensor(spectra), numbers).numpy()
    return float(((spectra - target) ** 2).mean())


def _draw_target(ax: Axes, environment: LocalEnvironment, species: set[str]) -> None:
    relevant = [k for k, symbol in enumerate(environment.species) if symbol in species]
    for k in relevant or range(len(environment.species)):
        several = len(set(environment.species)) > 1
        suffix = f" ({environment.species[k]})" if several else ""
        ax.plot(
            environment.spectra[k].tolist(),
            color=_TARGET,
            linestyle=(0, (4, 2)),
            linewidth=1.4,
            zorder=5,
            label=f"target {environment.name}{suffix}",
        )


def _site_spectra(
    crystal: Crystal, environment: LocalEnvironment
) -> tuple[NDArray[np.float64], list[str]]:
    """Spectra (sites, components) and a name for each."""
    import torch

    from asexlatent.descriptor import neighbor_pairs, pair_vectors
    from asexlatent.descriptor.motif import atoms_geometry
    from asexlatent.symmetry import SymmetricCrystal

    if isinstance(crystal, SymmetricCrystal):
        atoms = crystal.to_atoms()
        sizes = [site.position.multiplicity for site in crystal.sites]
        centers = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(int)
        names = [
            f"{site.species}{k} {site.position.label}" for k, site in enumerate(crystal.sites, 1)
        ]
    else:
        atoms = crystal
        centers = np.arange(len(atoms))
        names = list(atoms.symbols)
    rcut = environment.descriptor["rcut"]
    scaled, cells, owner, _, numbers = atoms_geometry(atoms, rcut)
    middle = torch.as_tensor(centers)
    pairs = neighbor_pairs(scaled, cells, owner, middle, rcut)
    vectors = pair_vectors(scaled, cells, owner, middle, pairs)
    model = environment.power_spectrum()
    with torch.no_grad():
        spectra = model(vectors, pairs.centers, numbers[pairs.neighbors], len(centers)).numpy()
    if not isinstance(crystal, SymmetricCrystal):
        spectra, names = _merge_equal(spectra, names)
    return spectra, names


def _merge_equal(
    spectra: NDArray[np.float64], symbols: list[str]
) -> tuple[NDArray[np.float64], list[str]]:
    """One line for atoms of the same species and spectrum; the name says how many they are."""
    scale = max(float(np.abs(spectra).max(initial=0.0)), 1e-12)
    kept: list[int] = []
    counts: list[int] = []
    for i, spectrum in enumerate(spectra):
        for place, j in enumerate(kept):
            near = np.abs(spectrum - spectra[j]).max() < _SAME * scale
            if symbols[i] == symbols[j] and near:
                counts[place] += 1
                break
        else:
            kept.append(i)
            counts.append(1)
    found = enumerate(zip(kept, counts, strict=True), 1)
    names = [f"{symbols[i]}{k} ({count} atom{'s' * (count > 1)})" for k, (i, count) in found]
    return spectra[kept], names


def _symbols(crystal: Crystal) -> set[str]:
    return set(map(str, crystal.symbols))


def _component_labels(environment: LocalEnvironment) -> list[str]:
    """``n n' l`` of every component, n counting from 1, l running fastest."""
    settings = environment.descriptor
    labels = [
        f"{n} {m} {ell}"
        for n in range(1, settings["nmax"] + 1)
        for m in range(1, n + 1)
        for ell in range(settings["lmax"] + 1)
    ]
    n_components = environment.spectra.shape[1]
    if len(labels) != n_components:  # per-species channels
        labels = [str(k) for k in range(n_components)]
    step = math.ceil(n_components / 60)
    return [label if k % step == 0 else "" for k, label in enumerate(labels)]


# -- losses ---------------------------------------------------------------------------------------


def _log_edges(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Bin edges over all positive values, equal steps of the logarithm.

    As fine as `count` crystals in a series, and the range in powers of ten, call for.
    """
    positive = values[values > 0]
    low, high = (-4.0, 0.0) if not positive.size else np.log10([positive.min(), positive.max()])
    if high - low < 0.1:
        low, high = low - 0.5, high + 0.5
    bins = int(np.clip(max(2 * math.sqrt(count), 2 * (high - low)), 10, 40))
    return np.logspace(low - 0.02, high + 0.02, bins + 1)


def _loss_series(values: object) -> NDArray[np.float64]:
    """Losses (steps,) or (steps, crystals) from whatever holds them."""
    if isinstance(values, str | os.PathLike):
        values = _from_file(Path(values))
    items = values if isinstance(values, np.ndarray) else list(values)  # type: ignore[call-overload]
    if len(items) and hasattr(items[0], "info"):
        try:
            items = [frame.info["asx_loss"] for frame in items]
        except KeyError:
            raise ValueError("the frames have no asx_loss in their info") from None
    series = np.asarray(items, dtype=float)
    if not series.size or series.ndim > 2:
        raise ValueError(f"losses must have shape (steps,) or (steps, crystals): {series.shape}")
    return series


def _from_file(path: Path) -> list:
    """Frames of a trajectory, or the Energy column of an optimizer's log file."""
    with open(path, "rb") as handle:
        binary = b"\x00" in handle.read(256)
    if binary or path.suffix in (".traj", ".extxyz", ".xyz"):
        from ase.io import read

        return read(path, index=":")
    line = re.compile(r"^\S+:\s+\d+\s+[\d:]+\s+(\S+)")
    with open(path, encoding="utf-8", errors="replace") as handle:
        found = [line.match(text) for text in handle]
    losses = [float(match[1].rstrip("*")) for match in found if match]
    if not losses:
        raise ValueError(f"{path} is neither a trajectory nor the log of an optimizer")
    return losses


def _legend(ax: Axes) -> None:
    """Short legend: lines beyond the first few are counted in words."""
    handles, labels = ax.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    targets = {name: line for name, line in unique.items() if name.startswith("target ")}
    sites = {name: line for name, line in unique.items() if name not in targets}
    shown = dict(list(sites.items())[: _MOST_LABELS - 1]) | targets
    hidden = len(sites) - len(shown) + len(targets)
    title = f"and {hidden} more sites" if hidden > 0 else None
    ax.legend(
        shown.values(),
        shown.keys(),
        frameon=False,
        fontsize="small",
        ncols=1 + (len(shown) > 4),
        title=title,
        title_fontsize="small",
    )
