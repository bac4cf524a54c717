"""Figure 2 of the method: energy alone, descriptor alone, both; a small and a large crystal.

    python scripts/reproduce/figure2.py [-n 8] [--seed 0] [--weight 0.1] [--ase]

The two cases: C6 in group 166 with one site on 6c, and C288 in group 229 with three on 96l. Starts
are samples of the conditional VAE under this condition; for the large crystal also random free
variables with no two atoms nearer than 0.9 Å, because an energy can do nothing with atoms on top
of each other. Each start goes four ways within its space group:

    energy                  relaxation on the MACE energy
    descriptor              descent on Eq. 1, and further attempts until the motif is right
    sum                     descent on Eq. 1 + weight * energy, from the same start
    descriptor, then energy what asexlatent-refine --screen does

With --ase a last line is the first way as the paper went it, on all atoms of the cell (ASE,
FrechetCellFilter and FixSymmetry, the same model and thresholds), for the first start only.
Drawn is the first start that the descriptor makes valid.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from ase.neighborlist import neighbor_list
from common import finish, panels, parser, save, start

from asexlatent import LocalEnvironment, SymmetricCrystal, refine
from asexlatent.latent import Condition, load_model
from asexlatent.optimize import DescriptorLoss
from asexlatent.plotting import plot_spectra
from asexlatent.screening import MACEEnergy, load_mace_model, relax_with_calculator
from asexlatent.screening.identity import descriptor_losses
from asexlatent.screening.relaxation import relax

EDGE = 14.96  # Å, of the large crystal, section 3.1 of the method
NEAREST = 0.9  # Å, in random starts of it
CASES = {"C6": (166, ["6c"]), "C288": (229, ["96l"] * 3), "C288 random": (229, ["96l"] * 3)}
PAPER = {
    "C288, energy, paper": {"eV/atom": -8.518, "CPU s": 372.0},
    "C288, descriptor, paper": {"eV/atom": -8.480, "CPU s": 27.8},
}
SP2 = LocalEnvironment.named("sp2")


def random_start(case: str, rng: np.random.Generator) -> SymmetricCrystal:
    """Random free variables; the large crystal with the published edge."""
    group, sites = CASES[case]
    if "C288" in case:
        while True:  # atoms on top of each other are no start for an energy
            made = SymmetricCrystal.build(group, [EDGE], [("C", s, rng.random(3)) for s in sites])
            if not len(neighbor_list("i", made.to_atoms(), NEAREST)):
                return made
    cell = [rng.uniform(2.3, 3.5), rng.uniform(6.0, 11.0)]
    return SymmetricCrystal.build(group, cell, [("C", s, rng.random(1)) for s in sites])


def starts(case: str, options: argparse.Namespace) -> tuple[list[SymmetricCrystal], str]:
    """Starts of a case, and where they are from."""
    rng = np.random.default_rng(options.seed)
    random = [random_start(case, rng) for _ in range(options.n)]
    if "random" in case:
        return random, "random free variables"
    model = load_model(options.model)
    condition = Condition.from_crystal(random[0])
    if model.vocabulary.problem(condition) is not None:
        return random, "random free variables (the conditional VAE does not know the condition)"
    found = model.sample([condition] * options.n, seed=options.seed)
    good = [one for one in found if isinstance(one, SymmetricCrystal)]
    return good, "samples of the conditional VAE"


def ways(energy: MACEEnergy, weight: float) -> dict[str, Callable]:
    """The ways a start can go; each gives a crystal, or None where it fails."""

    def by_energy(crystal: SymmetricCrystal) -> SymmetricCrystal | None:
        (found,) = relax([crystal], energy)
        return None if found.status == "failed" else found.crystal

    def by_descriptor(crystal: SymmetricCrystal) -> SymmetricCrystal | None:
        (found,) = refine([crystal], SP2, restarts=10)
        return found.crystal

    def by_sum(crystal: SymmetricCrystal) -> SymmetricCrystal | None:
        objective = DescriptorLoss(SP2) + weight * energy
        (found,) = refine([crystal], SP2, objective=objective, solver="lbfgs", restarts=10)
        return found.crystal

    def by_both(crystal: SymmetricCrystal) -> SymmetricCrystal | None:
        found = by_descriptor(crystal)
        return None if found is None else by_energy(found)

    return {
        "energy": by_energy,
        "descriptor": by_descriptor,
        f"sum, weight {weight:g}": by_sum,
        "descriptor, then energy": by_both,
    }


def judged(crystal: SymmetricCrystal | None, energy: MACEEnergy) -> dict:
    """What a crystal is: energy, loss, neighbours of each site."""
    if crystal is None:
        return {"energy": np.nan, "loss": np.nan, "valid": False, "neighbours": ()}
    atoms = crystal.to_atoms()
    (there,) = relax([crystal], energy, steps=0)
    (loss,) = descriptor_losses([crystal], SP2)
    count = np.bincount(neighbor_list("i", atoms, 1.85), minlength=len(atoms))
    return {
        "energy": there.energy,
        "loss": loss,
        "valid": SP2.check(atoms).valid,
        "neighbours": tuple(sorted(set(count.tolist()))),
    }


def go(case: str, energy: MACEEnergy, options: argparse.Namespace) -> tuple[dict, list]:
    """All ways of all starts: rows of the table, and what is drawn."""
    crystals, source = starts(case, options)
    print(f"\n{case}: {len(crystals)} starts, {source}", flush=True)
    rows, drawn = {}, []
    found: dict[str, list] = {"start": [(c, 0.0, judged(c, energy)) for c in crystals]}
    for name, way in ways(energy, options.weight).items():
        way(crystals[0])  # tables are start-up
        found[name] = []
        for crystal in crystals:
            began = time.process_time()
            result = way(crystal)
            seconds = time.process_time() - began
            found[name].append((result, seconds, judged(result, energy)))
        for k, (_, seconds, what) in enumerate(found[name]):
            print(f"{name:24} {k} {seconds:7.2f} s {what}", flush=True)
    for name, results in found.items():
        finite = [what for _, _, what in results if np.isfinite(what["energy"])]
        rows[f"{case}, {name}"] = {
            "of": len(results),
            "valid": sum(what["valid"] for _, _, what in results),
            "all atoms with 4 neighbours": sum(
                what["neighbours"] == (4,) for _, _, what in results
            ),
            "eV/atom": median(what["energy"] for what in finite) if finite else None,
            "loss": median(what["loss"] for what in finite) if finite else None,
            "CPU s": median(seconds for _, seconds, _ in results) if name != "start" else None,
        }
    good = [k for k, (_, _, what) in enumerate(found["descriptor"]) if what["valid"]]
    if good:
        k = good[0]
        names = ("start", "energy", "descriptor", "descriptor, then energy")
        drawn = [
            (f"{case}, {name}", found[name][k][0] or crystals[k], found[name][k][2])
            for name in names
        ]  # what failed is drawn as it was
        rows |= {
            f"{case}, {name}, start {k}": {
                "valid": int(what["valid"]), "eV/atom": what["energy"], "loss": what["loss"],
                "CPU s": seconds or None,
            }
            for name, (_, seconds, what) in ((name, found[name][k]) for name in found)
        }  # fmt: skip
    if options.ase:
        began = time.process_time()
        calculator = load_mace_model(options.calculator).calculator()
        (there,) = relax_with_calculator([crystals[0]], calculator, primitive=False)
        seconds = time.process_time() - began
        rows[f"{case}, energy, one by one on all atoms, start 0"] = {
            "eV/atom": there.energy, "CPU s": seconds,
        }  # fmt: skip
    return rows, drawn


def main() -> None:
    made = parser(__doc__, number=8)
    made.add_argument("--weight", type=float, default=0.1, help="of the energy in the sum")
    made.add_argument("--model", type=Path, help="folder of a model (default: the shipped one)")
    made.add_argument("--ase", action="store_true", help="also the last line, which takes minutes")
    options = made.parse_args()
    start(options)
    model = load_mace_model(options.calculator)
    energy = MACEEnergy(model)
    rows, shown = {}, []
    for case in CASES:
        lines, drawn = go(case, energy, options)
        rows |= lines
        shown.append(drawn)
    figure, axes = panels(4, len(CASES))
    for row, drawn in zip(axes, shown, strict=True):
        if not drawn:  # no start of this case became valid
            continue
        for pair in (0, 2):
            plot_spectra(drawn[pair][1], drawn[pair + 1][1], SP2, row[pair : pair + 2])
        for ax, (title, _, what) in zip(row, drawn, strict=True):
            good = np.isfinite(what["energy"])
            said = f"{title}: " + (f"{what['energy']:.3f} eV/atom" if good else "failed")
            ax.set_title(said, loc="left", fontsize="medium")
    save(figure, "figure2.png", options)
    finish(rows | PAPER, options, model.description)


if __name__ == "__main__":
    main()
