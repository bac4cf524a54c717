"""Make the picture of the README: spectra of candidates before and after.

    python scripts/make_readme_figure.py [-o docs/images/before_after.png]

Refines the example that ships with the package as ``asexlatent-refine`` does by default, and shows
two of the candidates that became valid by a descent of their own: of those that ended near the
target as a three-dimensional net, and did not start with clashing atoms, the ones with the most
sites, then the most atoms.
"""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

from ase.io import read
from matplotlib.figure import Figure

from asexlatent import LocalEnvironment, SymmetricCrystal, identify_net, refine
from asexlatent.cli.settings import Settings
from asexlatent.optimize import Refinement
from asexlatent.plotting import plot_spectra

DEFAULT = Path(__file__).parents[1] / "docs" / "images" / "before_after.png"
CLASH = 60.0  # a larger loss comes from clashing atoms, whose spectra would dwarf the target
NEAR = 0.01


def worth_showing(result: Refinement) -> bool:
    near = result.path == "descent" and result.loss < NEAR and result.loss_initial < CLASH
    return near and identify_net(result.crystal.to_atoms()).dimension == 3


def size(result: Refinement) -> tuple[int, int]:
    return result.crystal.n_sites, result.crystal.n_atoms


def draw(shown: list[Refinement], environment: LocalEnvironment) -> Figure:
    figure = Figure(figsize=(9.0, 4.8), layout="constrained")
    panels = figure.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False)
    for column, result in zip(panels.T, shown, strict=True):
        before = SymmetricCrystal.from_atoms(result.source)
        plot_spectra(before, result.crystal, environment, ax=column)
        crystal = result.crystal
        title = f"{crystal.n_atoms} atoms in space group {crystal.space_group}"
        words = [panel.get_title(loc="left") for panel in column]
        column[0].set_title(f"{title}\n{words[0]}", loc="left", fontsize="medium")
    for panel in panels[:, 1:].flat:
        panel.set_ylabel("")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", type=Path, default=DEFAULT)
    options = parser.parse_args()
    example = resources.files("asexlatent") / "examples" / "random_sp2.extxyz"
    with resources.as_file(example) as path:
        candidates = read(path, index=":")
    environment = LocalEnvironment.named("sp2")
    results = refine(candidates, environment, restarts=Settings().restarts)
    good = sorted(filter(worth_showing, results), key=size, reverse=True)[:2]
    if not good:
        raise SystemExit("no candidate of the example is fit to be shown")
    options.o.parent.mkdir(parents=True, exist_ok=True)
    draw(good, environment).savefig(options.o, dpi=150)
    print(f"{sum(r.valid for r in results)} of {len(results)} valid; {options.o} shows")
    for r in good:
        net = identify_net(r.crystal.to_atoms()).label
        print(
            f"  {r.source.info['name']}: {r.crystal!r}\n"
            f"    loss {r.loss_initial:.3g} -> {r.loss:.3g}, {r.path}, net {net}"
        )


if __name__ == "__main__":
    main()
