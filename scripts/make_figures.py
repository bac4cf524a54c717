"""Make the pictures of the docs and the README: spectra before and after, losses, convergence.

    python scripts/make_figures.py [-o docs/images] [--seed 0]

The crystals are those of figure 2 of the method in kind: six atoms in space group 166 on 6c, and
288 atoms in space group 229 on three 96l sites, both with random free coordinates.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from asexlatent import CrystalBatch, DescriptorLoss, LocalEnvironment, SymmetricCrystal, refine
from asexlatent.optimize import BatchMinimizer, Refinement, make_solver
from asexlatent.plotting import plot_convergence, plot_losses, plot_spectra

DEFAULT = Path(__file__).parents[1] / "docs" / "images"


def small(rng: np.random.Generator) -> SymmetricCrystal:
    """C6, space group 166, 6c."""
    cell = (rng.uniform(2.0, 3.2), rng.uniform(4.0, 8.0))
    return SymmetricCrystal.build(166, cell, [("C", "c", [rng.uniform(0.05, 0.28)])])


def large(rng: np.random.Generator) -> SymmetricCrystal:
    """C288, space group 229, three 96l sites."""
    cell = (rng.uniform(13.0, 15.0),)
    return SymmetricCrystal.build(229, cell, [("C", "l", rng.random(3)) for _ in range(3)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", type=Path, default=DEFAULT)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.o.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(options.seed)
    environment = LocalEnvironment.named("sp2")
    crystals = [small(rng) for _ in range(40)] + [large(rng) for _ in range(40)]
    results = refine(crystals, environment, seed=options.seed)

    best = [_best(results[:40]), _best(results[40:])]
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    panels = figure.subplots(2, 2)
    for column, result in zip(panels.T, best, strict=True):
        plot_spectra(result.source, result.crystal, environment, column)
        name = f"C{result.crystal.n_atoms}, space group {result.crystal.space_group}"
        column[0].set_title(f"{name}\n{column[0].get_title(loc='left')}", loc="left", fontsize=10)
    figure.savefig(options.o / "spectra.png", dpi=150)

    before, after = ([getattr(r, n) for r in results] for n in ("loss_initial", "loss"))
    plot_losses(before, after).figure.savefig(options.o / "losses.png", dpi=150)
    curves = {name: _losses(crystals, environment, name) for name in ("adam", "lm")}
    plot_convergence(curves).figure.savefig(options.o / "convergence.png", dpi=150)
    for result in best:
        print(f"C{result.crystal.n_atoms}: {result.loss_initial:.4g} -> {result.loss:.4g}")


def _best(results: list[Refinement]) -> Refinement:
    """Best of those that start neither with clashing atoms nor with isolated ones."""
    shown = [r for r in results if r.valid and 25 < r.loss_initial < 2000] or results
    return max(shown, key=lambda r: (r.valid, -r.loss))


def _losses(
    crystals: list[SymmetricCrystal], environment: LocalEnvironment, solver: str, steps: int = 60
) -> np.ndarray:
    """Losses (steps + 1, crystals) of one descent."""
    batch = CrystalBatch.from_crystals(crystals)
    minimizer = BatchMinimizer(batch, DescriptorLoss(environment), make_solver(solver), fmax=1e-4)
    series = [minimizer.losses.clone()]
    for _ in range(steps):
        minimizer.step()
        series.append(minimizer.losses.clone())
    return np.array([losses.tolist() for losses in series])


if __name__ == "__main__":
    main()
